"""Children: runs that a run starts, once whatever crashes, and waits for or does not."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import Conflict, InvalidInput, NotFound, RunCancelled, RunFailed, StoreError
from durably_web.jobs import Job, job
from durably_web.records import Run
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend, needs
from tests.contract.faults import Life
from tests.support.executors import CountingExecutor, Fault, FaultyExecutor
from tests.support.invariants import results_of
from tests.support.scenes import becomes, run_of
from tests.support.world import Gate, Heard, World, bounded, raised, turns, until


async def _children(durably: Durably, run_id: str) -> list[Run]:
    """In the order of their inputs."""
    found = [run for run in await durably.get_runs() if run.parent_run_id == run_id]
    return sorted(found, key=lambda run: str(run.input))


async def _doubled(n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is too small")
    return 2 * n


@job
async def double(step: Step, input: dict[str, Any]) -> int:
    return await step.run("work", _doubled, input["n"])


def _nest(bottom: Callable[[], Awaitable[Any]]) -> Job[dict[str, Any], Any]:
    """Calls itself until it is deep enough."""

    @job
    async def nest(step: Step, input: dict[str, Any]) -> Any:
        if input["depth"] == 0:
            return await step.run("bottom", bottom)
        return await step.call("nest", {"depth": input["depth"] - 1})

    return nest


# -- what a parent is given ------------------------------------------------------------------------------


async def a_call_gives_the_output_of_the_child(backend: Backend) -> None:
    @job
    async def parent(step: Step, input: dict[str, Any]) -> list[int]:
        return [await step.call(double, {"n": 4}), await step.call("double", {"n": 5})]

    async with World(backend) as world:
        durably = await world.engine(parent, double)
        handle = await durably.trigger(parent, labels={"org": "acme"})
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == [8, 10]
        steps = [(one.name, one.status, one.output) for one in await durably.get_steps(handle.id)]
        assert steps == [("double", "completed", 8), ("double#2", "completed", 10)]
        children = await _children(durably, handle.id)
        told = [(run.job_name, run.status, run.input, run.output, run.labels) for run in children]
        assert told == [("double", "completed", {"n": n}, 2 * n, {"org": "acme"}) for n in (4, 5)]
        assert (await run_of(durably, handle.id)).parent_run_id is None


async def a_trigger_gives_the_childs_id_and_does_not_wait(backend: Backend) -> None:
    gate = Gate()
    seen: list[str] = []

    @job
    async def parent(step: Step, input: dict[str, Any]) -> str:
        child = await step.trigger(double, {"n": 1}, delay=100)
        seen.append(child)
        await step.run("wait", gate.wait, None)
        return child

    async with World(backend) as world:
        first = await world.started(parent, double)
        handle = await first.trigger(parent, labels={"org": "acme"})
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(parent, double)
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == seen[0] == seen[1]
        [child] = await _children(second, handle.id)
        assert (child.id, child.status, child.labels) == (seen[0], "pending", {"org": "acme"})
        steps = [(one.name, one.output) for one in await second.get_steps(handle.id)]
        assert steps == [("double", child.id), ("wait", None)]
        await world.advance(101)
        await bounded(second.process_until_idle())
        assert await second.output_of(child.id, timeout=60) == 2


async def names_of_children_count_together_with_those_of_steps(backend: Backend) -> None:
    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        await step.call(double, {"n": 1})
        await step.run("double", _doubled, 2)
        await step.trigger(double, {"n": 3})
        await step.call(double, {"n": 4}, name="other")
        await step.trigger(double, {"n": 5}, name="other")
        for name in ("a#2", "", 3):
            try:
                await step.call(double, {"n": 6}, name=name)  # type: ignore[arg-type]
            except ValueError as error:
                assert "step's name" in str(error), error
            else:
                raise AssertionError(f"{name!r} was taken for a name")

    async with World(backend) as world:
        durably = await world.engine(parent, double)
        handle = await durably.trigger(parent)
        await bounded(durably.process_until_idle())
        await handle.result(timeout=60)
        names = [one.name for one in await durably.get_steps(handle.id)]
        assert names == ["double", "double#2", "double#3", "other", "other#2"]
        assert [run.input["n"] for run in await _children(durably, handle.id)] == [1, 3, 4, 5]


async def options_reach_the_child(backend: Backend) -> None:
    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        own: dict[str, Any] = {"labels": {"a": "b"}, "priority": 3, "concurrency_key": "k"}
        await step.call(double, {"n": 1}, **own)
        await step.trigger(double, {"n": 2}, **own, delay=50)
        await step.trigger(double, {"n": 3}, labels={})

    async with World(backend) as world:
        durably = await world.engine(parent, double)
        handle = await durably.trigger(parent, labels={"org": "acme"})
        await bounded(durably.process_until_idle())
        called, triggered, bare = await _children(durably, handle.id)
        for child in (called, triggered):
            assert (child.labels, child.priority, child.concurrency_key) == ({"a": "b"}, 3, "k"), child
        assert triggered.status == "pending" and triggered.run_at is not None
        assert (bare.labels, bare.priority, bare.concurrency_key) == ({}, 0, None)


async def what_a_call_gives_is_what_the_child_returned(backend: Backend) -> None:
    """Also when it is replayed: an instance of the class that the child's annotation names."""
    gate = Gate()
    seen: list[Any] = []

    @job
    async def parent(step: Step, input: dict[str, Any]) -> int:
        point = await step.call(place, {"x": 3})
        seen.append(point)
        await step.run("wait", gate.wait, None)
        return point.x

    async with World(backend) as world:
        first = await world.started(parent, place)
        handle = await first.trigger(parent)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(parent, place)
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == 3
        assert seen == [Point(3), Point(3)]


