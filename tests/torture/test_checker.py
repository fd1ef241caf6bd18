"""The checker finds what it is there for: faults, planted into the evidence of a torture in which none was."""

from __future__ import annotations

import asyncio
import copy
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.torture.checker import SLACK, check
from tests.torture.databases import LikeSqlite
from tests.torture.evidence import Entry, Evidence, Line
from tests.torture.plan import LIMIT, RATE, Plan
from tests.torture.torture import gather, torture

PLAN = Plan(
    seed=7, runs=160, workers=2, clients=2, kills=1, stops=0, client_kills=0, reader_kills=0, keys=3, seconds=120
)


@pytest.fixture(scope="module")
def innocent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evidence]:
    """The files and the evidence of a run in which nothing was wrong."""
    folder = tmp_path_factory.mktemp("innocent")

    async def play() -> Evidence:
        database = LikeSqlite("sqlite", str(folder / "app.db"))
        outcome = await torture(folder, PLAN, database)
        assert outcome.wrong == []
        return await gather(folder, PLAN, database)

    return folder, asyncio.run(play())


@pytest.fixture
def evidence(innocent: tuple[Path, Evidence]) -> Evidence:
    evidence = copy.deepcopy(innocent[1])
    # Room between the entries, for those that are moved.
    evidence.entries = [entry._replace(seq=entry.seq * 100) for entry in evidence.entries]
    evidence.lines = [
        line._replace(words=(f"{line.words[0]}00", *line.words[1:])) if line.what == "event" else line
        for line in evidence.lines
    ]
    assert check(evidence) == []
    return evidence


# -- planting ------------------------------------------------------------------------------------------------


def first(evidence: Evidence, what: str, about: Callable[[Line], bool] = lambda line: True) -> int:
    return next(index for index, line in enumerate(evidence.lines) if line.what == what and about(line))


def add(evidence: Evidence, line: Line) -> None:
    evidence.lines = sorted([*evidence.lines, line])


def change(evidence: Evidence, which: Callable[[Entry], bool], **fields: Any) -> None:
    """Change the first entry of that kind."""
    index = next(index for index, entry in enumerate(evidence.entries) if which(entry))
    evidence.entries[index] = evidence.entries[index]._replace(**fields)


def two_of_a_key(evidence: Evidence) -> tuple[list[Entry], list[Entry]]:
    """The journals of two runs, the second of which followed the first with the same key."""
    by_key: dict[str, list[tuple[int, str]]] = defaultdict(list)
    jobs = {run.id: (run.job, run.key or "") for run in evidence.runs}
    for entry in sorted(evidence.entries):
        job, key = jobs[entry.run_id]
        if job == "keyed" and entry.type == "run:leased" and entry.generation == 1:
            by_key[key].append((entry.seq, entry.run_id))
    (_, one), (_, other), *_ = next(runs for runs in by_key.values() if len(runs) > 1)

    def journal(run_id: str) -> list[Entry]:
        return sorted(entry for entry in evidence.entries if entry.run_id == run_id)

    return journal(one), journal(other)


def stored_begins(evidence: Evidence, run_id: str) -> list[Line]:
    tokens = {
        json.loads(entry.data or "null")["token"]
        for entry in evidence.entries
        if entry.run_id == run_id and entry.type == "step:complete" and (entry.step or "").startswith("s")
    }
    return [line for line in evidence.of("begin") if line.words[3] in tokens]


# -- what is found ---------------------------------------------------------------------------------------------


def lost_run(evidence: Evidence) -> None:
    run = evidence.runs.pop(3)
    evidence.entries = [entry for entry in evidence.entries if entry.run_id != run.id]


def run_of_nobody(evidence: Evidence) -> None:
    evidence.runs.append(evidence.runs[3]._replace(id="another", idempotency_key="9999"))


def run_that_came_twice(evidence: Evidence) -> None:
    evidence.runs.append(evidence.runs[3]._replace(id="another"))


def run_that_waits_for_ever(evidence: Evidence) -> None:
    evidence.runs[3] = evidence.runs[3]._replace(status="pending", output=None)


def wrong_output(evidence: Evidence) -> None:
    evidence.runs[3] = evidence.runs[3]._replace(output="0")


def never_acknowledged(evidence: Evidence) -> None:
    number = evidence.of("acknowledged")[0].words[0]
    evidence.lines = [line for line in evidence.lines if not (line.what == "acknowledged" and line.words[0] == number)]


def acknowledged_as_another(evidence: Evidence) -> None:
    one, other = evidence.of("acknowledged")[:2]
    add(evidence, one._replace(words=(one.words[0], other.words[1], "idempotent")))


