"""What users ask of runs that exist, beyond `control`: pause, fork, many at once, keep or forget, count."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import Conflict, InvalidInput, NotFound, RunCancelled
from durably_web.ids import first_id
from durably_web.jobs import Job, job
from durably_web.records import STATUSES, instant
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend
from tests.support.executors import CountingExecutor
from tests.support.scenes import LONG, becomes, move, run_of, settled
from tests.support.world import Gate, Heard, World, bounded, raised, turns


async def _value(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


@job
async def quick(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("one", _value, input.get("n"))


@job
async def other(step: Step, input: dict[str, Any]) -> None: ...


@job
async def fails(step: Step, input: dict[str, Any]) -> None:
    await step.run("bad", _value, ValueError("no"))


@job
async def sleeps(step: Step, input: dict[str, Any]) -> str:
    await step.sleep("nap", 100)
    return "rested"


def _two_steps(gate: Gate) -> Job[dict[str, Any], str]:
    @job
    async def two_steps(step: Step, input: dict[str, Any]) -> str:
        first = await step.run("one", gate.wait, "one")
        return str(first + await step.run("two", gate.wait, " two"))

    return two_steps


async def _statuses(durably: Durably) -> Counter[str]:
    return Counter(run.status for run in await durably.get_runs())


# -- pause a run -----------------------------------------------------------------------------------------


async def a_paused_run_is_not_begun_until_it_is_resumed(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(quick, polling_interval=LONG)
        heard = Heard(durably)
        handle = await durably.trigger(quick, {"n": 7}, delay=10)
        for _ in range(2):
            await durably.pause(handle.id)
        assert (await run_of(durably, handle.id)).paused
        await move(world, 60)
        run = await run_of(durably, handle.id)
        assert (run.status, run.paused, run.attempt) == ("pending", True, 0)
        for _ in range(2):
            await durably.resume(handle.id)
        assert await bounded(handle.result()) == 7
        assert not (await run_of(durably, handle.id)).paused
        told = heard.of("run:pause", "run:resume")
        assert {event.type for event in told} == {"run:pause", "run:resume"}
        assert all((event.run_id, event.job_name, event.seq) == (handle.id, "quick", None) for event in told)


async def what_has_ended_is_neither_paused_nor_resumed(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick, fails)
        handles = [await durably.trigger(one) for one in (quick, fails, quick)]
        await durably.cancel(handles[2].id)
        await bounded(durably.process_until_idle())
        for act in (durably.pause, durably.resume):
            assert "none" in str(await raised(NotFound, act("none")))
            for handle, status in zip(handles, ("completed", "failed", "cancelled"), strict=True):
                assert status in str(await raised(Conflict, act(handle.id)))


async def an_executing_run_that_is_paused_finishes_its_steps(backend: Backend) -> None:
    """By the engine that executes it, and by another, of which it learns at the next heartbeat."""
    for by_another in (False, True):
        gate = Gate()
        two_steps = _two_steps(gate)
        async with World(backend) as world:
            working, asking = await world.started(two_steps), await world.engine(two_steps)
            handle = await working.trigger(two_steps)
            await gate.reached()
            await (asking if by_another else working).pause(handle.id)
            await world.advance(6)
            run = await run_of(asking, handle.id)
            assert (run.status, run.paused, gate.arrived) == ("leased", True, 1), run
            gate.open()
            run = await becomes(asking, handle.id, "pending")
            await world.advance(3)
            assert (run.step_count, gate.arrived) == (1, 1), "the step is stored, and no other begins"
            await working.resume(handle.id)
            assert await bounded(handle.result()) == "one two"
            assert gate.arrived == 2


async def a_run_that_is_paused_between_steps_stops_there(backend: Backend) -> None:
    gate = Gate()

    @job
    async def pauses(step: Step, input: dict[str, Any]) -> str:
        await step.run("one", _value, 1)
        await gate.wait(None)
        return str(await step.run("two", _value, "two"))

    async with World(backend) as world:
        durably = await world.started(pauses)
        handle = await durably.trigger(pauses)
        await gate.reached()
        await durably.pause(handle.id)
        await becomes(durably, handle.id, "pending")
        await durably.resume(handle.id)
        gate.open()
        assert await bounded(handle.result()) == "two"


async def a_run_resumed_before_it_has_stopped_goes_on(backend: Backend) -> None:
    gate = Gate()
    two_steps = _two_steps(gate)
    async with World(backend) as world:
        durably = await world.started(two_steps, polling_interval=LONG)
        handle = await durably.trigger(two_steps)
        await gate.reached()
        await durably.pause(handle.id)
        await durably.resume(handle.id)
        gate.open()
        assert await bounded(handle.result()) == "one two"
        assert gate.arrived == 2


async def time_and_signals_go_on_counting_while_a_run_is_paused(backend: Backend) -> None:
    @job
    async def waits(step: Step, input: dict[str, Any]) -> Any:
        await step.sleep("nap", 100)
        return await step.wait_for_signal("go", timeout=1000)

    async with World(backend) as world:
        durably = await world.started(waits, polling_interval=LONG)
        handle = await durably.trigger(waits)
        await becomes(durably, handle.id, "waiting")
        await durably.pause(handle.id)
        await move(world, 150)
        assert (await run_of(durably, handle.id)).status in ("waiting", "pending")
        await durably.resume(handle.id)
        await becomes(durably, handle.id, "waiting")
        await durably.pause(handle.id)
        await durably.signal(handle.id, "go", "payload")
        await settled()
        assert (await run_of(durably, handle.id)).output is None
        # The signal came in time, however late it is taken.
        await move(world, 2000)
        await durably.resume(handle.id)
        assert await bounded(handle.result()) == "payload"


async def a_pause_outlives_engines_and_crashes(backend: Backend) -> None:
    gate = Gate()
    two_steps = _two_steps(gate)
    async with World(backend) as world:
        first = await world.started(two_steps)
        handle = await first.trigger(two_steps)
        await gate.reached()
        await first.pause(handle.id)
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(two_steps)
        assert await bounded(second.process_until_idle()) == 0
        run = await run_of(second, handle.id)
        assert run.paused and run.status in ("pending", "leased")
        await second.resume(handle.id)
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == "one two"


async def a_paused_run_can_be_cancelled_and_retried(backend: Backend) -> None:
    """A retried run is wanted again: it does not stay paused."""
    async with World(backend) as world:
        durably = await world.engine(sleeps)
        handle = await durably.trigger(sleeps)
        await bounded(durably.process_until_idle())
        await durably.pause(handle.id)
        await durably.cancel(handle.id)
        await raised(RunCancelled, handle.result(timeout=60))
        await durably.retry(handle.id)
        assert not (await run_of(durably, handle.id)).paused
        world.clock.advance(101)
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == "rested"


async def pausing_a_parent_leaves_its_children_alone(backend: Backend) -> None:
    @job
    async def parent(step: Step, input: dict[str, Any]) -> Any:
        return await step.call(quick, {"n": 5})

    async with World(backend) as world:
        durably = await world.engine(parent, quick)
        handle = await durably.trigger(parent)
        await bounded(durably.process_one())
        await durably.pause(handle.id)
        await bounded(durably.process_until_idle())
        assert await _statuses(durably) in ({"waiting": 1, "completed": 1}, {"pending": 1, "completed": 1})
        await durably.resume(handle.id)
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == 5


# -- pause a job, or a worker ----------------------------------------------------------------------------


async def no_run_of_a_paused_job_is_claimed_by_anyone(backend: Backend) -> None:
    gate = Gate()
    two_steps = _two_steps(gate)
    async with World(backend) as world:
        first = await world.started(two_steps, sleeps, other, polling_interval=LONG)
        executing = await first.trigger(two_steps)
        asleep = await first.trigger(sleeps)
        await gate.reached()
        await becomes(first, asleep.id, "waiting")
        for paused in (two_steps, "sleeps", "sleeps"):
            await first.pause_job(paused)
        pending = await first.trigger(two_steps)
        assert (await first.stats()).paused_jobs == ["sleeps", "two_steps"]
        gate.open()
        assert await bounded(executing.result()) == "one two", "what executes goes on"
        await bounded((await first.trigger(other)).result())
        await move(world, 200)
        await bounded(first.stop())
        second = await world.started(two_steps, sleeps, other, polling_interval=LONG)
        await settled()
        for handle in (asleep, pending):
            run = await run_of(second, handle.id)
            assert not run.is_terminal and not run.paused, run
        for paused in (two_steps, "sleeps", "sleeps"):
            await second.resume_job(paused)
        assert await bounded(second.output_of(asleep.id)) == "rested"
        assert await bounded(second.output_of(pending.id)) == "one two"
        assert (await second.stats()).paused_jobs == []


async def a_paused_worker_claims_nothing(backend: Backend) -> None:
    """It goes on with what it has, and claims at once when it is resumed."""
    gate = Gate()
    two_steps = _two_steps(gate)
    async with World(backend) as world:
        durably = await world.engine(two_steps, quick, polling_interval=LONG)
        executing = await durably.trigger(two_steps)
        await durably.start()
        await gate.reached()
        for _ in range(2):
            durably.pause_worker()
        pending = await durably.trigger(quick, {"n": 3})
        gate.open()
        assert await bounded(executing.result()) == "one two"
        await settled()
        assert (await run_of(durably, pending.id)).status == "pending"
        assert await bounded(durably.process_until_idle()) == 0
        durably.resume_worker()
        assert await bounded(pending.result()) == 3


async def another_worker_goes_on_while_one_is_paused(backend: Backend) -> None:
    async with World(backend) as world:
        first = await world.engine(quick)
        first.pause_worker()
        handle = await first.trigger(quick, {"n": 3})
        assert not await bounded(first.process_one())
        second = await world.engine(quick)
        assert await bounded(second.process_one())
        assert await handle.result(timeout=60) == 3


# -- fork ------------------------------------------------------------------------------------------------


class Made:
    """A job of five steps, whose results say which time they were made."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.troubles: set[str] = set()
        self.gate = Gate()
        self.gate.open()

    async def make(self, name: str) -> str:
        self.ran.append(name)
        await self.gate.wait(None)
        if name in self.troubles:
            raise ValueError(name)
        return f"{name} {self.ran.count(name)}"

    def job(self) -> Job[dict[str, Any], list[str]]:
        @job
        async def makes(step: Step, input: dict[str, Any]) -> list[str]:
            first = await step.run("first", self.make, "first")
            saved = [await step.run("save", self.make, f"save {n}") for n in range(3)]
            await step.sleep("nap", 10)
            return [first, *saved, await step.run("last", self.make, "last")]

        return makes