@dataclasses.dataclass
class Point:
    x: int


@job
async def place(step: Step, input: dict[str, Any]) -> Point:
    return Point(input["x"])


# -- waiting ---------------------------------------------------------------------------------------------


async def a_waiting_parent_takes_no_slot(backend: Backend) -> None:
    gate = Gate()

    async def bottom() -> str:
        return await gate.wait("done")

    nest = _nest(bottom)
    async with World(backend) as world:
        durably = await world.started(nest, max_concurrent_runs=1)
        heard = Heard(durably, "run:waiting")
        handle = await durably.trigger(nest, {"depth": 4})
        await gate.reached()
        by_status = Counter(run.status for run in await durably.get_runs())
        assert by_status == {"waiting": 4, "leased": 1}
        assert len(heard.events) == 4 and all(event.until is None for event in heard.events)
        assert (await run_of(durably, handle.id)).wake_at is None
        gate.open()
        assert await bounded(handle.result()) == "done"
        assert {run.status for run in await durably.get_runs()} == {"completed"}


async def process_until_idle_takes_a_family_to_its_end(backend: Backend) -> None:
    nest = _nest(lambda: _doubled(21))
    async with World(backend) as world:
        durably = await world.engine(nest, max_concurrent_runs=1)
        handle = await durably.trigger(nest, {"depth": 6})
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == 42


async def children_beside_each_other_give_results_in_the_order_of_the_calls(backend: Backend) -> None:
    count = 5
    for seed in range(4):
        draw = random.Random(seed)
        order = draw.sample(range(count), count)
        gates = [Gate() for _ in range(count)]
        gathers, waits = _gathering(gates)
        async with World(backend) as world:
            first = await world.started(gathers, waits)
            handle = await first.trigger(gathers)
            for gate in gates:
                await gate.reached()
            for n in order[:2]:
                gates[n].open()
                await turns()
            await world.crash(first)
            await world.expire()
            second = await world.started(gathers, waits)
            for n in order:
                gates[n].open()
                await turns()
            assert await world.drive(second.output_of(handle.id)) == list(range(count))
            steps = {one.name: one.output for one in await second.get_steps(handle.id)}
            assert steps == {f"waits#{n + 1}" if n else "waits": n for n in range(count)}
            children = await _children(second, handle.id)
            assert [run.output for run in children] == list(range(count))


def _gathering(gates: list[Gate]) -> tuple[Job[dict[str, Any], Any], Job[dict[str, Any], Any]]:
    @job
    async def waits(step: Step, input: dict[str, Any]) -> Any:
        return await step.run("wait", gates[input["n"]].wait, input["n"])

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> Any:
        return await asyncio.gather(*[step.call(waits, {"n": n}) for n in range(len(gates))])

    return gathers, waits


