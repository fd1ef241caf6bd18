"""The life of an engine: a stop with a deadline, work beside the runs, and errors that nobody awaits."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Callable
from typing import Any

from durably_web.context import cancelled, shutting_down, wait_until
from durably_web.engine import Durably
from durably_web.errors import InvalidInput, StoreUnavailable
from durably_web.events import Event
from durably_web.jobs import job
from durably_web.steps import Step
from tests.contract import Backend, needs
from tests.support.executors import SuspendingExecutor
from tests.support.world import SECONDS, Gate, Heard, World, bounded, raised, turns, until


class _Held:
    """Functions of steps that wait until they are let go, and count how they end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()

    async def politely(self, name: str) -> str:
        self.begun.append(name)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return name

    async def stubbornly(self, name: str) -> str:
        """Goes on though it is cancelled again and again, and returns."""
        self.begun.append(name)
        while not self.go.is_set():
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                if len(self.cancelled) > 9:
                    # A test has failed.
                    raise
        return name

    async def obligingly(self, name: str) -> str:
        """Turns a cancellation into a result."""
        try:
            return await self.politely(name)
        except asyncio.CancelledError:
            return "half of it"


def _told(heard: Heard, context: str) -> list[Event]:
    return [event for event in heard.of("worker:error") if event.context == context]


# -- a stop with a deadline -------------------------------------------------------------------------------


async def a_stop_gives_the_current_steps_their_time(backend: Backend) -> None:
    held = _Held()

    @job
    async def works(step: Step, input: dict[str, Any]) -> str:
        return await step.run("work", held.politely, "done")

    async with World(backend) as world:
        durably = await world.started(works)
        heard = Heard(durably)
        handle = await durably.trigger(works)
        await until(lambda: held.begun)
        stopping = await _stopping(durably, datetime.timedelta(seconds=10))
        await world.advance(9)
        assert not stopping.done()
        held.go.set()
        await bounded(stopping)
        assert "step:complete" in heard.types and not heard.of("worker:error")
        await durably.init()
        assert await bounded(handle.result()) == "done" and held.begun == ["done"], "its result was stored"
        await bounded(durably.stop(timeout=0))
        await bounded(durably.stop(timeout=5))
        for wrong in (-1, "5", float("nan")):
            await raised(InvalidInput, durably.stop(timeout=wrong))  # type: ignore[arg-type]


async def what_is_not_finished_in_time_is_cancelled_given_back_and_named(backend: Backend) -> None:
    held = _Held()

    @job
    async def alone(step: Step, input: dict[str, Any]) -> str:
        await step.run("first", _same, 1)
        return await step.run("work", held.politely, "alone")

    @job
    async def both(step: Step, input: dict[str, Any]) -> list[str]:
        sides = step.run("left", held.politely, "left"), step.run("right", held.obligingly, "right")
        return list(await asyncio.gather(*sides))

    async with World(backend) as world:
        durably = await world.started(alone, both)
        heard = Heard(durably)
        handles: list[Any] = [await durably.trigger(alone), await durably.trigger(both)]
        await until(lambda: len(held.begun) == 3)
        stopping = await _stopping(durably, 10)
        await world.advance(9.5)
        assert not stopping.done() and not held.cancelled
        await world.advance(0.5)
        await bounded(stopping)
        assert sorted(held.cancelled) == ["alone", "left", "right"]
        told = {event.run_id: event.error for event in _told(heard, "stopping")}
        assert set(told) == {handle.id for handle in handles}
        first, second = (told[handle.id] or "" for handle in handles)
        assert "'work'" in first and handles[0].id in first and "10 s" in first, first
        assert "'left', 'right'" in second, second
        await raised(StoreUnavailable, durably.get_runs())
        other = await world.engine(alone, both)
        # Given back: nothing has to expire. And nothing of what was abandoned is stored.
        assert [(run.status, run.step_count) for run in await other.get_runs()] == [("pending", 0), ("pending", 1)]
        held.go.set()
        await other.start()
        assert await bounded(other.output_of(handles[0].id)) == "alone"
        assert await bounded(other.output_of(handles[1].id)) == ["left", "right"]
        assert sorted(held.begun) == ["alone", "alone", "left", "left", "right", "right"]
        assert [run.attempt for run in await other.get_runs()] == [2, 2]