ONCE = ["first 1", "save 0 1", "save 1 1", "save 2 1", "last 1"]


async def _finished(world: World, durably: Durably) -> None:
    await bounded(durably.process_until_idle())
    world.clock.advance(11)
    await bounded(durably.process_until_idle())


async def a_fork_begins_with_the_results_of_another_run(backend: Backend) -> None:
    made = Made()
    async with World(backend) as world:
        durably = await world.engine(made.job())
        source = await durably.trigger(
            "makes", {"a": 1}, labels={"org": "a"}, idempotency_key="k", concurrency_key="key"
        )
        await _finished(world, durably)
        before = await run_of(durably, source.id), await durably.get_steps(source.id)
        for from_step, expected in (
            (None, ONCE),
            ("last", [*ONCE[:4], "last 2"]),
            ("save#3", [*ONCE[:3], "save 2 2", "last 3"]),
            ("save", ["first 1", "save 0 2", "save 1 2", "save 2 3", "last 4"]),
            ("first", ["first 2", "save 0 3", "save 1 3", "save 2 4", "last 5"]),
        ):
            fork = await durably.fork(source.id, from_step=from_step)
            run = await run_of(durably, fork.id)
            assert fork.disposition == "created" and fork.id != source.id
            assert (run.status, run.forked_from, run.attempt) == ("pending", source.id, 0)
            assert (run.input, run.labels, run.idempotency_key) == ({"a": 1}, {"org": "a"}, None)
            await _finished(world, durably)
            assert await fork.result(timeout=60) == expected, from_step
            assert len(await durably.get_steps(fork.id)) == 6
        assert (await run_of(durably, source.id), await durably.get_steps(source.id)) == before
        assert len(await durably.get_runs(labels={"org": "a"})) == 6