def wrong_answer(evidence: Evidence) -> None:
    run = evidence.runs[0]
    add(evidence, Line(1, "client0", "result", (run.id, "0")))


def gap(evidence: Evidence) -> None:
    evidence.entries.pop(next(index for index, entry in enumerate(evidence.entries) if entry.number == 4))


def disorder(evidence: Evidence) -> None:
    run_id = evidence.runs[0].id
    first_seq = next(entry.seq for entry in evidence.entries if entry.run_id == run_id)
    change(evidence, lambda entry: entry.run_id == run_id and entry.number == 4, seq=first_seq - 1)


def completed_twice(evidence: Evidence) -> None:
    last = next(entry for entry in evidence.entries if entry.type == "run:complete")
    evidence.entries.append(last._replace(seq=last.seq + 1, number=last.number + 1))


def entries_of_no_run(evidence: Evidence) -> None:
    evidence.runs.pop()


def stale_entry(evidence: Evidence) -> None:
    change(evidence, lambda entry: entry.type == "step:complete", generation=0)


def stale_result(evidence: Evidence) -> None:
    """It is that of an execution under the lease before, whose worker has woken up."""
    index = first(evidence, "begin")
    line = evidence.lines[index]
    evidence.lines[index] = line._replace(words=(*line.words[:2], "0", line.words[3]))


def result_of_nobody(evidence: Evidence) -> None:
    change(
        evidence,
        lambda entry: entry.type == "step:complete" and entry.step == "s1",
        data=json.dumps({"value": 1, "token": "nobody.1"}),
    )


def result_before_its_end(evidence: Evidence) -> None:
    evidence.lines.pop(
        first(evidence, "end", lambda line: any(line.words[3] in e.data for e in evidence.entries if e.data))
    )


def execution_without_a_lease(evidence: Evidence) -> None:
    line = evidence.of("begin")[0]
    add(evidence, line._replace(process="stranger", words=(*line.words[:3], "stranger.1")))


def missing_lease(evidence: Evidence) -> None:
    evidence.runs[0] = evidence.runs[0]._replace(generation=evidence.runs[0].generation + 1)


def step_done_again(evidence: Evidence) -> None:
    """By a worker that has taken the run over, and must have known the result."""
    line = evidence.of("begin")[0]
    later = (*line.words[:2], str(int(line.words[2]) + 1), f"{line.process}.again")
    add(evidence, line._replace(moment=evidence.lines[-1].moment, words=later))


def step_done_twice(evidence: Evidence) -> None:
    line = stored_begins(evidence, evidence.runs[0].id)[0]
    add(evidence, line._replace(moment=line.moment + 1, words=(*line.words[:3], f"{line.process}.again")))


def two_results(evidence: Evidence) -> None:
    entry = next(entry for entry in evidence.entries if entry.type == "step:complete")
    evidence.entries.append(entry._replace(seq=entry.seq + 1))


def other_result_given(evidence: Evidence) -> None:
    index = first(evidence, "stored")
    line = evidence.lines[index]
    evidence.lines[index] = line._replace(words=(*line.words[:3], "another.1"))


def keys_overlap_by_the_journal(evidence: Evidence) -> None:
    one, other = two_of_a_key(evidence)
    change(evidence, other[1].__eq__, seq=one[-1].seq - 1)


def keys_overlap_in_steps(evidence: Evidence) -> None:
    one, other = two_of_a_key(evidence)
    end = max(line.moment for line in evidence.of("end") if line.words[0] == one[0].run_id)
    line = stored_begins(evidence, other[0].run_id)[0]
    evidence.lines.remove(line)
    add(evidence, line._replace(moment=end - 1))


def late_begin(evidence: Evidence) -> Line:
    """Of a run whose key another one has by now, under a lease that was lost."""
    one, other = two_of_a_key(evidence)
    own = [line for line in evidence.of("begin") if line.words[0] == one[0].run_id]
    begun = min(line.moment for line in evidence.of("begin") if line.words[0] == other[0].run_id)
    # What it comes to is not stored, or it would be worse.
    late = own[-1]._replace(moment=begun + 2 * SLACK, words=(*own[-1].words[:3], f"{own[-1].process}.late"))
    add(evidence, late)
    return late


def key_at_a_late_begin(evidence: Evidence) -> None:
    late_begin(evidence)


def limit_by_the_journal(evidence: Evidence) -> None:
    begins = sorted(
        entry
        for entry in evidence.entries
        if entry.type == "run:leased" and {run.id: run.job for run in evidence.runs}[entry.run_id] == "limited"
    )[: LIMIT + 1]
    for offset, entry in enumerate(begins):
        change(evidence, entry.__eq__, seq=begins[0].seq + offset)