@needs("workers")
async def a_step_that_does_not_let_itself_be_cancelled_is_left_behind(backend: Backend) -> None:
    """The stop returns all the same; the lease runs out, and what the step comes to at last is not stored."""
    held = _Held()

    @job
    async def works(step: Step, input: dict[str, Any]) -> str:
        return await step.run("work", held.stubbornly, "old")

    async with World(backend) as world:
        durably = await world.started(works)
        heard = Heard(durably)
        handle = await durably.trigger(works)
        await until(lambda: held.begun)
        stopping = await _stopping(durably, 0)
        await world.advance(2, step=0.5)
        await bounded(stopping)
        assert len(_told(heard, "stopping")) == 1
        # Of the engine nothing is left that would go on.
        assert durably._worker._heartbeat is None and not durably._environment.network._listeners
        other = await world.engine(works)
        [run] = await other.get_runs()
        assert run.status == "leased" and run.step_count == 0
        assert not await bounded(other.process_one())
        held.go.set()
        await turns()
        assert [one.status for one in await other.get_runs()] == ["leased"], "nothing was stored"
        await world.expire()
        assert await bounded(other.process_one())
        assert (await bounded(other.output_of(handle.id)), len(held.begun)) == ("old", 2)


async def a_job_that_waits_beside_its_steps_is_cancelled_at_the_deadline(backend: Backend) -> None:
    """Also one that went on when it was asked to stop."""
    held = _Held()
    later: list[str] = []

    @job
    async def works(step: Step, input: dict[str, Any]) -> Any:
        await step.run("first", _same, 1)
        try:
            await held.stubbornly("beside")
        finally:
            later.append("went on")
            await step.run("more", _same, 2)

    async with World(backend) as world:
        durably = await world.started(works)
        heard = Heard(durably)
        handle = await durably.trigger(works)
        await until(lambda: held.begun)
        stopping = await _stopping(durably, 3)
        await world.advance(3, step=0.5)
        held.go.set()
        await bounded(stopping)
        assert later == ["went on"] and len(held.cancelled) == 2
        [event] = _told(heard, "stopping")
        assert event.run_id == handle.id and event.error == (
            f"TimeoutError: run {handle.id} was not finished within the 3 s that the stop allows; the run goes on from "
            "there when another worker takes it up"
        )
        other = await world.engine(works)
        [run] = await other.get_runs()
        assert (run.status, [step.name for step in await other.get_steps(run.id)]) == ("pending", ["first"])


@needs("threads", "workers")
async def an_undo_in_a_thread_keeps_the_lease_of_its_run_too(backend: Backend) -> None:
    begun, go = threading.Event(), threading.Event()
    calls: list[bool] = []

    def undo(value: int) -> None:
        calls.append(cancelled())
        if len(calls) == 1:
            begun.set()
            assert go.wait(SECONDS)
            calls.append(cancelled())

    @job
    async def works(step: Step, input: dict[str, Any]) -> Any:
        await step.run("first", _same, 1, undo=undo)
        raise ValueError

    async with World(backend) as world:
        durably = await world.started(works)
        heard = Heard(durably)
        await durably.trigger(works)
        assert await asyncio.to_thread(begun.wait, SECONDS)
        stopping = await _stopping(durably, 2)
        await world.advance(2)
        await bounded(stopping)
        [event] = _told(heard, "stopping")
        assert "'first#undo'" in (event.error or ""), event.error
        other = await world.engine(works)
        assert [run.status for run in await other.get_runs()] == ["leased"]
        go.set()
        await asyncio.to_thread(_until, lambda: len(calls) == 2)
        assert calls == [False, True], "it hears that it should give up"
        await world.expire()
        assert await bounded(other.process_one())
        assert len(calls) == 3 and [run.status for run in await other.get_runs()] == ["failed"]


def _until(condition: Callable[[], bool]) -> None:
    begun = threading.Event()
    for _ in range(int(SECONDS * 100)):
        if condition():
            return
        begun.wait(0.01)
    raise AssertionError("it did not come")


