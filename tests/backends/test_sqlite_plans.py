"""What a worker does again and again must not cost more the more runs are finished, or wait for their turn."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from durably_web.store import migrations, operations
from durably_web.store.batch import Operation
from durably_web.store.operations import Entry, JobLimits, Trigger, undoing
from durably_web.store.operations.firing import Next
from durably_web.store.operations.scheduling import Definition, Timing

ENTRY = Entry(2, "step:complete", "save", "null", 1, 1)
UNDO = (
    undoing.keep_undo("r", 1, 2, "save"),
    undoing.begin_undo("r", 1, 2),
    undoing.drop_undo("r", 1, 2, "save#undo", 1),
    undoing.drop_undos("r", 1, 2),
)
NOW = 1_000_000

PLAIN = JobLimits("j")
LIMITS = (
    PLAIN,
    JobLimits("few", runs=1),
    JobLimits("rated", rate=1, period=1000),
    JobLimits("rated keys", rate=1, period=1000, rate_per_key=True),
    JobLimits("keys", per_key=3),
    JobLimits("other"),
)


SCHEDULE = Next("s", "j", {"a": "b"}, Timing(None, None, 1), "all", None, 1, 0, 0)


def _claim(limit: int = 10, jobs: Iterable[JobLimits] = LIMITS, now: int = NOW, token: str = "t") -> Operation[Any]:
    return operations.claim(
        owner="w",
        token=token,
        jobs=list(jobs),
        limit=limit,
        executing=["r"],
        now=now,
        expires_at=now + 30_000,
        by_limits=True,
    )


WORK: tuple[Operation[Any], ...] = (
    _claim(),
    operations.claim(owner="w", token="t", jobs=[PLAIN], limit=10, executing=["r"], now=1, expires_at=2),
    operations.write_entries("r", 1, [ENTRY], "{}"),
    operations.finish_run("r", 1, "completed", "null", None, [ENTRY], "{}", 1, queue=("k", "j"), parent="p"),
    operations.suspend_run("r", 1, [ENTRY], "{}", 5, [("s", None)], ["c"]),
    operations.wake_for_network(),
    operations.release_run("r", 1),
    operations.renew_leases([("r", 1)], 2),
    operations.other_owners("w"),
    operations.free_leases_of(["w"]),
    operations.open_signals("r"),
    operations.child_outcome("r"),
    operations.undos_of("r"),
    operations.write_entries("r", 1, [ENTRY._replace(effects=effect) for effect in UNDO], None),
    operations.signal("r", "s", "1", "q", 1),
    operations.cancel(["r"], "q", 1),
    operations.pause(["r"], "q", 1),
    operations.resume(["r"], "q", 1),
    operations.next_tick(),
    operations.next_schedules(9, 0),
    operations.fire_schedule(SCHEDULE, [(1, "t1"), (2, "t2")], 3, "t", 1),
    operations.trigger_schedule("s", "t3", 1),
    operations.correct_schedule(SCHEDULE, 3),
)


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for version in range(1, migrations.LATEST + 1):
        for statement in migrations.statements(version):
            connection.execute(statement)
    yield connection
    connection.close()


@pytest.mark.parametrize("operation", WORK, ids=lambda operation: operation.name)
def test_no_plan_walks_through_finished_runs(database: sqlite3.Connection, operation: Operation[Any]) -> None:
    for sql, params in operation.batch.statements:
        plan = [str(row[3]) for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", params)]
        for line in plan:
            # These indexes have only runs that are not finished; the other tables are arguments, or are small.
            harmless: tuple[str, ...] = (
                "INDEX durably_runs_",
                "json_each",
                "durably_paused_jobs",
                "CONSTANT ROW",
                "SCAN (",
                "family",
            )
            harmless += ("SCAN jobs", "SCAN job ", "VIRTUAL TABLE", "SCAN child ", "SUBQUERY")
            assert not line.startswith("SCAN") or any(name in line for name in harmless), (line, sql, plan)


# -- what is visited -------------------------------------------------------------------------------------


def _send(database: sqlite3.Connection, operation: Operation[Any]) -> Any:
    rows = [database.execute(sql, params).fetchall() for sql, params in operation.batch.statements]
    return operation.decode(rows)


def _cost(database: sqlite3.Connection, operation: Operation[Any]) -> int:
    """What SQLite does for an operation, in tens of its virtual machine's instructions."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    database.set_progress_handler(tick, 10)
    _send(database, operation)
    database.set_progress_handler(None, 0)
    return count


def _ask(database: sqlite3.Connection, numbers: Iterable[int], job_name: str, key: str | None, **more: Any) -> None:
    for number in numbers:
        asked = Trigger(f"{job_name} {number:06}", job_name, "{}", {}, 1, concurrency_key=key, coalesce="queue", **more)
        _send(database, operations.trigger(asked))


def _behind_a_key(database: sqlite3.Connection, count: int) -> None:
    _ask(database, range(count), "j", "k")


