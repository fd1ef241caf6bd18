"""What takes too long is ended: an attempt of a step, and a whole run with all its waits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from durably_web import cancelled
from durably_web.engine import Durably
from durably_web.errors import InvalidInput
from durably_web.jobs import Job, job
from durably_web.retry import Retry
from durably_web.steps import Step
from tests.contract import Backend, needs
from tests.support.scenes import LONG, Flaky, becomes, later, move, run_of, settled, step_of, taken_over, types_of
from tests.support.world import Gate, Heard, World, bounded, raised, turns, until

TOO_LONG = "TimeoutError: the run took longer than 60 s"


def _timed(fn: Callable[..., Any], *, retry: Retry | None = None, timeout: Any = 2) -> Job[dict[str, Any], Any]:
    @job
    async def timed(step: Step, input: dict[str, Any]) -> Any:
        return await step.run("slow", fn, retry=retry, timeout=timeout)

    return timed


class Slow:
    """`work` is an async step's function that never ends by itself; keeps how it ended."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.ended: list[str] = []

    async def work(self) -> str:
        try:
            return await self.gate.wait("in time")
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise


# -- steps -----------------------------------------------------------------------------------------------


async def a_step_that_takes_too_long_is_cancelled(backend: Backend) -> None:
    for timeout, text in ((2, "2 s"), (0.5, "0.5 s"), (timedelta(minutes=2), "120 s"), (2.0, "2 s")):
        async with World(backend) as world:
            slow = Slow()
            timed = _timed(slow.work, timeout=timeout)
            durably = await world.started(timed, polling_interval=LONG)
            handle = await durably.trigger(timed)
            await slow.gate.reached()
            seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
            await move(world, seconds - 0.001)
            assert slow.ended == []
            await move(world, 0.001)
            run = await becomes(durably, handle.id, "failed")
            assert run.error == f"TimeoutError: step 'slow' took longer than {text}", run.error
            assert slow.ended == ["CancelledError"]
            one = await step_of(durably, handle.id, "slow")
            assert (one.status, one.error, one.attempt) == ("failed", run.error, 1)
            await durably.delete_run(handle.id)


async def a_step_in_time_is_left_alone(backend: Backend) -> None:
    async with World(backend) as world:
        slow = Slow()
        timed = _timed(slow.work)
        durably = await world.started(timed)
        handle = await durably.trigger(timed)
        await slow.gate.reached()
        await move(world, 1.9)
        slow.gate.open()
        assert await bounded(handle.result()) == "in time"
        await move(world, 100)
        assert slow.ended == [] and (await step_of(durably, handle.id, "slow")).status == "completed"


async def every_attempt_has_its_own_time(backend: Backend) -> None:
    async with World(backend) as world:
        slow = Slow()
        timed = _timed(slow.work, retry=Retry(max_attempts=3, initial_delay=10, backoff=1, jitter=False))
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed)
        for count in (1, 2):
            await slow.gate.reached(count)
            await move(world, 2)
            assert (await becomes(durably, handle.id, "waiting")).wake_at == later(world, 10)
            await move(world, 10)
        await slow.gate.reached(3)
        await move(world, 1.9)
        slow.gate.open()
        assert await bounded(handle.result()) == "in time"
        one = await step_of(durably, handle.id, "slow")
        assert [failed.error for failed in one.attempts] == ["TimeoutError: step 'slow' took longer than 2 s"] * 2


async def a_policy_may_leave_time_outs_out(backend: Backend) -> None:
    async with World(backend) as world:
        slow = Slow()
        timed = _timed(slow.work, retry=Retry(initial_delay=0, give_up_on=(TimeoutError,)))
        durably = await world.started(timed)
        handle = await durably.trigger(timed)
        await slow.gate.reached()
        await move(world, 2)
        await becomes(durably, handle.id, "failed")
        assert slow.gate.arrived == 1