def limit_in_steps(evidence: Evidence) -> None:
    limited = [run.id for run in evidence.runs if run.job == "limited"][: LIMIT + 1]
    tokens = {stored_begins(evidence, run_id)[0].words[3] for run_id in limited}
    last = evidence.lines[-1].moment
    evidence.lines = sorted(
        line._replace(moment=last) if line.what == "end" and line.words[3] in tokens else line
        for line in evidence.lines
    )


def rate(evidence: Evidence) -> None:
    rated = {run.id for run in evidence.runs if run.job == "rated"}
    line = evidence.of("leased")[0]
    for index in range(RATE + 1):
        entry = Entry(index - 1000, next(iter(rated)), 2, 1, "run:leased", None, '{"workerId": "w"}', 0)
        evidence.entries.append(entry)
        add(evidence, line._replace(words=(entry.run_id, str(entry.seq), str(index), str(index + 1))))


def reader_missed_one(evidence: Evidence) -> None:
    evidence.lines.pop(first(evidence, "event"))


def reader_saw_one_twice(evidence: Evidence) -> None:
    line = evidence.of("event")[0]
    add(evidence, line._replace(moment=line.moment + 1))


def reader_saw_disorder(evidence: Evidence) -> None:
    one, other = [index for index, line in enumerate(evidence.lines) if line.what == "event"][:2]
    lines = evidence.lines
    lines[one], lines[other] = (
        lines[one]._replace(words=lines[other].words),
        lines[other]._replace(words=lines[one].words),
    )


def error(evidence: Evidence) -> None:
    add(evidence, Line(1, "w0.0", "error", ("KeyError:", "'x'")))


def damage(evidence: Evidence) -> None:
    evidence.damages.append("an index is not in order")


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (lost_run, "lost"),
        (run_of_nobody, "lost"),
        (run_that_came_twice, "lost"),
        (run_that_waits_for_ever, "lost"),
        (wrong_output, "lost"),
        (never_acknowledged, "unanswered"),
        (acknowledged_as_another, "unanswered"),
        (wrong_answer, "unanswered"),
        (gap, "gap"),
        (disorder, "gap"),
        (completed_twice, "gap"),
        (entries_of_no_run, "gap"),
        (stale_entry, "stale"),
        (stale_result, "stale"),
        (result_of_nobody, "stale"),
        (result_before_its_end, "stale"),
        (execution_without_a_lease, "stale"),
        (missing_lease, "stale"),
        (step_done_again, "repeated"),
        (step_done_twice, "repeated"),
        (two_results, "repeated"),
        (other_result_given, "taken_back"),
        (keys_overlap_by_the_journal, "overlap"),
        (keys_overlap_in_steps, "overlap"),
        (key_at_a_late_begin, "overlap"),
        (limit_by_the_journal, "limit"),
        (limit_in_steps, "limit"),
        (rate, "rate"),
        (reader_missed_one, "reader"),
        (reader_saw_one_twice, "reader"),
        (reader_saw_disorder, "reader"),
        (error, "error"),
        (damage, "damage"),
    ],
)
def test_a_planted_fault_is_found(evidence: Evidence, plant: Callable[[Evidence], None], rule: str) -> None:
    plant(evidence)
    assert [wrong for wrong in check(evidence) if wrong.startswith(f"{rule}: ")], check(evidence)


def test_what_a_stopped_process_was_about_to_begin_is_no_overlap(evidence: Evidence) -> None:
    late = late_begin(evidence)
    add(evidence, Line(late.moment - 1, "torment", "continue", (late.process,)))
    assert not [wrong for wrong in check(evidence) if wrong.startswith("overlap: ")]


@pytest.mark.parametrize(
    ("sql", "wrong"),
    [
        ("DROP INDEX durably_runs_keys", "durably_runs_keys"),
        ("CREATE TABLE foreign_to_us (id)", "foreign_to_us"),
        ("PRAGMA ignore_check_constraints = ON; UPDATE durably_runs SET status = 'odd' WHERE rowid = 1", "CHECK"),
        ("UPDATE durably_runs SET holds_key = 1 WHERE concurrency_key IS NOT NULL", "holds_key"),
    ],
)
async def test_a_damaged_database_is_found(
    innocent: tuple[Path, Evidence], tmp_path: Path, sql: str, wrong: str
) -> None:
    with sqlite3.connect(innocent[0] / "app.db") as before, sqlite3.connect(tmp_path / "app.db") as copied:
        before.backup(copied)
    before.close()
    copied.executescript(sql)
    copied.close()
    evidence = await gather(tmp_path, PLAN, LikeSqlite("sqlite", str(tmp_path / "app.db")))
    assert [damage for damage in evidence.damages if wrong in damage], evidence.damages
