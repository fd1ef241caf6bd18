"""What every operation of the store promises: one crossing, harmless when sent twice, fenced, and by an index."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterator
from typing import Any, cast

from durably_web.clock import ManualClock
from durably_web.errors import ConstraintViolated, StoreUnavailable
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store import migrations, operations
from durably_web.store.batch import Batch, Executor, Operation, Statement
from durably_web.store.operations import claiming, reading, requests, schema
from durably_web.store.store import Store
from tests.contract import Backend
from tests.support.catalog import is_postgres, tables
from tests.support.executors import CountingExecutor, FaultyExecutor, HeldExecutor, NarrowExecutor
from tests.support.invariants import check_invariants
from tests.support.store_registry import CODEC, REGISTRY
from tests.support.store_scene import (
    NOW,
    TABLES,
    claim,
    claim_run,
    dump,
    set_scene,
    touched,
    trigger,
)
from tests.support.store_sent import LATE, TOUCHED, lasting, writes_of_an_owner
from tests.support.world import World, bounded, raised, turns

# What a worker does again and again, with a statement for each turn, step or run; and requests about single runs.
REPEATED = (
    "trigger",
    "trigger_many",
    "retrigger",
    "fork",
    "claim",
    "renew_leases",
    "other_owners",
    "free_leases_of",
    "write_entries",
    "finish_run",
    "suspend_run",
    "release_run",
    "open_signals",
    "child_outcome",
    "holders_among_ancestors",
    "undos_of",
    "pending_of",
    "signal",
    "pause",
    "resume",
    "pause_job",
    "resume_job",
    "store_refusals",
    "find_answer",
    "store_answer",
    "cancel",
    "retry",
    "delete_runs",
    "offer_run",
    "settle_handover",
    "import_run",
    "decline_handover",
    "next_schedules",
    "next_tick",
    "outlook",
    "put_schedule",
    "pause_schedule",
    "resume_schedule",
    "remove_schedule",
    "trigger_schedule",
    "fire_schedule",
    "correct_schedule",
    "get_run",
    "get_steps",
    "get_whole",
    "get_head",
    "get_input",
    "journal_page",
    "payloads_page",
    "get_logs",
    "read_events",
)


async def every_operation_is_in_the_registry(backend: Backend) -> None:
    functions = {name: getattr(operations, name) for name in operations.__all__}
    found = {
        name
        for name, function in functions.items()
        if inspect.isfunction(function) and "Operation[" in str(function.__annotations__.get("return"))
    }
    assert found == set(REGISTRY)
    for name, ways in REGISTRY.items():
        assert all(way().name == name for way in ways)


async def every_table_is_compared(backend: Backend) -> None:
    executor = await _open(backend)
    assert set(await tables(executor)) == set(TABLES)
    await set_scene(executor)
    assert all((await dump(executor)).values()), "and has rows in the scene"
    await executor.close()


async def every_operation_is_one_crossing(backend: Backend) -> None:
    counting = CountingExecutor(await _open(backend))
    store = Store(counting, ManualClock())
    for operation in _each():
        await set_scene(counting.inner)
        counting.batches.clear()
        await (store.read if operation.batch.mode == "read" else store.write)(operation)
        assert len(counting.batches) == 1, operation.name
    await counting.close()


async def what_is_read_in_pages_is_what_is_read_at_once(backend: Backend) -> None:
    executor = await _open(backend)
    await set_scene(executor)
    at_once, in_pages = Store(executor, ManualClock()), Store(NarrowExecutor(executor), ManualClock())
    paged = [operation for operation in _each() if operation.in_pages is not None]
    for operation in paged:
        assert operation.in_pages is not None
        whole = await at_once.read(operation)
        assert await operation.in_pages(at_once.read) == whole, operation
        assert await operation.in_pages(in_pages.read) == whole, operation
    assert {operation.name for operation in paged} == {
        *("get_runs", "get_steps", "get_logs", "get_whole", "read_events", "open_signals", "undos_of", "get_schedules")
    }
    await executor.close()


async def every_operation_sent_twice_has_the_effect_and_the_outcome_of_one(backend: Backend) -> None:
    executor = await _open(backend)
    for operation in _each():
        await set_scene(executor)
        before = await dump(executor)
        first = await _send(executor, operation)
        once = await dump(executor)
        second = await _send(executor, operation)
        assert await dump(executor) == once, operation
        assert second == first, operation
        if operation.batch.mode == "read":
            assert once == before, operation
        await check_invariants(executor)
    await executor.close()


async def what_is_sent_again_late_changes_nothing(backend: Backend) -> None:
    """After others have moved the runs on: the repeat of an old request is not a new one, and has its outcome."""
    executor = await _open(backend)
    wrong = []
    for operation, meanwhile in LATE:
        await set_scene(executor)
        first = await _send(executor, operation)
        for happened in meanwhile:
            if isinstance(happened, str):
                await claim_run(executor, happened)
            else:
                assert await _send(executor, happened) is not None, happened
        before = await dump(executor)
        again = await _send(executor, operation)
        found = touched(before, await dump(executor))
        if found or lasting(again) != lasting(first):
            story = [happened if isinstance(happened, str) else happened.name for happened in meanwhile]
            wrong.append((operation.name, story, f"touched {found}", f"{again}, not {first}"))
        await check_invariants(executor)
    assert not wrong, "\n".join(map(str, wrong))
    await executor.close()


async def a_stale_generation_changes_nothing(backend: Backend) -> None:
    """Neither the run, nor what would come with its entries: no child, no signal taken, nobody let pass or woken."""
    executor = await _open(backend)
    await set_scene(executor)
    for run_id, generation in (
        ("leased", 0),
        ("leased", 2),
        ("holder", 2),
        ("child", 0),
        ("pending", 0),
        ("completed", 1),
        ("cancelled", 1),
        ("asleep", 1),
        ("listening", 1),
        ("crashed", 1),
        ("undoable", 2),
        ("undoing", 0),
        ("not undone", 1),
    ):
        before = await dump(executor)
        for operation in writes_of_an_owner(run_id, generation, 3):
            assert await _send(executor, operation) is None, (operation, run_id)
            assert await dump(executor) == before, (operation, run_id)
        [found] = await _send(executor, operations.renew_leases([(run_id, generation)], NOW + 99_999))
        assert (found.generation, found.status) != (generation, "leased")
        assert await dump(executor) == before
    await executor.close()


async def what_follows_a_write_that_did_not_arrive_changes_nothing(backend: Backend) -> None:
    """The lease holds; but the entry before is not there."""
    executor = await _open(backend)
    await set_scene(executor)
    for run_id in ("leased", "holder", "child"):
        before = await dump(executor)
        for operation in writes_of_an_owner(run_id, 1, 7):
            if operation.name != "release_run":
                assert await _send(executor, operation) is None, (operation, run_id)
                assert await dump(executor) == before, (operation, run_id)
    await executor.close()


async def an_operation_touches_what_it_is_about_and_nothing_else(backend: Backend) -> None:
    executor = await _open(backend)
    for operation, expected in TOUCHED:
        await set_scene(executor)
        before = await dump(executor)
        await executor.run(operation.batch)
        assert touched(before, await dump(executor)) == expected, operation
        await check_invariants(executor)
    await executor.close()


async def a_refused_trigger_of_many_stores_none(backend: Backend) -> None:
    executor = await _open(backend)
    await set_scene(executor)
    before = await dump(executor)
    asked = [trigger("new 1", labels={"a": "b"}), trigger("new 2", key="f", coalesce=None), trigger("new 3")]
    for _ in range(2):
        await raised(ConstraintViolated, executor.run(operations.trigger_many(asked).batch))
        assert await dump(executor) == before
    await executor.close()


async def claims_follow_priority_and_age(backend: Backend) -> None:
    executor = await _open(backend)
    for by_limits in (False, True):
        emptied = ("DELETE FROM durably_runs", "DELETE FROM durably_journal")
        await executor.run(Batch("write", tuple(Statement(sql) for sql in emptied)))
        for number, run_id in enumerate(("a", "b", "c", "d")):
            options: Any = {"a": {"run_at": NOW + 50}, "c": {"priority": 5}}.get(run_id, {})
            await _send(executor, operations.trigger(trigger(run_id, now=NOW + number, **options)))

        async def claimed(token: str, now: int, by_limits: bool = by_limits) -> list[str]:
            found = await _send(executor, claim(limit=2, now=now, token=token, by_limits=by_limits))
            return [lease.run_id for lease in found.leases]

        assert await claimed("t1", NOW) == ["c", "b"]
        assert await claimed("t2", NOW) == ["d"]
        assert await claimed("t3", NOW + 50) == ["a"]
    await executor.close()


async def what_is_repeated_uses_an_index(backend: Backend) -> None:
    """With a backlog of ten thousand and a long history: no walk through a table, and no sort of the backlog.

    Where SQLite says how it does. PostgreSQL decides by what it knows of the tables, and has tests of its own.
    """
    executor = await _open(backend)
    if is_postgres(executor):
        await executor.close()
        return
    await set_scene(executor)
    await executor.run(Batch("write", (Statement(_MANY_RUNS), Statement(_MANY_ENTRIES))))
    statements = {
        statement.sql: statement for name in REPEATED for way in REGISTRY[name] for statement in way().batch[1]
    }
    for statement in statements.values():
        [plan] = await executor.run(
            Batch("read", (Statement(f"EXPLAIN QUERY PLAN {statement.sql}", statement.params),))
        )
        details = [str(row[3]) for row in plan]
        for detail in details:
            told = f"{detail}\n{statement.sql}\n{details}"
            if detail.startswith("SCAN"):
                # An argument, a result of a part of the statement, read in the order of its rowid; or only the few
                # that are leased.
                assert statement.sql == reading.SELECT_EVENTS or any(part in detail for part in _HARMLESS), told
            if "TEMP B-TREE" in detail:
                assert statement.sql in _FEW, told
    await executor.close()


_HARMLESS = (
    "VIRTUAL TABLE",
    "CONSTANT ROW",
    "SCAN (",
    "SUBQUERY",
    "SCAN jobs",
    "SCAN family",
    "SCAN line",
    "durably_runs_leased",
    "durably_paused_jobs",
)

# They sort the runs of one claim or request, the entries of one run, or the workers that are alive: few.
_FEW = (
    claiming.CLAIM,
    claiming.CLAIM_ONE,
    claiming.SELECT_CLAIMED,
    claiming.SELECT_CLAIMED_BARE,
    claiming.SELECT_CLAIMED_ENTRIES,
    claiming.SELECT_OTHER_OWNERS,
    requests.SELECT_CHANGED,
    operations.get_run("x", CODEC).batch.statements[0].sql,
)


async def a_write_is_answered_although_its_neighbours_were_cancelled(backend: Backend) -> None:
    held = HeldExecutor(await _open(backend))
    store = Store(held, ManualClock())
    store.writers = 5
    held.hold()
    tasks = [asyncio.ensure_future(store.write(operations.trigger(trigger(f"r{n}")))) for n in range(200)]
    await turns()
    for task in tasks[::3]:
        task.cancel()
    await turns()
    held.release()
    for n, task in enumerate(tasks):
        if n % 3:
            assert (await bounded(task)).disposition == "created"
    # One was on its way when it was cancelled, or none; the others were never sent, or were, and that is all.
    await check_invariants(held.inner)
    await bounded(store.close())


async def a_database_that_is_away_is_not_waited_for_again_by_each_that_waits(backend: Backend) -> None:
    """An executor tries for a while before it gives up: those that wait behind a write have waited as long."""
    inner = await _open(backend)
    held = HeldExecutor(FaultyExecutor(inner, "dead"))
    store = Store(held, ManualClock())
    faulty = cast(FaultyExecutor, held.inner)
    faulty.at = 1
    held.hold()
    before = [
        asyncio.ensure_future(store.write(operations.trigger(trigger(f"before {number}")))) for number in range(300)
    ]
    await turns()
    arrived = held.arrived
    held.release()
    outcomes = await bounded(asyncio.gather(*before, return_exceptions=True))
    assert all(isinstance(one, StoreUnavailable) for one in outcomes)
    assert held.arrived <= arrived + 1, "the one that was sent alone, and those that waited behind it"
    faulty.at = 0
    await bounded(store.write(operations.trigger(trigger("after"))))
    await inner.close()


async def an_operation_that_cannot_be_built_or_read_fails_alone(backend: Backend) -> None:
    store = Store(await _open(backend), ManualClock())
    store.writers = 5

    def broken_build() -> Operation[Any]:
        raise LookupError("build")

    def broken_decode(outcome: Any) -> Any:
        raise LookupError("decode")

    async with asyncio.timeout(60):
        results: Any = await asyncio.gather(
            store.write(operations.trigger(trigger("r1"))),
            store.submit(broken_build),
            store.write(operations.trigger(trigger("r2")).then(broken_decode)),
            store.write(operations.trigger(trigger("r3"))),
            return_exceptions=True,
        )
    assert [type(result).__name__ for result in results] == ["Triggered", "LookupError", "LookupError", "Triggered"]
    assert (await bounded(store.write(operations.trigger(trigger("r4"))))).disposition == "created"
    await store.close()


async def a_refused_write_does_not_take_its_neighbours_along(backend: Backend) -> None:
    store = Store(await _open(backend), ManualClock())
    store.writers = 5
    wrong = Operation("wrong", Batch("write", (Statement(schema.RECORD_MIGRATION, (1, NOW)),)), lambda results: None)
    async with asyncio.timeout(60):
        results: Any = await asyncio.gather(
            store.write(operations.trigger(trigger("r1"))),
            store.write(wrong),
            store.write(operations.trigger(trigger("r2"))),
            return_exceptions=True,
        )
    assert {results[0].disposition, results[2].disposition} == {"created"}
    assert isinstance(results[1], ConstraintViolated), results[1]
    await store.close()


@job
async def _quick(step: Step, input: dict[str, Any]) -> None: ...


async def every_call_of_the_engine_is_one_crossing(backend: Backend) -> None:
    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    async with World(backend) as world:
        durably = await world.engine(_quick, through=through)
        keyed: Any = {"concurrency_key": "k"}

        async def one(awaitable: Awaitable[Any]) -> Any:
            counting[0].batches.clear()
            result = await awaitable
            assert len(counting[0].batches) == 1, [
                statement.sql for batch in counting[0].batches for statement in batch.statements
            ]
            return result

        first = await one(durably.trigger(_quick, {}, labels={"a": "b"}, idempotency_key="k"))
        await one(durably.trigger(_quick, {}, idempotency_key="k"))
        for read in (durably.get_run, durably.get_steps, durably.get_logs):
            await one(read(first.id))
        await one(durably.get_runs(labels={"a": "b"}, status="pending", limit=3))
        await one(durably.get_failed_runs())
        await one(durably.cancel(first.id))
        await one(durably.retry(first.id))
        for coalesce in (None, "skip", "replace", "queue"):
            await one(durably.trigger(_quick, {}, **keyed, coalesce=coalesce))
        await one(durably.trigger(_quick, {}, debounce=1, concurrency_key="burst"))
        await one(durably.trigger_many(_quick, [{"input": {}}, {"input": {}, "coalesce": "queue", **keyed}]))
        await one(durably.signal(first.id, "go", 1))
        await one(durably.pause(first.id))
        await one(durably.resume(first.id))
        await one(durably.pause_job(_quick))
        await one(durably.resume_job(_quick))
        await one(durably.fork(first.id))
        await one(durably.stats())
        await durably.process_until_idle()
        await one(durably.wait_for_run(first.id))
        await one(first.result())
        await one(durably.retrigger(first.id))
        await one(_all(durably.subscribe(first.id)))
        await one(durably.delete_run(first.id))


async def _all(events: Any) -> list[Any]:
    return [event async for event in events]


# -- inside ----------------------------------------------------------------------------------------------


def _each() -> Iterator[Operation[Any]]:
    for ways in REGISTRY.values():
        for way in ways:
            yield way()


async def _open(backend: Backend) -> Executor:
    executor = backend.connect()
    await executor.open()
    await Store(executor, ManualClock()).migrate()
    return executor


async def _send(executor: Executor, operation: Operation[Any]) -> Any:
    return operation.decode(await executor.run(operation.batch))


_COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"

_MANY_RUNS = f"""
INSERT INTO durably_runs (id, job_name, status, input, output, labels, created_at, completed_at)
{_COUNT}
SELECT printf('m%06d', i), 'job', iif(i % 2, 'pending', 'completed'), '{{}}', iif(i % 2, NULL, '1'), '{{}}', i,
       iif(i % 2, NULL, i)
FROM n WHERE true ON CONFLICT DO NOTHING
"""

_MANY_ENTRIES = """
INSERT INTO durably_journal (run_id, number, generation, type, created_at)
SELECT id, 1, 0, 'run:trigger', 1 FROM durably_runs WHERE id LIKE 'm%' ON CONFLICT DO NOTHING
"""


# -- migrations, as operations ---------------------------------------------------------------------------


async def a_migration_that_is_sent_twice_says_so_and_changes_nothing(backend: Backend) -> None:
    executor = await _open(backend)
    before = await dump(executor)
    await raised(ConstraintViolated, executor.run(operations.apply_migration(migrations.LATEST, NOW).batch))
    assert await dump(executor) == before
    await executor.close()