async def a_time_out_can_be_caught_and_is_raised_again_by_a_replay(backend: Backend) -> None:
    slow, gate = Slow(), Gate()
    seen: list[str] = []

    @job
    async def catches(step: Step, input: dict[str, Any]) -> str:
        try:
            await step.run("slow", slow.work, timeout=2)
        except TimeoutError as error:
            seen.append(str(error))
        return await step.run("wait", gate.wait, "went on")

    async with World(backend) as world:
        first = await world.started(catches)
        handle = await first.trigger(catches)
        await slow.gate.reached()
        await move(world, 2)
        await gate.reached()
        second = await taken_over(world, first, catches)
        gate.open()
        assert await world.drive(second.output_of(handle.id)) == "went on"
        assert seen == ["step 'slow' took longer than 2 s"] * 2 and slow.gate.arrived == 1


async def no_time_at_all_is_too_long(backend: Backend) -> None:
    async with World(backend) as world:
        slow = Slow()
        timed = _timed(slow.work, timeout=0)
        durably = await world.started(timed)
        handle = await durably.trigger(timed)
        await slow.gate.reached()
        await move(world, 0.001)
        run = await becomes(durably, handle.id, "failed")
        assert run.error == "TimeoutError: step 'slow' took longer than 0 s"


async def a_time_that_is_none_is_refused(backend: Backend) -> None:
    refused: list[Exception] = []
    values: list[Any] = [-1, -0.1, math.nan, math.inf, "2", timedelta(seconds=-1), []]

    @job
    async def asks(step: Step, input: dict[str, Any]) -> None:
        for value in values:
            try:
                await step.run("never", called.append, 1, timeout=value)
            except InvalidInput as error:
                refused.append(error)

    async def slow(step: Step, input: dict[str, Any]) -> None: ...

    called: list[int] = []
    async with World(backend) as world:
        durably = await world.engine(asks)
        handle = await durably.trigger(asks)
        await durably.process_one()
        assert (await run_of(durably, handle.id)).status == "completed"
        assert len(refused) == len(values) and not called
        assert await durably.get_steps(handle.id) == []
    for value in values:
        try:
            job(timeout=value)(slow)
        except InvalidInput:
            continue
        raise AssertionError(f"a job with a time-out of {value!r}")


async def a_step_may_clean_up_when_its_time_is_over(backend: Backend) -> None:
    cleaning = Gate()
    steps: list[str] = []

    async def slow() -> None:
        try:
            await Gate().wait(1)
        finally:
            steps.append("begin")
            await cleaning.wait(1)
            steps.append("end")

    async with World(backend) as world:
        timed = _timed(slow)
        durably = await world.started(timed)
        handle = await durably.trigger(timed)
        await settled()
        await move(world, 2)
        await cleaning.reached()
        cleaning.open()
        run = await becomes(durably, handle.id, "failed")
        assert steps == ["begin", "end"] and run.error == "TimeoutError: step 'slow' took longer than 2 s"


async def a_functions_own_time_out_is_its_own(backend: Backend) -> None:
    async def raises() -> None:
        raise TimeoutError("the server's")

    async with World(backend) as world:
        timed = _timed(raises)
        durably = await world.engine(timed)
        handle = await durably.trigger(timed)
        await durably.process_one()
        assert (await run_of(durably, handle.id)).error == "TimeoutError: the server's"


async def only_the_slow_one_of_parallel_steps_is_ended(backend: Backend) -> None:
    slow, beside = Slow(), Slow()

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[str]:
        both = await asyncio.gather(
            step.run("slow", slow.work, timeout=2), step.run("beside", beside.work, timeout=9), return_exceptions=True
        )
        return [str(one) for one in both]

    async with World(backend) as world:
        durably = await world.started(gathers)
        handle = await durably.trigger(gathers)
        await slow.gate.reached()
        await beside.gate.reached()
        await move(world, 2)
        assert (slow.ended, beside.ended) == (["CancelledError"], [])
        beside.gate.open()
        assert await bounded(handle.result()) == ["step 'slow' took longer than 2 s", "in time"]


