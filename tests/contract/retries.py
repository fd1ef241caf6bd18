"""What is tried again: steps and runs by their policy, and runs whose worker died; and when it is given up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import Fatal, RunFailed
from durably_web.jobs import Job, job
from durably_web.retry import Retry
from durably_web.steps import Step
from tests.contract import Backend, needs
from tests.support.executors import CountingExecutor
from tests.support.scenes import (
    LONG,
    Flaky,
    becomes,
    later,
    move,
    run_of,
    settled,
    step_of,
    taken_over,
    types_of,
)
from tests.support.world import Gate, Heard, World, bounded, raised, turns

STEADY = Retry(max_attempts=4, initial_delay=10.0, backoff=2.0, jitter=False)
"""Tries again after 10, 20 and 40 seconds."""


class Refused(ValueError):
    """What a step may raise."""


def _trying(work: Flaky, retry: Retry | None = STEADY) -> Job[dict[str, Any], Any]:
    @job
    async def tries(step: Step, input: dict[str, Any]) -> Any:
        return await step.run("try", work.work, retry=retry)

    return tries


async def _drained(world: World, durably: Durably) -> None:
    """Execute all there is, and let every delay pass."""
    for _ in range(10):
        await bounded(durably.process_until_idle())
        await move(world, 60)


# -- steps -----------------------------------------------------------------------------------------------


async def a_step_is_tried_again_after_growing_delays(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, Refused("one"), OSError("two"), Refused("three"))
        tries = _trying(work)
        durably = await world.started(tries, polling_interval=LONG)
        handle = await durably.trigger(tries)
        for count, delay in enumerate((10, 20, 40), 1):
            run = await becomes(durably, handle.id, "waiting")
            assert len(work.calls) == count and run.wake_at == later(world, delay)
            await move(world, delay - 0.001)
            assert len(work.calls) == count, "not a moment earlier"
            await move(world, 0.001)
        assert await bounded(handle.result()) == "done"
        assert work.calls == [0, 10, 30, 70]


async def what_failed_on_the_way_is_kept(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, Refused("one"), OSError("two"))
        tries = _trying(work)
        durably = await world.started(tries, polling_interval=LONG)
        heard = Heard(durably)
        handle = await durably.trigger(tries)
        await becomes(durably, handle.id, "waiting")
        one = await step_of(durably, handle.id, "try")
        assert (one.status, one.output, one.completed_at) == ("retrying", None, None)
        assert one.until == later(world, 10) and [failed.error for failed in one.attempts] == ["Refused: one"]
        await move(world, 10)
        await move(world, 20)
        assert await bounded(handle.result()) == "done"

        begun = world.clock.now() / 1000 - 30
        retries = [event async for event in durably.subscribe(handle.id) if event.type == "step:retry"]
        assert [(event.step_name, event.attempt, event.error) for event in retries] == [
            ("try", 1, "Refused: one"),
            ("try", 2, "OSError: two"),
        ]
        assert [event.until for event in retries] == [_moment(begun + 10), _moment(begun + 30)]
        assert [(event.attempt, event.error, event.until) for event in heard.of("step:retry")] == [
            (event.attempt, event.error, event.until) for event in retries
        ]
        one = await step_of(durably, handle.id, "try")
        assert (one.status, one.output, one.error, one.attempt) == ("completed", "done", None, 3)
        assert [(failed.attempt, failed.error) for failed in one.attempts] == [(1, "Refused: one"), (2, "OSError: two")]
        assert [failed.failed_at for failed in one.attempts] == [_moment(begun), _moment(begun + 10)]
        assert all(failed.started_at <= failed.failed_at for failed in one.attempts)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


async def the_last_failure_is_the_steps(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, *[Refused(f"{n}") for n in range(9)])
        tries = _trying(work, Retry(max_attempts=3, jitter=False))
        durably = await world.started(tries)
        handle = await durably.trigger(tries)
        error = await raised(RunFailed, world.drive(handle.result()))
        assert "Refused: 2" in str(error) and len(work.calls) == 3
        one = await step_of(durably, handle.id, "try")
        assert (one.status, one.error, one.attempt) == ("failed", "Refused: 2", 3)
        assert [failed.error for failed in one.attempts] == ["Refused: 0", "Refused: 1", "Refused: 2"]
        [event] = [event async for event in durably.subscribe(handle.id) if event.type == "step:fail"]
        assert (event.attempt, event.error) == (3, "Refused: 2")
        run = await run_of(durably, handle.id)
        assert (run.status, run.error, run.wake_at) == ("failed", "Refused: 2", None)


async def nothing_is_tried_again_unless_asked_for(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, Refused("no"))
        tries = _trying(work, None)
        durably = await world.engine(tries)
        handle = await durably.trigger(tries)
        await durably.process_one()
        one = await step_of(durably, handle.id, "try")
        assert len(work.calls) == 1 and (one.status, one.attempt, len(one.attempts)) == ("failed", 1, 1)


async def the_policy_says_which_errors_are_tried_again(backend: Backend) -> None:
    """The policy, an error, and how often the step is called."""
    cases: list[tuple[dict[str, Any], Exception, int]] = [
        ({}, Refused(), 2),
        ({"retry_on": (OSError,)}, Refused(), 1),
        ({"retry_on": (OSError, ValueError)}, Refused(), 2),
        ({"give_up_on": (ValueError,)}, Refused(), 1),
        ({"give_up_on": (Refused,)}, ValueError(), 2),
        ({"retry_on": (ValueError,), "give_up_on": (Refused,)}, Refused(), 1),
        ({}, Fatal("never"), 1),
        ({"retry_on": (Fatal,)}, Fatal("not even then"), 1),
        ({"should_retry": lambda error: "again" in str(error)}, Refused("again"), 2),
        ({"should_retry": lambda error: "again" in str(error)}, Refused("no"), 1),
        ({"should_retry": lambda error: True, "give_up_on": (Refused,)}, Refused(), 1),
    ]
    async with World(backend) as world:
        for policy, error, expected in cases:
            work = Flaky(world, error)
            durably = await world.engine(_trying(work, Retry(max_attempts=2, initial_delay=0, **policy)))
            handle = await durably.trigger("tries")
            await durably.process_one()
            assert len(work.calls) == expected, (policy, error, work.calls)
            assert (await run_of(durably, handle.id)).status == ("completed" if expected == 2 else "failed")
            await durably.stop()


async def a_policy_that_raises_fails_the_step(backend: Backend) -> None:
    def asks(error: Exception) -> bool:
        raise LookupError("the policy's own mistake")

    async with World(backend) as world:
        work = Flaky(world, Refused("no"), Refused("no"))
        tries = _trying(work, Retry(initial_delay=0, should_retry=asks))
        durably = await world.engine(tries)
        heard = Heard(durably)
        handle = await durably.trigger(tries)
        assert await bounded(durably.process_one())
        run = await run_of(durably, handle.id)
        assert run.status == "failed" and len(work.calls) == 1 and run.error, run
        assert not heard.of("step:retry")


async def a_runs_policy_that_raises_fails_the_run(backend: Backend) -> None:
    """It is not executed again, and again."""

    def asks(error: Exception) -> bool:
        raise LookupError("the policy's own mistake")

    async with World(backend) as world:
        work = Flaky(world, *[Refused("no")] * 99)
        tries = _failing(work, Retry(initial_delay=0, should_retry=asks))
        durably = await world.started(tries)
        handle = await durably.trigger(tries)
        await becomes(durably, handle.id, "failed")
        assert len(work.calls) == 1


async def fatal_can_be_caught_and_is_raised_again_by_a_replay(backend: Backend) -> None:
    gate = Gate()
    seen: list[str] = []

    @job(retry=STEADY)
    async def catches(step: Step, input: dict[str, Any]) -> str:
        try:
            await step.run("try", work.work, retry=STEADY)
        except Fatal as error:
            seen.append(str(error))
        return await step.run("wait", gate.wait, "went on")

    async with World(backend) as world:
        work = Flaky(world, Fatal("broken for good"))
        first = await world.started(catches)
        handle = await first.trigger(catches)
        await gate.reached()
        second = await taken_over(world, first, catches)
        gate.open()
        assert await world.drive(second.output_of(handle.id)) == "went on"
        assert seen == ["broken for good"] * 2 and len(work.calls) == 1


async def a_delay_gives_the_slot_back(backend: Backend) -> None:
    @job
    async def quick(step: Step, input: dict[str, Any]) -> str:
        return await step.run("one", lambda: "quick")

    async with World(backend) as world:
        work = Flaky(world, Refused("once"))
        tries = _trying(work)
        durably = await world.started(tries, quick, polling_interval=LONG, max_concurrent_runs=1)
        heard = Heard(durably)
        handle = await durably.trigger(tries)
        await becomes(durably, handle.id, "waiting")
        assert await bounded((await durably.trigger(quick)).result()) == "quick"
        [waiting] = heard.of("run:waiting")
        assert (waiting.run_id, waiting.until) == (handle.id, later(world, 10)) and waiting.seq is not None
        assert [lease for [lease] in await world.rows("SELECT lease_owner FROM durably_runs")] == [None, None]
        await move(world, 10)
        assert await bounded(handle.result()) == "done"


async def a_short_delay_keeps_the_lease(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, Refused("one"), Refused("two"))
        tries = _trying(work, Retry(initial_delay=0.05, backoff=1.0, jitter=False))
        durably = await world.started(tries, polling_interval=LONG)
        heard = Heard(durably)
        handle = await durably.trigger(tries)
        await work.called()
        assert (await run_of(durably, handle.id)).status == "leased"
        assert (await step_of(durably, handle.id, "try")).status == "retrying"
        for _ in range(2):
            await move(world, 0.05)
        assert await bounded(handle.result()) == "done"
        assert not heard.of("run:waiting") and len(heard.of("step:retry")) == 2
        assert work.calls == [0, 0.05, 0.1]


async def no_delay_tries_again_at_once(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, *[Refused("no")] * 50)
        tries = _trying(work, Retry(max_attempts=100, initial_delay=0))
        durably = await world.engine(tries)
        handle = await durably.trigger(tries)
        assert await bounded(durably.process_one())
        assert await bounded(handle.result()) == "done"
        one = await step_of(durably, handle.id, "try")
        assert one.attempt == 51 and len(one.attempts) == 50


async def a_delay_is_never_longer_than_its_limit(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, *[Refused("no")] * 5)
        policy = Retry(max_attempts=9, initial_delay=1, backoff=10.0, max_delay=30.0, jitter=False)
        durably = await world.started(_trying(work, policy), polling_interval=LONG)
        handle = await durably.trigger("tries")
        for _ in range(5):
            await becomes(durably, handle.id, "waiting")
            run = await run_of(durably, handle.id)
            assert run.wake_at is not None
            await move(world, run.wake_at.timestamp() - world.clock.now() / 1000)
        assert await bounded(handle.result()) == "done"
        assert work.calls == [0, 1, 11, 41, 71, 101]


async def jitter_is_between_a_half_and_the_whole_delay(backend: Backend) -> None:
    for byte, low, high in ((b"\x00", 500, 500), (b"\x80", 700, 800), (b"\xff", 990, 1000)):
        async with World(backend) as world:
            work = Flaky(world, Refused("no"))
            policy = Retry(max_attempts=2, initial_delay=100.0, max_delay=100.0)

            def fixed(size: int, byte: bytes = byte) -> bytes:
                return byte * size

            durably = await world.started(_trying(work, policy), random_bytes=fixed, polling_interval=LONG)
            handle = await durably.trigger("tries")
            run = await becomes(durably, handle.id, "waiting")
            assert run.wake_at is not None
            delay = run.wake_at.timestamp() * 10 - world.clock.now() / 100
            assert low - 0.01 <= delay <= high + 0.01, (byte, delay)
            await durably.cancel(handle.id)
            await durably.delete_run(handle.id)


async def each_occurrence_of_a_name_has_its_own_attempts(backend: Backend) -> None:
    async with World(backend) as world:
        works = [Flaky(world, *[Refused(f"{n}")] * n) for n in range(3)]
        policy = Retry(max_attempts=3, initial_delay=0)

        @job
        async def loops(step: Step, input: dict[str, Any]) -> list[str]:
            return [await step.run("try", work.work, retry=policy) for work in works]

        durably = await world.engine(loops)
        handle = await durably.trigger(loops)
        await durably.process_one()
        steps = await durably.get_steps(handle.id)
        assert [(one.name, one.attempt) for one in steps] == [("try", 1), ("try#2", 2), ("try#3", 3)]


async def functions_that_are_not_async_are_tried_again_too(backend: Backend) -> None:
    errors: list[Exception] = [Refused("one"), Refused("two")]

    def work(value: str) -> str:
        if errors:
            raise errors.pop()
        return value

    @job
    async def tries(step: Step, input: dict[str, Any]) -> str:
        return await step.run("try", work, "done", retry=STEADY)

    async with World(backend) as world:
        durably = await world.started(tries)
        handle = await durably.trigger(tries)
        assert await world.drive(handle.result(), 100) == "done"


async def what_cannot_be_stored_is_not_tried_again(backend: Backend) -> None:
    """The function has done its work; doing it again would not make its result another one."""
    results: list[Any] = [object(), "fine"]

    @job
    async def tries(step: Step, input: dict[str, Any]) -> Any:
        return await step.run("try", lambda: results.pop(0), retry=Retry(initial_delay=0))

    async with World(backend) as world:
        durably = await world.engine(tries)
        handle = await durably.trigger(tries)
        await durably.process_one()
        run = await run_of(durably, handle.id)
        assert str(run.error).startswith("NotSerializable: ") and results == ["fine"]


# -- restarts --------------------------------------------------------------------------------------------


async def a_delay_survives_a_restart(backend: Backend) -> None:
    """The stored moment counts, and so do the attempts that have failed."""
    async with World(backend) as world:
        work = Flaky(world, *[Refused("no")] * 9)
        tries = _trying(work)
        durably = await world.started(tries, polling_interval=LONG)
        handle = await durably.trigger(tries)
        await becomes(durably, handle.id, "waiting")
        for crashes, delay in enumerate((10, 20, 40)):
            await move(world, delay - 3)
            await (world.crash(durably) if crashes % 2 else bounded(durably.stop()))
            await move(world, 2)
            durably = await world.started(tries, polling_interval=LONG)
            await settled()
            assert len(work.calls) == crashes + 1
            await move(world, 1)
        assert (await becomes(durably, handle.id, "failed")).error == "Refused: no"
        assert work.calls == [0, 10, 30, 70]


async def a_delay_that_passed_while_nobody_worked_is_over(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, Refused("once"))
        tries = _trying(work)
        first = await world.started(tries)
        handle = await first.trigger(tries)
        await becomes(first, handle.id, "waiting")
        await first.stop()
        await move(world, 5000)
        second = await world.engine(tries)
        assert await second.process_one()
        assert (await run_of(second, handle.id)).output == "done" and work.calls == [0, 5000]


async def a_short_delay_survives_a_crash(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, Refused("once"))
        tries = _trying(work, Retry(max_attempts=2, initial_delay=0.05, jitter=False))
        first = await world.started(tries)
        handle = await first.trigger(tries)
        await work.called()
        second = await taken_over(world, first, tries)
        assert await world.drive(second.output_of(handle.id)) == "done" and len(work.calls) == 2


async def an_attempt_that_a_crash_cut_off_does_not_count(backend: Backend) -> None:
    gate = Gate()
    calls: list[int] = []

    async def work() -> None:
        calls.append(1)
        if len(calls) == 2:
            await gate.wait(None)
        raise Refused(f"call {len(calls)}")

    @job
    async def tries(step: Step, input: dict[str, Any]) -> None:
        await step.run("try", work, retry=Retry(max_attempts=2, initial_delay=0))

    async with World(backend) as world:
        first = await world.started(tries)
        handle = await first.trigger(tries)
        await gate.reached()
        second = await taken_over(world, first, tries)
        await becomes(second, handle.id, "failed")
        one = await step_of(second, handle.id, "try")
        assert (one.attempt, one.error, len(calls)) == (2, "Refused: call 3", 3)
        gate.open()


async def a_stop_does_not_wait_for_a_delay(backend: Backend) -> None:
    for delay in (0.05, 1000.0):
        async with World(backend) as world:
            work = Flaky(world, Refused("once"))
            tries = _trying(work, Retry(initial_delay=delay, max_delay=delay, jitter=False))
            first = await world.started(tries)
            handle = await first.trigger(tries)
            await work.called()
            await bounded(first.stop())
            second = await world.started(tries, polling_interval=LONG)
            assert (await run_of(second, handle.id)).status in ("pending", "leased", "waiting")
            await settled()
            assert len(work.calls) == 1, "the moment of the next attempt is stored"
            await move(world, delay)
            assert await bounded(second.output_of(handle.id)) == "done"


async def processing_until_idle_does_not_wait_for_a_delay(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, Refused("once"))
        tries = _trying(work)
        durably = await world.engine(tries)
        handle = await durably.trigger(tries)
        assert await bounded(durably.process_until_idle()) == 1
        assert (await run_of(durably, handle.id)).status == "waiting"
        assert await bounded(durably.process_until_idle()) == 0
        await move(world, 10)
        assert await bounded(durably.process_one())
        assert (await run_of(durably, handle.id)).status == "completed"


@needs("workers")
async def of_two_workers_one_makes_the_next_attempt(backend: Backend) -> None:
    async with World(backend) as world:
        works = [Flaky(world, Refused("one"), Refused("two")) for _ in range(10)]

        @job
        async def tries(step: Step, input: dict[str, Any]) -> Any:
            return await step.run("try", works[input["n"]].work, retry=STEADY)

        engines = [await world.started(tries) for _ in range(2)]
        handles = [await engines[0].trigger(tries, {"n": n}) for n in range(10)]
        await world.advance(40)
        for handle in handles:
            assert await world.drive(handle.result()) == "done"
        assert all(len(work.calls) == 3 for work in works)


# -- beside others ---------------------------------------------------------------------------------------


async def a_delay_holds_up_no_other_branch(backend: Backend) -> None:
    gate = Gate()

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[str]:
        async def two_steps() -> str:
            await step.run("wait", gate.wait, 1)
            return await step.run("after", lambda: "other")

        return list(await asyncio.gather(step.run("try", work.work, retry=STEADY), two_steps()))

    async with World(backend) as world:
        work = Flaky(world, Refused("one"), Refused("two"))
        durably = await world.started(gathers, polling_interval=LONG)
        heard = Heard(durably)
        handle = await durably.trigger(gathers)
        await gate.reached()
        await settled()
        # Something of the run executes, so it keeps its lease; the delay passes beside it.
        assert (await run_of(durably, handle.id)).status == "leased"
        await move(world, 10)
        assert work.calls == [0, 10] and not heard.of("run:waiting")
        gate.open()
        run = await becomes(durably, handle.id, "waiting")
        assert run.wake_at == later(world, 20)
        await move(world, 20)
        assert await bounded(handle.result()) == ["done", "other"]
        assert work.calls == [0, 10, 30] and gate.arrived == 1


async def a_run_wakes_for_the_first_of_several_delays(backend: Backend) -> None:
    def policy(seconds: float) -> Retry:
        return Retry(max_attempts=2, initial_delay=seconds, max_delay=seconds, jitter=False)

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[Any]:
        return list(
            await asyncio.gather(
                *[step.run("try", work.work, delay, retry=policy(delay)) for delay, work in works.items()]
            )
        )

    async with World(backend) as world:
        works = {delay: Flaky(world, Refused("once")) for delay in (30, 10, 20)}
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        for _ in range(3):
            assert (await becomes(durably, handle.id, "waiting")).wake_at == later(world, 10)
            await move(world, 10)
        assert await bounded(handle.result()) == [30, 10, 20]
        assert {delay: work.calls for delay, work in works.items()} == {30: [0, 30], 10: [0, 10], 20: [0, 20]}


async def a_failure_beside_a_delay_ends_the_run_at_once(backend: Backend) -> None:
    @job
    async def gathers(step: Step, input: dict[str, Any]) -> None:
        await asyncio.gather(step.run("slow", slow.work, retry=STEADY), step.run("broken", broken.work, retry=short))

    short = Retry(max_attempts=2, initial_delay=1, jitter=False)
    async with World(backend) as world:
        slow, broken = Flaky(world, Refused("slow")), Flaky(world, Refused("one"), Refused("two"))
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        await becomes(durably, handle.id, "waiting")
        await move(world, 1)
        assert (await becomes(durably, handle.id, "failed")).error == "Refused: two"
        await move(world, 100)
        assert slow.calls == [0], "what is not begun does not begin any more"


async def a_job_may_go_on_without_a_step_that_gave_up(backend: Backend) -> None:
    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[str]:
        both = await asyncio.gather(
            step.run("fine", fine.work, retry=STEADY),
            step.run("broken", broken.work, retry=STEADY),
            return_exceptions=True,
        )
        return [str(one) for one in both]

    async with World(backend) as world:
        fine, broken = Flaky(world, Refused("once")), Flaky(world, *[Refused("always")] * 9)
        durably = await world.started(gathers)
        handle = await durably.trigger(gathers)
        assert await world.drive(handle.result(), 100) == ["done", "always"]
        assert (len(fine.calls), len(broken.calls)) == (2, 4)


async def a_log_line_of_a_failed_attempt_is_kept(backend: Backend) -> None:
    @job
    async def tries(step: Step, input: dict[str, Any]) -> None:
        async def work() -> None:
            step.log.info("trying")
            await flaky.work()

        await step.run("try", work, retry=STEADY)

    async with World(backend) as world:
        flaky = Flaky(world, Refused("one"), Refused("two"))
        durably = await world.started(tries)
        handle = await durably.trigger(tries)
        await world.drive(handle.result(), 100)
        assert [(one.message, one.step_name) for one in await durably.get_logs(handle.id)] == [("trying", "try")] * 3


# -- control ---------------------------------------------------------------------------------------------


async def a_cancelled_run_makes_no_further_attempt(backend: Backend) -> None:
    for delay in (0.05, 10.0):
        async with World(backend) as world:
            work = Flaky(world, *[Refused("no")] * 9)
            tries = _trying(work, Retry(initial_delay=delay, jitter=False))
            durably = await world.started(tries, polling_interval=LONG)
            handle = await durably.trigger(tries)
            await work.called()
            await durably.cancel(handle.id)
            run = await run_of(durably, handle.id)
            assert (run.status, run.wake_at) == ("cancelled", None)
            await move(world, 100)
            assert len(work.calls) == 1


async def a_retried_run_begins_its_attempts_anew(backend: Backend) -> None:
    """After the last attempt, and also in the middle of a policy."""
    async with World(backend) as world:
        work = Flaky(world, *[Refused("no")] * 99)
        tries = _trying(work, Retry(max_attempts=2, initial_delay=10, jitter=False))
        durably = await world.started(tries, polling_interval=LONG)
        handle = await durably.trigger(tries)
        for count in (1, 2):
            await becomes(durably, handle.id, "waiting")
            await move(world, 10)
            await becomes(durably, handle.id, "failed")
            assert len(work.calls) == 2 * count
            await durably.retry(handle.id)
        await becomes(durably, handle.id, "waiting")
        await durably.cancel(handle.id)
        await durably.retry(handle.id)
        await becomes(durably, handle.id, "waiting")
        assert len(work.calls) == 6, "without waiting for the delay of an attempt that does not count any more"
        work.errors.clear()
        await move(world, 10)
        assert await bounded(handle.result()) == "done"
        one = await step_of(durably, handle.id, "try")
        # The record tells of all of them, whatever the policy counts.
        assert one.attempt == len(work.calls) == 7 and len(one.attempts) == 6


# -- jobs ------------------------------------------------------------------------------------------------


async def a_run_is_tried_again_from_its_first_step_without_a_result(backend: Backend) -> None:
    """A result stays; a failure that was caught does not count any more."""
    counts: dict[str, int] = {}

    def counted(name: str) -> str:
        counts[name] = counts.get(name, 0) + 1
        return name

    async def caught() -> None:
        counted("caught")
        raise Refused("caught")

    @job(retry=Retry(max_attempts=3, initial_delay=10, jitter=False))
    async def tries(step: Step, input: dict[str, Any]) -> str:
        await step.run("fine", counted, "fine")
        try:
            await step.run("caught", caught)
        except Refused:
            pass
        return str(await step.run("try", work.work))

    async with World(backend) as world:
        work = Flaky(world, Refused("one"), Refused("two"))
        durably = await world.started(tries, polling_interval=LONG)
        handle = await durably.trigger(tries)
        for delay in (10, 20):
            run = await becomes(durably, handle.id, "waiting")
            assert (run.error, run.completed_at, run.wake_at) == (None, None, later(world, delay))
            await move(world, delay)
        assert await bounded(handle.result()) == "done"
        assert counts == {"fine": 1, "caught": 3} and work.calls == [0, 10, 30]
        retries = [event async for event in durably.subscribe(handle.id) if event.type == "run:retry"]
        begun = world.clock.now() / 1000 - 30
        assert [(event.attempt, event.error, event.until) for event in retries] == [
            (1, "Refused: one", _moment(begun + 10)),
            (2, "Refused: two", _moment(begun + 30)),
        ]


async def a_run_that_failed_too_often_stays_failed(backend: Backend) -> None:
    """Until it is retried by a user, which begins its attempts anew."""

    @job(retry=Retry(max_attempts=2, initial_delay=10, jitter=False))
    async def fails(step: Step, input: dict[str, Any]) -> None:
        calls.append(world.clock.now())
        raise Refused(f"call {len(calls)}")

    calls: list[int] = []
    async with World(backend) as world:
        durably = await world.started(fails, polling_interval=LONG)
        handle = await durably.trigger(fails)
        for last in (2, 4):
            await becomes(durably, handle.id, "waiting")
            await move(world, 10)
            assert (await becomes(durably, handle.id, "failed")).error == f"Refused: call {last}"
            await move(world, 100)
            assert len(calls) == last
            await durably.retry(handle.id)
        await becomes(durably, handle.id, "waiting")
        assert "run:retry" in await _cancelled(durably, handle.id)


async def _cancelled(durably: Durably, run_id: str) -> list[str]:
    await durably.cancel(run_id)
    return await types_of(durably, run_id)


def _failing(work: Flaky, retry: Retry | None = STEADY) -> Job[dict[str, Any], Any]:
    """A job that fails by itself, not by a step."""

    @job(retry=retry)
    async def fails(step: Step, input: dict[str, Any]) -> Any:
        return await work.work()

    return fails


async def a_runs_policy_asks_what_a_steps_asks(backend: Backend) -> None:
    cases: list[tuple[Retry | None, BaseException, int]] = [
        (None, Refused(), 1),
        (Retry(initial_delay=0), Fatal("never"), 1),
        (Retry(initial_delay=0, give_up_on=(ValueError,)), Refused(), 1),
        (Retry(initial_delay=0, retry_on=(OSError,)), Refused(), 1),
        (Retry(initial_delay=0, should_retry=lambda error: False), Refused(), 1),
        (Retry(initial_delay=0), Refused(), 2),
    ]
    for retry, error, expected in cases:
        async with World(backend) as world:
            work = Flaky(world, error)

            tries = _failing(work, retry)
            durably = await world.engine(tries)
            await durably.trigger(tries)
            await bounded(durably.process_until_idle())
            assert len(work.calls) == expected, (retry, error)


async def the_attempts_of_steps_begin_anew_with_each_of_the_runs(backend: Backend) -> None:
    @job(retry=Retry(max_attempts=2, initial_delay=5, jitter=False))
    async def tries(step: Step, input: dict[str, Any]) -> None:
        await step.run("try", work.work, retry=Retry(max_attempts=3, initial_delay=1, backoff=1, jitter=False))

    async with World(backend) as world:
        work = Flaky(world, *[Refused("no")] * 99)
        durably = await world.started(tries)
        handle = await durably.trigger(tries)
        await work.called()
        await _elapse(world, 20)
        assert (await run_of(durably, handle.id)).status == "failed"
        assert work.calls == [0, 1, 2, 7, 8, 9], work.calls


async def _elapse(world: World, seconds: int) -> None:
    for _ in range(seconds):
        await move(world, 1)


async def a_runs_delay_survives_a_restart(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, *[Refused("no")] * 9)
        tries = _failing(work)
        durably = await world.started(tries, polling_interval=LONG)
        handle = await durably.trigger(tries)
        for crashes, delay in enumerate((10, 20, 40)):
            await becomes(durably, handle.id, "waiting")
            await (world.crash(durably) if crashes % 2 else bounded(durably.stop()))
            await move(world, delay - 1)
            durably = await world.started(tries, polling_interval=LONG)
            await move(world, 1)
        await becomes(durably, handle.id, "failed")
        assert work.calls == [0, 10, 30, 70]


async def a_run_in_its_delay_can_be_cancelled(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, *[Refused("no")] * 9)
        tries = _failing(work)
        durably = await world.started(tries, polling_interval=LONG)
        handle = await durably.trigger(tries)
        await becomes(durably, handle.id, "waiting")
        await durably.cancel(handle.id)
        await move(world, 100)
        assert (await run_of(durably, handle.id)).status == "cancelled" and work.calls == [0]


async def a_cancellation_is_not_tried_again(backend: Backend) -> None:
    gate = Gate()

    everything: Any = (BaseException,)
    policy = Retry(initial_delay=0, retry_on=everything)

    @job(retry=policy)
    async def waits(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, 1, retry=policy)

    async with World(backend) as world:
        durably = await world.started(waits)
        handle = await durably.trigger(waits)
        await gate.reached()
        await durably.cancel(handle.id)
        await world.advance(5)
        assert (await run_of(durably, handle.id)).status == "cancelled" and gate.arrived == 1


async def stopping_is_no_failure_of_a_run(backend: Backend) -> None:
    gate = Gate()

    @job(retry=Retry(max_attempts=2, initial_delay=0))
    async def waits(step: Step, input: dict[str, Any]) -> str:
        await step.run("one", lambda: 1)
        await gate.wait(1)
        return await step.run("two", lambda: "done")

    async with World(backend) as world:
        asking = await world.engine(waits)
        handle = await asking.trigger(waits)
        for count in range(1, 5):
            durably = await world.started(waits)
            await gate.reached(count)
            await bounded(durably.stop())
        gate.open()
        last = await world.started(waits)
        assert await bounded(last.output_of(handle.id)) == "done"
        assert "run:retry" not in await types_of(last, handle.id)


# -- runs that kill their worker -------------------------------------------------------------------------


def _deadly(gate: Gate, max_attempts: int, *, steps: int = 0) -> Job[dict[str, Any], str]:
    """Its worker dies at the gate; with `steps`, behind so many that were stored in each life."""

    @job(max_attempts=max_attempts)
    async def deadly(step: Step, input: dict[str, Any]) -> str:
        for number in range(steps * step.attempt):
            await step.run(f"step {number}", lambda: 1)
        return await step.run("kill", gate.wait, "survived")

    return deadly


async def _killed(world: World, deadly: Job[Any, Any], gate: Gate, times: int, run_id: str = "") -> str:
    for _ in range(times):
        arrived = gate.arrived
        durably = await world.started(deadly)
        run_id = run_id or (await durably.trigger(deadly)).id
        await world.drive(gate.reached(arrived + 1))
        await world.crash(durably)
        await world.expire()
    return run_id


async def a_run_whose_worker_always_dies_is_given_up(backend: Backend) -> None:
    gate = Gate()
    deadly = _deadly(gate, 3)
    async with World(backend) as world:
        run_id = await _killed(world, deadly, gate, 4)
        last = await world.engine(deadly)
        heard = Heard(last)
        await bounded(last.process_until_idle())
        run = await run_of(last, run_id)
        assert run.status == "failed" and str(run.error).startswith("PoisonRun: "), run
        assert gate.arrived == 4, "the job's code is not called again"
        assert str(await raised(RunFailed, last.output_of(run_id))).count("PoisonRun") == 1
        [event] = heard.of("run:fail")
        assert event.error == run.error and event.run_id == run_id
        # A user who has found the cause may try again, with as many attempts as before.
        gate.open()
        await last.retry(run_id)
        await bounded(last.process_until_idle())
        assert (await run_of(last, run_id)).output == "survived"


async def a_run_is_not_given_up_too_early(backend: Backend) -> None:
    gate = Gate()
    deadly = _deadly(gate, 3)
    async with World(backend) as world:
        run_id = await _killed(world, deadly, gate, 3)
        gate.open()
        last = await world.engine(deadly)
        await bounded(last.process_until_idle())
        assert (await run_of(last, run_id)).output == "survived"


async def a_run_that_gets_on_is_not_given_up(backend: Backend) -> None:
    """Each life stores a step more before its worker dies."""
    gate = Gate()
    deadly = _deadly(gate, 1, steps=1)
    async with World(backend) as world:
        run_id = await _killed(world, deadly, gate, 5)
        gate.open()
        last = await world.engine(deadly)
        await bounded(last.process_until_idle())
        assert (await run_of(last, run_id)).output == "survived"


async def clean_stops_and_waits_are_no_deaths(backend: Backend) -> None:
    gate = Gate()

    @job(max_attempts=1)
    async def waits(step: Step, input: dict[str, Any]) -> str:
        for _ in range(5):
            await step.sleep("sleep", 10)
        await gate.wait(None)
        return await step.run("end", lambda: "done")

    async with World(backend) as world:
        first = await world.started(waits)
        handle = await first.trigger(waits)
        await world.advance(60)
        for _ in range(5):
            await gate.reached()
            await bounded(first.stop())
            arrived = gate.arrived
            first = await world.started(waits)
            await gate.reached(arrived + 1)
        gate.open()
        assert await bounded(first.output_of(handle.id)) == "done"


async def deaths_before_a_wait_do_not_count_after_it(backend: Backend) -> None:
    """One death before each sleep, with one allowed: a stored wait begins the count anew."""
    gates = [Gate() for _ in range(3)]

    @job(max_attempts=1)
    async def naps(step: Step, input: dict[str, Any]) -> str:
        for gate in gates:
            await _once(gate)
            await step.sleep("nap", 5)
        return "done"

    async with World(backend) as world:
        durably = await world.started(naps)
        handle = await durably.trigger(naps)
        for gate in gates:
            await world.drive(gate.reached(), 20)
            durably = await taken_over(world, durably, naps)
        assert await world.drive(durably.output_of(handle.id), 20) == "done"


async def deaths_before_a_step_do_not_count_after_it(backend: Backend) -> None:
    """Also when the worker that stored the step did not die, but was stopped."""
    gates = [Gate() for _ in range(3)]

    @job(max_attempts=1)
    async def works(step: Step, input: dict[str, Any]) -> str:
        await _once(gates[0])
        await step.run("step", lambda: 1)
        await _once(gates[1])
        await _once(gates[2])
        return "done"

    async with World(backend) as world:
        first = await world.started(works)
        handle = await first.trigger(works)
        await gates[0].reached()
        second = await taken_over(world, first, works)
        await world.drive(gates[1].reached())
        await bounded(second.stop())
        third = await world.started(works)
        await world.drive(gates[2].reached())
        last = await taken_over(world, third, works)
        assert await world.drive(last.output_of(handle.id)) == "done"


async def _once(gate: Gate) -> None:
    """The first who comes here stays."""
    if not gate.arrived:
        await gate.wait(None)


async def deaths_seen_by_an_engine_without_the_job_count_too(backend: Backend) -> None:
    """It frees the leases that have run out; the one that knows the job gives the run up."""
    gate = Gate()
    deadly = _deadly(gate, 1)

    @job
    async def other(step: Step, input: dict[str, Any]) -> None: ...

    async with World(backend) as world:
        run_id = ""
        for _ in range(2):
            run_id = await _killed(world, deadly, gate, 1, run_id)
            stranger = await world.engine(other)
            await bounded(stranger.process_until_idle())
            await stranger.stop()
        last = await world.engine(deadly)
        await bounded(last.process_until_idle())
        run = await run_of(last, run_id)
        assert run.status == "failed" and str(run.error).startswith("PoisonRun: ") and gate.arrived == 2


@needs("workers")
async def a_worker_that_is_known_to_be_dead_counts_at_once(backend: Backend) -> None:
    gate = Gate()
    deadly = _deadly(gate, 2)

    class Told(CountingExecutor):
        def gone(self, worker_ids: Any) -> list[str]:
            return list(worker_ids)

    async with World(backend) as world:
        run_id = ""
        for count in range(1, 4):
            durably = await world.started(deadly, through=Told)
            run_id = run_id or (await durably.trigger(deadly)).id
            await gate.reached(count)
            await world.crash(durably)
        last = await world.engine(deadly, through=Told)
        await bounded(last.process_until_idle())
        run = await run_of(last, run_id)
        assert run.status == "failed" and str(run.error).startswith("PoisonRun: ") and gate.arrived == 3


@needs("workers")
async def where_it_is_known_who_is_to_blame_the_others_are_innocent(backend: Backend) -> None:
    """Their workers may die under them as often as they like; and once nobody knows any more, all count again."""
    gate, beside = Gate(), Gate()
    deadly = _deadly(gate, 2)

    @job(max_attempts=1)
    async def innocent(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", beside.wait, "fine")

    class Told(CountingExecutor):
        def gone(self, worker_ids: Any) -> list[str]:
            return list(worker_ids)

    async def crashes_of(run_id: str) -> Any:
        [[crashes]] = await world.rows("SELECT crashes FROM durably_runs WHERE id = ?", run_id)
        return crashes

    async with World(backend) as world:
        asking = await world.engine(deadly, innocent)
        poison = (await asking.trigger(deadly)).id
        handle = await asking.trigger(innocent)
        # (who is blamed, and the deaths that then count for the poison run and for the other one)
        blamed: list[tuple[list[str | None], int, int]] = [
            ([], 0, 0),
            ([poison], 1, 0),
            ([None], 1, 0),
            (["some other"], 1, 0),
            ([], 2, 1),
            ([handle.id], 2, 2),
        ]
        for count, (who, poisoned, others) in enumerate(blamed, 1):
            durably = await world.engine(deadly, innocent, through=Told)
            for run_id in who:
                durably.blame(run_id)
            await durably.start()
            await gate.reached(count)
            assert await crashes_of(poison) == poisoned, (count, who)
            if others < 2:
                await beside.reached(count)
                assert await crashes_of(handle.id) == others, (count, who)
            else:
                assert str((await becomes(durably, handle.id, "failed")).error).startswith("PoisonRun: 2 workers")
            await world.crash(durably)


async def a_poison_run_harms_no_other(backend: Backend) -> None:
    """It took the others down with it; they go on when it is given up."""
    gate = Gate()
    deadly = _deadly(gate, 1)

    @job(max_attempts=10)
    async def innocent(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", beside.wait, "fine")

    beside = Gate()
    async with World(backend) as world:
        asking = await world.engine(deadly, innocent)
        handles = [await asking.trigger(innocent) for _ in range(3)]
        poison = await asking.trigger(deadly)
        for count in (1, 2):
            durably = await world.started(deadly, innocent)
            await world.drive(gate.reached(count))
            await world.drive(beside.reached(3 * count))
            await world.crash(durably)
            await world.expire()
        beside.open()
        last = await world.started(deadly, innocent)
        for handle in handles:
            assert await world.drive(last.output_of(handle.id)) == "fine"
        assert str((await run_of(last, poison.id)).error).startswith("PoisonRun: ")
        await turns()


async def durations_may_be_timedeltas(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, Refused("once"))
        policy = Retry(initial_delay=timedelta(minutes=1), max_delay=timedelta(minutes=1), jitter=False)
        durably = await world.started(_trying(work, policy), polling_interval=LONG)
        handle = await durably.trigger("tries")
        await becomes(durably, handle.id, "waiting")
        await move(world, 60)
        assert await bounded(handle.result()) == "done" and work.calls == [0, 60]