@needs("threads", "workers")
async def a_function_in_a_thread_keeps_its_lease_until_that_runs_out(backend: Backend) -> None:
    """It cannot be ended, so nobody may begin its step meanwhile, not even if the engine starts again here."""
    begun, go = threading.Event(), threading.Event()
    asked: list[bool] = []

    def blocks() -> str:
        if begun.is_set():
            return "again"
        asked.append(cancelled())
        begun.set()
        assert go.wait(SECONDS)
        asked.append(cancelled())
        return "late"

    @job
    async def works(step: Step, input: dict[str, Any]) -> Any:
        await step.run("first", _same, 1)
        return await step.run("block", blocks)

    async with World(backend) as world:
        durably = await world.started(works)
        heard = Heard(durably)
        handle = await durably.trigger(works)
        assert await asyncio.to_thread(begun.wait, SECONDS)
        stopping = await _stopping(durably, 2)
        await world.advance(2)
        await bounded(stopping)
        [event] = _told(heard, "stopping")
        assert "'block'" in (event.error or "") and event.run_id == handle.id
        other = await world.started(works)
        await world.advance(5)
        [run] = await other.get_runs()
        assert run.status == "leased", "this worker is not taken for dead"
        go.set()
        await until(lambda: len(asked) == 2)
        assert asked == [False, True]
        await turns()
        assert [step.name for step in await other.get_steps(run.id)] == ["first"], "nothing was stored of it"
        await world.expire()
        assert await bounded(other.output_of(handle.id)) == "again"


# -- starts and stops that meet ---------------------------------------------------------------------------


async def a_start_waits_for_the_stop_that_is_under_way(backend: Backend) -> None:
    held = _Held()

    @job
    async def works(step: Step, input: dict[str, Any]) -> str:
        await step.run("work", held.politely, "done")
        return await step.run("more", held.politely, "more")

    async with World(backend) as world:
        durably = await world.started(works)
        handle = await durably.trigger(works)
        await until(lambda: held.begun)
        stopping = await _stopping(durably, None)
        beginning = [asyncio.ensure_future(durably.init()), asyncio.ensure_future(durably.init())]
        await turns()
        assert not stopping.done() and not any(one.done() for one in beginning)
        held.go.set()
        await bounded(asyncio.gather(stopping, *beginning))
        assert await bounded(handle.result()) == "more", "it is started again, on a database that is open"
        # And that is a start like any other: the next stop ends it.
        await bounded(durably.stop())
        assert durably._worker._loop is None and not _loops()


async def two_starts_at_once_are_one(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick, through=SuspendingExecutor)
        await bounded(asyncio.gather(durably.start(), durably.init(), durably.start()))
        assert len(_loops()) == 1
        await bounded(durably.stop())
        assert not _loops()


async def a_stop_that_meets_a_start_wins(backend: Backend) -> None:
    async with World(backend) as world:
        for begin in (Durably.init, Durably.start):
            durably = await world.engine(quick, through=SuspendingExecutor, retain_runs=60)
            # The stop lasts longer than the start.
            work = durably.wait_until(asyncio.get_running_loop().create_future())
            beginning = asyncio.ensure_future(begin(durably))
            await asyncio.sleep(0)
            stopping = await _stopping(durably, None)
            await bounded(beginning)
            work.set_result(None)
            await bounded(stopping)
            assert not _loops() and not durably._running
            assert durably._retention is not None and durably._retention._stopped
            await raised(StoreUnavailable, durably.get_runs())


async def what_a_stop_waits_for_cannot_start_the_engine_meanwhile(backend: Backend) -> None:
    """It would wait for itself."""
    gate, errors = Gate(), []

    @job
    async def begins(step: Step, input: dict[str, Any]) -> str:
        await step.run("wait", again, "the step")
        return "done"

    async with World(backend) as world:
        durably = await world.started(begins)

        async def again(what: str) -> str:
            await gate.wait(what)
            errors.append((what, str(await raised(RuntimeError, durably.init()))))
            return what

        async def listener(event: Event) -> None:
            await again("the listener")

        durably.on("worker:shutdown", listener)
        await durably.trigger(begins)
        await gate.reached(1)
        durably.wait_until(again("the work"))
        stopping = await _stopping(durably, None)
        await gate.reached(3)
        gate.open()
        await bounded(stopping)
        assert sorted(what for what, _ in errors) == ["the listener", "the step", "the work"]
        assert all("is being stopped" in message for _, message in errors)


def _loops() -> list[Any]:
    """The tasks of this test that claim runs."""
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "_work"]


# -- work beside the runs ---------------------------------------------------------------------------------


