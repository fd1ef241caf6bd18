"""Sleeps and delays: kept to the moment, whoever works then, and without anybody asking again and again."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import InvalidInput
from durably_web.handle import RunHandle
from durably_web.jobs import job
from durably_web.records import Instant
from durably_web.steps import Step
from durably_web.store.batch import Batch, Executor
from tests.contract import Backend, needs
from tests.support.catalog import is_postgres
from tests.support.executors import CountingExecutor
from tests.support.scenes import (
    LONG,
    UnsteadyClock,
    becomes,
    later,
    move,
    run_of,
    settled,
    step_of,
    taken_over,
    types_of,
)
from tests.support.world import Gate, Heard, World, bounded, turns, until


@job
async def quick(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("one", lambda: input.get("n"))


@job
async def naps(step: Step, input: dict[str, Any]) -> str:
    await step.sleep("nap", input.get("seconds", 100))
    return "awake"


# -- sleeping --------------------------------------------------------------------------------------------


async def a_sleep_gives_the_slot_back_and_ends_at_its_moment(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(naps, quick, polling_interval=LONG, max_concurrent_runs=1)
        handle = await durably.trigger(naps, {"seconds": 90.5})
        run = await becomes(durably, handle.id, "waiting")
        assert run.wake_at == later(world, 90.5) and run.run_at is None
        assert await bounded((await durably.trigger(quick, {"n": 7})).result()) == 7
        await move(world, 90.499)
        assert (await run_of(durably, handle.id)).status == "waiting"
        await move(world, 0.001)
        assert await bounded(handle.result()) == "awake"
        run = await run_of(durably, handle.id)
        assert run.wake_at is None and run.completed_at == later(world, 0)


async def a_sleep_is_a_step(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(naps, polling_interval=LONG)
        heard = Heard(durably)
        handle = await durably.trigger(naps)
        await becomes(durably, handle.id, "waiting")
        end = later(world, 100)
        one = await step_of(durably, handle.id, "nap")
        assert (one.status, one.output, one.error, one.completed_at, one.until) == ("waiting", None, None, None, end)
        assert (await run_of(durably, handle.id)).step_count == 0
        await move(world, 100)
        await bounded(handle.result())
        one = await step_of(durably, handle.id, "nap")
        assert (one.status, one.output, one.attempt, one.attempts) == ("completed", None, 1, ())
        assert one.completed_at == end and one.started_at == later(world, -100)
        assert await types_of(durably, handle.id) == [
            "run:trigger",
            "run:leased",
            "step:wait",
            "run:waiting",
            "run:leased",
            "step:complete",
            "run:complete",
        ]
        waits = [event async for event in durably.subscribe(handle.id) if event.type in ("step:wait", "run:waiting")]
        assert [(event.step_name, event.until) for event in waits] == [("nap", end), (None, end)]
        assert [event.until for event in heard.of("step:wait", "run:waiting")] == [end, end]


async def a_replay_does_not_sleep_again(backend: Backend) -> None:
    gate = Gate()

    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("one", 1000)
        await step.run("wait", gate.wait, 1)

    async with World(backend) as world:
        first = await world.started(sleeps, polling_interval=LONG)
        handle = await first.trigger(sleeps)
        await becomes(first, handle.id, "waiting")
        await move(world, 1000)
        await gate.reached()
        second = await taken_over(world, first, sleeps)
        await gate.reached(2)
        gate.open()
        await world.drive(second.output_of(handle.id))
        assert (await types_of(second, handle.id)).count("step:wait") == 1


async def a_sleep_survives_restarts(backend: Backend) -> None:
    """The stored moment counts: neither a crash nor a stop makes the sleep longer."""
    async with World(backend) as world:
        durably = await world.started(naps, polling_interval=LONG)
        handle = await durably.trigger(naps)
        await becomes(durably, handle.id, "waiting")
        for crashes in (True, False, True):
            await move(world, 30)
            await (world.crash(durably) if crashes else bounded(durably.stop()))
            durably = await world.started(naps, polling_interval=LONG)
        await move(world, 9.999)
        assert (await run_of(durably, handle.id)).status == "waiting"
        await move(world, 0.001)
        assert await bounded(durably.output_of(handle.id)) == "awake"
        assert (await types_of(durably, handle.id)).count("run:leased") == 2, "it was not taken up in between"


async def a_moment_that_nobody_saw_is_over(backend: Backend) -> None:
    async with World(backend) as world:
        first = await world.started(naps)
        handle = await first.trigger(naps)
        await becomes(first, handle.id, "waiting")
        await first.stop()
        await move(world, 100_000)
        second = await world.started(naps, polling_interval=LONG)
        assert await bounded(second.output_of(handle.id)) == "awake"


async def a_process_that_was_asleep_itself_wakes_its_runs(backend: Backend) -> None:
    """A suspended machine: every timer is late at once."""
    async with World(backend) as world:
        durably = await world.started(naps)
        handles = [await durably.trigger(naps, {"seconds": seconds}) for seconds in (10, 100, 1000)]
        for handle in handles:
            await becomes(durably, handle.id, "waiting")
        await move(world, 1500)
        for handle in handles:
            assert await bounded(handle.result()) == "awake"


async def short_sleeps_keep_the_lease(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(naps, polling_interval=LONG)
        for seconds in (0.1, 0.05, 0.001):
            heard = Heard(durably)
            handle = await durably.trigger(naps, {"seconds": seconds})
            await settled()
            assert (await run_of(durably, handle.id)).status == "leased"
            await move(world, 0.1)
            assert await bounded(handle.result()) == "awake"
            assert not heard.of("run:waiting") and len(heard.of("run:leased")) == 1


async def no_sleep_at_all_is_over_at_once(backend: Backend) -> None:
    moments: list[Any] = [0, 0.0, timedelta(0)]

    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> None:
        for moment in moments:
            await step.sleep("sleep", moment)
        await step.sleep_until("past", later(world, -1000))
        await step.sleep_until("now", later(world, 0))
        await step.sleep_until("long ago", datetime(1, 1, 2, tzinfo=UTC))

    async with World(backend) as world:
        durably = await world.engine(sleeps)
        handle = await durably.trigger(sleeps)
        assert await bounded(durably.process_one())
        assert (await run_of(durably, handle.id)).status == "completed"
        steps = await durably.get_steps(handle.id)
        names = ["sleep", "sleep#2", "sleep#3", "past", "now", "long ago"]
        assert [(one.name, one.status) for one in steps] == [(name, "completed") for name in names]


async def what_is_no_time_is_refused(backend: Backend) -> None:
    durations: list[Any] = [
        -1,
        -0.001,
        math.nan,
        math.inf,
        -math.inf,
        "10",
        None,
        [],
        timedelta(seconds=-1),
        1e12,
        1e300,
    ]
    moments: list[Any] = [datetime(2030, 1, 1), "2030-01-01", 1_900_000_000, None]
    refused: list[Any] = []

    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> str:
        for duration in durations:
            try:
                await step.sleep("sleep", duration)
            except InvalidInput:
                refused.append(duration)
        for moment in moments:
            try:
                await step.sleep_until("until", moment)
            except InvalidInput:
                refused.append(moment)
        return "done"

    async with World(backend) as world:
        durably = await world.engine(sleeps, quick)
        handle = await durably.trigger(sleeps)
        assert await bounded(durably.process_one())
        assert (await run_of(durably, handle.id)).output == "done"
        assert len(refused) == len(durations) + len(moments), refused
        await _are_refused_of_a_trigger(durably, durations, moments)


async def _are_refused_of_a_trigger(durably: Durably, durations: list[Any], moments: list[Any]) -> None:
    options: list[dict[str, Any]] = [{"delay": one} for one in durations if one is not None]
    options += [{"run_at": one} for one in moments if one is not None]
    options.append({"delay": 1, "run_at": datetime(2030, 1, 1, tzinfo=UTC)})
    for option in options:
        try:
            await durably.trigger(quick, {}, **option)
        except InvalidInput:
            continue
        raise AssertionError(f"a trigger with {option}")
    assert len(await durably.get_runs()) == 1


async def a_moment_may_be_given_in_any_zone(backend: Backend) -> None:
    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> None:
        await step.sleep_until("until", moment.astimezone(timezone(timedelta(hours=5, minutes=45))))

    async with World(backend) as world:
        moment = later(world, 500)
        durably = await world.started(sleeps, polling_interval=LONG)
        handle = await durably.trigger(sleeps)
        assert (await becomes(durably, handle.id, "waiting")).wake_at == moment
        await move(world, 500)
        await bounded(handle.result())


async def a_moment_may_be_the_last_one_there_is(backend: Backend) -> None:
    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> None:
        await step.sleep_until("until", datetime.max.replace(tzinfo=UTC))

    async with World(backend) as world:
        durably = await world.started(sleeps)
        handle = await durably.trigger(sleeps)
        run = await becomes(durably, handle.id, "waiting")
        assert run.wake_at is not None and run.wake_at.year == 9999
        await move(world, 1000)
        assert (await run_of(durably, handle.id)).status == "waiting"
        await durably.cancel(handle.id)


async def names_are_counted_together(backend: Backend) -> None:
    @job
    async def mixes(step: Step, input: dict[str, Any]) -> Any:
        await step.run("a", lambda: 1)
        await step.sleep("a", 0)
        payload = await step.wait_for_signal("a")
        await step.sleep_until("a", later(world, -1))
        return payload

    async with World(backend) as world:
        durably = await world.engine(mixes)
        handle = await durably.trigger(mixes)
        await durably.signal(handle.id, "a", "payload")
        await bounded(durably.process_one())
        assert await handle.result(timeout=60) == "payload"
        assert [one.name for one in await durably.get_steps(handle.id)] == ["a", "a#2", "a#3", "a#4"]


async def a_name_must_be_one(backend: Backend) -> None:
    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> int:
        refused = 0
        names: list[Any] = ["", "a#2", None, 3]
        for name in names:
            try:
                await step.sleep(name, 0)
            except ValueError:
                refused += 1
            try:
                await step.sleep_until(name, later(world, 0))
            except ValueError:
                refused += 1
        return refused

    async with World(backend) as world:
        durably = await world.engine(sleeps)
        handle = await durably.trigger(sleeps)
        await durably.process_one()
        assert await handle.result(timeout=60) == 8


# -- beside others ---------------------------------------------------------------------------------------


async def a_sleep_holds_up_no_other_branch(backend: Backend) -> None:
    """Each branch goes on at its own time; the run waits while all of them do, for the first of them."""
    gate = Gate()
    order: list[str] = []

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[str]:
        async def branch(name: str, seconds: float) -> str:
            await step.sleep("nap", seconds)
            return str(await step.run(f"after {name}", note, name))

        def note(name: str) -> str:
            order.append(name)
            return name

        return list(await asyncio.gather(branch("slow", 30), branch("fast", 10), step.run("work", gate.wait, "work")))

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        heard = Heard(durably)
        handle = await durably.trigger(gathers)
        await gate.reached()
        await settled()
        assert (await run_of(durably, handle.id)).status == "leased"
        await move(world, 10)
        await until(lambda: order == ["fast"])
        assert not heard.of("run:waiting"), "a branch executes"
        gate.open()
        assert (await becomes(durably, handle.id, "waiting")).wake_at == later(world, 20)
        await move(world, 20)
        assert await bounded(handle.result()) == ["slow", "fast", "work"]
        assert order == ["fast", "slow"] and gate.arrived == 1
        assert len(heard.of("run:waiting")) == 1


async def a_run_that_waits_wakes_for_each_of_its_sleeps(backend: Backend) -> None:
    @job
    async def gathers(step: Step, input: dict[str, Any]) -> None:
        async def branch(seconds: float) -> None:
            await step.sleep("nap", seconds)
            await step.run(f"woke after {seconds}", lambda: moments.append(later(world, 0)))

        await asyncio.gather(*[branch(seconds) for seconds in (50, 20, 40, 20)])

    moments: list[Instant] = []
    async with World(backend) as world:
        expected = [later(world, seconds) for seconds in (20, 20, 40, 50)]
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        for seconds in (20, 20, 10):
            await becomes(durably, handle.id, "waiting")
            await move(world, seconds)
        await bounded(handle.result())
        assert moments == expected


async def a_short_sleep_beside_a_long_one_does_not_keep_the_slot(backend: Backend) -> None:
    @job
    async def gathers(step: Step, input: dict[str, Any]) -> None:
        await asyncio.gather(step.sleep("short", 0.05), step.sleep("long", 100))

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        end = later(world, 100)
        await settled()
        await move(world, 0.05)
        assert (await becomes(durably, handle.id, "waiting")).wake_at == end
        await move(world, 99.95)
        await bounded(handle.result())


async def a_slow_database_does_not_hold_up_a_branch(backend: Backend) -> None:
    """While the end of one sleep is being stored, nothing executes; and yet the run does not wait for the other."""

    class Slow(CountingExecutor):
        async def run(self, batch: Batch) -> Any:
            await turns(60)
            result = await super().run(batch)
            await turns(60)
            return result

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> None:
        async def branch(seconds: float) -> None:
            await step.sleep("nap", seconds)
            await step.run(f"woke after {seconds}", lambda: moments.append(later(world, 0)))

        await asyncio.gather(branch(1000), branch(10))

    moments: list[Instant] = []
    async with World(backend) as world:
        expected = [later(world, 10), later(world, 1000)]
        durably = await world.started(gathers, polling_interval=LONG, through=Slow)
        handle = await durably.trigger(gathers)
        for seconds in (10, 990):
            await becomes(durably, handle.id, "waiting")
            await turns(1000)
            world.clock.advance(seconds)
            await turns(2000)
        await bounded(handle.result())
        assert moments == expected


async def a_crash_beside_a_sleep_changes_nothing(backend: Backend) -> None:
    """One branch sleeps while the other executes, and the worker dies: the moment stays the same."""
    gate = Gate()

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[Any]:
        return list(await asyncio.gather(step.sleep("nap", 100), step.run("work", gate.wait, "work")))

    async with World(backend) as world:
        first = await world.started(gathers)
        handle = await first.trigger(gathers)
        await gate.reached()
        await settled()
        end = later(world, 100)
        # What begins to wait beside a step that executes is stored a moment later.
        await move(world, 1)
        assert (await step_of(first, handle.id, "nap")).until == end
        second = await taken_over(world, first, gathers, polling_interval=LONG)
        await gate.reached(2)
        gate.open()
        assert (await becomes(second, handle.id, "waiting")).wake_at == end
        await move(world, 68)
        assert await bounded(second.output_of(handle.id)) == [None, "work"]


async def the_first_of_two_ends_the_wait(backend: Backend) -> None:
    """A job races a sleep with a step; what it does not wait for any more holds nothing up."""
    gate = Gate()

    @job
    async def races(step: Step, input: dict[str, Any]) -> str:
        tasks = [asyncio.ensure_future(step.run("work", gate.wait, "work")), asyncio.ensure_future(_long(step))]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        return str(done.pop().result())

    async with World(backend) as world:
        durably = await world.started(races, polling_interval=LONG)
        handle = await durably.trigger(races)
        await gate.reached()
        gate.open()
        assert await bounded(handle.result()) == "work"
        await move(world, 1500)
        assert (await run_of(durably, handle.id)).status == "completed"


async def _long(step: Step) -> str:
    await step.sleep("deadline", 1000)
    return "too late"


async def a_sleep_that_is_left_behind_does_not_hold_up_the_end(backend: Backend) -> None:
    left: list[asyncio.Task[Any]] = []

    @job
    async def leaves(step: Step, input: dict[str, Any]) -> str:
        left.append(asyncio.ensure_future(_long(step)))
        return await step.run("one", lambda: "done")

    async with World(backend) as world:
        durably = await world.started(leaves, polling_interval=LONG)
        handle = await durably.trigger(leaves)
        assert await bounded(handle.result()) == "done"
        await until(lambda: left[0].done())
        await asyncio.wait(left)
        left[0].cancelled() or left[0].exception()


# -- control ---------------------------------------------------------------------------------------------


async def a_sleeping_run_can_be_cancelled(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(naps, polling_interval=LONG)
        handle = await durably.trigger(naps)
        await becomes(durably, handle.id, "waiting")
        await durably.cancel(handle.id)
        await move(world, 1000)
        run = await run_of(durably, handle.id)
        assert (run.status, run.wake_at) == ("cancelled", None)
        assert (await types_of(durably, handle.id))[-1] == "run:cancel"
        await durably.delete_run(handle.id)


async def a_cancelled_sleeper_that_is_retried_comes_to_its_end(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(naps, polling_interval=LONG)
        handle = await durably.trigger(naps)
        await becomes(durably, handle.id, "waiting")
        await durably.cancel(handle.id)
        await move(world, 50)
        await durably.retry(handle.id)
        run = await becomes(durably, handle.id, "waiting")
        assert run.wake_at is not None
        await move(world, 100)
        assert await bounded(handle.result()) == "awake"


async def a_paused_sleeper_goes_on_when_it_is_resumed(backend: Backend) -> None:
    """Its time goes on counting."""
    for seconds, pause in ((100, 300), (300, 100)):
        async with World(backend) as world:
            durably = await world.started(naps, polling_interval=LONG)
            handle = await durably.trigger(naps, {"seconds": seconds})
            await becomes(durably, handle.id, "waiting")
            await durably.pause(handle.id)
            await move(world, pause)
            run = await run_of(durably, handle.id)
            assert not run.is_terminal and run.paused
            await durably.resume(handle.id)
            await move(world, max(0, seconds - pause))
            assert await bounded(handle.result()) == "awake"
            await durably.delete_run(handle.id)


async def a_stop_does_not_wait_for_a_sleep(backend: Backend) -> None:
    for seconds in (0.1, 1000):
        async with World(backend) as world:
            first = await world.started(naps)
            handle = await first.trigger(naps, {"seconds": seconds})
            await settled()
            await bounded(first.stop())
            second = await world.started(naps, polling_interval=LONG)
            await settled()
            await move(world, seconds)
            assert await bounded(second.output_of(handle.id)) == "awake"
            await second.delete_run(handle.id)


async def a_stop_waits_for_no_sleep_beside_a_step(backend: Backend) -> None:
    """The step that executes is finished; what sleeps beside it is left where it is."""
    gates = {False: Gate(), True: Gate()}

    @job
    async def gathers(step: Step, input: dict[str, bool]) -> list[Any]:
        work = step.run("work", gates[input["catches"]].wait, "work")
        steps = (work, step.sleep("nap", 100), step.wait_for_signal("go"))
        return list(await asyncio.gather(*steps, return_exceptions=input["catches"]))

    for catches, gate in gates.items():
        async with World(backend) as world:
            first = await world.started(gathers)
            handle = await first.trigger(gathers, {"catches": catches})
            await gate.reached()
            stopping = asyncio.ensure_future(first.stop())
            await settled()
            assert not stopping.done()
            gate.open()
            await bounded(stopping)
            second = await world.started(gathers, polling_interval=LONG)
            await becomes(second, handle.id, "waiting")
            await move(world, 100)
            await second.signal(handle.id, "go", "went")
            assert await bounded(second.output_of(handle.id)) == ["work", None, "went"]
            assert gate.arrived == 1
            await second.delete_run(handle.id)


async def processing_until_idle_does_not_wait_for_a_sleep(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(naps)
        handle = await durably.trigger(naps)
        assert await bounded(durably.process_until_idle()) == 1
        assert (await run_of(durably, handle.id)).status == "waiting"
        assert await bounded(durably.process_one()) is False
        await move(world, 100)
        assert await bounded(durably.process_one()) is True
        assert (await run_of(durably, handle.id)).output == "awake"


@needs("workers")
async def of_two_workers_one_takes_up_each_sleeper(backend: Backend) -> None:
    async with World(backend) as world:
        engines = [await world.started(naps, max_concurrent_runs=5) for _ in range(2)]
        heard = [Heard(one, "run:leased") for one in engines]
        handles = [await engines[0].trigger(naps) for _ in range(20)]
        for handle in handles:
            await world.drive(becomes(engines[0], handle.id, "waiting"))
        assert sum(len(one.events) for one in heard) == 20
        await world.advance(100)
        for handle in handles:
            assert await world.drive(handle.result()) == "awake"
        assert sum(len(one.events) for one in heard) == 40


# -- delays ----------------------------------------------------------------------------------------------


async def a_delayed_run_begins_at_its_moment(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(quick, polling_interval=LONG)
        moment = later(world, 3600)
        options: list[dict[str, Any]] = [{"delay": 3600}, {"delay": timedelta(hours=1)}, {"run_at": moment}]
        handles = [await durably.trigger(quick, {"n": n}, **option) for n, option in enumerate(options)]
        await settled()
        for handle in handles:
            run = await run_of(durably, handle.id)
            assert (run.status, run.run_at, run.wake_at, run.started_at) == ("pending", moment, moment, None)
        await move(world, 3599.999)
        assert {(await run_of(durably, handle.id)).status for handle in handles} == {"pending"}
        await move(world, 0.001)
        for n, handle in enumerate(handles):
            assert await bounded(handle.result()) == n
            run = await run_of(durably, handle.id)
            assert (run.started_at, run.run_at, run.wake_at) == (moment, moment, None)


async def a_moment_in_the_past_is_now(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        options: list[dict[str, Any]] = [{"delay": 0}, {"run_at": later(world, -1000)}, {"run_at": later(world, 0)}]
        for option in options:
            handle = await durably.trigger(quick, {"n": 1}, **option)
            assert await bounded(durably.process_one())
            assert await handle.result(timeout=60) == 1


async def process_one_leaves_a_delayed_run_alone(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        await durably.trigger(quick, {"n": 1}, delay=10)
        now = await durably.trigger(quick, {"n": 2})
        assert await bounded(durably.process_until_idle()) == 1
        assert (await run_of(durably, now.id)).status == "completed"
        await move(world, 10)
        assert await bounded(durably.process_until_idle()) == 1


async def a_delayed_run_survives_a_restart(backend: Backend) -> None:
    async with World(backend) as world:
        first = await world.started(quick)
        handle = await first.trigger(quick, {"n": 1}, delay=50)
        await world.crash(first)
        await move(world, 40)
        second = await world.started(quick, polling_interval=LONG)
        await move(world, 10)
        assert await bounded(second.output_of(handle.id)) == 1


async def a_nearer_moment_is_not_missed(backend: Backend) -> None:
    """The worker waits for a moment, and is told of an earlier one."""
    async with World(backend) as world:
        durably = await world.started(quick, polling_interval=LONG)
        handles = {}
        for seconds in (100, 50, 10, 70):
            handles[seconds] = await durably.trigger(quick, {"n": seconds}, delay=seconds)
            await settled()
        for seconds in (10, 50, 70, 100):
            await move(world, seconds - (world.clock.monotonic()))
            assert await bounded(handles[seconds].result()) == seconds
            assert (await run_of(durably, handles[seconds].id)).started_at == later(world, 0)


@needs("workers", "wakes")
async def another_engines_delayed_run_is_not_missed(backend: Backend) -> None:
    async with World(backend) as world:
        await world.started(quick, polling_interval=LONG)
        asking = await world.engine(quick)
        handle = await asking.trigger(quick, {"n": 1}, delay=5)
        await world.advance(4)
        assert (await run_of(asking, handle.id)).status == "pending"
        await world.advance(1)
        assert (await becomes(asking, handle.id, "completed")).started_at == later(world, 0)


async def a_delayed_run_can_be_cancelled(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(quick)
        handle = await durably.trigger(quick, {"n": 1}, delay=10)
        await durably.cancel(handle.id)
        await world.advance(20)
        run = await run_of(durably, handle.id)
        assert (run.status, run.attempt, run.wake_at) == ("cancelled", 0, None)


async def an_engine_without_the_job_leaves_a_sleeper_to_others(backend: Backend) -> None:
    """And does not ask again and again because of a run that is due, and that it cannot execute."""
    async with World(backend) as world:
        first = await world.started(naps)
        handle = await first.trigger(naps)
        await becomes(first, handle.id, "waiting")
        await first.stop()
        counting: list[CountingExecutor] = []
        stranger = await world.started(quick, polling_interval=LONG, through=_counted(counting))
        await move(world, 100)
        counting[0].batches.clear()
        for _ in range(20):
            await move(world, 0.01)
        assert len(counting[0].batches) < 5, [one.sql for batch in counting[0].batches for one in batch.statements]
        assert not (await run_of(stranger, handle.id)).is_terminal
        second = await world.started(naps, polling_interval=LONG)
        assert await bounded(second.output_of(handle.id)) == "awake"


def _counted(counting: list[CountingExecutor]) -> Any:
    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[-1]

    return through


# -- the wall clock --------------------------------------------------------------------------------------


async def a_clock_that_is_set_forward_wakes_what_is_due(backend: Backend) -> None:
    async with World(backend) as world:
        clock = world.clock = UnsteadyClock()
        durably = await world.started(naps)
        handle = await durably.trigger(naps, {"seconds": 3600})
        await becomes(durably, handle.id, "waiting")
        clock.jump(3600)
        # No timer knows of it; the worker sees it when it looks the next time.
        await world.advance(2)
        assert await bounded(handle.result()) == "awake"


async def a_clock_that_is_set_back_wakes_nobody_early(backend: Backend) -> None:
    """And the worker does not ask again and again while its timer says so and the clock does not."""
    async with World(backend) as world:
        clock = world.clock = UnsteadyClock()
        counting: list[CountingExecutor] = []
        durably = await world.started(naps, through=_counted(counting))
        handle = await durably.trigger(naps, {"seconds": 60})
        await becomes(durably, handle.id, "waiting")
        clock.jump(-600)
        counting[0].batches.clear()
        await world.advance(120)
        assert (await run_of(durably, handle.id)).status == "waiting"
        assert len(counting[0].batches) < 3 * 120
        await world.advance(600)
        assert await bounded(handle.result()) == "awake"


async def a_clock_that_is_set_back_ends_no_short_wait_late(backend: Backend) -> None:
    """What is waited for in place is bounded all the same: nothing hangs."""
    async with World(backend) as world:
        clock = world.clock = UnsteadyClock()
        durably = await world.started(naps)
        handle = await durably.trigger(naps, {"seconds": 0.1})
        await settled()
        clock.jump(-5)
        await world.advance(10)
        assert await bounded(handle.result()) == "awake"


# -- many ------------------------------------------------------------------------------------------------


async def ten_thousand_sleepers_cost_an_idle_worker_nothing(backend: Backend) -> None:
    """Not a query more than without them; and each wakes at its moment."""
    async with World(backend) as world:
        counting: list[CountingExecutor] = []
        durably = await world.started(quick, naps, polling_interval=LONG, through=_counted(counting))
        batches = counting[0].batches

        async def asked(seconds: float) -> list[Batch]:
            batches.clear()
            await world.advance(seconds, step=5)
            return list(batches)

        handles: list[RunHandle[Any]] = []
        alone = await asked(100)
        sleeper = await durably.trigger(naps, {"seconds": 5000})
        for first in range(0, 10_000, 1000):
            items = [{"input": {"n": n}, "delay": 10_000 + n} for n in range(first, first + 1000)]
            handles += await durably.trigger_many(quick, items)
        await becomes(durably, sleeper.id, "waiting")
        among_many = await asked(100)
        assert len(among_many) <= len(alone) + 2, f"{len(alone)} batches without, {len(among_many)} with sleepers"
        await _walk_through_nothing(world, among_many)

        await move(world, 4899)
        assert (await run_of(durably, sleeper.id)).status == "waiting"
        batches.clear()
        await move(world, 1)
        assert await bounded(sleeper.result()) == "awake"
        assert len(batches) < 12, f"{len(batches)} batches to wake one"
        await _walk_through_nothing(world, batches)

        # The first of them: at its moment, and alone.
        moment = (await run_of(durably, handles[0].id)).wake_at
        assert moment is not None
        await move(world, moment.timestamp() - world.clock.now() / 1000)
        run = await becomes(durably, handles[0].id, "completed")
        assert (run.started_at, run.output) == (moment, 0)
        assert (await run_of(durably, handles[1].id)).status == "pending"


async def _walk_through_nothing(world: World, batches: list[Batch]) -> None:
    """Every statement finds its rows by an index: none scans the table of runs. Where SQLite says how it does."""
    if is_postgres(world.backend.connect()):
        return
    asked = {statement.sql: statement.params for batch in batches for statement in batch.statements}
    for sql, params in asked.items():
        if sql.lstrip().startswith(("SELECT", "UPDATE", "INSERT", "DELETE")):
            for row in await world.rows(f"EXPLAIN QUERY PLAN {sql}", *params):
                line = str(row[3])
                assert not line.startswith("SCAN durably_runs") or " INDEX " in line, (line, sql)


async def many_that_are_due_at_once_all_begin(backend: Backend) -> None:
    counting: list[CountingExecutor] = []
    async with World(backend) as world:
        durably = await world.started(quick, polling_interval=LONG, through=_counted(counting))
        handles = await durably.trigger_many(quick, [{"input": {"n": n}, "delay": 60} for n in range(200)])
        counting[0].batches.clear()
        await move(world, 60)
        for n, handle in enumerate(handles):
            assert await bounded(handle.result()) == n
        # Claims take several at once, and their writes share transactions: nobody asks for each run alone.
        writes = [batch for batch in counting[0].batches if batch.mode == "write"]
        assert len(writes) < 3 * 200, len(writes)


async def thousands_of_sleeps_of_one_run_are_kept(backend: Backend) -> None:
    @job
    async def gathers(step: Step, input: dict[str, Any]) -> int:
        await asyncio.gather(*[step.sleep("nap", 10 + n % 5) for n in range(1000)])
        return len(await durably.get_steps(step.run_id))

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        await becomes(durably, handle.id, "waiting")
        waiting = [one for one in await durably.get_steps(handle.id) if one.status == "waiting"]
        assert len(waiting) == 1000
        for _ in range(15):
            await move(world, 1)
        assert await bounded(handle.result()) == 1000
