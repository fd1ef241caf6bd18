"""How a database comes to the schema: from any version, in whole steps, and never from a newer one."""

from __future__ import annotations

import asyncio
from typing import Any

from durably_web.clock import ManualClock
from durably_web.codec import JsonCodec
from durably_web.engine import Durably
from durably_web.errors import StoreError, StoreUnavailable
from durably_web.store import migrations, operations
from durably_web.store.batch import Batch, Executor, Row, Statement
from durably_web.store.operations import Filter, schema
from durably_web.store.store import Store
from tests.contract import Backend
from tests.support.catalog import catalog, tables
from tests.support.executors import CountingExecutor, Fault, FaultyExecutor
from tests.support.invariants import check_invariants
from tests.support.world import bounded, raised


async def _open(backend: Backend) -> Executor:
    executor = backend.connect()
    await executor.open()
    return executor


async def _versions(executor: Executor) -> list[Any]:
    [rows] = await executor.run(Batch("read", (Statement("SELECT version FROM durably_schema ORDER BY 1"),)))
    return [row[0] for row in rows]


async def _drop(executor: Executor) -> None:
    statements: list[Any] = [f"DROP TABLE IF EXISTS {name}" for name in await tables(executor)]
    await executor.run(Batch("write", tuple(Statement(sql) for sql in statements)))


async def a_fresh_database_equals_one_that_went_step_by_step(backend: Backend) -> None:
    executor = await _open(backend)
    await Store(executor, ManualClock()).migrate()
    fresh = await catalog(executor)
    assert await _versions(executor) == list(range(1, migrations.LATEST + 1))
    for earlier in range(1, migrations.LATEST + 1):
        await _drop(executor)
        assert await catalog(executor) == []
        await executor.run(operations.create_schema_table().batch)
        for version in range(1, earlier + 1):
            await executor.run(operations.apply_migration(version, 0).batch)
        await Store(executor, ManualClock()).migrate()
        assert await catalog(executor) == fresh
        assert await _versions(executor) == list(range(1, migrations.LATEST + 1))
    assert len(fresh) >= 7
    await executor.close()


async def a_database_that_is_up_to_date_is_only_read(backend: Backend) -> None:
    executor = CountingExecutor(await _open(backend))
    await Store(executor, ManualClock()).migrate()
    executor.batches.clear()
    await Store(executor, ManualClock()).migrate()
    assert [batch.mode for batch in executor.batches] == ["read", "read"]
    await executor.close()


async def a_newer_schema_is_left_alone(backend: Backend) -> None:
    executor = await _open(backend)
    await Store(executor, ManualClock()).migrate()
    newer = migrations.LATEST + 1
    await executor.run(Batch("write", (Statement(schema.RECORD_MIGRATION, (newer, 0)),)))
    before = await catalog(executor)
    durably = Durably(backend.connect())
    for _ in range(2):
        await durably.init()
        assert durably.read_only is not None and str(newer) in durably.read_only
        assert "update durably_web" in durably.read_only
        assert await durably.get_runs() == []
    assert await catalog(executor) == before
    assert await _versions(executor) == list(range(1, newer + 1))
    await durably.stop()
    await executor.close()


async def two_engines_may_migrate_at_once(backend: Backend) -> None:
    executors = [await _open(backend) for _ in range(5)]
    stores = [Store(_Slow(executor), ManualClock()) for executor in executors]
    await bounded(asyncio.gather(*[store.migrate() for store in stores]))
    assert await _versions(executors[0]) == list(range(1, migrations.LATEST + 1))
    for executor in executors:
        await executor.close()


