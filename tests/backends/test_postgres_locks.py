"""Writes that share a schema on PostgreSQL: whatever comes between their statements, the outcome is one that they could
have had one after the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from durably_web.backends.postgres import PostgresExecutor, locks, order
from durably_web.backends.postgres.locks import ALONE, TOUCHED, Line, Touched
from durably_web.clock import ManualClock
from durably_web.codec import JsonCodec
from durably_web.errors import StoreError
from durably_web.store import operations
from durably_web.store.batch import Batch, Operation, Statement
from durably_web.store.store import Store
from tests.support.interleaving import Met, Stage, check_limits, drain
from tests.support.invariants import check_invariants
from tests.support.pairs import LIMITS, PAIRS, SIDE_BY_SIDE, Pair, asked, runs
from tests.support.servers import PgBouncer, Postgres
from tests.support.store_registry import REGISTRY
from tests.support.store_scene import NOW, set_scene, trigger

HOT = {
    *("trigger", "trigger_many", "claim", "renew_leases", "write_entries", "finish_run", "suspend_run"),
    *("release_run", "signal"),
}


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[str]:
    url = postgres.create_database()
    asyncio.run(_migrate(url))
    yield url
    postgres.drop_database(url)


async def _migrate(url: str) -> None:
    store = Store(PostgresExecutor(url, "relaxed"), ManualClock(NOW))
    await store.open()
    await store.close()


@pytest.fixture
async def stage(database: str) -> AsyncIterator[Stage]:
    async with Stage(database) as stage:
        yield stage


# -- the table ---------------------------------------------------------------------------------------------


def _ways(names: set[str]) -> list[Operation[Any]]:
    return [way() for name in sorted(names) for way in REGISTRY[name]]


def test_the_frequent_operations_share_the_schema() -> None:
    for operation in _ways(HOT):
        assert not locks.of(operation.batch.statements).alone, operation


def test_all_others_have_the_schema_alone() -> None:
    for operation in _ways(set(REGISTRY) - HOT):
        if operation.batch.mode == "write" and operation.batch.statements:
            shares = all(sql in TOUCHED for sql, _ in operation.batch.statements)
            assert not shares or locks.of(operation.batch.statements) == ALONE, operation


def test_a_statement_that_nobody_thought_about_has_the_schema_alone() -> None:
    [known, *_] = REGISTRY["trigger"][0]().batch.statements
    assert not locks.of([known]).alone
    assert locks.of([known, Statement("UPDATE durably_runs SET priority = 1")]) == ALONE


def test_a_write_that_touches_very_much_has_the_schema_alone() -> None:
    asked = [trigger(f"r{number}", key=f"k{number}") for number in range(150)]
    assert not locks.of(operations.trigger_many(asked[:90]).batch.statements).alone
    assert locks.of(operations.trigger_many(asked).batch.statements) == ALONE
    few = locks.of(operations.trigger_many(asked[:3]).batch.statements)
    _, params = locks.waits("public", few)
    assert len(params) == 8 and params[5:] == (params[-1],) * 3 and set(params) == set(few.things)
    plain = [trigger(f"r{number}") for number in range(1000)]
    assert not locks.of(operations.trigger_many(plain).batch.statements).alone


async def test_nothing_changes_that_is_not_locked(stage: Stage) -> None:
    """But by claims, which find out what is theirs as they lock it, and renewals, which look at each row by itself."""
    await set_scene(stage.one)
    [rows] = await stage.one.run(Batch("read", (Statement("SELECT id, concurrency_key, job_name FROM durably_runs"),)))
    queues = {str(run_id): f"queue {json.dumps([key, job])}" for run_id, key, job in rows}
    for operation in _ways(HOT - {"claim", "renew_leases"}):
        things = locks.of(operation.batch.statements).things
        for run_id in await stage.would_touch(operation) & set(queues):
            assert f"run {run_id}" in things or queues[run_id] in things, (operation.name, run_id, things)


def test_each_position_is_that_of_what_it_says() -> None:
    for operation in _ways(HOT):
        for sql, params in operation.batch.statements:
            runs, queue, token, _ = TOUCHED[sql]
            for position in runs:
                assert params[position] is None or str(params[position]) in _ids(operation), sql
            if queue is not None:
                assert params[queue[1]] in ("job", "child", "other"), sql
                assert params[queue[0]] in (None, *"cdfkpu", "none", "new"), sql
            assert token is None or params[token] == "t2", sql


def _ids(operation: Operation[Any]) -> set[str]:
    known = {"leased", "holder", "undoable", "undoing", "child", "parent", "crashed", "none", "listening", "asleep"}
    return known | {"pending", "completed", "new", *(f"new {number}" for number in range(9))}


# -- two at once -------------------------------------------------------------------------------------------


async def _play(stage: Stage, pair: Pair, first: Operation[Any], second: Operation[Any], swapped: bool) -> list[Met]:
    """All the ways in which the second may come between."""
    found = []
    statements = first.batch.statements
    # Behind what only reads nothing is different.
    writes = [point for point, (sql, _) in enumerate(statements, 1) if not sql.lstrip().startswith("SELECT")]
    for point in (0, *writes):
        await stage.prepare(pair.scene)
        met = await stage.meet(first, second, point)
        found.append(met)
        try:
            results = (met.second, met.first) if swapped else (met.first, met.second)
            assert not any(isinstance(result, StoreError) for result in results), results
            pair.judge(*results)
            await check_invariants(stage.one)
            await check_limits(stage.one)
            ends = await drain(stage.one, LIMITS)
            left = {run_id: status for run_id, status in ends.items() if status != "completed"}
            assert all(pair.left.get(run_id) == status for run_id, status in left.items()), f"left over: {left}"
            await check_invariants(stage.one)
        except AssertionError as error:
            raise AssertionError(f"behind {point} statements of {first.name}, {second.name}: {error}; {met}") from error
    return found


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("swapped", [False, True], ids=["", "swapped"])
async def test_whatever_comes_between(stage: Stage, name: str, swapped: bool) -> None:
    pair = PAIRS[name]
    first, second = (pair.other, pair.one) if swapped else (pair.one, pair.other)
    await _play(stage, pair, first, second, swapped)


@pytest.mark.parametrize("name", ["step and claim of the expired", "trigger in line and end"])
async def test_behind_a_pooler_and_in_a_schema_of_its_own(database: str, pgbouncer: PgBouncer, name: str) -> None:
    url = f"{pgbouncer.url(database)}?schema=elsewhere"
    await _migrate(url)
    async with Stage(url) as stage:
        for swapped in (False, True):
            pair = PAIRS[name]
            first, second = (pair.other, pair.one) if swapped else (pair.one, pair.other)
            await _play(stage, pair, first, second, swapped)


# -- what would go wrong -----------------------------------------------------------------------------------


def _without(**changes: Any) -> dict[str, Touched]:
    return {sql: touched._replace(**changes) for sql, touched in TOUCHED.items()}


_NAIVE = [
    ("runs", {"runs": ()}, "wait for a child, and its end"),
    ("runs", {"runs": ()}, "wait for a signal, and it"),
    ("runs", {"runs": ()}, "step and claim of the expired"),
    ("runs", {"runs": ()}, "signals"),
    ("queues", {"queue": None}, "trigger in line and end"),
    ("queues", {"queue": None}, "triggers that refuse"),
    ("queues", {"queue": None}, "triggers that replace"),
    ("the line", {"line": Line.SHARED}, "claims by limits"),
    ("the line", {"line": Line.SHARED}, "claims of one key by two jobs"),
    ("the line", {"line": Line.SHARED}, "claim by limits of due ones and end"),
    ("claims", {"claim": None}, "claim itself"),
]


@pytest.mark.parametrize(("changes", "name"), [pytest.param(c, n, id=f"{what}: {n}") for what, c, n in _NAIVE])
async def test_without_its_lock_something_goes_wrong(
    stage: Stage, changes: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TOUCHED", _without(**changes))
    pair = PAIRS[name]
    with pytest.raises(AssertionError, match="behind "):
        for swapped in (False, True):
            first, second = (pair.other, pair.one) if swapped else (pair.one, pair.other)
            await _play(stage, pair, first, second, swapped)


# -- side by side ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
async def test_nobody_waits_who_has_nothing_to_wait_for(stage: Stage, name: str) -> None:
    pair = SIDE_BY_SIDE[name]
    for met in await _play(stage, pair, pair.one, pair.other, False):
        assert not met.waited, met


async def test_who_touches_the_same_waits(stage: Stage) -> None:
    pair = PAIRS["wait for a child, and its end"]
    for met in await _play(stage, pair, pair.one, pair.other, False):
        assert met.waited, met


# -- the order of events -----------------------------------------------------------------------------------


async def test_a_reader_does_not_pass_a_number_that_is_not_committed_yet(stage: Stage) -> None:
    """The second trigger gets the larger seq, and is committed first."""
    await stage.prepare(runs("before"))
    [seen] = await _events(stage, 0)
    slow, fast = asked("slow"), asked("fast")
    between: list[Any] = []

    async def reads() -> None:
        between.append(await _events(stage, seen))
        between.append(operations.last_seq().decode(await stage.other.run(operations.last_seq().batch)))

    met = await stage.meet(slow, fast, len(slow.batch.statements), before_the_end=reads)
    assert not met.waited and met.first.seq < met.second.seq
    assert between == [[], seen]
    assert await _events(stage, seen) == [met.first.seq, met.second.seq]


async def test_without_a_registration_a_reader_passes_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "registration", lambda schema: "0")
    await stage.prepare(runs("before"))
    [seen] = await _events(stage, 0)
    slow, fast = asked("slow"), asked("fast")
    between: list[Any] = []

    async def reads() -> None:
        between.extend(await _events(stage, seen))

    met = await stage.meet(slow, fast, len(slow.batch.statements), before_the_end=reads)
    assert between == [met.second.seq] and met.first.seq < met.second.seq


async def _events(stage: Stage, after: int) -> list[int]:
    asked = operations.read_events(None, after, 100, JsonCodec())
    return [event.seq or 0 for event in asked.decode(await stage.other.run(asked.batch)).events]