async def a_cancelled_run_has_no_time_out(backend: Backend) -> None:
    async with World(backend) as world:
        slow = Slow()
        timed = _timed(slow.work)
        durably = await world.started(timed)
        handle = await durably.trigger(timed)
        await slow.gate.reached()
        await durably.cancel(handle.id)
        await move(world, 100)
        assert (await run_of(durably, handle.id)).status == "cancelled"
        assert await types_of(durably, handle.id) == ["run:trigger", "run:leased", "run:cancel"]


async def a_stop_waits_for_a_step_no_longer_than_its_time(backend: Backend) -> None:
    async with World(backend) as world:
        slow = Slow()
        timed = _timed(slow.work)
        durably = await world.started(timed)
        handle = await durably.trigger(timed)
        await slow.gate.reached()
        stopping = asyncio.ensure_future(durably.stop())
        await move(world, 2)
        await bounded(stopping)
        last = await world.engine(timed)
        assert (await step_of(last, handle.id, "slow")).status == "failed", "its outcome is stored before the stop"


# -- sync functions --------------------------------------------------------------------------------------


class Blocking:
    """A sync step's function that holds its thread until the gate opens; it asks before and after."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.before: list[bool] = []
        self.after: list[bool] = []
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> str:
        self.before.append(cancelled())
        asyncio.run_coroutine_threadsafe(self.gate.wait(1), self._loop).result(20)
        self.after.append(cancelled())
        return "late"

    async def released(self) -> None:
        """Let it come to its end."""
        self.gate.open()
        await until(lambda: len(self.after) == len(self.before))
        await turns()


@needs("threads")
async def a_sync_step_that_takes_too_long_is_abandoned(backend: Backend) -> None:
    async with World(backend) as world:
        blocking = Blocking()
        timed = _timed(blocking)
        durably = await world.started(timed)
        handle = await durably.trigger(timed)
        await blocking.gate.reached()
        await move(world, 2)
        run = await becomes(durably, handle.id, "failed")
        assert run.error == "TimeoutError: step 'slow' took longer than 2 s"
        before = await durably.get_steps(handle.id)
        await blocking.released()
        assert await durably.get_steps(handle.id) == before, "its late result is dropped"
        assert (blocking.before, blocking.after) == ([False], [True])


@needs("threads")
async def an_abandoned_function_holds_up_no_other(backend: Backend) -> None:
    """There is one thread for one run; a stuck one is not waited for."""
    async with World(backend) as world:
        stuck = [Blocking() for _ in range(3)]

        @job
        async def blocks(step: Step, input: dict[str, Any]) -> Any:
            return await step.run("slow", stuck[input["n"]], timeout=2)

        @job
        async def quick(step: Step, input: dict[str, Any]) -> Any:
            return await step.run("one", lambda: "quick")

        durably = await world.started(blocks, quick, max_concurrent_runs=1)
        for n, blocking in enumerate(stuck):
            handle = await durably.trigger(blocks, {"n": n})
            await blocking.gate.reached()
            await move(world, 2)
            await becomes(durably, handle.id, "failed")
        assert await bounded((await durably.trigger(quick)).result()) == "quick"
        for blocking in stuck:
            await blocking.released()
        assert await bounded((await durably.trigger(quick)).result()) == "quick"


@needs("threads")
async def an_abandoned_function_is_tried_again_beside_itself(backend: Backend) -> None:
    async with World(backend) as world:
        blocking = Blocking()
        timed = _timed(blocking, retry=Retry(max_attempts=2, initial_delay=1, jitter=False))
        durably = await world.started(timed, max_concurrent_runs=1)
        handle = await durably.trigger(timed)
        await blocking.gate.reached()
        await move(world, 2)
        await becomes(durably, handle.id, "waiting")
        await move(world, 1)
        await blocking.gate.reached(2)
        await blocking.released()
        assert await bounded(handle.result()) == "late"
        assert len((await step_of(durably, handle.id, "slow")).attempts) == 1


async def a_sync_step_that_comes_back_late_is_too_late(backend: Backend) -> None:
    """Where there are no threads nothing can interrupt it; its result is dropped all the same."""
    if "threads" in backend.has:
        return
    async with World(backend) as world:

        def late() -> str:
            world.clock.advance(3)
            return "late"

        timed = _timed(late)
        durably = await world.engine(timed)
        handle = await durably.trigger(timed)
        await bounded(durably.process_one())
        run = await run_of(durably, handle.id)
        assert run.error == "TimeoutError: step 'slow' took longer than 2 s"


# -- cancelled() -----------------------------------------------------------------------------------------


@needs("threads")
async def a_sync_function_can_ask_whether_its_run_was_cancelled(backend: Backend) -> None:
    async with World(backend) as world:
        blocking = Blocking()
        timed = _timed(blocking, timeout=None)
        durably = await world.started(timed)
        handle = await durably.trigger(timed)
        await blocking.gate.reached()
        await durably.cancel(handle.id)
        await blocking.released()
        assert (blocking.before, blocking.after) == ([False], [True])


@needs("threads", "workers")
async def a_sync_function_can_ask_whether_its_lease_was_lost(backend: Backend) -> None:
    async with World(backend) as world:
        blocking = Blocking()
        timed = _timed(blocking, timeout=None)
        durably, other = await world.started(timed), await world.engine(timed)
        handle = await durably.trigger(timed)
        await blocking.gate.reached()
        await other.cancel(handle.id)
        await other.retry(handle.id)
        # Its worker learns at the next heartbeat that the lease is not its own any more.
        await world.advance(6)
        await durably.cancel(handle.id)
        await blocking.released()
        assert not any(blocking.before) and all(blocking.after)


async def nothing_is_cancelled_where_there_is_no_step(backend: Backend) -> None:
    asked: list[bool] = []

    @job
    async def asks(step: Step, input: dict[str, Any]) -> bool:
        asked.append(cancelled())
        return await step.run("ask", cancelled)

    async with World(backend) as world:
        assert cancelled() is False
        durably = await world.engine(asks)
        handle = await durably.trigger(asks)
        await durably.process_one()
        assert await handle.result(timeout=60) is False and asked == [False]


# -- runs ------------------------------------------------------------------------------------------------


async def _fails_at(world: World, durably: Durably, run_id: str, seconds: float, status: str) -> None:
    """In so many seconds, and not a moment earlier."""
    await move(world, seconds - 0.001)
    assert (await run_of(durably, run_id)).status == status
    await move(world, 0.001)
    assert (await becomes(durably, run_id, "failed")).error == TOO_LONG


async def a_run_that_takes_too_long_fails(backend: Backend) -> None:
    slow = Slow()

    @job(timeout=60, retry=Retry(initial_delay=0))
    async def timed(step: Step, input: dict[str, Any]) -> str:
        try:
            await step.run("slow", slow.work, retry=Retry(initial_delay=0))
        except Exception:
            return "swallowed"
        return "done"

    async with World(backend) as world:
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed)
        await slow.gate.reached()
        await _fails_at(world, durably, handle.id, 60, "leased")
        assert slow.ended == ["CancelledError"] and slow.gate.arrived == 1
        assert await types_of(durably, handle.id) == ["run:trigger", "run:leased", "run:fail"]
        await move(world, 500)
        assert (await run_of(durably, handle.id)).error == TOO_LONG


async def a_run_between_its_steps_is_ended_too(backend: Backend) -> None:
    gate = Gate()
    more: list[int] = []

    @job(timeout=timedelta(minutes=1))
    async def timed(step: Step, input: dict[str, Any]) -> str:
        try:
            await gate.wait(1)
        except BaseException:
            # Not even this; the next step says so again.
            await step.run("more", more.append, 1)
        return "swallowed"

    async with World(backend) as world:
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed)
        await gate.reached()
        await _fails_at(world, durably, handle.id, 60, "leased")
        assert more == []


async def all_steps_beside_each_other_are_ended(backend: Backend) -> None:
    slows = [Slow() for _ in range(3)]

    @job(timeout=60)
    async def timed(step: Step, input: dict[str, Any]) -> None:
        await asyncio.gather(*[step.run("slow", slow.work) for slow in slows], step.sleep("sleep", 1000))

    async with World(backend) as world:
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed)
        for slow in slows:
            await slow.gate.reached()
        await _fails_at(world, durably, handle.id, 60, "leased")
        assert [slow.ended for slow in slows] == [["CancelledError"]] * 3


async def the_time_runs_on_while_a_run_waits(backend: Backend) -> None:
    """For a sleep, a signal, or the next attempt: it fails when its time is over, not when the wait is."""

    async def sleeps(step: Step) -> None:
        await step.sleep("sleep", 1000)

    async def listens(step: Step) -> None:
        await step.wait_for_signal("never", timeout=1000)

    async def listens_for_ever(step: Step) -> None:
        await step.wait_for_signal("never")

    async def tries(step: Step) -> None:
        await step.run("try", broken, retry=Retry(initial_delay=1000, max_delay=1000))

    async def broken() -> None:
        raise ValueError

    waits = (sleeps, listens, listens_for_ever, tries)

    @job(timeout=60, retry=Retry(initial_delay=0))
    async def timed(step: Step, input: dict[str, Any]) -> None:
        try:
            await waits[input["n"]](step)
        except Exception:
            return

    for n in range(len(waits)):
        async with World(backend) as world:
            durably = await world.started(timed, polling_interval=LONG)
            handle = await durably.trigger(timed, {"n": n})
            await becomes(durably, handle.id, "waiting")
            await _fails_at(world, durably, handle.id, 60, "waiting")
            await durably.delete_run(handle.id)


async def sleeps_are_part_of_a_runs_time(backend: Backend) -> None:
    slow = Slow()

    @job(timeout=60)
    async def timed(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("sleep", 50)
        await step.run("slow", slow.work)

    async with World(backend) as world:
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed)
        await becomes(durably, handle.id, "waiting")
        await move(world, 50)
        await slow.gate.reached()
        await _fails_at(world, durably, handle.id, 10, "leased")


async def the_time_before_a_run_begins_does_not_count(backend: Backend) -> None:
    slow = Slow()

    @job(timeout=60)
    async def timed(step: Step, input: dict[str, Any]) -> str:
        return await step.run("slow", slow.work)

    async with World(backend) as world:
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed, delay=500)
        await move(world, 500)
        await slow.gate.reached()
        await move(world, 59)
        slow.gate.open()
        assert await bounded(handle.result()) == "in time"


async def the_time_runs_on_over_a_restart(backend: Backend) -> None:
    slow = Slow()

    @job(timeout=60)
    async def timed(step: Step, input: dict[str, Any]) -> None:
        await step.run("slow", slow.work)

    async with World(backend) as world:
        first = await world.started(timed)
        handle = await first.trigger(timed)
        await slow.gate.reached()
        begun = (await run_of(first, handle.id)).started_at
        await world.crash(first)
        await world.expire(50)
        second = await world.started(timed, polling_interval=LONG)
        await slow.gate.reached(2)
        assert (await run_of(second, handle.id)).started_at == begun
        await _fails_at(world, second, handle.id, 10, "leased")


async def a_run_whose_time_passed_while_nobody_worked_fails(backend: Backend) -> None:
    """The job's code is not called for it, whether it crashed, slept, or was given back."""
    calls: list[str] = []
    gate = Gate()

    @job(timeout=60)
    async def timed(step: Step, input: dict[str, Any]) -> None:
        calls.append(input["how"])
        if input["how"] == "sleeps":
            await step.sleep("sleep", 30)
        await gate.wait(1)

    for how in ("sleeps", "crashes", "stops"):
        async with World(backend) as world:
            first = await world.started(timed)
            handle = await first.trigger(timed, {"how": how})
            await (becomes(first, handle.id, "waiting") if how == "sleeps" else gate.reached())
            await (bounded(first.stop()) if how == "stops" else world.crash(first))
            await move(world, 1000)
            second = await world.started(timed)
            assert (await becomes(second, handle.id, "failed")).error == TOO_LONG
            assert calls.count(how) == 1
            await second.delete_run(handle.id)
            gate.__init__()  # type: ignore[misc]