async def a_stop_waits_for_background_work(backend: Backend) -> None:
    gate, tasks = Gate(), []

    async def after(durably: Durably) -> int:
        await gate.wait(1)
        # The database is open still.
        return len(await durably.get_runs())

    async with World(backend) as world:
        durably = await world.started()
        task = durably.wait_until(after(durably))
        assert durably.wait_until(task) is task, "twice is once"
        future = asyncio.get_running_loop().create_future()
        assert durably.wait_until(future) is future
        stopping = asyncio.ensure_future(durably.stop())
        await gate.reached()
        await turns()
        assert not stopping.done()
        # Work of the last moment is waited for, too.
        tasks.append(durably.wait_until(_same_later(2)))
        gate.open()
        await turns()
        assert not stopping.done() and task.done()
        future.set_result(None)
        await bounded(stopping)
        assert [await task, await tasks[0]] == [0, 2]


async def background_work_of_a_step_is_waited_for_and_its_failure_is_told(backend: Backend) -> None:
    gate = Gate()

    async def send(what: str) -> None:
        await gate.wait(what)
        raise ValueError(f"{what} was not sent")

    async def works(what: str) -> str:
        wait_until(send(what))
        return what

    @job
    async def writes(step: Step, input: dict[str, Any]) -> str:
        return await step.run("write", works, "the letter")

    async with World(backend) as world:
        durably = await world.started(writes)
        heard = Heard(durably)
        handle = await durably.trigger(writes)
        assert await bounded(handle.result()) == "the letter"
        stopping = asyncio.ensure_future(durably.stop())
        await turns()
        assert not stopping.done()
        gate.open()
        await bounded(stopping)
        [event] = heard.of("worker:error")
        assert event.error == "ValueError: the letter was not sent" and event.run_id == handle.id
        assert event.context is not None and event.context.startswith("background work ") and "send" in event.context


async def background_work_is_cancelled_at_the_deadline(backend: Backend) -> None:
    held = _Held()
    async with World(backend) as world:
        durably = await world.started()
        heard = Heard(durably)
        task = durably.wait_until(held.politely("work"))
        stopping = await _stopping(durably, 5)
        await world.advance(5)
        await bounded(stopping)
        assert task.cancelled()
        [event] = _told(heard, "stopping")
        assert "politely" in (event.error or "") and "is cancelled" in (event.error or "")


async def background_work_may_stop_the_engine(backend: Backend) -> None:
    """Whoever stops does not wait for itself."""
    async with World(backend) as world:
        durably = await world.started()

        async def ends() -> str:
            await durably.stop()
            return "stopped"

        assert await bounded(durably.wait_until(ends())) == "stopped"
        other = await world.started()
        stopped = asyncio.Event()

        async def listener(event: Event) -> None:
            await other.stop()
            stopped.set()

        other.on("run:trigger", listener)
        other.register(quick)
        await other.trigger(quick)
        await bounded(stopped.wait())


async def background_work_that_stops_the_engine_with_a_deadline_is_not_abandoned_itself(backend: Backend) -> None:
    async with World(backend) as world:
        for listens in (False, True):
            durably, held = await world.started(quick), _Held()
            heard, stopped = Heard(durably, "worker:error"), asyncio.Event()

            async def ends(durably: Durably = durably, stopped: asyncio.Event = stopped) -> None:
                await durably.stop(timeout=5)
                stopped.set()

            # Two of them also wait for each other's stop, and not for each other.
            if listens:
                durably.on("run:trigger", lambda event, ends=ends: ends())  # type: ignore[misc]
                await durably.trigger(quick)
            else:
                durably.wait_until(ends())
                durably.wait_until(ends())
            await bounded(stopped.wait())
            await raised(StoreUnavailable, durably.get_runs())
            assert not heard.events
            # What is not done by then is abandoned, and the stop comes to its end.
            await durably.init()
            stopped.clear()
            work = durably.wait_until(held.politely("work"))
            stops = durably.wait_until(ends())
            await turns()
            await world.advance(5)
            await bounded(stops)
            assert work.cancelled() and stopped.is_set() and len(_told(heard, "stopping")) == 1
            await raised(StoreUnavailable, durably.get_runs())


