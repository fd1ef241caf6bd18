"""What is wrong, by the evidence. Knows nothing of the engine but the shape of its journal.

Moments are compared only where all were taken from the same clock, or where the journal's own order does not tell.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from tests.torture.evidence import Entry, Evidence, Execution, Line, RunRow
from tests.torture.plan import LIMIT, PER_KEY, RATE, RATE_SECONDS, expected, names

# A step that was begun under a lease may write so late that it has begun, since the machine did something else.
SLACK = 250_000_000
# A claim whose answer came so much later than its own moment is not measured: nobody can tell when it took place.
LATE_CLAIM = 250

PASSING = ("StoreUnavailable: ", "StoreBusy: ")


def check(evidence: Evidence) -> list[str]:
    """One line for each thing that is wrong."""
    facts = Facts(evidence)
    return [f"{rule.__name__.strip('_')}: {wrong}" for rule in RULES for wrong in rule(facts)]


class Interval(NamedTuple):
    start: int
    end: int
    owner: str


class Facts:
    """The evidence, sorted by what it is about."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.plan = evidence.plan
        self.runs = {run.id: run for run in evidence.runs}
        self.journals: dict[str, list[Entry]] = defaultdict(list)
        for entry in sorted(evidence.entries, key=lambda entry: (entry.run_id, entry.number)):
            self.journals[entry.run_id].append(entry)
        self.steps = {*names(self.plan.steps)}
        # The token of each stored result, by run and step.
        self.stored: dict[tuple[str, str], tuple[str, Entry]] = {}
        for entry in evidence.entries:
            if entry.type == "step:complete" and entry.step in self.steps:
                token = str(_data(entry).get("token"))
                self.stored.setdefault((entry.run_id, entry.step or ""), (token, entry))
        self.executions = evidence.executions()
        self.by_token = {execution.token: execution for execution in self.executions}

    def leased(self, job: str) -> Iterator[tuple[RunRow, list[Entry]]]:
        """The runs of a job, with their journals, that anybody has claimed."""
        for run in self.evidence.runs:
            if run.job == job and any(entry.type == "run:leased" for entry in self.journals[run.id]):
                yield run, self.journals[run.id]

    def job_of(self, execution: Execution) -> str | None:
        run = self.runs.get(execution.run_id)
        return None if run is None else run.job

    def is_stored(self, execution: Execution) -> bool:
        token, _ = self.stored.get((execution.run_id, execution.step), ("", None))
        return token == execution.token


def _lost(facts: Facts) -> Iterator[str]:
    """Each run that was asked for is there once, and was completed with the right output."""
    plan = facts.plan
    found = Counter(run.idempotency_key for run in facts.evidence.runs)
    for number in range(plan.runs):
        if found.pop(str(number), 0) != 1:
            yield f"run number {number} is not there once"
    for key in found:
        yield f"nobody has asked for the run with the idempotency key {key!r}"
    for run in facts.evidence.runs:
        if run.status != "completed":
            yield f"run {run.id} is {run.status}"
        elif run.output != str(expected(int(run.idempotency_key or -1), plan.steps)):
            yield f"run {run.id} (number {run.idempotency_key}) has the output {run.output}"
        asked = plan.asked(int(run.idempotency_key or 0))
        if (run.job, run.key) != (asked.job, asked.key):
            yield f"run {run.id} is of job {run.job} and key {run.key}, not of {asked.job} and {asked.key}"


def _unanswered(facts: Facts) -> Iterator[str]:
    """What was said to clients is so."""
    said: dict[str, set[str]] = defaultdict(set)
    for line in facts.evidence.of("acknowledged"):
        said[line.words[0]].add(line.words[1])
    for number in range(facts.plan.runs):
        if str(number) not in said:
            yield f"run number {number} was never acknowledged"
    for number_, ids in said.items():
        wrong = {id_ for id_ in ids if id_ not in facts.runs or facts.runs[id_].idempotency_key != number_}
        if wrong or len(ids) != 1:
            yield f"run number {number_} was acknowledged as {sorted(ids)}"
    for line in facts.evidence.of("result"):
        run = facts.runs.get(line.words[0])
        if run is None or run.output != line.words[1]:
            yield f"{line.process} was told {line.words[1]} as the result of {run}"


def _gap(facts: Facts) -> Iterator[str]:
    """The entries of each run are dense and ordered, and are those of a run that was completed once."""
    for run_id, journal in facts.journals.items():
        numbers = [entry.number for entry in journal]
        if numbers != list(range(1, len(journal) + 1)):
            yield f"the numbers of run {run_id} are {numbers}"
        seqs = [entry.seq for entry in journal]
        if seqs != sorted({*seqs}):
            yield f"the seqs of run {run_id} are {seqs}"
        types = [entry.type for entry in journal]
        if run_id not in facts.runs:
            yield f"{types} are of no run"
        elif types[0] != "run:trigger" or types[-1] != "run:complete":
            yield f"run {run_id} begins with {types[0]} and ends with {types[-1]}"
        for type_ in ("run:trigger", "run:complete"):
            if types.count(type_) != 1:
                yield f"run {run_id} has {types.count(type_)} entries {type_}"
    for run_id in facts.runs.keys() - facts.journals.keys():
        yield f"run {run_id} has no journal"


