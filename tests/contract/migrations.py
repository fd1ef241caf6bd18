"""How a database comes to the schema: from any version, in whole steps, and never from a newer one."""

from __future__ import annotations

import asyncio
from typing import Any

from durably_web.clock import ManualClock
from durably_web.engine import Durably
from durably_web.errors import SchemaTooNew, StoreError, StoreUnavailable
from durably_web.store import migrations, operations
from durably_web.store.batch import Batch, Executor, Row, Statement
from durably_web.store.operations import schema
from durably_web.store.store import Store
from tests.contract import Backend
from tests.support.executors import CountingExecutor, Fault, FaultyExecutor
from tests.support.world import bounded, raised

_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name GLOB '*durably*' ORDER BY 1, 2"


async def _open(backend: Backend) -> Executor:
    executor = backend.connect()
    await executor.open()
    return executor


async def _schema(executor: Executor) -> list[Row]:
    [rows] = await executor.run(Batch("read", (Statement(_SCHEMA),)))
    return rows


async def _versions(executor: Executor) -> list[Any]:
    [rows] = await executor.run(Batch("read", (Statement("SELECT version FROM durably_schema ORDER BY 1"),)))
    return [row[0] for row in rows]


async def _drop(executor: Executor) -> None:
    tables = [str(row[1]) for row in await _schema(executor) if row[0] == "table"]
    await executor.run(Batch("write", tuple(Statement(f"DROP TABLE IF EXISTS {name}") for name in tables)))


async def a_fresh_database_equals_one_that_went_step_by_step(backend: Backend) -> None:
    executor = await _open(backend)
    await Store(executor, ManualClock()).migrate()
    fresh = await _schema(executor)
    assert await _versions(executor) == list(range(1, migrations.LATEST + 1))
    await _drop(executor)
    assert await _schema(executor) == []
    await executor.run(operations.create_schema_table().batch)
    for version in range(1, migrations.LATEST + 1):
        await executor.run(operations.apply_migration(version, 0).batch)
        await Store(executor, ManualClock()).migrate()
    assert await _schema(executor) == fresh
    assert len(fresh) >= 7
    await executor.close()


async def a_database_that_is_up_to_date_is_only_read(backend: Backend) -> None:
    executor = CountingExecutor(await _open(backend))
    await Store(executor, ManualClock()).migrate()
    executor.batches.clear()
    await Store(executor, ManualClock()).migrate()
    assert [batch.mode for batch in executor.batches] == ["read", "read"]
    await executor.close()


async def a_newer_schema_is_refused_and_left_alone(backend: Backend) -> None:
    executor = await _open(backend)
    await Store(executor, ManualClock()).migrate()
    newer = migrations.LATEST + 1
    await executor.run(Batch("write", (Statement(schema.RECORD_MIGRATION, (newer, 0)),)))
    before = await _schema(executor)
    durably = Durably(backend.connect())
    for _ in range(2):
        error = await raised(SchemaTooNew, durably.init())
        assert str(newer) in str(error) and "update durably_web" in str(error)
        await raised(StoreUnavailable, durably.get_runs()) if "busy" in backend.has else None
    assert await _schema(executor) == before
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


async def a_migration_that_fails_leaves_the_version_before(backend: Backend) -> None:
    """At each of its statements, and also when the process dies in the middle of the series."""
    executor = await _open(backend)
    for version in range(1, migrations.LATEST + 1):
        await _drop(executor)
        await executor.run(operations.create_schema_table().batch)
        for earlier in range(1, version):
            await executor.run(operations.apply_migration(earlier, 0).batch)
        before = await _schema(executor)
        whole = operations.apply_migration(version, 0).batch.statements
        for index in range(len(whole)):
            broken = (*whole[: index + 1], Statement("CREATE TABLE durably_schema (no)"))
            await raised(StoreError, executor.run(Batch("write", broken)))
            assert await _schema(executor) == before
            assert await _versions(executor) == list(range(1, version))
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
            assert await executor.run(operations.get_runs().batch) == [[]]
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
