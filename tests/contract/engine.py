"""What the engine promises: triggering, inputs and outputs, reading, life."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, TypedDict

from durably_web.clock import ManualClock
from durably_web.engine import Durably
from durably_web.errors import Conflict, InvalidInput, NotFound, RunFailed, StoreUnavailable
from durably_web.jobs import Job, job
from durably_web.steps import Step
from tests.contract import Backend, needs
from tests.support.world import Gate, World, bounded, raised, turns, until


@job
async def add(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("add", lambda: input.get("a", 0) + input.get("b", 0))


@job
async def broken(step: Step, input: dict[str, Any]) -> None:
    await step.run("fine", lambda: 1)
    raise ValueError("no good")


class Order(TypedDict):
    item: str
    count: int


@dataclasses.dataclass
class Point:
    x: int
    y: int = 7


@job
async def typed(step: Step, input: Order) -> str:
    return f"{input['count']} of {input['item']}"


@job
async def dataclassed(step: Step, input: Point) -> Point:
    assert type(input) is Point
    return Point(input.y, input.x)


# -- triggering ------------------------------------------------------------------------------------------


async def a_triggered_run_is_stored_as_it_was_asked_for(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add)
        handle = await durably.trigger(add, {"a": 1, "b": [None, "ü🦆\0", 1.0, {}]}, labels={"org": "acme", "ü": "🦆"})
        run = await durably.get_run(handle.id)
        assert run is not None
        assert (run.job_name, run.status, run.attempt, run.step_count) == ("add", "pending", 0, 0)
        assert run.input == {"a": 1, "b": [None, "ü🦆\0", 1.0, {}]}
        assert run.labels == {"org": "acme", "ü": "🦆"}
        assert (run.output, run.error, run.progress, run.started_at, run.completed_at) == (None,) * 5
        assert handle.disposition == "created"


async def an_output_comes_back(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add)
        handle = await durably.trigger(add, {"a": 20, "b": 22})
        assert await durably.process_one() is True
        assert await handle.result(timeout=60) == 42
        assert await durably.process_one() is False
        run = await handle.run()
        assert run is not None and run.status == "completed" and run.attempt == 1 and run.step_count == 1


async def a_job_can_be_named_by_a_text(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add)
        handle = await durably.trigger("add", {"a": 1})
        await durably.process_one()
        assert await handle.result(timeout=60) == 1
        error = await raised(NotFound, durably.trigger("ad"))
        assert "ad" in str(error) and "add" in str(error)


async def a_job_that_is_not_registered_cannot_be_triggered(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add)
        await raised(NotFound, durably.trigger(broken))
        await raised(TypeError, durably.trigger(lambda: None))  # type: ignore[call-overload]
        assert await durably.get_runs() == []


async def an_input_that_does_not_fit_makes_no_run(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(typed, dataclassed, add)
        wrong: list[tuple[Job[Any, Any], Any, str]] = [
            (typed, {"item": "nail"}, "count"),
            (typed, {"item": "nail", "count": "3"}, "count"),
            (typed, {"item": "nail", "count": 3, "colour": "red"}, "colour"),
            (typed, None, "item"),
            (dataclassed, {"x": 1.5}, "x"),
            (dataclassed, [1], "dict"),
            (add, {"a": float("nan")}, "nan"),
            (add, {"a": object()}, "object"),
            (add, "text", "dict"),
        ]
        for target, value, part in wrong:
            error = await raised(InvalidInput, durably.trigger(target, value))
            assert part in str(error) and target.name in str(error), str(error)
        assert await durably.get_runs() == []


async def typed_inputs_arrive_as_their_annotation_says(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(typed, dataclassed)
        order = await durably.trigger(typed, {"item": "nail", "count": 3})
        point = await durably.trigger(dataclassed, Point(1))
        plain = await durably.trigger(dataclassed, {"x": 5, "y": 6})
        await durably.process_until_idle()
        assert await order.result(timeout=60) == "3 of nail"
        assert await point.result(timeout=60) == Point(7, 1)
        assert await plain.result(timeout=60) == Point(6, 5)
        again = await durably.retrigger(point.id)
        await durably.process_until_idle()
        assert await again.result(timeout=60) == Point(7, 1), "a handle of retrigger builds the output too"


async def an_idempotency_key_gives_the_first_run(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add, typed)
        first = await durably.trigger(add, {"a": 1}, idempotency_key="k")
        again = await durably.trigger(add, {"a": 2}, idempotency_key="k", labels={"x": "y"})
        assert (again.id, again.disposition) == (first.id, "idempotent")
        other = await durably.trigger(typed, {"item": "nail", "count": 1}, idempotency_key="k")
        assert other.disposition == "created" and other.id != first.id
        await durably.process_until_idle()
        late = await durably.trigger(add, {"a": 3}, idempotency_key="k")
        assert (late.id, late.disposition) == (first.id, "idempotent")
        assert await late.result(timeout=60) == 1
        assert len(await durably.get_runs()) == 2
        await raised(InvalidInput, durably.trigger(add, {}, idempotency_key=""))
        await raised(InvalidInput, durably.trigger(add, {}, idempotency_key="\ud800"))


async def labels_are_texts(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add)
        for labels in ({"a": 1}, {1: "a"}, {"a": ""}, {"": "a"}, {"a": None}, {"a": "\udc80"}):
            await raised(InvalidInput, durably.trigger(add, {}, labels=labels))  # type: ignore[arg-type]
        assert await durably.get_runs() == []


# -- waiting ---------------------------------------------------------------------------------------------


async def a_result_that_times_out_leaves_the_run_going(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        durably = await world.started(waits)
        handle = await durably.trigger(waits)
        await gate.reached()
        await raised(TimeoutError, handle.result(timeout=0))
        await raised(TimeoutError, durably.trigger_and_wait("waits", timeout=0))
        gate.open()
        assert await bounded(handle.result()) == "done"
        await bounded(durably.process_until_idle())


async def a_failed_run_raises_at_its_result(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(broken)
        handle = await durably.trigger(broken)
        await durably.process_one()
        error = await raised(RunFailed, handle.result(timeout=60))
        assert "ValueError: no good" in str(error) and handle.id in str(error)
        run = await handle.run()
        assert run is not None and (run.status, run.error) == ("failed", "ValueError: no good")
        assert [run.id for run in await durably.get_failed_runs()] == [handle.id]


async def trigger_and_wait_tells_of_progress_and_logs(backend: Backend) -> None:
    @job
    async def talks(step: Step, input: dict[str, Any]) -> str:
        step.log.info("begin", n=1)
        step.progress(1, 2, "half")
        await step.run("one", lambda: 1)
        step.progress(2, 2)
        step.log.warning("end")
        return "done"

    async with World(backend) as world:
        durably = await world.started(talks)
        progress: list[Any] = []
        logs: list[Any] = []
        output = await world.drive(
            durably.trigger_and_wait(talks, {}, timeout=10, on_progress=progress.append, on_log=logs.append)
        )
        assert output == "done"
        assert [tuple(one) for one in progress] == [(1, 2, "half"), (2, 2, None)]
        assert [(one.level, one.message, one.data) for one in logs] == [
            ("info", "begin", {"n": 1}),
            ("warning", "end", {}),
        ]


async def a_wait_for_an_unknown_run_ends_at_once(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add)
        await raised(NotFound, durably.wait_for_run("none"))
        await raised(NotFound, durably.wait_for_run("none", on_log=lambda entry: None))
        assert await durably.get_run("none") is None
        assert await durably.get_steps("none") == [] and await durably.get_logs("none") == []


async def a_wait_sees_the_end_of_a_run_that_another_engine_executes(backend: Backend) -> None:
    async with World(backend) as world:
        asking, working = await world.engine(add), await world.engine(add)
        handle = await asking.trigger(add, {"a": 1})
        waiting = asyncio.ensure_future(handle.result(timeout=10))
        await turns()
        await working.process_one()
        assert await world.drive(waiting) == 1


@needs("wakes")
async def another_engines_writes_wake_a_worker_and_a_waiter_without_polling(backend: Backend) -> None:
    async with World(backend) as world:
        asking = await world.engine(add, polling_interval=1000.0)
        await world.started(add, polling_interval=1000.0)
        await turns()
        handle = await asking.trigger(add, {"a": 1})
        assert await world.drive(handle.result(timeout=10), seconds=1) == 1


# -- reading ---------------------------------------------------------------------------------------------


async def runs_are_found_by_status_job_and_labels(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add, broken)
        one = await durably.trigger(add, {}, labels={"org": "a", "x": "1"})
        two = await durably.trigger(add, {}, labels={"org": "b", "x": "1"})
        three = await durably.trigger(broken, {}, labels={"org": "a"})
        await durably.process_until_idle()
        four = await durably.trigger(add, {})

        async def found(**conditions: Any) -> list[str]:
            return [run.id for run in await durably.get_runs(**conditions)]

        assert await found() == [four.id, three.id, two.id, one.id]
        assert await found(status="failed") == [three.id]
        assert await found(status=["pending", "failed"]) == [four.id, three.id]
        assert await found(job=add) == [four.id, two.id, one.id]
        assert await found(job="broken") == [three.id]
        assert await found(labels={"org": "a"}) == [three.id, one.id]
        assert await found(labels={"org": "a", "x": "1"}) == [one.id]
        assert await found(labels={"org": "a"}, job=add, status="completed") == [one.id]
        assert await found(job="nobody") == []
        await raised(InvalidInput, durably.get_runs(status="done"))
        await raised(InvalidInput, durably.get_runs(limit=-1))
        await raised(InvalidInput, durably.get_runs(offset=-1))


async def pages_of_runs_have_no_gap(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add)
        ids = [(await durably.trigger(add, {})).id for _ in range(7)][::-1]
        assert len(set(ids)) == 7 and ids == sorted(ids, reverse=True), "ids of one tick sort in the order of the calls"
        assert [run.id for run in await durably.get_runs(limit=3)] == ids[:3]
        assert [run.id for run in await durably.get_runs(limit=3, offset=3)] == ids[3:6]
        assert [run.id for run in await durably.get_runs(offset=5)] == ids[5:]
        assert await durably.get_runs(limit=0) == []
        page = await durably.get_runs(limit=3)
        newer = await durably.trigger(add, {})
        assert [run.id for run in await durably.get_runs(limit=3, after=page[-1].id)] == ids[3:6]
        assert [run.id for run in await durably.get_runs(limit=1)] == [newer.id]


# -- working ---------------------------------------------------------------------------------------------


async def process_until_idle_keeps_its_limits(backend: Backend) -> None:
    async with World(backend) as world:

        @job
        async def slow(step: Step, input: dict[str, Any]) -> None:
            await step.run("slow", lambda: world.clock.advance(2))

        durably = await world.engine(slow, max_concurrent_runs=1)
        for _ in range(7):
            await durably.trigger(slow)
        assert await durably.process_until_idle(max_runs=2) == 2
        assert await durably.process_until_idle(max_seconds=3) == 2
        assert await durably.process_until_idle(max_runs=0) == 0
        assert await durably.process_until_idle(max_seconds=0) == 0
        assert len(await durably.get_runs(status="pending")) == 3
        assert await durably.process_until_idle() == 3
        assert await durably.process_until_idle() == 0


async def process_one_leaves_the_rest(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add)
        first, second = await durably.trigger(add, {"a": 1}), await durably.trigger(add, {"a": 2})
        assert await durably.process_one()
        assert [run.status for run in await durably.get_runs()] == ["pending", "completed"]
        assert await first.result(timeout=60) == 1
        assert await durably.process_one() and not await durably.process_one()
        assert await second.result(timeout=60) == 2


async def no_more_runs_at_once_than_allowed(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, 1)

    async with World(backend) as world:
        durably = await world.started(waits, max_concurrent_runs=3)
        handles = [await durably.trigger(waits) for _ in range(8)]
        await gate.reached(3)
        await turns()
        assert gate.arrived == 3 and len(await durably.get_runs(status="leased")) == 3
        gate.open()
        for handle in handles:
            await bounded(handle.result())


async def runs_of_unknown_jobs_stay_pending(backend: Backend) -> None:
    async with World(backend) as world:
        knows_both, knows_one = await world.engine(add, typed), await world.engine(typed)
        handle = await knows_both.trigger(add, {"a": 1})
        own = await knows_both.trigger(typed, {"item": "nail", "count": 1})
        assert await knows_one.process_until_idle() == 1
        assert await own.result(timeout=60) == "1 of nail"
        run = await handle.run()
        assert run is not None and (run.status, run.attempt) == ("pending", 0)
        knows_one.register(add)
        assert await knows_one.process_until_idle() == 1


async def two_jobs_of_one_name_conflict(backend: Backend) -> None:
    @job(name="add")
    async def another(step: Step, input: dict[str, Any]) -> None: ...

    async with World(backend) as world:
        durably = await world.engine(add, add)
        await raised(Conflict, _register(durably, another))
        await raised(TypeError, _register(durably, lambda: None))
        assert durably.get_job("add") is add and list(durably.jobs) == ["add"]
        await raised(NotFound, _get_job(durably, "none"))


async def _register(durably: Durably, target: Any) -> None:
    durably.register(target)


async def _get_job(durably: Durably, name: str) -> None:
    durably.get_job(name)


# -- life ------------------------------------------------------------------------------------------------


async def an_engine_can_stop_and_begin_again(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(add)
        await durably.init()
        assert await bounded(durably.trigger_and_wait(add, {"a": 1})) == 1
        await durably.stop()
        await durably.stop()
        error = await raised(StoreUnavailable, durably.trigger(add, {"a": 1}))
        assert "not open" in str(error) or "closed" in str(error), str(error)
        await durably.init()
        assert await bounded(durably.trigger_and_wait(add, {"a": 2})) == 2
        await durably.stop()
        # Without a worker in the background too.
        await durably.migrate()
        handle = await durably.trigger(add, {"a": 3})
        assert await durably.process_one() is True
        assert await handle.result(timeout=60) == 3


async def an_engine_is_a_context(backend: Backend) -> None:
    async with Durably(backend.connect(), jobs=[add], clock=ManualClock()) as durably:
        assert await bounded(durably.trigger_and_wait(add, {"a": 5})) == 5


async def an_engine_can_stop_before_its_worker_has_looked(backend: Backend) -> None:
    durably = Durably(backend.connect(), jobs=[add], clock=ManualClock())
    await durably.init()
    await bounded(durably.stop())


async def nothing_is_executed_before_start(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(add)
        handle = await durably.trigger(add)
        await world.advance(5)
        run = await handle.run()
        assert run is not None and run.status == "pending"
        await durably.start()
        await durably.start()
        await bounded(handle.result())


async def a_listener_may_use_the_engine(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(add)
        followers: list[asyncio.Task[Any]] = []
        durably.on(
            "run:complete",
            lambda event: (
                followers.append(asyncio.ensure_future(durably.trigger(add, {"a": 1}))) if len(followers) < 3 else None
            ),
        )
        await durably.trigger(add)
        await until(lambda: len(followers) == 3 and all(task.done() for task in followers))
        for task in followers:
            await bounded(task.result().result())