def _stale(facts: Facts) -> Iterator[str]:
    """Every entry is of the generation that had the lease, and was written by its owner."""
    owners: dict[tuple[str, int], str] = {}
    for run_id, journal in facts.journals.items():
        generation = 0
        for entry in journal:
            if entry.type == "run:leased":
                generation += 1
                owners[run_id, generation] = str(_data(entry).get("workerId"))
            if entry.generation != generation:
                yield f"entry {entry.number} ({entry.type}) of run {run_id} is of {entry.generation}, not {generation}"
        run = facts.runs.get(run_id)
        if run is not None and not run.generation == run.attempt == generation:
            yield f"run {run_id} says {run.generation} leases and {run.attempt} attempts; there were {generation}"
    for (run_id, step), (token, entry) in facts.stored.items():
        execution = facts.by_token.get(token)
        if execution is None:
            yield f"the result of {step} of run {run_id} is of nobody: {token}"
        elif (execution.run_id, execution.step, execution.generation) != (run_id, step, entry.generation):
            yield f"the result of {step} of run {run_id}, generation {entry.generation}, is that of {execution}"
        elif execution.ended is None:
            yield f"the result of {step} of run {run_id} was stored before there was one"
    for execution in facts.executions:
        owner = owners.get((execution.run_id, execution.generation))
        if owner != execution.process:
            yield f"{execution} has no lease: that is of {owner}"


def _repeated(facts: Facts) -> Iterator[str]:
    """A step has one result, and is not begun any more by whoever can know of it."""
    results = Counter((entry.run_id, entry.step) for entry in facts.evidence.entries if entry.type == "step:complete")
    for (run_id, step_), count in results.items():
        if count != 1:
            yield f"{step_} of run {run_id} has {count} results"
    for run in facts.evidence.runs:
        for step in facts.steps:
            if run.status == "completed" and (run.id, step) not in results:
                yield f"{step} of run {run.id} has no result"
    for execution in facts.executions:
        token, entry = facts.stored.get((execution.run_id, execution.step), ("", None))
        if entry is not None and execution.generation > entry.generation:
            yield f"{execution} was begun after generation {entry.generation} had stored it"
        elif entry is not None and execution.generation == entry.generation and execution.token != token:
            yield f"{execution} was begun once more in its own generation; {token} is stored"
    counts = Counter((each.run_id, each.step, each.generation) for each in facts.executions)
    for (run_id, step, generation), count in counts.items():
        if count > 1:
            yield f"{step} of run {run_id} was begun {count} times in generation {generation}"


def _taken_back(facts: Facts) -> Iterator[str]:
    """What a job was given as a step's result, then or in a replay, is what is stored."""
    for line in facts.evidence.of("stored"):
        run_id, step, _, token = line.words
        stored, _ = facts.stored.get((run_id, step), ("nothing", None))
        if token != stored:
            yield f"{line.process} was given {token} as the result of {step} of run {run_id}; stored is {stored}"


def _overlap(facts: Facts) -> Iterator[str]:
    """No more runs of a key than its job allows have begun and not ended."""
    for job, allowed in PER_KEY.items():
        held: dict[str, list[Interval]] = defaultdict(list)
        for run, journal in facts.leased(job):
            leased = [entry.seq for entry in journal if entry.type == "run:leased"]
            held[run.key or ""].append(Interval(leased[0], journal[-1].seq, run.id))
        for key, intervals in held.items():
            for several in _more_than(allowed, intervals):
                yield f"by the journal, {several} have {key} at once"
        used: dict[str, list[Interval]] = defaultdict(list)
        for execution in facts.executions:
            if facts.job_of(execution) == job and facts.is_stored(execution):
                used[facts.runs[execution.run_id].key or ""].append(_interval(execution))
        for key, intervals in used.items():
            for several in _more_than(allowed, intervals):
                yield f"steps of {several}, with {key}, were executed at once"
    yield from _late_begins(facts)


def _late_begins(facts: Facts) -> Iterator[str]:
    """Nothing of a run is begun when the next run of its key has begun; but what a stopped process was about to do."""
    begins: dict[str, list[Execution]] = defaultdict(list)
    for execution in facts.executions:
        begins[execution.run_id].append(execution)
    lines: dict[str, list[Line]] = defaultdict(list)
    for line in facts.evidence.lines:
        lines[line.process].append(line)
    continued: dict[str, list[int]] = defaultdict(list)
    for line in facts.evidence.of("continue"):
        continued[line.words[0]].append(line.moment)
    following: dict[str, str] = {}
    for runs in _by_key(facts, "keyed").values():
        following.update(pairwise(runs))
    for run_id, next_id in following.items():
        first = min((execution.begun for execution in begins[next_id]), default=None)
        for execution in begins[run_id]:
            if first is None or execution.begun < first + SLACK:
                continue
            own = lines[execution.process]
            before = own[max(0, bisect_left(own, (execution.begun,)) - 1)].moment
            if not any(before <= moment <= execution.begun for moment in continued[execution.process]):
                yield f"{execution} was begun when {next_id}, the next of its key, had begun at {first}"


