"""A run that waits in every way, and a database or a process that fails at any one moment: the outcome is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import Conflict, SignalTimeout, StoreError
from durably_web.jobs import Job, job
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend
from tests.contract.faults import Life
from tests.support.executors import Fault, FaultyExecutor, SuspendingExecutor
from tests.support.invariants import results_of
from tests.support.scenes import run_of, settled, types_of
from tests.support.world import World, bounded, raised

POLICY = Retry(max_attempts=3, initial_delay=3.0, backoff=1.0, jitter=False)
EXPECTED = ["first", "yes", "part", "third", None, "nobody", "last"]
RESULTS = {"first", "rest", "approve", "part", "third", "nap", "last"}


def _waiting(life: Life, max_attempts: int = 10) -> Job[dict[str, Any], list[Any]]:
    """Retries, sleeps, waits for a signal that comes and for one that does not, alone and beside others."""

    @job(max_attempts=max_attempts)
    async def waiting(step: Step, input: dict[str, Any]) -> list[Any]:
        async def given(name: str, fails: int = 0) -> Any:
            return life.given(name, await step.run(name, _work, life, name, fails, retry=POLICY))

        async def third() -> Any:
            await step.sleep("nap", 4)
            return await given("third", 2)

        first = await given("first", 2)
        await step.sleep("rest", 5)
        approved, part, value = await asyncio.gather(step.wait_for_signal("approve"), given("part", 1), third())
        nobody = ""
        try:
            await step.wait_for_signal("never", timeout=6)
        except SignalTimeout:
            nobody = "nobody"
        return [first, approved, part, value, None, nobody, await given("last")]

    return waiting


async def _work(life: Life, name: str, fails: int) -> str:
    await asyncio.sleep(0)
    life.run(name, None)
    if life.ran[name] <= fails:
        raise ValueError(name)
    return name


async def _is_whole(world: World, durably: Durably, run_id: str, life: Life) -> None:
    run = await run_of(durably, run_id)
    assert run.status == "completed" and run.output == EXPECTED, run
    executor = world.executor()
    await executor.open()
    results = await results_of(executor, run_id)
    await executor.close()
    assert set(results) == RESULTS and set(results.values()) == {1}, results
    assert set(life.acknowledged) == {"first", "part", "third", "last"}
    types = await types_of(durably, run_id)
    # A sleep, a nap and a wait that timed out, and perhaps one for a signal that had not come yet.
    assert types.count("step:wait") in (3, 4) and types.count("step:fail") == 1, types
    assert 1 <= types.count("step:retry") <= 5, types
    assert await world.rows("SELECT count(*) FROM durably_signals WHERE run_id = ? AND name = 'approve'", run_id) == [
        (1,)
    ], "one signal was sent"
    await world.check()


async def _until_done(world: World, durably: Durably, run_id: str, seconds: int = 200) -> None:
    for _ in range(seconds):
        if (await run_of(durably, run_id)).is_terminal:
            return
        await world.advance(1)
    raise AssertionError(f"not done after {seconds} seconds: {await run_of(durably, run_id)}")


async def an_undisturbed_run_is_as_expected(backend: Backend) -> None:
    async with World(backend) as world:
        life = Life()
        waiting = _waiting(life)
        durably = await world.started(waiting)
        handle = await durably.trigger(waiting)
        await durably.signal(handle.id, "approve", "yes")
        await _until_done(world, durably, handle.id, 45)
        await _is_whole(world, durably, handle.id, life)
        assert life.ran == {"first": 3, "part": 2, "third": 3, "last": 1}


# -- one batch fails -------------------------------------------------------------------------------------


def _faulty(fault: Fault, made: list[FaultyExecutor], under: Callable[[Executor], Executor]) -> Any:
    def through(inner: Executor) -> Executor:
        made.append(FaultyExecutor(under(inner), fault))
        return made[-1]

    return through


async def _survives(world: World, fault: Fault, at: int, under: Callable[[Executor], Executor]) -> bool:
    """Whether the fault came at all; if it did, the run is whole all the same.

    After "dead", another engine takes over; after the others the same one gets over it by itself.
    """
    life, faulty = Life(), list[FaultyExecutor]()
    waiting = _waiting(life)
    # The signal comes from elsewhere: its own faults are another suite's.
    asking = await world.engine(waiting)
    working = await world.started(waiting, through=_faulty(fault, faulty, under))
    await settled()
    handle = await asking.trigger(waiting)
    faulty[0].at = at
    await world.advance(at % 12)
    await asking.signal(handle.id, "approve", "yes")
    if fault == "dead":
        await world.advance(40)
        await world.crash(working)
        working = await world.started(waiting)
    await _until_done(world, asking, handle.id)
    await _is_whole(world, asking, handle.id, life)
    for engine in (working, asking):
        await bounded(engine.stop())
    return faulty[0].fell


async def _at_every_batch(backend: Backend, fault: Fault, under: Any = lambda inner: inner) -> None:
    async with World(backend) as world:
        fell = 0
        # Beside the run's own there are the heartbeat's batches, so the last ones may be any.
        for at in range(1, 34):
            fell += await _survives(world, fault, at, under)
        assert fell > 20, f"only {fell} batches were met"


async def failing_before_any_batch_changes_nothing(backend: Backend) -> None:
    await _at_every_batch(backend, "before")


async def losing_any_reply_changes_nothing(backend: Backend) -> None:
    await _at_every_batch(backend, "after")


async def dying_at_any_batch_changes_nothing(backend: Backend) -> None:
    await _at_every_batch(backend, "dead")


async def the_same_holds_for_a_database_that_takes_its_time(backend: Backend) -> None:
    await _at_every_batch(backend, "dead", SuspendingExecutor)


# -- many lives ------------------------------------------------------------------------------------------


async def a_run_comes_to_its_end_through_short_lives(backend: Backend) -> None:
    """Every engine dies after so many batches, and the next one takes over."""
    for batches in (9, 12, 17):
        async with World(backend) as world:
            life = Life()
            waiting = _waiting(life, 1000)
            asking = await world.engine(waiting)
            handle = await asking.trigger(waiting)
            await asking.signal(handle.id, "approve", "yes")
            for _ in range(80):
                faulty = list[FaultyExecutor]()
                working = await world.started(waiting, through=_faulty("dead", faulty, lambda inner: inner))
                faulty[0].at = batches
                await world.advance(8)
                await world.crash(working)
                await world.expire()
                if (await run_of(asking, handle.id)).is_terminal:
                    break
            await _is_whole(world, asking, handle.id, life)


async def a_run_comes_to_its_end_through_many_stops(backend: Backend) -> None:
    """Every engine is stopped after so much time; what a clean stop gives back is not lost, nor done twice."""
    for seconds in (0.3, 0.7, 2.5):
        async with World(backend) as world:
            life = Life()
            waiting = _waiting(life, 1)
            asking = await world.engine(waiting)
            handle = await asking.trigger(waiting)
            await asking.signal(handle.id, "approve", "yes")
            for _ in range(1000):
                working = await world.started(waiting)
                await world.advance(seconds, step=seconds)
                await bounded(working.stop())
                if (await run_of(asking, handle.id)).is_terminal:
                    break
            await _is_whole(world, asking, handle.id, life)
            assert life.ran == {"first": 3, "part": 2, "third": 3, "last": 1}, "nothing ran more often than undisturbed"


async def a_request_that_fails_at_any_batch_can_be_made_again(backend: Backend) -> None:
    """A caller that did not hear of its trigger or its signal asks again; more than one signal harms nobody."""
    faults: tuple[Fault, ...] = ("before", "after")
    for fault in faults:
        for at in range(1, 5):
            async with World(backend) as world:
                life, faulty, key = Life(), list[FaultyExecutor](), f"{fault} {at}"
                waiting = _waiting(life)
                working = await world.started(waiting)
                asking = await world.engine(waiting, through=_faulty(fault, faulty, lambda inner: inner))
                faulty[0].at = at
                handle = await _insisting(lambda a=asking, w=waiting, k=key: a.trigger(w, {}, idempotency_key=k))  # type: ignore[misc]
                await _insisting(lambda a=asking, h=handle: a.signal(h.id, "approve", "yes"))  # type: ignore[misc]
                await _until_done(world, working, handle.id)
                assert (await run_of(working, handle.id)).output == EXPECTED
                await raised(Conflict, working.signal(handle.id, "approve", "yes"))


async def _insisting(request: Callable[[], Any]) -> Any:
    try:
        return await request()
    except StoreError:
        return await request()