async def a_step_beside_a_call_is_not_held_up_nor_cut_off(backend: Backend) -> None:
    """The parent keeps its lease while one of its own steps executes, and waits when only the child is left."""
    gate, within = Gate(), Gate()

    @job
    async def child(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", within.wait, "child")

    @job
    async def parent(step: Step, input: dict[str, Any]) -> list[str]:
        async def own() -> str:
            return str(await step.run("one", gate.wait, "one") + await step.run("two", gate.wait, " two"))

        return list(await asyncio.gather(step.call(child), own()))

    async with World(backend) as world:
        durably = await world.started(child, parent)
        handle = await durably.trigger(parent)
        await gate.reached()
        await within.reached()
        assert (await run_of(durably, handle.id)).status == "leased"
        gate.open()
        await until(lambda: gate.arrived == 2)
        await becomes(durably, handle.id, "waiting")
        within.open()
        assert await bounded(handle.result()) == ["child", "one two"]
        assert gate.arrived == 2 and within.arrived == 1


async def a_child_that_ends_early_waits_for_its_parent(backend: Backend) -> None:
    """It ends while its parent still executes a step beside it."""
    gate = Gate()

    @job
    async def parent(step: Step, input: dict[str, Any]) -> list[int]:
        return list(await asyncio.gather(step.call(double, {"n": 1}), step.run("wait", gate.wait, 5)))

    async with World(backend) as world:
        durably = await world.started(double, parent)
        handle = await durably.trigger(parent)
        await gate.reached()
        async with asyncio.timeout(60):
            while not await _children(durably, handle.id):  # noqa: ASYNC110 — it is written in the background
                await asyncio.sleep(0)
        [child] = await _children(durably, handle.id)
        await bounded(durably.wait_for_run(child.id))
        gate.open()
        assert await bounded(handle.result()) == [2, 5]


async def a_waiting_parent_waits_for_a_child_that_sleeps(backend: Backend) -> None:
    @job
    async def child(step: Step, input: dict[str, Any]) -> str:
        await step.sleep("nap", 3600)
        return "rested"

    @job
    async def parent(step: Step, input: dict[str, Any]) -> str:
        return await step.call(child)

    async with World(backend) as world:
        durably = await world.engine(child, parent)
        handle = await durably.trigger(parent)
        await bounded(durably.process_until_idle())
        assert {run.status for run in await durably.get_runs()} == {"waiting"}
        world.clock.advance(3599)
        assert await bounded(durably.process_until_idle()) == 0
        world.clock.advance(2)
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == "rested"


async def whoever_is_there_goes_on_with_a_parent(backend: Backend) -> None:
    """The engine that began it is stopped while it waits; another executes the child, and a third the rest."""

    @job
    async def parent(step: Step, input: dict[str, Any]) -> int:
        return await step.call(double, {"n": 2})

    async with World(backend) as world:
        first = await world.engine(parent, double)
        handle = await first.trigger(parent)
        await bounded(first.process_one())
        await first.stop()
        only_children = await world.engine(double)
        assert (await run_of(only_children, handle.id)).status == "waiting"
        await bounded(only_children.process_until_idle())
        assert (await run_of(only_children, handle.id)).status != "completed"
        third = await world.engine(parent, double)
        await bounded(third.process_until_idle())
        assert await third.output_of(handle.id, timeout=60) == 4


@needs("workers")
async def a_child_of_another_worker_wakes_its_parent(backend: Backend) -> None:
    gate = Gate()

    @job
    async def child(step: Step, input: dict[str, Any]) -> int:
        return await step.run("wait", gate.wait, 7)

    @job
    async def parent(step: Step, input: dict[str, Any]) -> Any:
        return await step.call("child")

    async with World(backend) as world:
        # Nothing here may depend on being asked every second.
        first = await world.engine(parent, child, polling_interval=3600)
        handle = await first.trigger(parent)
        await bounded(first.process_one())
        second = await world.started(child, polling_interval=3600)
        await world.drive(gate.reached())
        await first.start()
        gate.open()
        assert await world.drive(handle.result()) == 7
        await bounded(second.stop())


# -- failure ---------------------------------------------------------------------------------------------


async def a_failed_child_can_be_caught_and_a_replay_raises_it_again(backend: Backend) -> None:
    gate = Gate()
    seen: list[tuple[str, str, str | None]] = []

    @job
    async def parent(step: Step, input: dict[str, Any]) -> str:
        try:
            await step.call(double, {"n": -1})
        except RunFailed as error:
            seen.append((type(error).__name__, str(error), error.run_id))
        await step.run("wait", gate.wait, None)
        return "went on"

    async with World(backend) as world:
        first = await world.started(parent, double)
        handle = await first.trigger(parent)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(parent, double)
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == "went on"
        [child] = await _children(second, handle.id)
        assert seen[0] == seen[1] and seen[0][2] == child.id and "ValueError: -1 is too small" in seen[0][1]
        failed = (await second.get_steps(handle.id))[0]
        assert (failed.name, failed.status) == ("double", "failed") and child.id in str(failed.error)


async def a_failed_child_that_is_not_caught_fails_its_parent(backend: Backend) -> None:
    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        await step.call(double, {"n": -1})

    async with World(backend) as world:
        durably = await world.engine(parent, double)
        handle = await durably.trigger(parent)
        await bounded(durably.process_until_idle())
        run = await run_of(durably, handle.id)
        assert run.status == "failed" and str(run.error).startswith("RunFailed: ") and "too small" in str(run.error)


async def a_cancelled_child_is_run_cancelled_in_its_parent(backend: Backend) -> None:
    gate, after = Gate(), Gate()
    seen: list[str | None] = []

    @job
    async def child(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, None)

    @job
    async def parent(step: Step, input: dict[str, Any]) -> str:
        try:
            await step.call(child)
        except RunCancelled as error:
            seen.append(error.run_id)
        await step.run("after", after.wait, None)
        return "went on"

    async with World(backend) as world:
        first = await world.started(parent, child)
        handle = await first.trigger(parent)
        await gate.reached()
        [run] = await _children(first, handle.id)
        await first.cancel(run.id)
        await after.reached()
        await world.crash(first)
        await world.expire()
        after.open()
        second = await world.engine(parent, child)
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == "went on"
        assert seen == [run.id, run.id]


async def the_end_of_a_parent_leaves_its_children_alone(backend: Backend) -> None:
    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        await step.trigger(double, {"n": 1}, delay=10)
        if input["fail"]:
            raise ValueError("no")

    async with World(backend) as world:
        durably = await world.engine(parent, double)
        for fail in (False, True):
            handle = await durably.trigger(parent, {"fail": fail})
            await bounded(durably.process_until_idle())
            assert (await run_of(durably, handle.id)).is_terminal
            world.clock.advance(11)
            await bounded(durably.process_until_idle())
            [child] = await _children(durably, handle.id)
            assert child.status == "completed"


async def a_retried_parent_is_not_stuck_with_the_failure(backend: Backend) -> None:
    """Of a failed child, and of one that was cancelled with it."""
    troubles = [True]
    gate = Gate()

    async def work() -> str:
        if troubles:
            raise ValueError("not yet")
        return "done"

    @job
    async def child(step: Step, input: dict[str, Any]) -> str:
        await step.run("wait", gate.wait, None)
        return await step.run("work", work)

    @job
    async def parent(step: Step, input: dict[str, Any]) -> str:
        return await step.call(child)

    async with World(backend) as world:
        durably = await world.started(parent, child)
        handle = await durably.trigger(parent)
        await gate.reached()
        await durably.cancel(handle.id)
        await durably.retry(handle.id)
        gate.open()
        await raised(RunFailed, bounded(handle.result()))
        troubles.clear()
        await durably.retry(handle.id)
        assert await bounded(handle.result()) == "done"


async def what_cannot_be_called_is_said_at_once_and_starts_nothing(backend: Backend) -> None:
    gate = Gate()
    seen: list[list[str]] = []

    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        caught = []
        starts: tuple[Any, ...] = (step.call, step.trigger)
        for start in starts:
            for called, given, kind in (
                ("none", {}, NotFound),
                (stranger, {}, NotFound),
                (place_of, {"x": "no number"}, InvalidInput),
                (double, {"n": float("nan")}, InvalidInput),
            ):
                try:
                    await start(called, given)
                except kind as error:
                    caught.append(f"{type(error).__name__}: {error}")
        wrong: tuple[dict[str, Any], ...] = (
            {"delay": 1, "run_at": 1},
            {"delay": -1},
            {"priority": True},
            {"concurrency_key": ""},
            {"labels": {"a": 1}},
        )
        for options in wrong:
            try:
                await step.trigger(double, {"n": 1}, **options)
            except InvalidInput as error:
                caught.append(str(error))
        seen.append(caught)
        await step.run("wait", gate.wait, None)

    async with World(backend) as world:
        first = await world.started(parent, double, place_of)
        handle = await first.trigger(parent)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(parent, double, place_of)
        await bounded(second.process_until_idle())
        await second.output_of(handle.id, timeout=60)
        assert len(seen[0]) == 13 and seen[0] == seen[1], seen
        assert await _children(second, handle.id) == []


@job(name="stranger")
async def stranger(step: Step, input: dict[str, Any]) -> None: ...


@job
async def place_of(step: Step, input: Point) -> None: ...


# -- cancellation ----------------------------------------------------------------------------------------


async def cancelling_a_run_cancels_its_descendants_however_deep(backend: Backend) -> None:
    """In one transaction; the one that executes a step ends it."""
    gate = Gate()
    ended: list[str] = []

    async def bottom() -> None:
        try:
            await gate.wait(None)
        finally:
            ended.append("bottom")

    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    nest = _nest(bottom)
    async with World(backend) as world:
        durably = await world.started(nest, through=through, max_concurrent_runs=2)
        heard = Heard(durably, "run:cancel")
        other = await durably.trigger(nest, {"depth": 3})
        await gate.reached()
        handle = await durably.trigger(nest, {"depth": 30})
        await gate.reached(2)
        await turns()
        counting[0].batches.clear()
        await durably.cancel(handle.id)
        writes = [batch for batch in counting[0].batches if batch.mode == "write"]
        assert len(writes) == 1, f"{len(writes)} transactions"
        await raised(RunCancelled, bounded(handle.result()))
        await until(lambda: ended)
        await turns()
        by_status = Counter(run.status for run in await durably.get_runs())
        assert by_status == {"cancelled": 31, "waiting": 3, "leased": 1}
        assert handle.id in {event.run_id for event in heard.events}
        gate.open()
        await bounded(other.result())


async def cancelling_reaches_pending_delayed_and_sleeping_children(backend: Backend) -> None:
    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("nap", 1000)

    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        await step.call(double, {"n": 1})
        await step.trigger(double, {"n": 2}, delay=1000)
        await step.trigger("elsewhere", {"n": 3})
        await step.trigger(sleeps, {"n": 4})
        await step.call(sleeps, {"n": 5})

    @job
    async def elsewhere(step: Step, input: dict[str, Any]) -> None: ...

    async with World(backend) as world:
        durably = await world.engine(parent, double, sleeps)
        durably.register(elsewhere)
        await durably.pause_job("elsewhere")
        handle = await durably.trigger(parent)
        await bounded(durably.process_until_idle())
        statuses = [run.status for run in await _children(durably, handle.id)]
        assert statuses == ["completed", "pending", "pending", "waiting", "waiting"]
        await durably.cancel(handle.id)
        statuses = [run.status for run in await _children(durably, handle.id)]
        assert statuses == ["completed", "cancelled", "cancelled", "cancelled", "cancelled"]
        await durably.resume_job("elsewhere")
        await world.advance(1001, step=500)
        assert await bounded(durably.process_until_idle()) == 0


async def cancelling_reaches_below_a_child_that_has_ended(backend: Backend) -> None:
    gate = Gate()

    @job
    async def leaf(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, None)

    @job
    async def between(step: Step, input: dict[str, Any]) -> None:
        await step.trigger(leaf)

    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        await step.call(between)
        await step.sleep("nap", 1000)

    async with World(backend) as world:
        durably = await world.started(parent, between, leaf)
        handle = await durably.trigger(parent)
        await gate.reached()
        await becomes(durably, handle.id, "waiting")
        await durably.cancel(handle.id)
        by_job = {run.job_name: run.status for run in await durably.get_runs()}
        assert by_job == {"parent": "cancelled", "between": "completed", "leaf": "cancelled"}


async def another_engine_can_cancel_a_family(backend: Backend) -> None:
    gate = Gate()

    async def bottom() -> None:
        await gate.wait(None)

    nest = _nest(bottom)
    async with World(backend) as world:
        working, asking = await world.started(nest), await world.engine(nest)
        heard = Heard(working)
        handle = await asking.trigger(nest, {"depth": 2})
        await world.drive(gate.reached())
        await asking.cancel(handle.id)
        # The worker learns of it at its next heartbeat.
        await world.advance(6)
        assert [event.step_name for event in heard.of("step:cancel")] == ["bottom"]
        assert {run.status for run in await asking.get_runs()} == {"cancelled"}
        wrong = heard.of("worker:error", "run:fail", "run:complete")
        assert not wrong, [(event.type, event.error, event.context) for event in wrong]


async def a_child_that_is_cancelled_with_its_parent_does_not_wake_it(backend: Backend) -> None:
    gate = Gate()
    caught: list[BaseException] = []

    @job
    async def child(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, None)

    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        try:
            await step.call(child)
        except Exception as error:
            caught.append(error)

    async with World(backend) as world:
        durably = await world.started(parent, child)
        handle = await durably.trigger(parent)
        await gate.reached()
        await durably.cancel(handle.id)
        await world.advance(5)
        assert caught == [] and (await run_of(durably, handle.id)).status == "cancelled"


# -- odd families ----------------------------------------------------------------------------------------


async def a_child_that_is_deleted_does_not_leave_its_parent_waiting(backend: Backend) -> None:
    """The parent was paused when the child ended: it has not yet taken the output."""

    @job
    async def parent(step: Step, input: dict[str, Any]) -> int:
        return await step.call(double, {"n": 2})

    async with World(backend) as world:
        durably = await world.engine(parent, double)
        for ends in ("completed", "cancelled"):
            handle = await durably.trigger(parent)
            await bounded(durably.process_one())
            await durably.pause(handle.id)
            [child] = await _children(durably, handle.id)
            if ends == "cancelled":
                await durably.cancel(child.id)
            await bounded(durably.process_until_idle())
            assert (await run_of(durably, child.id)).status == ends
            try:
                await durably.delete_run(child.id)
            except Conflict as error:
                assert handle.id in str(error), "it says who still needs it"
            await durably.resume(handle.id)
            await bounded(durably.process_until_idle())
            run = await run_of(durably, handle.id)
            assert run.is_terminal, f"nobody wakes it: {run}"
            assert run.output == 4 or child.id in str(run.error), run


async def calls_with_one_key_go_one_after_another(backend: Backend) -> None:
    executing: list[int] = []
    most: list[int] = []

    async def work(n: int) -> int:
        executing.append(n)
        most.append(len(executing))
        await turns(3)
        executing.remove(n)
        return n

    @job
    async def child(step: Step, input: dict[str, Any]) -> int:
        return await step.run("work", work, input["n"])

    @job
    async def parent(step: Step, input: dict[str, Any]) -> list[int]:
        calls = [step.call(child, {"n": n}, concurrency_key="k") for n in range(4)]
        return list(await asyncio.gather(*calls))

    async with World(backend) as world:
        durably = await world.engine(parent, child)
        handle = await durably.trigger(parent)
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == [0, 1, 2, 3]
        assert max(most) == 1


async def a_hundred_children_are_no_trouble(backend: Backend) -> None:
    @job
    async def parent(step: Step, input: dict[str, Any]) -> int:
        doubled = await asyncio.gather(*[step.call(double, {"n": n}) for n in range(100)])
        return sum(doubled)

    async with World(backend) as world:
        durably = await world.engine(parent, double)
        handle = await durably.trigger(parent)
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == 2 * sum(range(100))
        assert len(await _children(durably, handle.id)) == 100


# -- crashes ---------------------------------------------------------------------------------------------

EXPECTED = {"first": 0, "pair": [10, 20], "parts": [0, 1, 2], "caught": True}
DONE = {"child 0", "child 1", "child 2", "child 3", "child 4", "part 0", "part 1", "part 2"}


def _family(life: Life) -> tuple[Job[dict[str, Any], Any], Job[dict[str, Any], Any]]:
    """A parent with four children that it waits for, one of which fails, one that it does not, and a map."""

    async def work(name: str, value: int) -> int:
        life.run(name, None)
        if value == 40:
            raise ZeroDivisionError("child 4")
        return value

    async def part(n: int) -> int:
        return int(life.run(f"part {n}", n))

    @job
    async def child(step: Step, input: dict[str, Any]) -> int:
        name = f"child {input['n']}"
        try:
            return int(life.given(name, await step.run("work", work, name, input["n"] * 10)))
        except ZeroDivisionError:
            life.given(name, None)
            raise

    @job
    async def parent(step: Step, input: dict[str, Any]) -> Any:
        first = await step.call(child, {"n": 0})
        pair, parts = await asyncio.gather(
            asyncio.gather(step.call(child, {"n": 1}), step.call(child, {"n": 2}, name="other")),
            step.map("part", part, range(3)),
        )
        for n in parts:
            life.given(f"part {n}", n)
        await step.trigger(child, {"n": 3})
        try:
            await step.call(child, {"n": 4})
            caught = False
        except RunFailed:
            caught = True
        return {"first": first, "pair": pair, "parts": parts, "caught": caught}

    return parent, child


async def _is_whole(world: World, durably: Durably, run_id: str, life: Life) -> None:
    run = await run_of(durably, run_id)
    assert (run.status, run.output) == ("completed", EXPECTED), run
    runs = [one for one in await durably.get_runs(job="child") if one.parent_run_id == run_id]
    assert sorted(one.input["n"] for one in runs) == [0, 1, 2, 3, 4], runs
    for one in runs:
        assert one.status == ("failed" if one.input["n"] == 4 else "completed"), one
    assert set(life.ran) == DONE
    executor = world.executor()
    await executor.open()
    for one in [run, *runs]:
        results = await results_of(executor, one.id)
        assert set(results.values()) <= {1}, results
    await executor.close()
    await world.check()


async def _survives(world: World, fault: Fault, at: int) -> bool:
    """Whether the fault came at all; if it did, another engine has finished the family, and all is well."""
    faulty: list[FaultyExecutor] = []

    def wrap(inner: Executor) -> Executor:
        faulty.append(FaultyExecutor(inner, fault))
        return faulty[0]

    life = Life()
    jobs = _family(life)
    first = await world.engine(*jobs, through=wrap)
    handle = await first.trigger("parent", {})
    faulty[0].at = at
    try:
        await bounded(first.process_until_idle())
    except StoreError:
        pass
    fell = faulty[0].fell
    await world.crash(first)
    await world.expire()
    second = await world.engine(*jobs)
    await bounded(second.process_until_idle())
    await _is_whole(world, second, handle.id, life)
    await second.stop()
    return fell


async def _at_every_batch(backend: Backend, fault: Fault) -> None:
    async with World(backend) as world:
        at = 1
        while await _survives(world, fault, at):
            at += 1
            assert at < 200
        assert at > 8, f"only {at} batches were tried"


async def a_family_survives_a_failure_before_any_batch(backend: Backend) -> None:
    await _at_every_batch(backend, "before")


async def a_family_survives_the_loss_of_any_reply(backend: Backend) -> None:
    await _at_every_batch(backend, "after")


async def a_family_survives_death_at_any_batch(backend: Backend) -> None:
    await _at_every_batch(backend, "dead")


async def the_same_engine_takes_a_family_on_after_a_fault(backend: Backend) -> None:
    """No process dies; the worker itself goes on when the lease has run out."""
    for fault in ("before", "after"):
        async with World(backend) as world:
            for at in range(1, 22, 2):
                faulty: list[FaultyExecutor] = []

                def wrap(inner: Executor, fault: Any = fault, faulty: list[FaultyExecutor] = faulty) -> Executor:
                    faulty.append(FaultyExecutor(inner, fault))
                    return faulty[0]

                life = Life()
                durably = await world.started(*_family(life), through=wrap)
                await turns()
                handle = await durably.trigger("parent", {})
                faulty[0].at = at
                await world.advance(40)
                assert await world.drive(durably.output_of(handle.id)) == EXPECTED
                await _until_none_is_active(world, durably)
                await _is_whole(world, durably, handle.id, life)
                await durably.stop()


async def _until_none_is_active(world: World, durably: Durably) -> None:
    for _ in range(50):
        if all(run.is_terminal for run in await durably.get_runs()):
            return
        await world.advance(1)
    raise AssertionError("a run was left behind")