async def a_fork_does_not_sleep_again(backend: Backend) -> None:
    made = Made()
    async with World(backend) as world:
        durably = await world.engine(made.job())
        source = await durably.trigger("makes")
        await _finished(world, durably)
        fork = await durably.fork(source.id, from_step="last")
        await bounded(durably.process_until_idle())
        assert await fork.result(timeout=60) == [*ONCE[:4], "last 2"]
        again = await durably.fork(source.id, from_step="nap")
        await bounded(durably.process_until_idle())
        assert (await run_of(durably, again.id)).status == "waiting", "the sleep itself begins anew"


async def a_fork_of_a_failed_run_tries_again_what_failed(backend: Backend) -> None:
    made = Made()
    made.troubles.add("save 2")
    async with World(backend) as world:
        durably = await world.engine(made.job())
        source = await durably.trigger("makes")
        await _finished(world, durably)
        made.troubles.clear()
        fork, anew = await durably.fork(source.id), await durably.fork(source.id, from_step="first")
        failed_step = await durably.fork(source.id, from_step="save#3")
        await _finished(world, durably)
        assert [text[:-2] for text in await fork.result(timeout=60)] == ["first", "save 0", "save 1", "save 2", "last"]
        assert (await fork.result(timeout=60))[:3] == (await failed_step.result(timeout=60))[:3] == ONCE[:3]
        assert (await anew.result(timeout=60))[:3] == ["first 2", "save 0 2", "save 1 2"]
        assert (await run_of(durably, source.id)).status == "failed"


