"""`Durably.process`: what a deployment does that has no worker, and only calls that come now and then."""

from __future__ import annotations

import asyncio
from typing import Any

from durably_web.errors import StoreUnavailable
from durably_web.jobs import job
from durably_web.records import instant
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Batch, Executor, Rows
from tests.contract import Backend, needs
from tests.support.executors import HeldExecutor
from tests.support.world import Gate, Heard, World, bounded, raised, turns, until

MINUTE = 60.0


@job
async def quick(step: Step, input: dict[str, Any]) -> str:
    return await step.run("once", lambda: "done")


@job
async def sleeps(step: Step, input: dict[str, Any]) -> str:
    await step.sleep("nap", MINUTE)
    return "awake"


@job
async def asks(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("answer")


@job
async def unknown(step: Step, input: dict[str, Any]) -> None: ...


async def it_tells_what_was_done_and_what_is_left(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick, sleeps, asks)
        begun = world.clock.now()
        assert await durably.process() == (0, 0, 0, 0, None)
        for _ in range(3):
            await durably.trigger(quick)
        first = await durably.process(max_runs=2)
        assert first == (2, 1, 0, 0, instant(begun)), "the third one is due already"
        assert (await durably.process()).due == 0
        await durably.trigger(asks)
        assert await durably.process() == (1, 0, 0, 0, None), "a signal has no moment"
        await durably.trigger(sleeps)
        await durably.trigger(quick, delay=30)
        slept = await durably.process()
        assert (slept.processed, slept.next_at) == (1, instant(begun + 30_000))
        assert slept.to_wire() == {
            "processed": 1,
            "due": 0,
            "leased": 0,
            "later": 2,
            "nextAt": "2023-11-14T22:13:50.000Z",
        }
        await durably.schedule(quick, every=10, name="often")
        assert (await durably.process()).next_at == instant(begun + 10_000)
        await durably.remove_schedule("often")
        world.clock.advance(45)
        assert (await durably.process(max_runs=0)).due == 1, "its time has come, and nobody has taken it up"
        await durably.pause_job(quick)
        found = await durably.process()
        assert found == (0, 0, 0, 1, instant(begun + 60_000)), "what is paused is not left to do"
        other = await world.engine(unknown)
        await other.trigger(unknown)
        assert (await durably.process()).due == 0, "nor is what only others can do"


async def without_a_worker_only_calls_advance_anything(backend: Backend) -> None:
    """Retries of runs and of steps, sleeps and schedules, as with a cron job once a minute."""
    tries: list[str] = []

    def breaks(what: str) -> str:
        tries.append(what)
        if tries.count(what) < 3:
            raise ConnectionError(what)
        return what

    once_a_minute = Retry(max_attempts=3, initial_delay=MINUTE, backoff=1, max_delay=MINUTE, jitter=False)

    @job(retry=once_a_minute)
    async def run_breaks(step: Step, input: dict[str, Any]) -> str:
        return await step.run("try", breaks, "run")

    @job
    async def step_breaks(step: Step, input: dict[str, Any]) -> str:
        return await step.run("try", breaks, "step", retry=once_a_minute)

    async with World(backend) as world:
        durably = await world.engine(run_breaks, step_breaks, sleeps, quick)
        handles = [await durably.trigger(one) for one in (run_breaks, step_breaks, sleeps)]
        await durably.schedule(quick, every=MINUTE, name="tick")
        seen = []
        for _ in range(4):
            await durably.process(max_seconds=50)
            statuses = [run.status if (run := await durably.get_run(handle.id)) else None for handle in handles]
            seen.append((*statuses, len(await durably.get_runs(schedule="tick", status="completed"))))
            before = len(tries)
            await world.advance(MINUTE, step=MINUTE)
            assert len(tries) == before, "nothing happens between two calls"
        assert seen == [
            ("waiting", "waiting", "waiting", 0),
            ("waiting", "waiting", "completed", 1),
            ("completed", "completed", "completed", 2),
            ("completed", "completed", "completed", 3),
        ]
        assert sorted(tries) == ["run"] * 3 + ["step"] * 3


async def at_its_deadline_it_finishes_steps_and_gives_the_runs_back(backend: Backend) -> None:
    gate, called = Gate(), []

    def note(what: str) -> str:
        called.append(what)
        return what

    @job
    async def long(step: Step, input: dict[str, Any]) -> str:
        await step.run("first", note, "first")
        await step.run("second", gate.wait, "second")
        await step.run("third", note, "third")
        return "done"

    async with World(backend) as world:
        durably = await world.engine(long)
        heard = Heard(durably)
        handle = await durably.trigger(long)
        processing = asyncio.ensure_future(durably.process(max_seconds=10))
        await gate.reached()
        await world.advance(10)
        assert not processing.done(), "the second step is still executing"
        late = await durably.trigger(long)
        gate.open()
        assert await bounded(processing) == (1, 2, 0, 0, instant(world.clock.now()))
        assert called == ["first"] and "worker:error" not in heard.types
        for run_id in (handle.id, late.id):
            run = await durably.get_run(run_id)
            assert run is not None and run.status == "pending"
        other = await world.engine(long)
        assert (await other.process()).due == 0
        assert called == ["first", "third", "first", "third"], "no step has run twice"
        run = await other.get_run(handle.id)
        assert run is not None and run.output == "done" and run.attempt == 2


async def a_stop_begins_nothing_more(backend: Backend) -> None:
    """Whoever calls while it is under way gets an answer, and does not hold it up."""
    gate = Gate()

    @job
    async def long(step: Step, input: dict[str, Any]) -> None:
        await step.run("hold", gate.wait, 1)

    async with World(backend) as world:
        durably = await world.started(long, quick)
        await durably.trigger(long)
        await gate.reached()
        stopping = asyncio.ensure_future(durably.stop())
        await turns()
        await durably.trigger_many(quick, [{"input": {}}] * 3)
        found = await bounded(durably.process())
        assert (found.processed, found.due) == (0, 3)
        assert await bounded(durably.process_until_idle()) == 0
        assert durably._environment.shutdown.is_near() and not stopping.done(), "it waits for its step"
        gate.open()
        await bounded(stopping)
        assert await (await world.engine(long, quick)).process_until_idle() == 4


class _HeldReplies(HeldExecutor):
    """Those of what writes."""

    async def run(self, batch: Batch) -> list[Rows]:
        results = await self.inner.run(batch)
        if batch.mode == "write":
            self.arrived += 1
            await self._door.wait()
        return results


async def what_is_claimed_as_a_stop_begins_is_given_back(backend: Backend) -> None:
    async with World(backend) as world:
        held: list[_HeldReplies] = []

        def through(inner: Executor) -> Executor:
            held.append(_HeldReplies(inner))
            return held[0]

        durably = await world.engine(quick, through=through)
        await durably.trigger(quick)
        await turns()
        held[0].hold()
        arrived = held[0].arrived
        processing = asyncio.ensure_future(durably.process_until_idle())
        await until(lambda: held[0].arrived > arrived)
        stopping = asyncio.ensure_future(durably.stop())
        await turns()
        held[0].release()
        await bounded(stopping)
        await bounded(asyncio.gather(processing, return_exceptions=True))
        [(status, owner)] = await world.rows("SELECT status, lease_owner FROM durably_runs")
        assert status in ("pending", "completed") and owner is None


async def what_sleeps_at_the_deadline_sleeps_on(backend: Backend) -> None:
    """Given back or waiting, a run is where its steps have brought it."""
    async with World(backend) as world:
        durably = await world.engine(sleeps, asks)
        await durably.trigger(asks)
        await durably.trigger(sleeps)
        found = await durably.process(max_seconds=5)
        assert (found.processed, found.later, found.leased) == (2, 1, 0)
        assert (await durably.stats()).by_status == {"waiting": 2}


async def without_time_nothing_is_begun(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        await durably.trigger(quick)
        found = await durably.process(max_seconds=0)
        assert (found.processed, found.due) == (0, 1)


@needs("workers")
async def several_calls_at_once_are_harmless(backend: Backend) -> None:
    """Of one engine and of several: each run is executed once."""
    called: list[int] = []

    @job
    async def counts(step: Step, input: dict[str, Any]) -> int:
        async def count() -> None:
            await asyncio.sleep(0)
            called.append(input["n"])

        await step.run("count", count)
        return int(input["n"])

    async with World(backend) as world:
        first = await world.engine(counts, max_concurrent_runs=3)
        second = await world.engine(counts, max_concurrent_runs=3)
        await first.trigger_many(counts, [{"input": {"n": n}} for n in range(20)])
        calls = [engine.process(max_seconds=30) for engine in (first, second, first)]
        found = await bounded(asyncio.gather(*calls))
        assert sum(one.processed for one in found) == 20
        assert sorted(called) == list(range(20))
        assert (await first.stats()).by_status == {"completed": 20}


@needs("workers")
async def it_takes_over_from_who_died(backend: Backend) -> None:
    gate = Gate()
    executed: list[str] = []

    @job
    async def dies(step: Step, input: dict[str, Any]) -> str:
        await step.run("before", executed.append, "before")
        if len(executed) == 1:
            await step.run("hang", gate.wait, "never")
        return "over"

    async with World(backend) as world:
        frozen = await world.engine(dies)
        handle = await frozen.trigger(dies)
        processing = asyncio.ensure_future(frozen.process())
        await gate.reached()
        executed.append("frozen")
        await world.crash(frozen)
        await raised(StoreUnavailable, bounded(processing))
        other = await world.engine(dies)
        found = await other.process()
        assert (found.processed, found.leased) == (0, 1)
        assert found.next_at is not None and found.next_at > instant(world.clock.now())
        world.clock.advance(31)
        assert (await other.process()).processed == 1
        run = await other.get_run(handle.id)
        assert run is not None and run.output == "over" and executed == ["before", "frozen"]


async def it_leaves_nothing_behind(backend: Backend) -> None:
    """No task and no timer: the process may be frozen, or end, as soon as the call returns."""
    async with World(backend) as world:
        tasks = asyncio.all_tasks()
        durably = await world.engine(quick, sleeps)
        await durably.trigger(quick)
        await durably.trigger(sleeps)
        assert (await durably.process(max_seconds=50)).processed == 2
        await turns()
        assert asyncio.all_tasks() == tasks
        assert [timer for timer in world.clock._timers if not timer.cancelled] == []
        await bounded(durably.stop())
        assert asyncio.all_tasks() == tasks


async def who_only_asks_never_claims_and_leaves_nothing_behind(backend: Backend) -> None:
    """An engine that is migrated and not started: a function that triggers while workers are elsewhere."""
    async with World(backend) as world:
        tasks = asyncio.all_tasks()
        asking = await world.engine(quick)
        handle = await asking.trigger(quick, idempotency_key="a")
        assert (await asking.trigger(quick, idempotency_key="a")).disposition == "idempotent"
        await turns()
        assert asyncio.all_tasks() == tasks and world.clock._timers == []
        await bounded(asking.stop())
        assert asyncio.all_tasks() == tasks
        [(status, attempt)] = await world.rows("SELECT status, attempt FROM durably_runs")
        assert (status, attempt) == ("pending", 0)
        working = await world.started(quick)
        assert (await bounded(working.wait_for_run(handle.id))).output == "done"


async def it_deletes_what_is_older_than_it_should_be(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick, retain_runs=MINUTE)
        await durably.trigger(quick)
        await durably.process(max_seconds=50)
        assert (await durably.stats()).total == 1
        world.clock.advance(2 * MINUTE)
        await durably.process(max_seconds=0)
        assert (await durably.stats()).total == 1, "there was no time for it"
        await durably.process(max_seconds=50)
        assert (await durably.stats()).total == 0


@needs("workers")
async def beside_a_worker_it_ends_only_what_it_has_begun(backend: Backend) -> None:
    mine, others = Gate(), Gate()

    @job
    async def held(step: Step, input: dict[str, Any]) -> str:
        return await step.run("held", (mine if input["mine"] else others).wait, "held")

    async with World(backend) as world:
        durably = await world.started(held)
        handle = await durably.trigger(held, {"mine": False})
        await others.reached()
        assert (await bounded(durably.process(max_seconds=0))).leased == 1, "which is not waited for"
        others.open()
        assert await bounded(handle.result()) == "held"