async def an_engine_that_does_not_run_refuses_background_work(backend: Backend) -> None:
    async with World(backend) as world:
        durably = Durably(world.executor(), clock=world.clock)
        for _ in range(2):
            # Neither is a coroutine left behind that was never awaited.
            error = await raised(RuntimeError, _refused(durably))
            assert "_same_later" in str(error) and "init()" in str(error) and "stop()" in str(error)
            await durably.init()
            assert await durably.wait_until(_same_later(1)) == 1
            await durably.stop()
        outside = await raised(InvalidInput, _outside())
        assert "durably.wait_until" in str(outside)


# -- errors that nobody awaits ----------------------------------------------------------------------------


async def a_task_that_nobody_awaits_is_told_when_it_raises(backend: Backend) -> None:
    """With its run and step, also after the run; and the application's own handler hears of it as before."""
    gate, seen = Gate(), []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    async def fails(what: str) -> None:
        await gate.wait(what)
        raise ValueError(what)

    async def begins(what: str) -> str:
        asyncio.create_task(fails(what), name=what)  # noqa: RUF006
        return what

    @job
    async def careless(step: Step, input: dict[str, Any]) -> str:
        asyncio.create_task(fails("of the job"), name="of the job")  # noqa: RUF006
        return await step.run("begin", begins, "of the step")

    def own(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        seen.append(str(context["exception"]))

    loop.set_exception_handler(own)
    try:
        async with World(backend) as world:
            durably, other = await world.started(careless), await world.started()
            heard, elsewhere = Heard(durably, "worker:error"), Heard(other, "worker:error")
            handle = await durably.trigger(careless)
            assert await bounded(durably.output_of(handle.id)) == "of the step"
            asyncio.create_task(fails("of nobody"))  # noqa: RUF006
            await gate.reached(3)
            gate.open()
            await until(lambda: len(seen) == 3 and len(heard.events) == 2)
            told = {event.error: event for event in heard.events}
            assert set(told) == {"ValueError: of the job", "ValueError: of the step"}
            assert {event.run_id for event in heard.events} == {handle.id}
            # Pyodide's loop does not say which task it was.
            contexts = {error: (event.context or "").partition(", ")[2] for error, event in told.items()}
            assert contexts == {
                "ValueError: of the job": "which the job began and nobody awaits",
                "ValueError: of the step": "which step 'begin' began and nobody awaits",
            }
            assert sorted(seen) == ["of nobody", "of the job", "of the step"] and not elsewhere.events
            await durably.stop()
            await other.stop()
    finally:
        loop.set_exception_handler(before)


async def the_handler_of_the_application_is_there_again_after_a_stop(backend: Backend) -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    async with World(backend) as world:
        durably = await world.started()
        assert loop.get_exception_handler() is not before
        await durably.stop()
        assert loop.get_exception_handler() is before
        await durably.init()
        await durably.stop()
        assert loop.get_exception_handler() is before

        def own(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None: ...

        await durably.init()
        loop.set_exception_handler(own)
        await durably.stop()
        assert loop.get_exception_handler() is own, "one that came later is not taken away"
        loop.set_exception_handler(before)


async def listeners_that_raise_are_told_also_async_ones(backend: Backend) -> None:
    loop = asyncio.get_running_loop()
    before, seen = loop.get_exception_handler(), []

    def sync(event: Event) -> None:
        raise ValueError("sync")

    async def later(event: Event) -> None:
        await asyncio.sleep(0)
        raise ValueError("async")

    def careless(event: Event) -> None:
        raise KeyError("of the errors")

    async with World(backend) as world:
        durably = await world.started(quick)
        heard = Heard(durably, "worker:error")
        durably.on("run:complete", sync)
        durably.on("run:complete", later)
        handle = await durably.trigger(quick)
        await bounded(handle.result())
        # A stop waits for those that have begun.
        await bounded(durably.stop())
        told = sorted((event.error or "", event.context, event.run_id) for event in heard.events)
        assert told == [(f"ValueError: {what}", "a listener for run:complete", handle.id) for what in ("async", "sync")]
        # One for the errors themselves is heard of where the loop tells of errors.
        loop.set_exception_handler(lambda loop, context: seen.append(context))
        try:
            durably.on("worker:error", careless)
            await durably.init()
            await bounded((await durably.trigger(quick)).result())
            await bounded(durably.stop())
        finally:
            loop.set_exception_handler(before)
        assert {str(context.get("exception")) for context in seen} == {"'of the errors'"} and len(seen) == 2
        assert len(heard.events) == 4


# -- running for ever -------------------------------------------------------------------------------------


async def an_engine_that_runs_for_ever_stops_with_its_task(backend: Backend) -> None:
    held = _Held()

    @job
    async def works(step: Step, input: dict[str, Any]) -> str:
        return await step.run("work", held.politely, "done")

    async with World(backend) as world:
        durably = Durably(world.executor(), jobs=[works], clock=world.clock)
        running = asyncio.ensure_future(durably.run_forever())
        handle = None
        async with asyncio.timeout(SECONDS):
            while handle is None:
                await asyncio.sleep(0)
                if durably._running:
                    handle = await durably.trigger(works)
        await until(lambda: held.begun)
        running.cancel()
        await turns()
        assert not running.done(), "the step has its time"
        held.go.set()
        await raised(asyncio.CancelledError, bounded(running))
        await raised(StoreUnavailable, durably.get_runs())
        # Or when somebody stops it.
        again = asyncio.ensure_future(durably.run_forever(stop_timeout=0))
        await until(lambda: durably._running)
        assert await bounded(durably.output_of(handle.id)) == "done" and held.begun == ["done"]
        await durably.stop()
        await bounded(again)


async def an_engine_that_runs_for_ever_ends_with_any_stop(backend: Backend) -> None:
    """Also one that was announced before for another reason, which is then the only one that is told."""
    async with World(backend) as world:
        durably = Durably(world.executor(), clock=world.clock)
        running = asyncio.ensure_future(durably.run_forever())
        await until(lambda: durably._running)
        durably.announce_stop("deploy")
        await turns()
        assert not running.done(), "announced is not stopped"
        await bounded(durably.stop())
        await bounded(running)


async def _stopping(durably: Durably, timeout: Any) -> asyncio.Task[None]:
    """A stop that has begun: its time counts."""
    stopping = asyncio.ensure_future(durably.stop(timeout=timeout))
    await turns()
    return stopping


@job
async def quick(step: Step, input: dict[str, Any]) -> int:
    return await step.run("only", _same, 1)


async def _same(value: int) -> int:
    return value


async def _same_later(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def _refused(durably: Durably) -> None:
    durably.wait_until(_same_later(1))


async def _outside() -> None:
    wait_until(asyncio.get_running_loop().create_future())


# -- work after an answer --------------------------------------------------------------------------------


async def background_work_is_told_of_a_stop(backend: Backend) -> None:
    """Whoever begins it has no run: a function that has answered, in a process that executes nothing."""
    asked: list[bool] = []
    held = asyncio.Event()

    async def work(durably: Durably) -> None:
        asked.append(shutting_down())
        unhook = durably.on("worker:shutdown", lambda event: held.set())
        await held.wait()
        unhook()
        asked.append(shutting_down())

    async with World(backend) as world:
        durably = await world.engine()
        for _ in range(2):
            held.clear()
            heard = Heard(durably)
            task = durably.wait_until(work(durably))
            assert not shutting_down(), "the caller is in no run"
            await turns()
            await bounded(durably.stop())
            assert task.done() and asked == [False, True]
            assert [event.reason for event in heard.of("worker:shutdown")] == ["stop"], "also in its second life"
            asked.clear()
            await durably.migrate()


async def background_work_may_begin_more(backend: Backend) -> None:
    """As in a job, without an engine at hand; and what it begins and nobody awaits is not lost either."""
    done: list[str] = []

    async def fails() -> None:
        raise ValueError("nobody looks")

    async def later() -> None:
        await asyncio.sleep(0)
        done.append("later")

    async def work() -> None:
        wait_until(later())
        asyncio.create_task(fails(), name="look")  # noqa: RUF006

    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: None)
    try:
        async with World(backend) as world:
            durably = await world.engine()
            heard = Heard(durably)
            await durably.wait_until(work())
            await until(lambda: heard.of("worker:error") != [])
            await bounded(durably.stop())
    finally:
        loop.set_exception_handler(before)
    assert done == ["later"]
    [event] = heard.of("worker:error")
    assert event.error == "ValueError: nobody looks" and event.run_id is None
    # Pyodide's loop does not say which one.
    whose = "which background work began and nobody awaits"
    assert event.context in (f"task look, {whose}", f"a task, {whose}"), event.context