async def an_executing_run_can_be_forked(backend: Backend) -> None:
    """With what it has by now; both go on, each by itself."""
    gate = Gate()
    ran: list[str] = []

    async def noted() -> str:
        ran.append("one")
        return "one"

    @job
    async def two(step: Step, input: dict[str, Any]) -> str:
        first = await step.run("one", noted)
        return str(first + await step.run("two", gate.wait, " two"))

    async with World(backend) as world:
        durably = await world.started(two)
        source = await durably.trigger(two)
        await gate.reached()
        fork = await durably.fork(source.id)
        await gate.reached(2)
        gate.open()
        assert await bounded(source.result()) == await bounded(fork.result()) == "one two"
        assert ran == ["one"]


async def a_fork_can_be_forked_and_outlives_its_source(backend: Backend) -> None:
    made = Made()
    async with World(backend) as world:
        durably = await world.engine(made.job())
        source = await durably.trigger("makes")
        await _finished(world, durably)
        fork = await durably.fork(source.id)
        await durably.delete_run(source.id)
        second = await durably.fork(fork.id, from_step="last")
        assert (await run_of(durably, second.id)).forked_from == fork.id
        await _finished(world, durably)
        assert await fork.result(timeout=60) == ONCE
        assert await second.result(timeout=60) == [*ONCE[:4], "last 2"]


async def a_crashed_fork_keeps_what_it_was_given(backend: Backend) -> None:
    made = Made()
    async with World(backend) as world:
        first = await world.engine(made.job())
        source = await first.trigger("makes")
        await _finished(world, first)
        made.gate = Gate()
        await first.start()
        fork = await first.fork(source.id, from_step="save#2")
        await made.gate.reached()
        await world.crash(first)
        await world.expire()
        made.gate.open()
        second = await world.engine(made.job())
        await _finished(world, second)
        assert await second.output_of(fork.id, timeout=60) == [*ONCE[:2], "save 1 3", "save 2 2", "last 2"]
        numbers = [event.number async for event in second.subscribe(fork.id)]
        assert numbers == list(range(1, len(numbers) + 1))


async def a_fork_starts_children_of_its_own(backend: Backend) -> None:
    @job
    async def parent(step: Step, input: dict[str, Any]) -> Any:
        kept = await step.call(quick, {"n": 1}, name="kept")
        return [kept, await step.call(quick, {"n": 2}, name="again")]

    async with World(backend) as world:
        durably = await world.engine(parent, quick)
        source = await durably.trigger(parent)
        await bounded(durably.process_until_idle())
        fork = await durably.fork(source.id, from_step="again")
        await bounded(durably.process_until_idle())
        assert await fork.result(timeout=60) == [1, 2]
        parents = Counter(run.parent_run_id for run in await durably.get_runs(job=quick))
        assert parents == {source.id: 2, fork.id: 1}


