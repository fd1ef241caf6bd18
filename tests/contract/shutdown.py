"""That an engine is about to stop is told to listeners, and to the steps that ask."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from durably_web.context import shutting_down
from durably_web.jobs import job
from durably_web.steps import Step
from tests.contract import Backend, needs
from tests.support.world import SECONDS, Gate, Heard, World, bounded, turns


async def a_stop_is_told_once_before_steps_are_asked_to_finish(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        durably = await world.started(waits)
        heard = Heard(durably)
        await durably.trigger(waits)
        await gate.reached()
        stopping = asyncio.ensure_future(durably.stop())
        await turns()
        [event] = heard.of("worker:shutdown")
        assert (event.reason, event.seq, event.run_id) == ("stop", None, None)
        assert event.to_wire()["reason"] == "stop"
        assert "step:complete" not in heard.types, "the step is still executing"
        gate.open()
        await bounded(stopping)
        await durably.stop()
        assert len(heard.of("worker:shutdown")) == 1 and heard.types.index("worker:shutdown") < len(heard.types) - 1
        for _ in range(2):
            await durably.init()
            await durably.stop()
        assert len(heard.of("worker:shutdown")) == 3


async def an_async_step_learns_that_the_engine_stops(backend: Backend) -> None:
    asked: list[bool] = []
    begun, stop = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        asked.append(shutting_down())
        begun.set()
        await stop.wait()
        asked.append(shutting_down())
        return "saved"

    @job
    async def works(step: Step, input: dict[str, Any]) -> Any:
        first = await step.run("work", work)
        return [first, await step.run("later", shutting_down)]

    async with World(backend) as world:
        durably = await world.started(works)
        handle = await durably.trigger(works)
        await bounded(begun.wait())
        stopping = asyncio.ensure_future(durably.stop())
        await turns()
        stop.set()
        await bounded(stopping)
        assert asked == [False, True]
        await durably.init()
        # What it returned is stored, and the next start has forgotten.
        assert await bounded(handle.result()) == ["saved", False]
        assert len(asked) == 2


async def a_stop_that_was_announced_is_known_until_the_next_start(backend: Backend) -> None:
    @job
    async def asks(step: Step, input: dict[str, Any]) -> bool:
        return await step.run("ask", shutting_down)

    async with World(backend) as world:
        durably = await world.started(asks)
        other = await world.engine(asks)
        heard = Heard(durably, "worker:shutdown")
        durably.announce_stop("freeze")
        durably.announce_stop("freeze")
        durably.announce_stop("pagehide")
        assert [event.reason for event in heard.events] == ["freeze"]
        assert await bounded((await durably.trigger(asks)).result()) is True
        await durably.start()
        assert await bounded((await durably.trigger(asks)).result()) is False
        await durably.stop()
        assert [event.reason for event in heard.events] == ["freeze", "stop"]
        handle = await other.trigger(asks)
        await bounded(other.process_one())
        assert await handle.result(timeout=60) is False, "each engine has its own"
        await durably.migrate()
        handle = await durably.trigger(asks)
        await bounded(durably.process_one())
        assert await handle.result(timeout=60) is False, "whoever processes after a stop does not stop"


@needs("threads")
async def a_step_in_a_thread_learns_it_too(backend: Backend) -> None:
    begun, stop = threading.Event(), threading.Event()

    def work() -> list[bool]:
        before = shutting_down()
        begun.set()
        assert stop.wait(SECONDS)
        return [before, shutting_down()]

    @job
    async def works(step: Step, input: dict[str, Any]) -> Any:
        return await step.run("work", work)

    async with World(backend) as world:
        durably = await world.started(works)
        handle = await durably.trigger(works)
        assert await asyncio.to_thread(begun.wait, SECONDS)
        durably.announce_stop("close")
        stop.set()
        assert await bounded(handle.result()) == [False, True]


async def nothing_shuts_down_where_there_is_no_run(backend: Backend) -> None:
    assert shutting_down() is False
    async with World(backend) as world:
        durably = await world.engine()
        durably.announce_stop("close")
        assert shutting_down() is False
