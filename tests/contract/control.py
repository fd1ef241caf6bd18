"""What happens when somebody intervenes: cancel, retry, retrigger, delete, stop."""

from __future__ import annotations

import asyncio
from typing import Any

from durably_web.errors import Conflict, NotFound, RunCancelled
from durably_web.jobs import job
from durably_web.records import Run
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend, needs
from tests.support.executors import HeldExecutor
from tests.support.world import Gate, Heard, World, bounded, raised, turns, until


async def _run(durably: Any, run_id: str) -> Run:
    run = await durably.get_run(run_id)
    assert isinstance(run, Run)
    return run


@job
async def quick(step: Step, input: dict[str, Any]) -> int:
    return await step.run("one", lambda: 1)


@job
async def fails_at_first(step: Step, input: dict[str, Any]) -> str:
    """Fails, by a step or by itself, until there is nothing left in `troubles`."""
    await step.run("fine", _count, "fine")
    await step.run("risky", _trouble)
    return "done"


troubles: list[Exception] = []
counts: dict[str, int] = {}


def _count(name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _trouble() -> None:
    _count("risky")
    if troubles:
        raise troubles.pop()


# -- cancel ----------------------------------------------------------------------------------------------


async def a_pending_run_can_be_cancelled(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        handle = await durably.trigger(quick)
        await handle.cancel()
        assert await durably.process_until_idle() == 0
        run = await _run(durably, handle.id)
        assert (run.status, run.attempt, run.step_count) == ("cancelled", 0, 0) and run.completed_at is not None
        await raised(RunCancelled, handle.result(timeout=60))


async def what_cannot_be_done_says_why(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        handle = await durably.trigger(quick)
        for act in (durably.cancel, durably.retry, durably.retrigger, durably.delete_run):
            error = await raised(NotFound, act("none"))
            assert "none" in str(error)
        for act in (durably.retry, durably.retrigger, durably.delete_run):
            error = await raised(Conflict, act(handle.id))
            assert "pending" in str(error) and handle.id in str(error)
        await durably.process_one()
        for act in (durably.retry, durably.cancel):
            error = await raised(Conflict, act(handle.id))
            assert "completed" in str(error)
        assert (await _run(durably, handle.id)).status == "completed"


async def a_leased_run_is_neither_retried_nor_deleted(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, 1)

    async with World(backend) as world:
        durably = await world.started(waits)
        handle = await durably.trigger(waits)
        await gate.reached()
        for act in (durably.retry, durably.retrigger, durably.delete_run):
            assert "leased" in str(await raised(Conflict, act(handle.id)))
        gate.open()
        await bounded(handle.result())


async def cancelling_ends_an_async_step_and_what_is_beside_it(backend: Backend) -> None:
    gate = Gate()
    ended: list[int] = []

    async def work(n: int) -> None:
        try:
            await gate.wait(n)
        finally:
            ended.append(n)

    @job
    async def waits(step: Step, input: dict[str, Any]) -> None:
        await asyncio.gather(*[step.run("wait", work, n) for n in range(3)])

    async with World(backend) as world:
        durably = await world.started(waits)
        heard = Heard(durably)
        handle = await durably.trigger(waits)
        await gate.reached(3)
        await durably.cancel(handle.id)
        await raised(RunCancelled, bounded(handle.result()))
        await until(lambda: len(ended) == 3)
        await turns()
        assert [event.step_name for event in heard.of("step:cancel")] == ["wait", "wait#2", "wait#3"]
        assert not heard.of("worker:error", "step:complete", "step:fail", "run:fail", "run:complete")
        assert (await _run(durably, handle.id)).step_count == 0


async def a_step_left_to_itself_ends_with_its_cancelled_run(backend: Backend) -> None:
    gate, main = Gate(), Gate()
    tasks: list[asyncio.Task[Any]] = []

    @job
    async def leaves(step: Step, input: dict[str, Any]) -> None:
        tasks.append(asyncio.ensure_future(step.run("left", gate.wait, 1)))
        await step.run("wait", main.wait, 1)

    async with World(backend) as world:
        durably = await world.started(leaves)
        handle = await durably.trigger(leaves)
        await main.reached()
        await gate.reached()
        await durably.cancel(handle.id)
        await until(lambda: tasks[0].done())
        assert tasks[0].cancelled()


async def cancelling_between_steps_ends_the_job(backend: Backend) -> None:
    gate = Gate()
    later: list[int] = []

    @job
    async def pauses(step: Step, input: dict[str, Any]) -> None:
        await step.run("one", lambda: 1)
        await gate.wait(1)
        await step.run("two", later.append, 2)

    async with World(backend) as world:
        durably = await world.started(pauses)
        handle = await durably.trigger(pauses)
        await gate.reached()
        await durably.cancel(handle.id)
        await turns()
        gate.open()
        await turns()
        run = await _run(durably, handle.id)
        assert (run.status, run.step_count) == ("cancelled", 1) and later == []


@needs("threads")
async def the_result_of_a_cancelled_threads_step_is_dropped(backend: Backend) -> None:
    gate = Gate()
    loop = asyncio.get_running_loop()

    @job
    async def threads(step: Step, input: dict[str, Any]) -> None:
        def in_thread() -> int:
            asyncio.run_coroutine_threadsafe(gate.wait(1), loop).result(20)
            step.log.info("from a thread that nobody waits for")
            return 1

        await step.run("thread", in_thread)

    async with World(backend) as world:
        durably = await world.started(threads)
        handle = await durably.trigger(threads)
        await gate.reached()
        await durably.cancel(handle.id)
        gate.open()
        await world.advance(2)
        await raised(RunCancelled, bounded(handle.result()))
        assert await durably.get_steps(handle.id) == [] and await durably.get_logs(handle.id) == []


async def a_job_can_cancel_its_own_run(backend: Backend) -> None:
    async with World(backend) as world:

        @job
        async def gives_up(step: Step, input: dict[str, Any]) -> None:
            if input["within"]:
                await step.run("cancel", durably.cancel, step.run_id)
            else:
                await durably.cancel(step.run_id)
            await step.run("more", _count, "more")

        durably = await world.started(gives_up)
        for within in (True, False):
            handle = await durably.trigger(gives_up, {"within": within})
            await raised(RunCancelled, bounded(handle.result()))
            await turns()
            assert (await _run(durably, handle.id)).step_count == 0
        assert "more" not in counts


async def another_engine_can_cancel(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, 1)

    async with World(backend) as world:
        working, asking = await world.started(waits), await world.engine(waits)
        heard = Heard(working)
        handle = await asking.trigger(waits)
        await world.drive(gate.reached())
        await asking.cancel(handle.id)
        # The worker learns of it at its next heartbeat, and ends the step.
        await world.advance(6)
        assert [event.step_name for event in heard.of("step:cancel")] == ["wait"]
        gate.open()
        await turns()
        assert (await _run(asking, handle.id)).status == "cancelled"
        assert not heard.of("worker:error", "step:complete", "run:complete")


async def a_cancellation_from_elsewhere_wins_over_the_end(backend: Backend) -> None:
    """Between the last step and the end of the job; the owner must not take one for the other."""
    gate = Gate()

    @job
    async def pauses(step: Step, input: dict[str, Any]) -> str:
        await step.run("one", lambda: 1)
        await gate.wait(1)
        if input["fail"]:
            raise ValueError
        return "done"

    async with World(backend) as world:
        working, asking = await world.started(pauses), await world.engine(pauses)
        heard = Heard(working)
        for fail in (False, True):
            gate.__init__()  # type: ignore[misc]
            handle = await asking.trigger(pauses, {"fail": fail})
            await world.drive(gate.reached())
            await asking.cancel(handle.id)
            gate.open()
            await world.advance(1)
            assert (await _run(asking, handle.id)).status == "cancelled"
        assert not heard.of("run:complete", "run:fail", "worker:error")


# -- retry, retrigger, delete ----------------------------------------------------------------------------


async def a_retried_run_goes_on_from_its_first_step_without_a_result(backend: Backend) -> None:
    counts.clear()
    async with World(backend) as world:
        durably = await world.engine(fails_at_first)
        troubles[:] = [ValueError("second"), ValueError("first")]
        handle = await durably.trigger(fails_at_first)
        for attempt, message in ((1, "first"), (2, "second")):
            await durably.process_one()
            run = await _run(durably, handle.id)
            assert (run.status, run.attempt, run.error) == ("failed", attempt, f"ValueError: {message}")
            await durably.retry(handle.id)
            run = await _run(durably, handle.id)
            assert (run.status, run.error, run.completed_at) == ("pending", None, None)
        await durably.process_one()
        assert await handle.result(timeout=60) == "done"
        assert counts == {"fine": 1, "risky": 3}
        steps = [(one.name, one.status, one.attempt) for one in await durably.get_steps(handle.id)]
        assert steps == [("fine", "completed", 1), ("risky", "completed", 3)]


async def a_cancelled_run_can_be_retried_while_its_execution_comes_to_an_end(backend: Backend) -> None:
    """An async step may take its time to end; the run is not executed twice at once meanwhile."""
    gate, cleaning = Gate(), Gate()
    executing: list[int] = []
    most: list[int] = []

    async def work() -> str:
        executing.append(1)
        most.append(len(executing))
        try:
            return await gate.wait("done")
        finally:
            if not cleaning.arrived:
                await cleaning.wait(1)
            executing.pop()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", work)

    async with World(backend) as world:
        durably = await world.started(waits)
        heard = Heard(durably)
        handle = await durably.trigger(waits)
        await gate.reached()
        await durably.cancel(handle.id)
        await durably.retry(handle.id)
        await cleaning.reached()
        await world.advance(2)
        gate.open()
        cleaning.open()
        assert await bounded(handle.result()) == "done"
        assert max(most) == 1
        assert not heard.of("worker:error")
        await turns()
        assert await durably.process_until_idle() == 0


async def retrigger_makes_a_new_run_of_the_same(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        first = await durably.trigger(quick, {"a": 1}, labels={"org": "a"}, idempotency_key="k")
        await durably.process_one()
        second = await durably.retrigger(first.id)
        run = await _run(durably, second.id)
        assert second.id != first.id and second.disposition == "created"
        assert (run.status, run.input, run.labels, run.idempotency_key) == ("pending", {"a": 1}, {"org": "a"}, None)
        assert len(await durably.get_runs(labels={"org": "a"})) == 2
        await durably.process_one()
        assert await second.result(timeout=60) == 1


async def a_deleted_run_is_gone(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        handle = await durably.trigger(quick, {}, labels={"org": "a", "x": "ü🦆"}, idempotency_key="k")
        other = await durably.trigger(quick, {}, labels={"org": "a"})
        await durably.process_until_idle()
        await durably.delete_run(handle.id)
        assert await handle.run() is None
        assert await durably.get_steps(handle.id) == [] and await durably.get_logs(handle.id) == []
        assert [run.id for run in await durably.get_runs(labels={"org": "a"})] == [other.id]
        for act in (durably.delete_run, durably.cancel, durably.retry, durably.retrigger):
            await raised(NotFound, act(handle.id))
        await raised(NotFound, handle.result(timeout=60))
        assert (await durably.trigger(quick, {}, idempotency_key="k")).disposition == "created"


async def a_wait_ends_when_the_run_is_deleted(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        handle = await durably.trigger(quick)
        waiting = asyncio.ensure_future(handle.result(timeout=10))
        await turns()
        await durably.cancel(handle.id)
        await durably.delete_run(handle.id)
        error = await raised((NotFound, RunCancelled), bounded(waiting))  # type: ignore[arg-type]
        assert handle.id in str(error)


# -- stop ------------------------------------------------------------------------------------------------


async def stopping_finishes_the_step_and_gives_the_lease_back(backend: Backend) -> None:
    gates = [Gate() for _ in range(3)]
    later: list[int] = []

    @job
    async def waits(step: Step, input: dict[str, Any]) -> int:
        step.log.info("begin")
        if input["parallel"]:
            await asyncio.gather(step.run("a", gates[0].wait, 1), step.run("b", gates[1].wait, 2))
        else:
            await step.run("a", gates[2].wait, 1)
        step.progress(1)
        await step.run("later", later.append, 1)
        return 7

    async with World(backend) as world:
        first = await world.started(waits)
        heard = Heard(first)
        handles = [await first.trigger(waits, {"parallel": parallel}) for parallel in (True, False)]
        for gate in gates:
            await gate.reached()
        stopping = asyncio.ensure_future(first.stop())
        await turns()
        assert not stopping.done()
        for gate in gates:
            gate.open()
            await turns()
        await bounded(stopping)
        assert later == [] and not heard.of("worker:error")
        second = await world.engine(waits)
        for handle, count in zip(handles, (2, 1), strict=True):
            run = await _run(second, handle.id)
            assert (run.status, run.step_count) == ("pending", count)
        assert await second.process_until_idle() == 2
        for handle in handles:
            run = await _run(second, handle.id)
            assert (run.status, run.output, run.attempt, run.progress) == ("completed", 7, 2, (1, None, None))
            assert [one.message for one in await second.get_logs(handle.id)] == ["begin"]
        assert later == [1, 1] and [gate.arrived for gate in gates] == [1, 1, 1]


@needs("threads")
async def stopping_waits_for_a_step_in_a_thread(backend: Backend) -> None:
    gate = Gate()
    loop = asyncio.get_running_loop()

    @job
    async def threads(step: Step, input: dict[str, Any]) -> int:
        await step.run("thread", lambda: asyncio.run_coroutine_threadsafe(gate.wait(5), loop).result(20))
        return await step.run("later", lambda: 6)

    async with World(backend) as world:
        first = await world.started(threads)
        handle = await first.trigger(threads)
        await gate.reached()
        stopping = asyncio.ensure_future(first.stop())
        await turns()
        assert not stopping.done()
        gate.open()
        await bounded(stopping)
        second = await world.engine(threads)
        assert [(one.name, one.output) for one in await second.get_steps(handle.id)] == [("thread", 5)]
        await second.process_one()
        assert (await _run(second, handle.id)).output == 6


async def stopping_does_not_wait_for_a_job_between_steps(backend: Backend) -> None:
    gate = Gate()

    @job
    async def pauses(step: Step, input: dict[str, Any]) -> int:
        await step.run("one", lambda: 1)
        return await gate.wait(2)

    async with World(backend) as world:
        first = await world.started(pauses)
        handle = await first.trigger(pauses)
        await gate.reached()
        await bounded(first.stop())
        second = await world.engine(pauses)
        assert (await _run(second, handle.id)).status == "pending"
        gate.open()
        await second.process_one()
        assert (await _run(second, handle.id)).output == 2


async def a_run_that_was_leased_while_stopping_is_given_back(backend: Backend) -> None:
    held: list[HeldExecutor] = []

    def through(inner: Executor) -> Executor:
        held.append(HeldExecutor(inner))
        return held[0]

    @job
    async def long(step: Step, input: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    async with World(backend) as world:
        durably = await world.started(long, through=through)
        await turns()
        handle = await durably.trigger(long)
        held[0].hold()
        arrived = held[0].arrived
        await until(lambda: held[0].arrived > arrived)
        stopping = asyncio.ensure_future(durably.stop())
        await turns()
        held[0].release()
        await bounded(stopping)
        run = await _run(await world.engine(long), handle.id)
        assert (run.status, run.attempt) == ("pending", 1)


async def stopping_lets_a_run_end_that_is_ending(backend: Backend) -> None:
    """Its last write waits; taken back, the run's end would be in the journal and not in its status."""
    held: list[HeldExecutor] = []

    def through(inner: Executor) -> Executor:
        held.append(HeldExecutor(inner))
        return held[0]

    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        await step.run("wait", gate.wait, 1)
        held[0].hold()
        return "done"

    async with World(backend) as world:
        durably = await world.started(waits, through=through)
        handles = [await durably.trigger(waits) for _ in range(3)]
        await gate.reached(3)
        gate.open()
        await turns()
        stopping = asyncio.ensure_future(durably.stop())
        await turns()
        held[0].release()
        await bounded(stopping)
        other = await world.engine(waits)
        for handle in handles:
            run = await _run(other, handle.id)
            assert run.status in ("completed", "pending")
        await other.process_until_idle()
        for handle in handles:
            assert (await _run(other, handle.id)).output == "done"