# A run in each state that version 1 has, with all that may be stored of it.
_OF_VERSION_1 = (
    """
    INSERT INTO durably_runs (id, job_name, status, input, output, error, labels, attempt, idempotency_key,
                                        created_at, started_at, completed_at, generation, lease_owner,
                                        lease_token, lease_expires_at)
    VALUES ('1', 'job', 'pending', '{}', NULL, NULL, '{"a":"b"}', 0, 'key', 1, NULL, NULL, 0, NULL, NULL, NULL),
           ('2', 'job', 'leased', '{}', NULL, NULL, '{}', 1, NULL, 1, 1, NULL, 1, 'w', 't', 9),
           ('3', 'job', 'completed', '{}', '7', NULL, '{"a":"ü"}', 1, NULL, 1, 1, 1, 1, NULL, NULL, NULL),
           ('4', 'job', 'failed', '{}', NULL, 'E: e', '{}', 1, NULL, 1, 1, 1, 1, NULL, NULL, NULL),
           ('5', 'job', 'cancelled', '{}', NULL, NULL, '{}', 0, NULL, 1, NULL, 1, 0, NULL, NULL, NULL)
    ON CONFLICT DO NOTHING
    """,
    "INSERT INTO durably_labels (key, value, run_id) VALUES ('a', 'b', '1'), ('a', 'ü', '3') ON CONFLICT DO NOTHING",
    """
    INSERT INTO durably_journal (run_id, number, generation, type, step_name, data, created_at, request_id)
    SELECT id, 1, 0, 'run:trigger', NULL, NULL, 1, NULL FROM durably_runs
    UNION ALL SELECT id, 2, 1, 'run:leased', NULL, '{"workerId":"w","attempt":1}', 1, NULL
    FROM durably_runs WHERE generation = 1
    UNION ALL SELECT id, 3, 1, 'step:complete', 'one', '1', 1, NULL FROM durably_runs WHERE status = 'leased'
    UNION ALL SELECT id, 3, 1, 'run:complete', NULL, NULL, 1, NULL FROM durably_runs WHERE status = 'completed'
    UNION ALL SELECT id, 3, 1, 'run:fail', NULL, '{"error":"E: e"}', 1, NULL FROM durably_runs WHERE status = 'failed'
    UNION ALL SELECT id, 2, 0, 'run:cancel', NULL, NULL, 1, 'q' FROM durably_runs WHERE status = 'cancelled'
    ON CONFLICT DO NOTHING
    """,
)


async def _fill(executor: Executor) -> None:
    await executor.run(Batch("write", tuple(Statement(sql) for sql in _OF_VERSION_1)))


async def _rows(executor: Executor) -> list[list[Row]]:
    """The rows of the tables of version 1, whatever columns they have by now."""
    names = ("durably_runs", "durably_labels", "durably_journal")
    return [
        sorted(rows, key=repr)
        for rows in await executor.run(Batch("read", tuple(Statement(f"SELECT * FROM {name}") for name in names)))
    ]


# Each migration from this one on ends all leases: a run that was leased is pending after it.
_ENDS_LEASES = 4


def _without_lease(row: Row) -> Row:
    """A run's row of version 1, as a migration leaves it that ends all leases."""
    return row if row[2] != "leased" else (*row[:2], "pending", *row[3:17], None, None, None)


async def a_migration_that_fails_leaves_the_version_before(backend: Backend) -> None:
    """At each of its statements, with runs in the database; and when the process dies in the middle of the series."""
    executor = await _open(backend)
    for version in range(1, migrations.LATEST + 1):
        await _drop(executor)
        await executor.run(operations.create_schema_table().batch)
        for earlier in range(1, version):
            await executor.run(operations.apply_migration(earlier, 0).batch)
            if earlier == 1:
                await _fill(executor)
        before = await catalog(executor)
        rows = await _rows(executor) if version > 1 else []
        whole = operations.apply_migration(version, 0).batch.statements
        for index in range(len(whole)):
            broken = (*whole[: index + 1], Statement("CREATE TABLE durably_schema (no)"))
            await raised(StoreError, executor.run(Batch("write", broken)))
            assert await catalog(executor) == before
            assert await _versions(executor) == list(range(1, version))
            assert version == 1 or await _rows(executor) == rows
        await executor.run(Batch("write", whole))
        # New columns come to the end of a row; what it had stays as it was, but for a lease.
        if rows and version >= _ENDS_LEASES:
            leased, rows[0] = rows[0], sorted([(*_without_lease(row[:20]), *row[20:]) for row in rows[0]], key=repr)
            assert version > _ENDS_LEASES or rows[0] != leased
        for old, new in zip(rows, await _rows(executor), strict=False):
            assert [row[: len(before)] for row, before in zip(new, old, strict=True)] == old
    await check_invariants(executor)
    faults: tuple[Fault, ...] = ("before", "after")
    for fault in faults:
        for at in range(1, 4 + migrations.LATEST):
            await _drop(executor)
            faulty = FaultyExecutor(executor, fault, at)
            store = Store(faulty, ManualClock())
            try:
                await store.migrate()
            except StoreUnavailable:
                assert faulty.fell
            await Store(executor, ManualClock()).migrate()
            assert await _versions(executor) == list(range(1, migrations.LATEST + 1))
            assert await executor.run(operations.get_runs(Filter(), JsonCodec()).batch) == [[]]
    await executor.close()


async def an_engine_that_cannot_migrate_can_try_again(backend: Backend) -> None:
    faulty = FaultyExecutor(backend.connect(), "before", 3)
    durably = Durably(faulty, clock=ManualClock())
    await raised(StoreUnavailable, durably.init())
    await durably.init()
    assert await durably.get_runs() == []
    await durably.stop()


class _Slow(CountingExecutor):
    async def run(self, batch: Batch) -> Any:
        await asyncio.sleep(0)
        results = await super().run(batch)
        await asyncio.sleep(0)
        return results
