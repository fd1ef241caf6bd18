"""A database of schema version 1, with runs in flight, is taken up where it was left. See also `test_upgrades.py`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durably_web.clock import ManualClock
from durably_web.errors import RunFailed
from durably_web.jobs import Job, Options, job
from durably_web.steps import Step
from durably_web.store import migrations, operations
from durably_web.store.operations import schema
from durably_web.store.store import Store
from tests.support.backends import SqliteFile
from tests.support.world import World, bounded, raised

RUNS = {
    "completed": "01HF7YAT00FBCB54955HDWHY7C",
    "failed": "01HF7YATZ830FK1SQ2BQ1P34W8",
    "cancelled before": "01HF7YAWXR48VYERAHXG4BKWNW",
    "retried": "01HF7YB0TR8V0PACE3D5JBEG6D",
    "again": "01HF7YB3RGFXP5PQ0TQWH6DJ0X",
    "in the middle": "01HF7YB4QRC3N2NJYH45ZFH5CD",
    "in parallel": "01HF7YB5Q03KWY3WT9H2GTHTG3",
    "cancelled in the middle": "01HF7YB6WG1W0MTH8ZM2PR2DKR",
    "pending": "01HF7YB7VRDK2MRW77SK5K1QPQ",
}
DELETED = "01HF7YAVYG3RD2C864YPBRYTHZ"
IN_FLIGHT = ("retried", "again", "in the middle", "in parallel", "pending")
ENDED = tuple(name for name in RUNS if name not in IN_FLIGHT)

# A minute after the last entry: no lease holds any more.
LATER = 1_700_000_074_200

ran: Counter[tuple[str, Any]] = Counter()
"""How often the steps' functions ran, by run and argument."""

allowed: set[str] = set()
"""What `refuse` lets pass."""


async def part(run_id: str, n: int) -> dict[str, Any]:
    ran[run_id, n] += 1
    return {"n": n, "note": "ü🦆", "nothing": None}


async def refuse(run_id: str, what: str) -> None:
    ran[run_id, what] += 1
    if what not in allowed:
        raise ValueError(f"{what} is refused")


