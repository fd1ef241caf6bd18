"""A database of each earlier schema, with runs in flight, is taken up where it was left.

More of version 1 is in `test_schema_1.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durably_web.clock import ManualClock
from durably_web.store import migrations, operations
from durably_web.store.operations import schema
from durably_web.store.store import Store
from tests.support import upgrade_jobs
from tests.support.backends import SqliteFile
from tests.support.upgrade_jobs import JOBS, ran
from tests.support.world import World, bounded

VERSIONS = (1, 2, 3)

RUNS = {
    "completed": "01HF7YAT000000000000000000",
    "failed": "01HF7YAVYG0000000000000002",
    "cancelled": "01HF7YAXX00000000000000003",
    "asleep": "01HF7YB0TR0000000000000006",
    "listening": "01HF7YB1T00000000000000007",
    "parent": "01HF7YB3RG0000000000000008",
    "rated first": "01HF7YB5Q00000000000000007",
    "rated second": "01HF7YB6P80000000000000009",
    "holder": "01HF7YB7NG0000000000000008",
    "behind 1": "01HF7YB8MR000000000000000B",
    "behind 2": "01HF7YB9M00000000000000009",
    "retried run": "01HF7YBAK8000000000000000B",
    "retried step": "01HF7YBBJG000000000000000B",
    "delayed": "01HF7YBEG8000000000000000C",
    "burst": "01HF7YBFFG000000000000000C",
    "paused": "01HF7YBGER000000000000000E",
    "fork": "01HF7YBJD8000000000000000D",
    "in the middle": "01HF7YBKCG000000000000000E",
    "in parallel": "01HF7YCWD0000000000000000H",
    "listens on": "01HF7YCXC8000000000000000G",
    "pending": "01HF7YD0G8000000000000000J",
}
DELETED = "01HF7YAYW80000000000000007"
# The ids of version 3 are others where a request had none before.
HELD_BACK = {2: "01HF7YBDH0000000000000000B", 3: "01HF7YBDH0000000000000000C"}

# Half a minute after the last entry: leases would hold still.
LATER = 1_700_000_073_200 + 1_000

_LINE = {"part": "0", "part#2": "1", "part#3": "2", "part#4": "3", "check": "the check", "last": "last"}
_NAP = {"before": "before", "after": "after"}
# What the functions of each job's steps are called with.
WORK = {
    "line": _LINE,
    "fan": {"leaf": "leaf 0", "leaf#2": "leaf 1", "leaf#3": "leaf 2", "leaf#4": "leaf 3"},
    "sleeps": _NAP,
    "listens": {"between": "between"},
    "parent": {"before": "before"},
    "rated": {"only": "only"},
    "held_back": {"only": "only"},
    "retried": {"first": "first", "then": "the run"},
    "tries": {"try": "the step"},
}


@pytest.fixture(autouse=True)
def _nothing_has_run() -> Iterator[None]:
    ran.clear()
    assert not upgrade_jobs.held and not upgrade_jobs.refused
    yield
    ran.clear()


def _old(root: Path, folder: Path, version: int) -> SqliteFile:
    """The database, as the code of then left it."""
    folder.mkdir(exist_ok=True)
    backend = SqliteFile(folder)
    with closing(sqlite3.connect(backend.path)) as connection:
        connection.executescript((root / "tests" / "fixtures" / f"schema-{version}.sql").read_text("utf-8"))
        assert connection.execute(schema.READ_SCHEMA_VERSION).fetchone() == (version,)
    return backend


async def _migrate(backend: SqliteFile) -> None:
    executor = backend.connect()
    await executor.open()
    await Store(executor, ManualClock(LATER)).migrate()
    await executor.close()


def _ask(path: Path, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, params).fetchall()


def _schema(path: Path) -> list[tuple[Any, ...]]:
    return _ask(path, "SELECT type, name, trim(sql, char(10)) FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2")


def _tables(path: Path) -> dict[str, list[str]]:
    """The columns of each table."""
    names = [
        row[0] for row in _ask(path, "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'durably*'")
    ]
    return {
        name: [row[1] for row in _ask(path, f"PRAGMA table_info({name})")] for name in names if name != "durably_schema"
    }


def _rows(path: Path, tables: dict[str, list[str]]) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for name, columns in tables.items():
        rows = _ask(path, f"SELECT {', '.join(columns)} FROM {name}")
        found[name] = sorted([dict(zip(columns, row, strict=True)) for row in rows], key=repr)
    return found


def _without_leases(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ended = {"status": "pending", "lease_owner": None, "lease_token": None, "lease_expires_at": None}
    return sorted([row | ended if row["status"] == "leased" else row for row in rows], key=repr)


@pytest.mark.parametrize("version", VERSIONS)
async def test_nothing_but_leases_is_changed_and_the_schema_is_that_of_a_fresh_one(
    version: int, root: Path, tmp_path: Path
) -> None:
    old, fresh = _old(root, tmp_path / "old", version), SqliteFile(tmp_path)
    tables = _tables(old.path)
    before = _rows(old.path, tables)
    assert {"leased", "pending", "completed", "failed"} <= {row["status"] for row in before["durably_runs"]}
    await _migrate(fresh)
    await _migrate(old)
    after = _rows(old.path, tables)
    if version == 1:
        # A run that waits for its retry has not been started for that.
        for rows in (before, after):
            for row in rows["durably_runs"]:
                row["started_at"] = None if row["status"] == "pending" else row["started_at"]
        after["durably_runs"] = [row | {"started_at": 0} for row in after["durably_runs"]]
        before["durably_runs"] = [row | {"started_at": 0} for row in before["durably_runs"]]
    assert after == before | {"durably_runs": _without_leases(before["durably_runs"])}
    assert after != before
    assert _schema(old.path) == _schema(fresh.path)
    assert _ask(old.path, schema.READ_SCHEMA_VERSION) == [(migrations.LATEST,)]


@pytest.mark.parametrize("version", [2, 3])
async def test_every_run_in_flight_comes_to_its_end_and_nothing_runs_twice(
    version: int, root: Path, tmp_path: Path
) -> None:
    old = _old(root, tmp_path, version)
    jobs = dict(_ask(old.path, "SELECT id, job_name FROM durably_runs"))
    ended = {row[0] for row in _ask(old.path, "SELECT id FROM durably_runs WHERE completed_at IS NOT NULL")}
    stored = set(_ask(old.path, "SELECT run_id, step_name FROM durably_journal WHERE type = 'step:complete'"))
    journal = set(_ask(old.path, "SELECT seq, run_id, number, type, step_name, data FROM durably_journal"))
    world = World(old)
    world.clock = ManualClock(LATER)
    async with world:
        durably = await world.started(*JOBS)
        await durably.signal(RUNS["listening"], "go", 2)
        # All that needs neither time nor anybody: no lease is waited for.
        for name in ("in the middle", "listens on", "pending", "fork", "listening"):
            assert (await bounded(durably.wait_for_run(RUNS[name]))).status == "completed", name
        for name in ("paused", "in parallel"):
            run = await durably.get_run(RUNS[name])
            assert run is not None and run.paused and run.status == "pending", name
            await durably.resume(RUNS[name])
            assert (await bounded(durably.wait_for_run(RUNS[name]))).status == "completed", name
        run = await durably.get_run(HELD_BACK[version])
        assert run is not None and run.status == "pending"
        await durably.resume_job(upgrade_jobs.held_back)
        await bounded(durably.wait_for_run(HELD_BACK[version]))
        for name in ("asleep", "parent", "rated second", "holder", "behind 1", "delayed"):
            run = await durably.get_run(RUNS[name])
            assert run is not None and not run.is_terminal, name
        await world.advance(3 * 3600, step=60)
        runs = {run.id: run for run in await durably.get_runs(limit=1000)}
        assert {run.status for run_id, run in runs.items() if run_id not in ended} == {"completed"}
        expected = {
            (run_id, what): 1
            for run_id, job_name in jobs.items()
            for step_name, what in WORK[job_name].items()
            if run_id not in ended and (run_id, step_name) not in stored
        }
        assert dict(ran) == expected
        assert len(expected) > 30 and len(ended) == 5
        outputs = {name: runs[run_id].output for name, run_id in RUNS.items() if run_id in runs}
        nap = ["before ü🦆", "after ü🦆"]
        assert outputs["asleep"] == outputs["holder"] == outputs["behind 1"] == nap
        assert outputs["parent"] == ["before ü🦆", nap]
        assert (outputs["listening"], outputs["listens on"]) == ([{"first": "ü"}, 2], [1, 2])
        assert outputs["in the middle"] == [f"{what} ü🦆" for what in ("0", "1", "2", "3", "last")]
        assert outputs["in parallel"] == outputs["burst"] == [f"leaf {n} ü🦆" for n in range(4)]
        assert runs[RUNS["burst"]].input == {"n": 2}
        assert runs[RUNS["completed"]].output == outputs["in the middle"]
        handle = await durably.trigger(upgrade_jobs.line, {"tag": "a"}, idempotency_key="monday")
        assert (handle.id, handle.disposition) == (RUNS["completed"], "idempotent")
    now = set(_ask(old.path, "SELECT seq, run_id, number, type, step_name, data FROM durably_journal"))
    assert journal <= now, "no entry was changed or lost"


async def test_what_version_3_reads_is_there_as_it_was(root: Path, tmp_path: Path) -> None:
    """The statements of its reads, on a database that has been migrated under it."""
    reads = json.loads((root / "tests" / "fixtures" / "reads-3.json").read_text("utf-8"))
    assert len(reads) > 40 and {"get_runs", "get_steps", "read_events", "stats"} <= {
        read["operation"] for read in reads
    }
    old = _old(root, tmp_path, 3)
    with closing(sqlite3.connect(old.path)) as connection:
        # As the one difference: leases end.
        for sql in migrations.statements(4):
            if sql.strip().startswith("UPDATE durably_runs SET status = 'pending', lease_owner"):
                connection.execute(sql)
        connection.commit()
        before = [connection.execute(read["sql"], read["params"]).fetchall() for read in reads]
    assert sum(map(len, before)) > 100
    await _migrate(old)
    with closing(sqlite3.connect(old.path)) as connection:
        for read, rows in zip(reads, before, strict=True):
            assert connection.execute(read["sql"], read["params"]).fetchall() == rows, read["operation"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_migration_that_breaks_off_leaves_it_as_it_was(version: int, root: Path, tmp_path: Path) -> None:
    """At each of its statements, and then the whole of it goes through."""
    old = _old(root, tmp_path, version)
    tables = _tables(old.path)
    rows, before = _rows(old.path, tables), _schema(old.path)
    statements = operations.apply_migration(version + 1, LATER).batch.statements
    for count in range(1, len(statements) + 1):
        with closing(sqlite3.connect(old.path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for sql, params in statements[:count]:
                connection.execute(sql, params)
            # The process dies: nothing says commit.
        assert (_rows(old.path, tables), _schema(old.path)) == (rows, before)
        assert _ask(old.path, schema.READ_SCHEMA_VERSION) == [(version,)]
    await _migrate(old)
    assert _ask(old.path, schema.READ_SCHEMA_VERSION) == [(migrations.LATEST,)]