async def a_run_that_is_retried_has_its_whole_time_again(backend: Backend) -> None:
    slow = Slow()

    @job(timeout=60)
    async def timed(step: Step, input: dict[str, Any]) -> str:
        return await step.run("slow", slow.work)

    async with World(backend) as world:
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed)
        await slow.gate.reached()
        await _fails_at(world, durably, handle.id, 60, "leased")
        begun = (await run_of(durably, handle.id)).started_at
        await move(world, 500)
        await durably.retry(handle.id)
        await slow.gate.reached(2)
        run = await run_of(durably, handle.id)
        assert run.started_at == later(world, 0) != begun
        await move(world, 59)
        slow.gate.open()
        assert await bounded(handle.result()) == "in time"


async def a_runs_own_attempts_share_its_time(backend: Backend) -> None:
    @job(timeout=60, retry=Retry(max_attempts=99, initial_delay=25, backoff=1, jitter=False))
    async def timed(step: Step, input: dict[str, Any]) -> Any:
        return await work.work()

    async with World(backend) as world:
        work = Flaky(world, *[ValueError("no")] * 99)
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed)
        for _ in range(2):
            await becomes(durably, handle.id, "waiting")
            await move(world, 25)
        await becomes(durably, handle.id, "waiting")
        await _fails_at(world, durably, handle.id, 10, "waiting")
        assert work.calls == [0, 25, 50]