@job
async def report(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    step.log.info("begins", team=input["team"])
    parts: list[Any] = []
    for n in range(5):
        parts.append(await step.run("part", part, step.run_id, n))
        step.progress(n + 1, 5)
    try:
        await step.run("check", refuse, step.run_id, "the check")
    except ValueError as error:
        parts.append(str(error))
    return {"team": input["team"], "parts": parts}


@job
async def cautious(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    text = ""
    try:
        await step.run("check", refuse, step.run_id, "the check")
    except ValueError as error:
        text = str(error)
    ends = await asyncio.gather(*[step.run("end", part, step.run_id, n) for n in (1, 2, 3)])
    return {"caught": text, "ends": ends}


@job
async def strict(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = await step.run("first", part, step.run_id, 1)
    await step.run("check", refuse, step.run_id, "the order")
    return first


@job
async def quick(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    only: dict[str, Any] = await step.run("only", part, step.run_id, 1)
    return only


JOBS = (report, cautious, strict, quick)


@pytest.fixture
def old(tmp_path: Path, root: Path) -> Iterator[SqliteFile]:
    """The database, as the code of then left it."""
    ran.clear()
    allowed.clear()
    backend = SqliteFile(tmp_path)
    with sqlite3.connect(backend.path) as connection:
        connection.executescript((root / "tests" / "fixtures" / "schema-1.sql").read_text("utf-8"))
    connection.close()
    yield backend


def _world(backend: SqliteFile) -> World:
    world = World(backend)
    world.clock = ManualClock(LATER)
    return world


async def _migrate(backend: SqliteFile) -> None:
    executor = backend.connect()
    await executor.open()
    await Store(executor, ManualClock(LATER)).migrate()
    await executor.close()


def _rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that schema 1 has a place for, by table."""
    columns = {
        "durably_runs": "id, job_name, status, input, output, error, labels, progress, attempt, idempotency_key,"
        " concurrency_key, priority, run_at, created_at, started_at, completed_at, generation, lease_owner,"
        " lease_token, lease_expires_at",
        "durably_labels": "run_id, key, value",
        "durably_journal": "run_id, number, seq, generation, type, step_name, data, started_at, created_at, request_id",
    }
    connection = sqlite3.connect(path)
    found = {
        table: connection.execute(f"SELECT {names} FROM {table} ORDER BY 1, 2").fetchall()
        for table, names in columns.items()
    }
    connection.close()
    return found


def _migrated(rows: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """What the migrations change: a run that waits for its retry has not been started for that, and leases end."""
    started_at, lease = 14, 17

    def migrated(row: tuple[Any, ...]) -> tuple[Any, ...]:
        if row[0] == RUNS["retried"]:
            row = (*row[:started_at], None, *row[started_at + 1 :])
        return (*row[:2], "pending", *row[3:lease], None, None, None) if row[2] == "leased" else row

    return rows | {"durably_runs": [migrated(row) for row in rows["durably_runs"]]}


def _schema(path: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT type, name, trim(sql, char(10)) FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2"
    ).fetchall()
    connection.close()
    return rows


async def test_its_rows_are_as_they_were_and_its_schema_is_that_of_a_fresh_one(old: SqliteFile, tmp_path: Path) -> None:
    before = _rows(old.path)
    assert len(before["durably_runs"]) == len(RUNS)
    (tmp_path / "fresh").mkdir()
    fresh = SqliteFile(tmp_path / "fresh")
    for backend in (old, fresh):
        await _migrate(backend)
    assert _rows(old.path) == _migrated(before)
    assert _schema(old.path) == _schema(fresh.path)


async def test_every_run_in_flight_comes_to_its_end(old: SqliteFile) -> None:
    before = _rows(old.path)
    parts = [{"n": n, "note": "ü🦆", "nothing": None} for n in range(5)]
    refused = "the check is refused"
    async with _world(old) as world:
        durably = await world.started(*JOBS)
        ends = {name: await bounded(durably.wait_for_run(RUNS[name])) for name in IN_FLIGHT}
        assert ends["in the middle"].output == {"team": "ü", "parts": [*parts, refused]}
        assert ends["in parallel"].output == {"caught": refused, "ends": parts[1:4]}
        assert ends["again"].output == parts[1]
        assert ends["pending"].output == {"team": "h", "parts": [*parts, refused]}
        assert (ends["retried"].status, ends["retried"].error) == ("failed", "ValueError: the order is refused")
        # What was stored did not run again; a failure that was stored counts, unless the run was retried.
        assert ran == {
            **{(RUNS["in the middle"], what): 1 for what in (3, 4, "the check")},
            (RUNS["in parallel"], 3): 1,
            (RUNS["again"], 1): 1,
            **{(RUNS["pending"], what): 1 for what in (0, 1, 2, 3, 4, "the check")},
            (RUNS["retried"], "the order"): 1,
        }
        assert ends["in the middle"].progress == (5, 5, None)
        assert [line.message for line in await durably.get_logs(RUNS["in the middle"])] == ["begins"]
        assert (ends["in the middle"].attempt, ends["in parallel"].attempt) == (2, 2)
    after = _rows(old.path)
    ended = {RUNS[name] for name in ENDED} | {DELETED}
    for table, rows in before.items():
        found = [row for row in after[table] if row[0] in ended]
        assert found == [row for row in rows if row[0] in ended]
        if table == "durably_journal":
            assert set(rows) <= set(after[table]), "no entry was changed or lost"


async def test_what_had_ended_can_be_read_and_used(old: SqliteFile) -> None:
    async with _world(old) as world:
        durably = await world.started(*JOBS)
        runs = await durably.get_runs()
        assert [run.id for run in runs] == sorted(RUNS.values(), reverse=True)
        for run in runs:
            new = (run.run_at, run.wake_at, run.parent_run_id, run.forked_from)
            assert new == (None, None, None, None) and not run.paused
        [found] = await durably.get_runs(labels={"team": "ü"})
        assert found.id == RUNS["in the middle"]
        # Idempotency keys still lead to their runs.
        for name, registered, key in (("completed", quick, "sunday"), ("in the middle", report, "monday")):
            handle = await durably.trigger(registered, {"team": "z"}, idempotency_key=key)
            assert (handle.id, handle.disposition) == (RUNS[name], "idempotent")
        completed = await bounded(durably.wait_for_run(RUNS["completed"]))
        assert completed.output == {"n": 1, "note": "ü🦆", "nothing": None}
        first, check = await durably.get_steps(RUNS["failed"])
        assert (first.name, first.status, first.output) == ("first", "completed", completed.output)
        assert (check.name, check.status, check.error, check.attempt) == (
            "check",
            "failed",
            "ValueError: the order is refused",
            1,
        )
        told = [event.type async for event in durably.subscribe(RUNS["failed"])]
        assert told == ["run:trigger", "run:leased", "step:complete", "step:fail", "run:fail"]
        error = await raised(RunFailed, durably.output_of(RUNS["failed"]))
        assert "the order is refused" in str(error)
        # Retried, forked and triggered again.
        allowed.add("the order")
        await durably.retry(RUNS["failed"])
        assert (await bounded(durably.wait_for_run(RUNS["failed"]))).output == completed.output
        forked = await durably.fork(RUNS["cancelled in the middle"])
        assert (await bounded(durably.wait_for_run(forked.id))).output is not None
        assert [ran[forked.id, n] for n in range(5)] == [0, 0, 0, 1, 1]
        again = await durably.retrigger(RUNS["cancelled before"])
        assert (await bounded(durably.wait_for_run(again.id))).status == "completed"
        await durably.delete_run(RUNS["completed"])


async def test_the_time_of_a_run_that_was_retried_begins_with_its_retry(old: SqliteFile) -> None:
    """As for one that is retried now: not with its first claim, which was more than a minute ago."""
    allowed.add("the order")
    timed = Job(strict.fn, "strict", Options(timeout=60))
    async with _world(old) as world:
        durably = await world.started(report, cautious, timed, quick)
        run = await bounded(durably.wait_for_run(RUNS["retried"]))
        assert (run.status, run.error) == ("completed", None)


async def test_a_migration_that_breaks_off_leaves_it_as_it_was(old: SqliteFile) -> None:
    """At each of its statements, and then the whole of it goes through."""
    rows, before = _rows(old.path), _schema(old.path)
    statements = operations.apply_migration(2, LATER).batch.statements
    assert len(statements) == len(migrations.statements(2)) + 1
    for count in range(1, len(statements) + 1):
        connection = sqlite3.connect(old.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        for sql, params in statements[:count]:
            connection.execute(sql, params)
        # The process dies: nothing says rollback.
        connection.close()
        assert (_rows(old.path), _schema(old.path)) == (rows, before)
        assert _version(old.path) == 1
    await _migrate(old)
    assert _rows(old.path) == _migrated(rows)
    assert _version(old.path) == migrations.LATEST


def _version(path: Path) -> int:
    connection = sqlite3.connect(path)
    [(version,)] = connection.execute(schema.READ_SCHEMA_VERSION)
    connection.close()
    assert isinstance(version, int)
    return version