def _behind_a_key_of_three(database: sqlite3.Connection, count: int) -> None:
    _ask(database, range(count), "keys", "k")


def _behind_a_key_after_a_delay(database: sqlite3.Connection, count: int) -> None:
    _ask(database, range(count), "j", "k", run_at=NOW)


def _behind_the_key_of_another_job(database: sqlite3.Connection, count: int) -> None:
    _ask(database, [0], "j", "k")
    _send(database, _claim(1))
    _ask(database, range(count), "other", "k")


def _behind_a_limit(database: sqlite3.Connection, count: int) -> None:
    _ask(database, range(count), "few", None)


def _behind_a_rate(database: sqlite3.Connection, count: int) -> None:
    _ask(database, range(count), "rated", None)


def _behind_the_rate_of_a_key(database: sqlite3.Connection, count: int) -> None:
    _ask(database, range(count), "rated keys", "k")


def _of_a_paused_job(database: sqlite3.Connection, count: int) -> None:
    _send(database, operations.pause_job("j", "q", 1))
    _ask(database, range(count), "j", None)


def _paused(database: sqlite3.Connection, count: int) -> None:
    _ask(database, range(count), "j", None)
    _send(database, operations.pause([f"j {number:06}" for number in range(count)], "q", 1))


def _delayed(database: sqlite3.Connection, count: int) -> None:
    _ask(database, range(count), "j", None, run_at=NOW * 2)


def _of_jobs_of_others(database: sqlite3.Connection, count: int) -> None:
    _ask(database, range(count), "somebody else's", None)


HELD_BACK: tuple[Callable[[sqlite3.Connection, int], None], ...] = (
    _behind_a_key,
    _behind_a_key_of_three,
    _behind_a_key_after_a_delay,
    _behind_the_key_of_another_job,
    _behind_a_limit,
    _behind_a_rate,
    _behind_the_rate_of_a_key,
    _of_a_paused_job,
    _paused,
    _delayed,
    _of_jobs_of_others,
)


def _cost_of_a_claim(count: int, hold_back: Callable[[sqlite3.Connection, int], None]) -> int:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for version in range(1, migrations.LATEST + 1):
        for statement in migrations.statements(version):
            connection.execute(statement)
    hold_back(connection, count)
    # What may begin begins, and due times are seen; then comes the claim that finds nothing.
    for number in range(4):
        _send(connection, _claim(token=f"before {number}"))
    cost = _cost(connection, _claim(token="last"))
    connection.close()
    return cost


@pytest.mark.parametrize("hold_back", HELD_BACK, ids=lambda function: function.__name__.strip("_"))
def test_a_claim_does_not_walk_over_runs_that_are_held_back(
    hold_back: Callable[[sqlite3.Connection, int], None],
) -> None:
    few, many = (_cost_of_a_claim(count, hold_back) for count in (30, 1500))
    assert many < 2 * few + 100, f"{few * 10} instructions with 30 runs, {many * 10} with 1,500"


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
def test_a_tick_does_not_walk_over_the_runs_of_its_schedule(database: sqlite3.Connection, overlap: Any) -> None:
    """Neither those that have ended, nor the queue."""
    definition = Definition("j", Timing(None, None, 1), "{}", {}, 0, "all", overlap, None)
    _send(database, operations.put_schedule("s", definition, 0, None, "q", 0))

    def fire(first: int, last: int) -> Operation[Any]:
        runs = [(tick, f"t{tick}") for tick in range(first, last)]
        return operations.fire_schedule(SCHEDULE._replace(next_at=first), runs, last, f"f{first}", 1)

    def fill(first: int, last: int) -> None:
        database.execute("UPDATE durably_schedules SET overlap = ?", ("queue" if overlap == "queue" else "allow",))
        _send(database, fire(first, last))
        if overlap != "queue":
            database.execute("UPDATE durably_runs SET status = 'completed', completed_at = 1")
        database.execute("UPDATE durably_schedules SET overlap = ?", (overlap,))

    fill(0, 30)
    few = _cost(database, fire(30, 31))
    fill(31, 1531)
    many = _cost(database, fire(1531, 1532))
    assert database.execute("SELECT count(*) FROM durably_runs").fetchone()[0] == 1532
    assert many < 2 * few + 100, f"{few * 10} instructions behind 30 runs, {many * 10} behind 1,500"


@pytest.mark.parametrize("coalesce", [None, "skip", "replace", "queue"])
def test_a_trigger_does_not_walk_over_the_queue_of_its_key(database: sqlite3.Connection, coalesce: Any) -> None:
    def cost(number: int) -> int:
        asked = Trigger(f"x {number}", "j", "{}", {}, 1, concurrency_key="k", coalesce=coalesce)
        return _cost(database, operations.trigger(asked))

    _ask(database, range(30), "j", "k")
    few = cost(1)
    _ask(database, range(30, 1500), "j", "k")
    many = cost(2)
    assert many < 2 * few + 100, f"{few * 10} instructions behind 30 runs, {many * 10} behind 1,500"