def _by_key(facts: Facts, job: str) -> dict[str, list[str]]:
    """The runs of each key in the order of their first leases."""
    order: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for run, journal in facts.leased(job):
        first = next(entry.seq for entry in journal if entry.type == "run:leased")
        order[run.key or ""].append((first, run.id))
    return {key: [run_id for _, run_id in sorted(runs)] for key, runs in order.items()}


def _limit(facts: Facts) -> Iterator[str]:
    """No more runs of a job than it allows are executed at once.

    A lease was held at least until the last entry that was written under it, and while a step was executed whose
    result was stored.
    """
    leases = []
    for run, journal in facts.leased("limited"):
        for generation in range(1, run.generation + 1):
            seqs = [entry.seq for entry in journal if entry.generation == generation]
            leases.append(Interval(min(seqs), max(seqs), run.id))
    for several in _more_than(LIMIT, leases):
        yield f"by the journal, {several} were leased at once"
    used = [
        _interval(execution)
        for execution in facts.executions
        if facts.is_stored(execution) and facts.job_of(execution) == "limited"
    ]
    for several in _more_than(LIMIT, used):
        yield f"steps of {several} were executed at once"


def _rate(facts: Facts) -> Iterator[str]:
    """No more runs of a job begin within a period than it allows.

    Counted are those whose claims were answered at once: of the others, nobody can tell when they took place.
    """
    first = {entry.seq for entry in facts.evidence.entries if entry.type == "run:leased" and entry.generation == 1}
    begun = []
    for line in facts.evidence.of("leased"):
        run_id, seq, moment, answered = line.words
        run = facts.runs.get(run_id)
        if run is not None and run.job == "rated" and int(seq) in first and int(answered) - int(moment) < LATE_CLAIM:
            begun.append(int(moment))
    begun.sort()
    period = RATE_SECONDS * 1000 - LATE_CLAIM
    for earlier, later in zip(begun, begun[RATE:], strict=False):
        if later - earlier < period:
            yield f"{RATE + 1} runs began within {later - earlier} ms"


def _reader(facts: Facts) -> Iterator[str]:
    """Who follows sees each entry once, and in order."""
    seen: list[tuple[str, ...]] = [line.words for line in facts.evidence.of("event")]
    entries = sorted(facts.evidence.entries)
    written: list[tuple[str, ...]] = [
        (str(entry.seq), entry.run_id, str(entry.number), entry.type) for entry in entries
    ]
    if seen == written:
        return
    for what, difference in (
        ("missed", Counter(written) - Counter(seen)),
        ("in vain saw", Counter(seen) - Counter(written)),
    ):
        if difference:
            yield f"the reader {what} {sum(difference.values())} entries: {[*difference.elements()][:5]}"
    seqs = [int(words[0]) for words in seen]
    for before, after in pairwise(seqs):
        if before >= after:
            yield f"the reader saw {after} behind {before}"


def _error(facts: Facts) -> Iterator[str]:
    """Nothing goes wrong in a worker but what was made to go wrong."""
    for line in facts.evidence.of("error"):
        text = " ".join(line.words)
        if facts.evidence.backend == "sqlite" or not text.startswith(PASSING):
            yield f"{line.process}: {text}"


def _damage(facts: Facts) -> Iterator[str]:
    """The database itself is whole."""
    yield from facts.evidence.damages


def _data(entry: Entry) -> dict[str, object]:
    data: object = json.loads(entry.data or "{}")
    return data if isinstance(data, dict) else {}


def _interval(execution: Execution) -> Interval:
    return Interval(execution.begun, execution.ended or execution.begun, execution.run_id)


def _more_than(allowed: int, intervals: list[Interval]) -> Iterator[list[str]]:
    """The owners of more than `allowed` intervals that have a moment in common; each only counts once."""
    open_: list[Interval] = []
    for interval in sorted(intervals):
        open_ = [each for each in open_ if each.end > interval.start]
        open_.append(interval)
        owners = sorted({each.owner for each in open_})
        if len(owners) > allowed:
            yield owners


RULES: tuple[Callable[[Facts], Iterator[str]], ...] = (
    _damage,
    _lost,
    _unanswered,
    _gap,
    _stale,
    _repeated,
    _taken_back,
    _overlap,
    _limit,
    _rate,
    _reader,
    _error,
)
