"""What the database must hold, folded from the journal behind every commit, and what must be true at that moment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, LiteralString, NamedTuple, cast

from durably_web.records import undone_by
from durably_web.store.batch import Batch, Statement, Value
from tests.simulation.faults import Network
from tests.simulation.loop import Process
from tests.simulation.programs import signals_of
from tests.simulation.trace import Trace

TERMINAL = ("completed", "failed", "cancelled", "deleted")

_NEW_ENTRIES: LiteralString = """
SELECT seq, run_id, number, generation, type, step_name, data, created_at FROM durably_journal
WHERE seq > ? ORDER BY seq
"""
_ALL_ENTRIES: LiteralString = """
SELECT seq, run_id, number, generation, type, step_name, data, created_at FROM durably_journal ORDER BY seq
"""
_LEASED: LiteralString = """
SELECT id, job_name, generation, lease_owner, lease_expires_at FROM durably_runs WHERE status = 'leased' ORDER BY id
"""
_STATUS: LiteralString = "SELECT status, generation, undoing FROM durably_runs WHERE id = ?"
_UNDOS: LiteralString = "SELECT number, step_name FROM durably_undos WHERE run_id = ?"

_ENDS = {"failed": "run:fail", "cancelled": "run:cancel"}

# What only the owner of a run writes, under its lease. A wait may be ended by whoever sees that it is over.
_OWNERS = frozenset({
    "step:retry", "step:wait", "log:write", "run:progress", "run:complete", "run:waiting",
})  # fmt: skip
# All engines have the same code, and whatever the branches of a job do, it asks for all that is stored.
_NEVER = frozenset({"run:code-changed", "run:restart", "step:unasked"})


class Entry(NamedTuple):
    seq: int
    run_id: str
    number: int
    generation: int
    type: str
    step_name: str | None
    data: str | None
    created_at: int


class Holder(NamedTuple):
    """A lease as it stands in the table."""

    run_id: str
    job_name: str
    generation: int
    owner: str
    expires_at: int


@dataclass
class RunModel:
    """A run, as its entries tell of it."""

    id: str
    row: dict[str, Value]
    status: str = "pending"
    generation: int = 0
    owner: str = ""
    number: int = 1
    # It holds its concurrency key: begun, and not ended since.
    holds: bool = False
    deleted: bool = False
    copied: bool = True
    # Leases since it last stored a step.
    fruitless: int = 0
    results: dict[str, tuple[str, Any]] = field(default_factory=dict)
    ever: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)
    patches: dict[str, bool] = field(default_factory=dict)
    # Waits that are not over; and of each that ever was, until when by its worker's clock.
    waits: set[str] = field(default_factory=set)
    limits: dict[str, int | None] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    # How it will end when it is undone; what can be undone by the number of its result, what could not be, how often
    # each step was; and the results that there were when its last undo began.
    undoing: str | None = None
    undos: dict[int, str] = field(default_factory=dict)
    not_undone: set[str] = field(default_factory=set)
    undone: Counter[str] = field(default_factory=Counter)
    before: dict[str, tuple[str, Any]] | None = None

    @property
    def next_undo(self) -> str | None:
        return max(
            ((number, key) for number, key in self.undos.items() if key not in self.not_undone), default=(0, None)
        )[1]

    @property
    def job(self) -> str:
        return str(self.row["job_name"])

    def begins_next_to(self, other: RunModel) -> bool:
        """It is pending, has never begun, and has the job and the key of another."""
        fresh = self.status == "pending" and self.generation == 0 and self.row["forked_from"] is None
        # A burst has a run of its own.
        return fresh and all(self.row[name] == other.row[name] for name in ("concurrency_key", "job_name", "debounced"))

    @property
    def key(self) -> str | None:
        return cast("str | None", self.row.get("concurrency_key"))


class Limits(NamedTuple):
    """What the jobs of a simulation promise: the first two for each key, then of the job `other`, then of both."""

    per_key: int
    coalesce: dict[str, str | None]
    max_runs: int | None
    rate: tuple[int, float] | None
    max_attempts: int


class Model:
    """Looks at every commit. `truth` is false while wall clocks jump: what depends on them is then not checked."""

    def __init__(self, network: Network, trace: Trace, limits: Limits, clocks_jump: bool) -> None:
        self.runs: dict[str, RunModel] = {}
        self.entries: list[Entry] = []
        self.leased: dict[str, Holder] = {}
        self.network = network
        self.trace = trace
        self.limits = limits
        self.clocks_jump = clocks_jump
        self._columns: list[str] = []
        # When runs of the limited job began, by their workers' clocks.
        self._starts: list[tuple[int, str]] = []
        # Asked about each run of a schedule, and when it was made.
        self.on_scheduled: Callable[[RunModel, int], None] = lambda run, created_at: None
        self.children: Counter[tuple[str, str]] = Counter()
        # Steps that were asked for with an undo; and the runs that were cancelled just now.
        self.undoable: set[tuple[str, str]] = set()
        self._cancelled: list[str] = []
        # Runs and jobs of which a claim does not look at the priority alone; those whose pause was acknowledged; and
        # those that anybody ever wanted to resume.
        self.held_back: set[str] = set()
        self.paused: set[str] = set()
        self.resumed: set[str] = set()

    def _ask(self, sql: LiteralString, *params: Value) -> list[Any]:
        return self.network.ask(Batch("read", (Statement(sql, params),)))[0]

    def row(self, run_id: str) -> dict[str, Value] | None:
        """A run's row by the names of its columns, whatever columns there are."""
        if not self._columns:
            self._columns = [row[1] for row in self._ask("PRAGMA table_info(durably_runs)")]
        found = self._ask("SELECT * FROM durably_runs WHERE id = ?", run_id)
        return dict(zip(self._columns, found[0], strict=True)) if found else None

    def brief(self, run: RunModel) -> str:
        row = self.row(run.id) or {}
        told = {name: value for name, value in row.items() if name not in ("id", "input", "labels") and value}
        return f"{run.id}: {told}, {run.number} entries, waits {sorted(run.waits)}"

    def program(self, run: RunModel) -> list[dict[str, Any]]:
        program: list[dict[str, Any]] = json.loads(str(run.row["input"])).get("program", [])
        return program

    def open_waits(self, run: RunModel) -> list[str]:
        """The names of the signals that a run waits for."""
        asked = set(signals_of(self.program(run)))
        return sorted({name for name in (key.partition("#")[0] for key in run.waits) if name in asked})

    def is_owner(self, run: RunModel, process: Process) -> bool:
        return self.network.workers.get(run.owner) is process

    # -- every commit ------------------------------------------------------------------------------------

    def on_commit(self, process: Process) -> None:
        last = self.entries[-1].seq if self.entries else 0
        new = [Entry(*row) for row in self._ask(_NEW_ENTRIES, last)]
        before, self.leased = self.leased, {row[0]: Holder(*row) for row in self._ask(_LEASED)}
        for entry in new:
            self.trace.stored(entry)
            self._fold(entry, process, before.get(entry.run_id))
        self.entries += new
        for run_id, holder in before.items():
            if run_id not in self.leased or self.leased[run_id][:4] != holder[:4]:
                self._check_end_of_lease(holder, new, process)
        for run_id in dict.fromkeys(entry.run_id for entry in new):
            self._check_row(self.runs[run_id])
        # Somebody may have wanted them back in the same transaction.
        retried = {entry.run_id for entry in new if entry.type == "run:retry"}
        for run_id in self._cancelled:
            left = [
                run.id
                for run in self._descendants(run_id)
                if run.status not in TERMINAL and run.undoing is None and run.id not in retried
            ]
            ended = self.runs[run_id].status in ("cancelled", "deleted") or self.runs[run_id].undoing is not None
            self.trace.check(not left or not ended, f"run {run_id} was cancelled, and of its children not {left}")
        self._cancelled.clear()
        claimed = [self.runs[entry.run_id] for entry in new if entry.type == "run:leased"]
        for run in claimed:
            now = self.leased.get(run.id)
            held = now is not None and (now.generation, now.owner) == (run.generation, run.owner)
            # Another one's request may have come with the same commit.
            self.trace.check(held or run.status != "leased", f"run {run.id} was leased, and the table says {now}")
        if claimed:
            self._check_limits(claimed)
            self._check_priority(claimed, {entry.run_id for entry in new if entry.type == "run:trigger"})

    def _fold(self, entry: Entry, process: Process, before: Holder | None) -> None:
        check, type_ = self.trace.check, entry.type
        self.trace.count(type_)
        if type_ == "run:trigger":
            row = self.row(entry.run_id)
            check(row is not None and entry.run_id not in self.runs, f"a trigger of nothing, or a second one: {entry}")
            check(entry.number == 1 and entry.generation == 0, f"begins in the middle: {entry}")
            run = self.runs[entry.run_id] = RunModel(entry.run_id, row or {})
            self._check_trigger(run, entry)
            if run.row.get("schedule") is not None:
                self.on_scheduled(run, entry.created_at)
            return
        run = self.runs[entry.run_id]
        # What was written in the same transaction as the deletion is gone.
        unseen = type_ == "run:delete" and entry.number > run.number + 1
        check(unseen or entry.number == run.number + 1, f"after number {run.number}: {entry}")
        run.number = entry.number
        run.seen[type_] += 1
        run.copied = run.copied and type_ in ("step:complete", "run:patched")
        # Where a failure counts no more, the job may take another way.
        strays = run.seen["run:retry"] > 0 or run.row["forked_from"] is not None
        check(type_ not in _NEVER or (type_ == "step:unasked" and strays), f"nothing has changed: {entry}")
        if type_ == "run:patched":
            # On that way it comes to a patch for the first time, while other branches have stored what they did before:
            # from a run that was there with older code nobody can tell it, and the answer is that of such a run.
            answer = json.loads(entry.data or "{}")
            check(answer["patched"] or strays, f"it was never without: {entry}")
            run.patches[answer["name"]] = answer["patched"]
        if type_ == "run:leased":
            self._begin(run, entry, process)
        check(unseen or entry.generation == run.generation, f"under generation {run.generation}: {entry}")
        if type_ in _OWNERS or (type_ in ("step:complete", "step:fail") and not run.copied):
            waited = entry.step_name in run.waits and type_ in ("step:complete", "step:fail")
            check(
                waited or (run.status == "leased" and self.is_owner(run, process)),
                f"written by {process.name}, while {run.status} with {run.owner}: {entry}",
            )
        if type_.startswith("step:"):
            self._fold_step(run, entry)
        elif type_ == "run:undo":
            self._begin_undo(run, entry, process)
        elif type_.startswith("run:"):
            self._fold_run(run, entry, unseen)

    def _check_trigger(self, run: RunModel, entry: Entry) -> None:
        check = self.trace.check
        parent, child_of = run.row.get("parent_run_id"), json.loads(str(run.row["input"])).get("child of")
        if run.row["forked_from"] is not None:
            self.trace.count("runs forked")
        if parent is not None:
            self.trace.count("children started")
            self.children[tuple(child_of)] += 1
            check(parent == child_of[0], f"{child_of} started a child of {parent!r}")
            # A failure of the child does not count any more once its parent is retried.
            most = 1 + self.runs[child_of[0]].seen["run:retry"]
            check(
                self.children[tuple(child_of)] <= most, f"{child_of} started {self.children[tuple(child_of)]} children"
            )
        if run.key is not None and self.limits.coalesce.get(run.key, "queue") != "queue":
            same = [one.id for one in self.runs.values() if one.begins_next_to(run)]
            # A retriggered run is one of its own.
            copied = any(one.row["input"] == run.row["input"] for one in self.runs.values() if one is not run)
            check(copied or len(same) <= 1, f"{same} are all pending with key {run.key!r}: {entry}")

    def _begin(self, run: RunModel, entry: Entry, process: Process) -> None:
        check = self.trace.check
        run.generation += 1
        run.owner = json.loads(entry.data or "{}")["workerId"]
        check(self.is_owner(run, process), f"leased by {process.name} for another: {entry}")
        check(run.status not in TERMINAL, f"leased while {run.status}: {entry}")
        run.status, run.holds = "leased", True
        run.fruitless += 1
        # An end ends the pause too.
        ended = run.seen["run:cancel"] + run.seen["run:fail"] + run.seen["run:complete"]
        held = {run.job if ended else run.id, run.job} & (self.paused - self.resumed)
        check(not held, f"leased while {held} is paused: {entry}")
        # Not where the claim was long on its way: its instant is then neither when it was asked nor when it begins.
        at_once = abs(process.now() - entry.created_at) < 200
        if run.generation == 1 and run.job == "other" and at_once:
            self._starts.append((entry.created_at, run.id))

    def _fold_step(self, run: RunModel, entry: Entry) -> None:
        key, run.fruitless = str(entry.step_name), 0
        undone = undone_by(key)
        self.trace.check((undone is None) is (run.undoing is None), f"while it is undone ({run.undoing}): {entry}")
        if undone is not None:
            self._fold_undo(run, undone, entry)
        elif entry.type == "step:wait":
            detail = json.loads(entry.data or "{}")
            if "network" in detail:
                self.trace.count("waits for the network")
            else:
                run.waits.add(key)
                run.limits[key] = detail.get("until")
        elif entry.type in ("step:complete", "step:fail"):
            self.trace.check(key not in run.results, f"a second result, after {run.results.get(key)}: {entry}")
            if entry.type == "step:complete" and (run.id, key) in self.undoable and not run.copied:
                run.undos[entry.number] = key
            outcome = (entry.type, json.loads(entry.data or "null"))
            run.results[key] = outcome
            run.ever.setdefault(key, []).append(outcome)
            run.waits.discard(key)

    def _fold_undo(self, run: RunModel, undone: str, entry: Entry) -> None:
        self.trace.check(run.next_undo == undone, f"the next to be undone is {run.next_undo}: {entry}")
        if entry.type == "step:complete":
            self.trace.count("steps undone")
            run.undos = {number: key for number, key in run.undos.items() if key != undone}
            run.undone[undone] += 1
            run.results.pop(undone, None)
        elif entry.type == "step:fail":
            self.trace.count("undos failed")
            run.not_undone.add(undone)

    def _begin_undo(self, run: RunModel, entry: Entry, process: Process) -> None:
        check, detail = self.trace.check, json.loads(entry.data or "{}")
        check(run.undoing is None and run.status not in TERMINAL, f"undone while {run.status}, {run.undoing}: {entry}")
        run.undoing, run.before = detail["undoing"], dict(run.results)
        self.trace.count(f"undone to be {run.undoing}")
        if run.undoing == "cancelled":
            check(run.undos, f"it has nothing to undo: {entry}")
            run.status = "pending"
            run.seen["run:cancel"] += 1
            self._cancelled.append(run.id)
        else:
            check(run.status == "leased" and self.is_owner(run, process), f"undone by {process.name}: {entry}")
            self._check_poison(run, entry, '"PoisonRun')
        run.fruitless = 0

    def _check_poison(self, run: RunModel, entry: Entry, mark: str) -> None:
        if mark in str(entry.data):
            self.trace.count("runs poisoned")
            most = self.limits.max_attempts
            self.trace.check(run.fruitless > most, f"{run.fruitless} leases, and poisoned: {entry}")

    def _end_undo(self, run: RunModel, entry: Entry) -> None:
        check = self.trace.check
        if run.undoing is not None:
            self._check_poison(run, entry, "; PoisonRun")
            left = set(run.undos.values())
            names = str(entry.data).partition("not undone: ")[2]
            told = all(key in names for key in left) and (left <= run.not_undone or "PoisonRun: " in str(entry.data))
            check(told, f"{left} are not undone, and only {run.not_undone} could not be: {entry}")
            check(entry.type == _ENDS[run.undoing], f"undone to be {run.undoing}: {entry}")
        else:
            check(entry.type == "run:complete" or not run.undos, f"{run.undos} can be undone: {entry}")
            if entry.type == "run:complete":
                run.undos = {}
        run.undoing = None

    def _fold_run(self, run: RunModel, entry: Entry, unseen: bool) -> None:
        type_, check = entry.type, self.trace.check
        if type_ in ("run:complete", "run:fail", "run:cancel"):
            check(run.status not in TERMINAL, f"ended while {run.status}: {entry}")
            if type_ == "run:fail" and run.undoing is None:
                self._check_poison(run, entry, '"PoisonRun')
            if type_ == "run:cancel" and run.undoing is None:
                self._cancelled.append(run.id)
            self._end_undo(run, entry)
            run.status = {"run:complete": "completed", "run:fail": "failed", "run:cancel": "cancelled"}[type_]
            run.holds = False
        elif type_ == "run:waiting":
            run.status = "waiting"
        elif type_ == "run:retry":
            run.status = "pending" if run.status in TERMINAL else "waiting"
            run.results = {key: result for key, result in run.results.items() if result[0] == "step:complete"}
            run.not_undone, run.before = set(), None
        elif type_ == "run:coalesced":
            check(run.generation == 0 and run.status == "pending", f"coalesced with a run that has begun: {entry}")
            run.row = self.row(run.id) or run.row
        elif type_ == "run:delete":
            check(run.status in TERMINAL or unseen, f"deleted while {run.status}: {entry}")
            run.deleted, run.status = True, "deleted"

    # -- what must be true behind it ---------------------------------------------------------------------

    def _check_end_of_lease(self, holder: Holder, new: list[Entry], process: Process) -> None:
        run = self.runs[holder.run_id]
        why = [entry.type for entry in new if entry.run_id == holder.run_id]
        owner = self.network.workers[holder.owner]
        legal = (
            run.deleted
            or process is owner
            or any(type_ in ("run:cancel", "run:undo", "run:fail", "run:complete", "run:waiting") for type_ in why)
            or holder.expires_at <= process.latest
            or owner.dead
        )
        self.trace.check(legal, f"{process.name} ended the lease of a worker that is alive: {holder}, {why}")

    def _check_row(self, run: RunModel) -> None:
        found = self._ask(_STATUS, run.id)
        if run.deleted:
            self.trace.check(not found, f"run {run.id} is deleted, and there: {found}")
            return
        self.trace.check(found, f"run {run.id} is {run.status} and has no row")
        if found:
            status, generation, undoing = found[0]
            self.trace.check(undoing == run.undoing, f"run {run.id}: undoing is {undoing}, not {run.undoing}")
            undos = dict(self._ask(_UNDOS, run.id))
            self.trace.check(undos == run.undos, f"run {run.id}: what can be undone is {undos}, not {run.undos}")
            same = status == run.status or (status == "pending" and run.status in ("leased", "waiting"))
            self.trace.check(same, f"run {run.id} is {run.status}, and its row {status}")
            self.trace.check(generation == run.generation, f"run {run.id}: {generation}, not {run.generation}")

    def _descendants(self, run_id: str) -> Iterator[RunModel]:
        for run in self.runs.values():
            if run.row.get("parent_run_id") == run_id:
                yield run
                yield from self._descendants(run.id)

    def _check_limits(self, claimed: list[RunModel]) -> None:
        check = self.trace.check
        for key in sorted({run.key for run in claimed if run.key is not None}):
            holders = [run.id for run in self.runs.values() if run.holds and run.key == key and not run.deleted]
            check(len(holders) <= self.limits.per_key, f"key {key!r} is held by {holders}")
            self.trace.count("claims with a key")
        leased = [holder.run_id for holder in self.leased.values() if holder.job_name == "other"]
        most = self.limits.max_runs
        check(most is None or len(leased) <= most, f"{leased} are leased, and the job allows {most}")
        if self.limits.rate is not None and not self.clocks_jump:
            limit, period = self.limits.rate
            starts = sorted(start for start, run_id in self._starts if not self.runs[run_id].deleted)
            for first, last in zip(starts, starts[limit:], strict=False):
                check(last - first >= round(period * 1000), f"more than {limit} runs began in {period} s: {starts}")

    def _check_priority(self, claimed: list[RunModel], triggered: set[str]) -> None:
        """Of runs that nothing but their priority tells apart, none is overtaken."""

        def plain(run: RunModel) -> bool:
            return run.job == "plain" and run.key is None and not self.held_back & {run.id, run.job}

        taken = [cast(int, run.row["priority"]) for run in claimed if plain(run)]
        left = [
            run
            for run in self.runs.values()
            if run.status == "pending"
            and run.generation == 0
            and not run.deleted
            and plain(run)
            and not run.row.get("run_at")
            and run.id not in triggered
        ]
        for run in left:
            if taken and cast(int, run.row["priority"]) > min(taken):
                self.trace.fail(
                    f"run {run.id} of priority {run.row['priority']!r} was overtaken by one of {min(taken)}"
                )

    # -- at the end --------------------------------------------------------------------------------------

    def check_table(self) -> None:
        """The journal is what it was when it was written, but for runs that were deleted."""
        kept = [entry for entry in self.entries if entry.type == "run:delete" or not self.runs[entry.run_id].deleted]
        stored = [Entry(*row) for row in self._ask(_ALL_ENTRIES)]
        if stored != kept:
            changed = sorted(set(stored) ^ set(kept))
            self.trace.fail(f"entries have changed since they were written: {changed[:4]}")