async def a_run_in_time_is_left_alone(backend: Backend) -> None:
    @job(timeout=60)
    async def timed(step: Step, input: dict[str, Any]) -> str:
        await step.sleep("sleep", 59)
        return "in time"

    async with World(backend) as world:
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed)
        await becomes(durably, handle.id, "waiting")
        await move(world, 59)
        assert await bounded(handle.result()) == "in time"
        await move(world, 100)
        assert (await run_of(durably, handle.id)).status == "completed"


async def a_step_that_fails_when_its_run_is_over_is_no_failure_of_its_own(backend: Backend) -> None:
    """Both times end at the same moment: the run's counts, and nothing is tried again."""
    slow = Slow()

    @job(timeout=60)
    async def timed(step: Step, input: dict[str, Any]) -> None:
        await step.run("slow", slow.work, timeout=60, retry=Retry(initial_delay=5))

    async with World(backend) as world:
        durably = await world.started(timed, polling_interval=LONG)
        handle = await durably.trigger(timed)
        await slow.gate.reached()
        await _fails_at(world, durably, handle.id, 60, "leased")
        await move(world, 100)
        assert slow.gate.arrived == 1


@needs("threads")
async def a_sync_step_is_abandoned_by_its_runs_end(backend: Backend) -> None:
    async with World(backend) as world:
        blocking = Blocking()

        @job(timeout=60)
        async def timed(step: Step, input: dict[str, Any]) -> Any:
            return await step.run("slow", blocking)

        @job
        async def quick(step: Step, input: dict[str, Any]) -> Any:
            return await step.run("one", lambda: "quick")

        durably = await world.started(timed, quick, max_concurrent_runs=1)
        heard = Heard(durably)
        handle = await durably.trigger(timed)
        await blocking.gate.reached()
        await _fails_at(world, durably, handle.id, 60, "leased")
        assert await bounded((await durably.trigger(quick)).result()) == "quick"
        await blocking.released()
        assert (blocking.before, blocking.after) == ([False], [True]) and not heard.of("worker:error")
        assert await durably.get_steps(handle.id) == []


async def a_time_out_of_waiting_for_a_run_does_not_touch_it(backend: Backend) -> None:
    slow = Slow()
    async with World(backend) as world:
        timed = _timed(slow.work, timeout=None)
        durably = await world.started(timed)
        handle = await durably.trigger(timed)
        await slow.gate.reached()
        await raised(TimeoutError, handle.result(timeout=0))
        slow.gate.open()
        assert await bounded(handle.result()) == "in time"
