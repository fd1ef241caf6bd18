"""A newer durably_web has the database: what an older process may still do with it, and that it says so."""

from __future__ import annotations

import asyncio
from typing import Any

from durably_web.clock import ManualClock
from durably_web.engine import Durably
from durably_web.errors import SchemaTooNew
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store import migrations
from durably_web.store.batch import Batch, Executor, Statement
from durably_web.store.migrations.m0004_months import REVOKED
from durably_web.store.operations import schema
from durably_web.store.store import Store
from tests.contract import Backend
from tests.support.newer import newer
from tests.support.store_registry import REGISTRY
from tests.support.store_scene import dump, set_scene
from tests.support.world import Gate, Heard, World, bounded, raised, turns, until

gate = Gate()
ran: list[str] = []


def _ran(name: str) -> str:
    ran.append(name)
    return name


@job
async def works(step: Step, input: dict[str, Any]) -> list[str]:
    first = await step.run("first", _ran, "first")
    held = await step.run("held", gate.wait, "held")
    return [first, held, await step.run("last", _ran, "last")]


@job
async def listens(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("go")


@job
async def quick(step: Step, input: dict[str, Any]) -> str:
    return await step.run("only", _ran, "only")


JOBS = (works, listens, quick)


def _begin() -> None:
    global gate
    gate = Gate()
    ran.clear()


async def _record_newer(executor: Executor) -> int:
    version = migrations.LATEST + 1
    await executor.run(Batch("write", (Statement(schema.RECORD_MIGRATION, (version, 0)),)))
    return version


async def _writes(durably: Durably, run_id: str, ended: str) -> None:
    """Everything that would change something raises, and says what to do."""
    for write in (
        durably.trigger(quick),
        durably.trigger(quick, idempotency_key="k", concurrency_key="c", labels={"a": "b"}),
        durably.trigger_many(quick, [{"input": {}}, {"input": {}}]),
        durably.cancel(run_id),
        durably.signal(run_id, "go", 1),
        durably.pause(run_id),
        durably.resume(run_id),
        durably.pause_job(quick),
        durably.resume_job(quick),
        durably.retry(ended),
        durably.retrigger(ended),
        durably.fork(ended),
        durably.delete_run(ended),
        durably.cancel_runs(job=quick.name),
        durably.purge_runs(older_than=0),
        durably.process_one(),
    ):
        error = await raised(SchemaTooNew, write)
        assert "update durably_web" in str(error) and "only reads" in str(error), error


async def every_write_does_nothing_once_the_schema_is_newer(backend: Backend) -> None:
    """What no lease fences is refused; and what one fences finds that every lease has ended with the migration."""
    executor = backend.connect()
    await executor.open()
    await Store(executor, ManualClock()).migrate()
    seen: set[str] = set()
    await _record_newer(executor)
    for ways in REGISTRY.values():
        for way in ways:
            operation = way()
            if operation.batch.mode == "read" or operation.name in ("create_schema_table", "apply_migration"):
                continue
            await set_scene(executor)
            await executor.run(Batch("write", (Statement(REVOKED),)))
            before = await dump(executor)
            store = Store(executor, ManualClock())
            if operation.name in schema.FENCED:
                await store.write(operation)
            else:
                await raised(SchemaTooNew, store.write(operation))
                assert store.too_new is not None
            assert await dump(executor) == before, operation
            seen.add(operation.name)
    assert {"trigger", "claim", "cancel", "signal", "write_entries", "store_refusals"} <= seen
    assert seen >= schema.FENCED
    await executor.close()


async def writes_that_share_a_transaction_are_refused_too(backend: Backend) -> None:
    executor = backend.connect()
    await executor.open()
    store = Store(executor, ManualClock())
    await store.migrate()
    await set_scene(executor)
    await executor.run(Batch("write", (Statement(REVOKED),)))
    await _record_newer(executor)
    before = await dump(executor)
    store.writers = 2
    fenced = REGISTRY["write_entries"][0]()
    asked = [REGISTRY["trigger"][0](), fenced, REGISTRY["pause_job"][0](), fenced]
    outcomes = await bounded(asyncio.gather(*[store.write(one) for one in asked], return_exceptions=True))
    assert [type(one) for one in outcomes] == [SchemaTooNew, type(None), SchemaTooNew, type(None)], outcomes
    assert await dump(executor) == before
    await store.close()


async def a_newer_database_is_opened_to_be_read(backend: Backend) -> None:
    _begin()
    async with World(backend) as world:
        durably = await world.engine(*JOBS)
        ended = await durably.trigger(quick, {"n": 1}, labels={"a": "b"})
        await bounded(durably.process_one())
        pending = await durably.trigger(quick)
        await durably.stop()
        assert durably.read_only is None
        executor = world.executor()
        await executor.open()
        version = await _record_newer(executor)
        before = await dump(executor)
        old = Durably(world.executor(), jobs=JOBS, clock=world.clock, retain_runs=1)
        heard = Heard(old, "worker:error")
        for _ in range(2):
            await old.init()
            [event] = heard.events
            assert event.error is not None and event.error.startswith("SchemaTooNew: ")
            assert str(version) in event.error and event.context == "the database is only read from now on"
            assert old.read_only is not None and str(version) in old.read_only
        await world.advance(5)
        assert [run.status for run in await old.get_runs()] == ["pending", "completed"], "nothing is claimed"
        run = await bounded(old.wait_for_run(ended.id))
        assert (run.output, run.labels) == ("only", {"a": "b"})
        assert [step.output for step in await old.get_steps(ended.id)] == ["only"]
        assert await old.get_logs(ended.id) == []
        assert (await old.get_events(ended.id)).events[-1].type == "run:complete"
        assert (await old.stats()).to_wire()
        await old.check_health()
        await _writes(old, pending.id, ended.id)
        assert await dump(executor) == before
        assert len(heard.events) == 1, "it is said once"
        await old.stop()
        # The same engine, once its database is one that it knows again.
        await executor.run(Batch("write", (Statement("DELETE FROM durably_schema WHERE version = ?", (version,)),)))
        await old.init()
        assert old.read_only is None
        assert await bounded(old.output_of(pending.id)) == "only"
        await old.stop()
        await executor.close()


async def an_engine_that_was_there_before_a_migration_writes_nothing_after_it(backend: Backend) -> None:
    """Its runs go on in the newer one, and what its steps come to is dropped."""
    _begin()
    async with World(backend) as world:
        old = await world.started(*JOBS)
        heard = Heard(old)
        ended = await old.trigger(quick)
        await bounded(ended.result())
        held, waits = await old.trigger(works), await old.trigger(listens)
        delayed = await old.trigger(quick, delay=3600)
        await bounded(gate.reached())
        await until(lambda: "run:waiting" in heard.types)
        with newer():
            new = await world.engine(*JOBS)
        executor = world.executor()
        await executor.open()
        before = await dump(executor)
        # The step that it was executing ends now, unless it has learned of it already.
        gate.open()
        await world.advance(2)
        await until(lambda: old.read_only)
        await _writes(old, waits.id, ended.id)
        await world.advance(60)
        assert await dump(executor) == before
        assert not old._worker._executing and ran == ["only", "first"]
        [told] = [event for event in heard.of("worker:error") if "SchemaTooNew" in (event.error or "")]
        assert told.context == "the database is only read from now on"
        # All of it goes on in the new one; the old one sees it.
        await new.start()
        watched = asyncio.ensure_future(old.wait_for_run(held.id))
        assert await bounded(new.output_of(held.id)) == ["first", "held", "last"]
        assert ran == ["only", "first", "last"] and gate.arrived == 2
        await new.signal(waits.id, "go", "went")
        assert await bounded(new.output_of(waits.id)) == "went"
        await new.cancel(delayed.id)
        await world.advance(2)
        assert (await bounded(watched)).output == ["first", "held", "last"]
        assert {run.id: run.status for run in await old.get_runs()}[delayed.id] == "cancelled"
        await executor.close()


async def an_engine_that_only_triggers_learns_it_with_the_next_trigger(backend: Backend) -> None:
    async with World(backend) as world:
        old = await world.engine(*JOBS)
        heard = Heard(old, "worker:error")
        first = await old.trigger(quick)
        with newer():
            new = await world.engine(*JOBS)
        for _ in range(2):
            await raised(SchemaTooNew, old.trigger(quick))
        await raised(SchemaTooNew, old.trigger_many(quick, [{"input": {}}]))
        await turns()
        assert len(heard.events) == 1 and old.read_only
        assert [run.id for run in await new.get_runs()] == [first.id]
        assert [run.id for run in await old.get_runs()] == [first.id]
        # It stays so when it opens the database again.
        await old.stop()
        await old.init()
        assert old.read_only and len(await old.get_runs()) == 1
        await world.advance(2)
        assert not old._worker._executing


async def migrations_keep_the_rules(backend: Backend) -> None:
    """Older code can read what is there after it, and holds no lease any more."""
    assert migrations.LATEST >= 4
    for version in range(4, migrations.LATEST + 1):
        found = migrations.statements(version)
        assert REVOKED in found, f"migration {version} leaves leases as they are"
        for sql in found:
            assert not any(word in sql.upper() for word in ("DROP TABLE", "DROP COLUMN", "RENAME")), sql
