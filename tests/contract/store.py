"""What every operation of the store promises: one crossing, harmless when sent twice, fenced, and by an index."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from durably_web.clock import ManualClock
from durably_web.errors import ConstraintViolated
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store import migrations, operations
from durably_web.store.batch import Batch, Executor, Operation, Row, Statement
from durably_web.store.operations import Entry, claiming, reading, schema
from durably_web.store.store import Store
from tests.contract import Backend
from tests.support.executors import CountingExecutor, HeldExecutor
from tests.support.invariants import check_invariants
from tests.support.world import World, bounded, raised, turns

NOW = 1_700_000_000_000
TABLES = ("durably_schema", "durably_runs", "durably_labels", "durably_journal")

DONE = Entry(3, "step:complete", "one", '{"a":1}', NOW, NOW + 1)
LOG = Entry(4, "log:write", None, '{"level":"info","message":"m","data":{}}', None, NOW + 2)
PROGRESS = Entry(5, "run:progress", None, '{"current":1}', None, NOW + 3)
END = Entry(3, "run:complete", None, None, NOW, NOW + 9)
FAILURE = Entry(3, "run:fail", "one", '{"error":"E: e","traceback":"t"}', NOW, NOW + 9)


def _claim(**changes: Any) -> Operation[Any]:
    given: dict[str, Any] = {
        "owner": "w2",
        "token": "t2",
        "job_names": ["job", "other"],
        "limit": 2,
        "executing": ["r9"],
        "now": NOW,
        "expires_at": NOW + 30_000,
    }
    return operations.claim(**(given | changes))


# Each operation, as it is sent in the scene below; several ways where it has several.
REGISTRY: dict[str, list[Callable[[], Operation[Any]]]] = {
    "has_schema": [operations.has_schema],
    "schema_version": [operations.schema_version],
    "create_schema_table": [operations.create_schema_table],
    "apply_migration": [],
    "trigger": [
        lambda: operations.trigger("r1", "job", "{}", {}, None, NOW),
        lambda: operations.trigger("r1", "job", '{"ü":"🦆"}', {"a": "b", "ü": "🦆"}, "new", NOW),
        lambda: operations.trigger("r1", "job", "{}", {"a": "b"}, "used", NOW),
    ],
    "retrigger": [
        lambda: operations.retrigger("r1", "completed", NOW),
        lambda: operations.retrigger("r1", "pending", NOW),
        lambda: operations.retrigger("r1", "none", NOW),
    ],
    "claim": [
        _claim,
        lambda: _claim(job_names=["none"]),
        lambda: _claim(limit=1, executing=["pending"]),
        lambda: _claim(now=NOW + 100_000, expires_at=NOW + 130_000),
        lambda: _claim(now=NOW + 100_000, expires_at=NOW + 130_000, executing=["leased"], limit=99),
    ],
    "renew_leases": [
        lambda: operations.renew_leases([("leased", 1), ("pending", 1), ("none", 3)], NOW + 5),
        lambda: operations.renew_leases([], NOW),
    ],
    "other_owners": [lambda: operations.other_owners("w1"), lambda: operations.other_owners("w2")],
    "free_leases_of": [lambda: operations.free_leases_of(["w1", "w3"]), lambda: operations.free_leases_of([])],
    "write_entries": [
        lambda: operations.write_entries("leased", 1, [DONE], None),
        lambda: operations.write_entries("leased", 1, [DONE, LOG, PROGRESS], '{"current":1}'),
        lambda: operations.write_entries("leased", 1, [], None),
        lambda: operations.write_entries("none", 1, [DONE], None),
    ],
    "finish_run": [
        lambda: operations.finish_run("leased", 1, "completed", "7", None, [END], None, NOW + 9),
        lambda: operations.finish_run(
            "leased",
            1,
            "failed",
            None,
            "E: e",
            [PROGRESS._replace(number=3), FAILURE._replace(number=4)],
            '{"current":1}',
            NOW + 9,
        ),
        lambda: operations.finish_run(
            "leased", 1, "completed", "7", None, [DONE, LOG, END._replace(number=5)], None, NOW + 9
        ),
    ],
    "release_run": [lambda: operations.release_run("leased", 1)],
    "cancel": [
        lambda: operations.cancel("pending", "q", NOW),
        lambda: operations.cancel("leased", "q", NOW),
        lambda: operations.cancel("completed", "q", NOW),
        lambda: operations.cancel("none", "q", NOW),
    ],
    "retry": [
        lambda: operations.retry("failed", "q", NOW),
        lambda: operations.retry("cancelled", "q", NOW),
        lambda: operations.retry("pending", "q", NOW),
        lambda: operations.retry("none", "q", NOW),
    ],
    "delete_run": [
        lambda: operations.delete_run("completed", "q", NOW),
        lambda: operations.delete_run("leased", "q", NOW),
        lambda: operations.delete_run("none", "q", NOW),
    ],
    "get_run": [lambda: operations.get_run("failed"), lambda: operations.get_run("none")],
    "get_runs": [
        operations.get_runs,
        lambda: operations.get_runs(
            statuses=["pending", "failed"], job_name="job", labels={"a": "b"}, limit=2, offset=0, after="z"
        ),
    ],
    "get_steps": [lambda: operations.get_steps("completed"), lambda: operations.get_steps("none")],
    "get_logs": [lambda: operations.get_logs("completed")],
    "read_events": [
        lambda: operations.read_events(None, 0, 10),
        lambda: operations.read_events("completed", 0, 10),
        lambda: operations.read_events("none", 0, 10),
    ],
}

# What a worker does again and again, with a statement for each turn, step or run.
REPEATED = (
    "trigger",
    "claim",
    "renew_leases",
    "other_owners",
    "free_leases_of",
    "write_entries",
    "finish_run",
    "release_run",
    "cancel",
    "retry",
    "get_run",
    "get_steps",
    "get_logs",
    "read_events",
)


async def every_operation_is_in_the_registry(backend: Backend) -> None:
    found = {
        name
        for name, function in vars(operations).items()
        if inspect.isfunction(function)
        and function.__module__ == operations.__name__
        and not name.startswith("_")
        and "Operation[" in str(function.__annotations__.get("return"))
    }
    assert found == set(REGISTRY)
    for name, ways in REGISTRY.items():
        assert all(way().name == name for way in ways)


async def every_operation_is_one_crossing(backend: Backend) -> None:
    counting = CountingExecutor(await _open(backend))
    store = Store(counting, ManualClock())
    for operation in _each():
        await _scene(counting.inner)
        counting.batches.clear()
        await (store.read if operation.batch.mode == "read" else store.write)(operation)
        assert len(counting.batches) == 1, operation.name
    await counting.close()


async def every_operation_sent_twice_has_the_effect_and_the_outcome_of_one(backend: Backend) -> None:
    executor = await _open(backend)
    for operation in _each():
        await _scene(executor)
        before = await _dump(executor)
        first = operation.decode(await executor.run(operation.batch))
        once = await _dump(executor)
        second = operation.decode(await executor.run(operation.batch))
        assert await _dump(executor) == once, operation
        assert second == first, operation
        if operation.batch.mode == "read":
            assert once == before, operation
        await check_invariants(executor)
    await executor.close()


async def a_request_that_is_repeated_late_changes_nothing(backend: Backend) -> None:
    """After others have moved the run on: the repeat of an old request is not a new one."""
    executor = await _open(backend)

    async def send(operation: Operation[Any]) -> Any:
        return operation.decode(await executor.run(operation.batch))

    await _scene(executor)
    first = await send(operations.cancel("leased", "q1", NOW))
    await send(operations.retry("leased", "q2", NOW))
    moved_on = await _dump(executor)
    assert (await send(operations.cancel("leased", "q1", NOW))).seq == first.seq
    assert await _dump(executor) == moved_on
    await send(operations.cancel("leased", "q3", NOW))
    moved_on = await _dump(executor)
    assert (await send(operations.retry("leased", "q2", NOW))).seq is not None
    assert await _dump(executor) == moved_on
    await check_invariants(executor)
    await executor.close()


async def a_stale_generation_changes_nothing(backend: Backend) -> None:
    executor = await _open(backend)
    await _scene(executor)
    for run_id, generation in (("leased", 0), ("leased", 2), ("pending", 0), ("completed", 1), ("cancelled", 1)):
        before = await _dump(executor)
        for operation, expected in (
            (operations.write_entries(run_id, generation, [DONE], '{"current":9}'), None),
            (operations.finish_run(run_id, generation, "completed", "7", None, [END], '{"current":9}', NOW), None),
            (operations.finish_run(run_id, generation, "failed", None, "e", [FAILURE], None, NOW), None),
            (operations.release_run(run_id, generation), None),
        ):
            assert operation.decode(await executor.run(operation.batch)) == expected, (operation, run_id)
            assert await _dump(executor) == before, (operation, run_id)
        renewal = operations.renew_leases([(run_id, generation)], NOW + 99_999)
        [found] = renewal.decode(await executor.run(renewal.batch))
        assert (found.generation, found.status) != (generation, "leased")
        assert await _dump(executor) == before
    await executor.close()


async def what_is_written_for_one_run_touches_no_other(backend: Backend) -> None:
    executor = await _open(backend)
    await _scene(executor)

    async def others(run_id: str) -> list[list[Row]]:
        runs, labels, journal = (await _dump(executor))[1:]
        return [
            [row for row in runs if row[0] != run_id],
            [row for row in labels if row[2] != run_id],
            [row for row in journal if row[1] != run_id],
        ]

    for operation, run_id in (
        (operations.write_entries("leased", 1, [DONE], '{"current":9}'), "leased"),
        (operations.finish_run("leased", 1, "completed", "7", None, [END._replace(number=4)], None, NOW), "leased"),
        (operations.cancel("pending", "q", NOW), "pending"),
        (operations.retry("failed", "q", NOW), "failed"),
        (operations.delete_run("completed", "q", NOW), "completed"),
        (operations.retrigger("r1", "cancelled", NOW), "r1"),
    ):
        before = await others(run_id)
        await executor.run(operation.batch)
        assert await others(run_id) == before, operation
    await executor.close()


async def claims_follow_priority_and_age(backend: Backend) -> None:
    executor = await _open(backend)
    for number, run_id in enumerate(("a", "b", "c", "d")):
        await executor.run(operations.trigger(run_id, "job", "{}", {}, None, NOW + number).batch)
    await executor.run(
        Batch(
            "write",
            (
                Statement("UPDATE durably_runs SET priority = 5 WHERE id = 'c'"),
                Statement("UPDATE durably_runs SET run_at = ? WHERE id = 'a'", (NOW + 50,)),
            ),
        )
    )

    async def claimed(token: str, now: int) -> list[str]:
        operation = _claim(limit=2, now=now, token=token)
        return [lease.run_id for lease in operation.decode(await executor.run(operation.batch))]

    assert await claimed("t1", NOW) == ["c", "b"]
    assert await claimed("t2", NOW) == ["d"]
    assert await claimed("t3", NOW + 50) == ["a"]
    await executor.close()


async def what_a_worker_repeats_uses_an_index(backend: Backend) -> None:
    """With a backlog of ten thousand and a long history: no walk through a table, and no sort of the backlog."""
    executor = await _open(backend)
    await _scene(executor)
    await executor.run(Batch("write", (Statement(_MANY_RUNS), Statement(_MANY_ENTRIES))))
    for name in REPEATED:
        for way in REGISTRY[name]:
            for statement in way().batch.statements:
                [plan] = await executor.run(
                    Batch("read", (Statement(f"EXPLAIN QUERY PLAN {statement.sql}", statement.params),))
                )
                for row in plan:
                    detail = str(row[3])
                    told = f"{name}: {detail}\n{statement.sql}\n{[row[3] for row in plan]}"
                    if detail.startswith("SCAN") and "VIRTUAL TABLE" not in detail and "CONSTANT ROW" not in detail:
                        # Read in the order of its rowid, or only the few that are leased.
                        in_order = statement.sql == reading.SELECT_EVENTS
                        few = (
                            "USING INDEX durably_runs_leased" in detail or "USING INDEX durably_runs_pending" in detail
                        )
                        few = few or "USING COVERING INDEX durably_runs_pending" in detail
                        subquery = detail.split()[1].startswith("(") or "SUBQUERY" in detail
                        assert few or in_order or subquery, told
                    if "TEMP B-TREE" in detail:
                        # The runs of one claim, the entries of one run, or the workers that are alive: few.
                        assert statement.sql in (
                            claiming.SELECT_CLAIMED,
                            claiming.SELECT_CLAIMED_ENTRIES,
                            claiming.SELECT_OTHER_OWNERS,
                            operations.get_run("x").batch.statements[0].sql,
                        ), told
    await executor.close()


async def a_write_is_answered_although_its_neighbours_were_cancelled(backend: Backend) -> None:
    held = HeldExecutor(await _open(backend))
    store = Store(held, ManualClock())
    store.writers = 5
    held.hold()
    tasks = [
        asyncio.ensure_future(store.write(operations.trigger(f"r{n}", "job", "{}", {}, None, NOW))) for n in range(200)
    ]
    await turns()
    for task in tasks[::3]:
        task.cancel()
    await turns()
    held.release()
    for n, task in enumerate(tasks):
        if n % 3:
            assert (await bounded(task)).created
    # One was on its way when it was cancelled, or none; the others were never sent, or were, and that is all.
    await check_invariants(held.inner)
    await bounded(store.close())


async def an_operation_that_cannot_be_built_or_read_fails_alone(backend: Backend) -> None:
    store = Store(await _open(backend), ManualClock())
    store.writers = 5

    def broken_build() -> Operation[Any]:
        raise LookupError("build")

    def broken_decode(outcome: Any) -> Any:
        raise LookupError("decode")

    def trigger(run_id: str) -> Operation[Any]:
        return operations.trigger(run_id, "job", "{}", {}, None, NOW)

    async with asyncio.timeout(20):
        results: Any = await asyncio.gather(
            store.write(trigger("r1")),
            store.submit(broken_build),
            store.write(trigger("r2").then(broken_decode)),
            store.write(trigger("r3")),
            return_exceptions=True,
        )
    assert [type(result).__name__ for result in results] == ["Triggered", "LookupError", "LookupError", "Triggered"]
    assert (await bounded(store.write(trigger("r4")))).created
    await store.close()


async def a_refused_write_does_not_take_its_neighbours_along(backend: Backend) -> None:
    store = Store(await _open(backend), ManualClock())
    store.writers = 5
    wrong = Operation("wrong", Batch("write", (Statement(schema.RECORD_MIGRATION, (1, NOW)),)), lambda results: None)
    async with asyncio.timeout(20):
        results: Any = await asyncio.gather(
            store.write(operations.trigger("r1", "job", "{}", {}, None, NOW)),
            store.write(wrong),
            store.write(operations.trigger("r2", "job", "{}", {}, None, NOW)),
            return_exceptions=True,
        )
    assert results[0].created and results[2].created
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
        await durably.process_one()
        await one(durably.wait_for_run(first.id))
        await one(first.result())
        await one(durably.retrigger(first.id))
        await one(_all(durably.subscribe(first.id)))
        await one(durably.delete_run(first.id))


async def _all(events: Any) -> list[Any]:
    return [event async for event in events]


# -- the scene -------------------------------------------------------------------------------------------


def _each() -> Iterator[Operation[Any]]:
    for ways in REGISTRY.values():
        for way in ways:
            yield way()


async def _open(backend: Backend) -> Executor:
    executor = backend.connect()
    await executor.open()
    await Store(executor, ManualClock()).migrate()
    return executor


async def _scene(executor: Executor) -> None:
    """A run in each status, leased once by `w1` where it was leased at all."""
    batch = [Statement(f"DELETE FROM {table}") for table in TABLES[1:]]
    for run_id in ("completed", "failed", "cancelled", "leased"):
        labels = {"a": "b"} if run_id in ("completed", "leased") else {}
        key = "used" if run_id == "completed" else None
        batch += operations.trigger(run_id, "job", '{"n":1}', labels, key, NOW - 100).batch.statements
    batch += _claim(owner="w1", token="t1", limit=4, now=NOW - 90, expires_at=NOW + 60_000).batch.statements
    step = DONE._replace(created_at=NOW - 50)
    end = END._replace(number=5)
    log = LOG._replace(number=4)
    batch += operations.finish_run("completed", 1, "completed", "7", None, [step, log, end], None, NOW).batch.statements
    batch += operations.finish_run("failed", 1, "failed", None, "E: e", [FAILURE], None, NOW).batch.statements
    batch += operations.cancel("cancelled", "q0", NOW).batch.statements
    batch += operations.trigger("pending", "job", "{}", {}, None, NOW).batch.statements
    batch += operations.trigger("waits", "other", "{}", {"a": "c"}, None, NOW).batch.statements
    await executor.run(Batch("write", tuple(batch)))


async def _dump(executor: Executor) -> list[list[Row]]:
    return await executor.run(
        Batch("read", tuple(Statement(f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES))
    )


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
    before = await _dump(executor)
    await raised(ConstraintViolated, executor.run(operations.apply_migration(migrations.LATEST, NOW).batch))
    assert await _dump(executor) == before
    await executor.close()