async def what_cannot_be_forked_says_why(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        handle = await durably.trigger(quick)
        assert "none" in str(await raised(NotFound, durably.fork("none")))
        for step_name in ("one", "none"):
            error = await raised(NotFound, durably.fork(handle.id, from_step=step_name))
            assert repr(step_name) in str(error) and handle.id in str(error), error
        assert len(await durably.get_runs()) == 1
        fork = await durably.fork(handle.id)
        await bounded(durably.process_until_idle())
        assert (await run_of(durably, fork.id)).status == "completed"


async def the_id_of_another_run_makes_no_copy(backend: Backend) -> None:
    """A request that brings it stores nothing, in that run least of all."""
    async with World(backend) as world:
        durably = await world.engine(quick, other)
        source = await durably.trigger(quick, {"n": "planted"}, labels={"org": "a"})
        await bounded(durably.process_until_idle())
        victims = [
            await durably.trigger(quick, {"n": "own"}, labels={"org": "b"}),
            await durably.trigger(other, {}, labels={"org": "a"}),
            await durably.trigger(quick, {"n": "own"}, labels={"org": "a"}, idempotency_key="k"),
            source,
        ]
        before = [await run_of(durably, victim.id) for victim in victims]
        for victim in victims:
            for act in (durably.fork, durably.retrigger):
                error = await raised(Conflict, act(source.id, request_id=victim.id))
                assert victim.id in str(error), error
            if victim is not source:
                assert [event.type for event in (await durably.get_events(victim.id)).events] == ["run:trigger"]
        assert [await run_of(durably, victim.id) for victim in victims] == before
        await bounded(durably.process_until_idle())
        assert await victims[0].result(timeout=60) == "own"


async def the_id_of_another_jobs_run_makes_no_run(backend: Backend) -> None:
    """A request that brings it is told so: nothing of it is stored."""
    async with World(backend) as world:
        durably = await world.engine(quick, other)
        victim = await durably.trigger(quick, {"n": 1}, labels={"org": "a"})
        before = await run_of(durably, victim.id)
        ways: list[dict[str, Any]] = [
            {},
            {"labels": {"org": "a"}},
            {"idempotency_key": "k"},
            {"concurrency_key": "c"},
            {"concurrency_key": "c", "coalesce": "skip"},
            {"concurrency_key": "c", "debounce": 5},
        ]
        for options in ways:
            error = await raised(Conflict, durably.trigger(other, {}, request_id=victim.id, **options))
            assert victim.id in str(error) and "another run" in str(error), error
        # The same job, and somebody else's run: what is seen by its label is not told as one's own.
        for options in ({}, *ways, {"labels": {"org": "b"}}):
            if options.get("labels") != {"org": "a"}:
                error = await raised(Conflict, durably.trigger(quick, {}, request_id=victim.id, **options))
                assert victim.id in str(error), error
        error = await raised(Conflict, durably.trigger_many(other, [{"input": {}}], request_id=victim.id))
        assert "items[0]" in str(error), error
        assert await run_of(durably, victim.id) == before
        assert len(await durably.get_runs()) == 1
        again = await durably.trigger(quick, {"n": 1}, labels={"org": "a"}, request_id=victim.id)
        assert (again.id, again.disposition) == (victim.id, "created")


async def a_copy_that_is_asked_for_again_is_the_same(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        source = await durably.trigger(quick, {"n": 1}, labels={"org": "a"}, idempotency_key="k", concurrency_key="c")
        await bounded(durably.process_until_idle())
        for number, act in enumerate((durably.fork, durably.retrigger)):
            new_id = first_id(1_900_000_000_000 + number)
            for _ in range(2):
                assert (await act(source.id, request_id=new_id)).id == new_id
                await bounded(durably.process_until_idle())
        assert len(await durably.get_runs()) == 3


# -- many at once ----------------------------------------------------------------------------------------


async def many_runs_are_changed_by_what_they_have_in_common(backend: Backend) -> None:
    """Each act counts what it changed, and passes over what it may not change."""
    async with World(backend) as world:
        durably = await world.engine(quick, fails, sleeps, other)
        for n in range(12):
            which = (quick, fails, sleeps, other)[n % 4]
            await durably.trigger(which, {"n": n}, labels={"half": "ab"[n // 6], "n": str(n)}, priority=-n)
        await durably.pause_job(other)
        await bounded(durably.process_until_idle())
        assert await _statuses(durably) == {"completed": 3, "failed": 3, "waiting": 3, "pending": 3}

        assert await durably.pause_runs(job=sleeps) == 3
        assert await durably.pause_runs(job="sleeps") == 0, "they are paused already"
        assert await durably.pause_runs(job=quick) == 0, "they have ended"
        assert await durably.resume_runs(labels={"half": "a"}) == 1
        assert await durably.resume_runs(status=STATUSES) == 2
        assert await durably.retry_runs(status="failed", labels={"half": "b"}) == 1
        assert await durably.retry_runs(status="completed") == 0
        assert await durably.cancel_runs(status=["pending", "waiting"], labels={"half": "a"}) == 2
        assert await durably.cancel_runs(job=other, labels={"half": "b", "n": "7"}) == 1
        assert await durably.delete_runs(status="cancelled", job="sleeps") == 1
        assert await durably.delete_runs(job=sleeps) == 0, "they have not ended"
        expected = {"completed": 3, "failed": 2, "pending": 2, "waiting": 2, "cancelled": 2}
        assert await _statuses(durably) == expected
        assert await durably.delete_runs(status=STATUSES) == 7
        assert await durably.cancel_runs(status=STATUSES) == 4
        assert await durably.retry_runs(status=STATUSES) == 4
        assert await durably.cancel_runs(labels={"half": "z"}) == 0


async def many_runs_can_be_chosen_by_their_age(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        for n in range(5):
            await durably.trigger(quick, {"n": n})
            world.clock.advance(10)
        start = world.clock.now() - 50_000
        assert await durably.pause_runs(created_before=instant(start + 20_000)) == 2
        assert await durably.cancel_runs(created_before=instant(start + 20_001)) == 3
        assert await durably.delete_runs(created_before=instant(start), status="cancelled") == 0
        assert await durably.retry_runs(created_before=instant(start + 90_000)) == 3


async def more_runs_than_fit_into_a_transaction_are_all_changed(backend: Backend) -> None:
    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    async with World(backend) as world:
        durably = await world.engine(quick, through=through)
        await durably.trigger_many(quick, [{"input": {"n": n}} for n in range(1201)])

        async def transactions(act: Callable[..., Awaitable[int]], count: int) -> None:
            counting[0].batches.clear()
            assert await act(job=quick) == count
            writes = sum(batch.mode == "write" for batch in counting[0].batches)
            assert 3 <= writes <= 5, f"{writes} transactions"

        for act in (
            durably.pause_runs,
            durably.resume_runs,
            durably.cancel_runs,
            durably.retry_runs,
            durably.cancel_runs,
            durably.delete_runs,
        ):
            await transactions(act, 1201)
        assert await durably.get_runs() == []


async def cancelling_many_ends_what_executes(backend: Backend) -> None:
    gate = Gate()
    two_steps = _two_steps(gate)
    async with World(backend) as world:
        durably = await world.started(two_steps)
        heard = Heard(durably)
        handles = [await durably.trigger(two_steps) for _ in range(3)]
        await gate.reached(3)
        assert await durably.cancel_runs(status="leased") == 3
        for handle in handles:
            await raised(RunCancelled, bounded(handle.result()))
        await settled()
        assert len(heard.of("step:cancel")) == 3 == len(heard.of("run:cancel"))


async def resuming_and_retrying_many_wakes_the_worker(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(quick, polling_interval=LONG)
        durably.pause_worker()
        handles = [await durably.trigger(quick, {"n": n}) for n in range(4)]
        assert await durably.pause_runs(job=quick) == 4
        durably.resume_worker()
        await settled()
        assert await durably.resume_runs(job=quick) == 4
        assert [await bounded(handle.result()) for handle in handles] == [0, 1, 2, 3]


async def what_cannot_be_meant_is_refused(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        handle = await durably.trigger(quick)
        acts = (
            durably.cancel_runs,
            durably.retry_runs,
            durably.pause_runs,
            durably.resume_runs,
            durably.delete_runs,
        )
        wrong: list[dict[str, Any]] = [
            {},  # All runs there are: that has to be said, and not be the result of an option forgotten.
            {"status": "done"},
            {"status": ["pending", "done"]},
            {"labels": {"a": 1}},
            {"created_before": datetime(2020, 1, 1)},
            {"created_before": 5},
        ]
        for act in acts:
            for filter in wrong:
                await raised(InvalidInput, act(**filter))
        for older_than in (-1, timedelta(seconds=-1), datetime(2020, 1, 1), "1 day", True, float("nan"), None):
            await raised(InvalidInput, durably.purge_runs(older_than=older_than))  # type: ignore[arg-type]
        for limit in (-1, True, "5"):
            await raised(InvalidInput, durably.purge_runs(older_than=0, limit=limit))  # type: ignore[arg-type]
        assert (await run_of(durably, handle.id)).status == "pending"


# -- keep or forget --------------------------------------------------------------------------------------


async def old_runs_are_purged(backend: Backend) -> None:
    """By when they ended, in each way to say so; those that have not ended never."""
    ways: tuple[Callable[[int], Any], ...] = (
        lambda now: 25,
        lambda now: timedelta(seconds=25),
        lambda now: instant(now - 25_000),
    )
    for way in ways:
        async with World(backend) as world:
            durably = await world.engine(quick, fails, sleeps)
            waiting = await durably.trigger(sleeps)
            pending = await durably.trigger(quick, delay=10_000)
            ended = []
            for which in (quick, fails, quick, quick):
                ended.append(await durably.trigger(which, {"n": 1}, labels={"a": "b"}))
                if len(ended) == 3:
                    await durably.cancel(ended[2].id)
                await bounded(durably.process_until_idle())
                world.clock.advance(10)
            assert await durably.purge_runs(older_than=way(world.clock.now())) == 2
            assert await durably.purge_runs(older_than=way(world.clock.now())) == 0
            left = {run.id for run in await durably.get_runs()}
            assert left == {waiting.id, pending.id, ended[2].id, ended[3].id}
            assert await durably.get_steps(ended[0].id) == []
            assert len(await durably.get_runs(labels={"a": "b"})) == 2
            await durably.cancel_runs(status=STATUSES)
            await durably.delete_runs(status=STATUSES)


async def a_purge_takes_no_more_than_its_limit(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        await durably.trigger_many(quick, [{"input": {"n": n}} for n in range(600)])
        await durably.cancel_runs(job=quick)
        world.clock.advance(10)
        assert await durably.purge_runs(older_than=0, limit=7) == 7
        assert await durably.purge_runs(older_than=0) == 500
        assert await durably.purge_runs(older_than=0, limit=10_000) == 93
        assert await durably.purge_runs(older_than=0) == 0


async def a_purged_runs_idempotency_key_is_free_again(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        first = await durably.trigger(quick, {"n": 1}, idempotency_key="k")
        await bounded(durably.process_until_idle())
        world.clock.advance(10)
        assert await durably.purge_runs(older_than=5) == 1
        assert await first.run() is None
        assert (await durably.trigger(quick, {"n": 1}, idempotency_key="k")).disposition == "created"


async def a_started_worker_forgets_what_is_older_than_it_should_retain(backend: Backend) -> None:
    """More than fits into one transaction, and what ends later too; one that was not started does not."""
    async with World(backend) as world:
        idle = await world.engine(quick, retain_runs=3600)
        await idle.trigger_many(quick, [{"input": {"n": n}} for n in range(1100)])
        await idle.cancel_runs(job=quick)
        kept = await idle.trigger(quick, delay=500_000)
        await world.advance(7200, step=600)
        assert len(await idle.get_runs()) == 1101
        worker = await world.started(quick, retain_runs=timedelta(hours=1))
        await world.advance(3600, step=60)
        assert [run.id for run in await worker.get_runs()] == [kept.id]
        late = await worker.trigger(quick, {"n": 1})
        await bounded(late.result())
        await world.advance(3000, step=60)
        assert await late.run() is not None
        await world.advance(3000, step=60)
        assert await late.run() is None


async def results_of_steps_need_not_be_kept(backend: Backend) -> None:
    """They are emptied when the run completes, not before: a crash, a sleep and a failure lose nothing."""
    gate = Gate()
    ran: list[str] = []

    async def noted(name: str) -> str:
        ran.append(name)
        return name

    @job
    async def two(step: Step, input: dict[str, Any]) -> str:
        first = await step.run("one", noted, "one")
        await step.sleep("nap", 10)
        second = await step.run("two", noted, " two")
        await step.run("wait", gate.wait, "a" * 100)
        if input["fail"]:
            raise ValueError("no")
        return first + second

    async with World(backend) as world:
        first = await world.started(two, preserve_steps=False)
        handles = [await first.trigger(two, {"fail": fail}) for fail in (False, True)]
        await world.drive(gate.reached(2), seconds=12)
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(two, preserve_steps=False)
        await bounded(second.process_until_idle())
        assert await second.output_of(handles[0].id, timeout=60) == "one two"
        steps = await second.get_steps(handles[0].id)
        assert [(one.name, one.status, one.output) for one in steps] == [
            ("one", "completed", None),
            ("nap", "completed", None),
            ("two", "completed", None),
            ("wait", "completed", None),
        ]
        assert (await run_of(second, handles[0].id)).step_count == 4
        events = [event async for event in second.subscribe(handles[0].id)]
        assert [event.output for event in events if event.type == "step:complete"] == [None] * 4
        assert events[-1].output == "one two"
        assert sorted(ran) == [" two", " two", "one", "one"]
        failed = {one.name: one.output for one in await second.get_steps(handles[1].id)}
        assert failed["one"] == "one", "a failed run may be retried"
        assert (
            await world.rows("SELECT 1 FROM durably_journal WHERE run_id = ? AND data LIKE '%aaa%'", handles[0].id)
            == []
        )


async def a_run_without_its_results_is_forked_from_its_beginning(backend: Backend) -> None:
    made = Made()
    async with World(backend) as world:
        durably = await world.engine(made.job(), preserve_steps=False)
        source = await durably.trigger("makes")
        await _finished(world, durably)
        fork = await durably.fork(source.id)
        await _finished(world, durably)
        output = await fork.result(timeout=60)
        assert output == ["first 2", "save 0 2", "save 1 2", "save 2 2", "last 2"], output


# -- count -----------------------------------------------------------------------------------------------


async def stats_count_runs_by_status_and_job(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick, fails, sleeps)
        empty = await durably.stats()
        assert (empty.total, empty.by_status, empty.by_job, empty.paused_jobs) == (0, {}, {}, [])
        for which in (quick, quick, fails, sleeps):
            await durably.trigger(which)
        await bounded(durably.process_until_idle())
        pending = await durably.trigger(quick, delay=50)
        await durably.pause_job(fails)
        stats = await durably.stats()
        assert stats.total == 5
        assert stats.by_status == {"completed": 2, "failed": 1, "waiting": 1, "pending": 1}
        assert stats.by_job == {
            "quick": {"completed": 2, "pending": 1},
            "fails": {"failed": 1},
            "sleeps": {"waiting": 1},
        }
        assert stats.paused_jobs == ["fails"]
        assert (await durably.stats(job=[quick, "sleeps"])).by_status == {"completed": 2, "pending": 1, "waiting": 1}
        assert (await durably.stats(job="fails")).paused_jobs == ["fails"]
        assert (await durably.stats(job="quick")).paused_jobs == []
        labelled = await durably.trigger(quick, labels={"org": "acme"}, delay=50)
        assert (await durably.stats(labels={"org": "acme"})).by_job == {"quick": {"pending": 1}}
        assert (await durably.stats(labels={"org": "globex"})).total == 0
        await durably.cancel(labelled.id)
        assert await durably.delete_runs(labels={"org": "acme"}) == 1
        await durably.cancel(pending.id)
        assert await durably.delete_runs(status=STATUSES) == 4
        assert (await durably.stats()).by_job == {"sleeps": {"waiting": 1}}


# -- families --------------------------------------------------------------------------------------------


async def deleting_a_parent_or_a_child_leaves_the_other(backend: Backend) -> None:
    @job
    async def parent(step: Step, input: dict[str, Any]) -> Any:
        await step.trigger(quick, {"n": 2}, name="later", delay=100)
        return await step.call(quick, {"n": 1})

    async with World(backend) as world:
        durably = await world.engine(parent, quick)
        handle = await durably.trigger(parent)
        await bounded(durably.process_until_idle())
        [called] = await durably.get_runs(job=quick, status="completed")
        [later] = await durably.get_runs(job=quick, status="pending")
        await durably.delete_run(called.id)
        assert await handle.result(timeout=60) == 1
        assert [one.output for one in await durably.get_steps(handle.id)] == [later.id, 1]
        await durably.delete_run(handle.id)
        assert (await run_of(durably, later.id)).parent_run_id == handle.id
        world.clock.advance(100)
        await bounded(durably.process_until_idle())
        assert (await run_of(durably, later.id)).status == "completed"


async def a_retriggered_run_begins_anew(backend: Backend) -> None:
    """With no result of the first, whoever its parent was."""
    ran: list[int] = []

    async def noted(n: int) -> int:
        ran.append(n)
        return n

    @job
    async def child(step: Step, input: dict[str, Any]) -> int:
        return await step.run("note", noted, input["n"])

    @job
    async def parent(step: Step, input: dict[str, Any]) -> int:
        return await step.call(child, {"n": 5})

    async with World(backend) as world:
        durably = await world.engine(parent, child)
        handle = await durably.trigger(parent, priority=3, concurrency_key="k")
        await bounded(durably.process_until_idle())
        [first] = await durably.get_runs(job=child)
        for run_id in (first.id, handle.id):
            again = await durably.retrigger(run_id)
            run = await run_of(durably, again.id)
            assert (run.parent_run_id, run.forked_from) == (None, None)
            await bounded(durably.process_until_idle())
            assert await again.result(timeout=60) == 5
        assert ran == [5, 5, 5]


async def requests_race_with_the_end_of_a_run(backend: Backend) -> None:
    """Whoever comes first: a run that has completed stays so, and a request that was refused has no effect."""
    for delay in range(0, 24, 2):
        for name in ("pause", "cancel", "fork"):
            async with World(backend) as world:
                durably = await world.engine(quick)
                handle = await durably.trigger(quick, {"n": 1})
                processing = asyncio.ensure_future(durably.process_until_idle())
                await turns(delay)
                try:
                    await getattr(durably, name)(handle.id)
                except Conflict:
                    await bounded(processing)
                    assert (await run_of(durably, handle.id)).status == "completed"
                else:
                    await bounded(processing)
                    run = await run_of(durably, handle.id)
                    if name == "pause" and not run.is_terminal:
                        await durably.resume(handle.id)
                        await bounded(durably.process_until_idle())
                        assert await handle.result(timeout=60) == 1
                    elif name == "cancel":
                        assert run.status == "cancelled"
