"""Work beside the runs that has to be finished before the engine stops."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Collection
from typing import Any, TypeVar

from durably_web.context import Shutdown, current_run, shutdown
from durably_web.emitter import Emitter

T = TypeVar("T")


class Background:
    """The tasks that a stop waits for, each with its name, and the run that it comes from."""

    def __init__(self, emitter: Emitter, engine: Shutdown) -> None:
        self._emitter = emitter
        self._engine = engine
        self._tasks: dict[asyncio.Future[Any], tuple[str, str | None]] = {}

    def add(self, awaitable: Awaitable[T]) -> asyncio.Future[T]:
        """A task of it, whose exception is told as `worker:error`."""
        # Outside of a run the caller's context knows no engine, and the work may ask whether one is about to stop.
        before = shutdown.set(self._engine)
        try:
            task = asyncio.ensure_future(awaitable)
        finally:
            shutdown.reset(before)
        if task not in self._tasks:
            self._tasks[task] = (_name_of(awaitable), current_run.get())
            task.add_done_callback(self._done)
        return task

    async def finish(self, waiting: Collection[object]) -> None:
        """Wait until nothing is left; but for the tasks that are `waiting` for a stop, which may be some of them."""
        while left := [task for task in self._tasks if task not in waiting]:
            await asyncio.wait(left)

    def has(self, task: object) -> bool:
        return task in self._tasks

    def abandon(self, waiting: Collection[object]) -> list[tuple[str, str | None]]:
        """Cancel what is left, but for the tasks that are `waiting`. Gives the name of each, and its run."""
        left = {task: about for task, about in self._tasks.items() if task not in waiting}
        for task in left:
            task.cancel()
        return list(left.values())

    def _done(self, task: asyncio.Future[Any]) -> None:
        name, run_id = self._tasks.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._emitter.error(error, f"background work {name}", run_id)


def refuse(awaitable: object) -> RuntimeError:
    """The error for whoever comes too early or too late; what will never run is closed."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
    return RuntimeError(
        f"wait_until({_name_of(awaitable)}): the engine is not running, so nobody would wait for it: call it between "
        "init() and the end of stop()"
    )


def _name_of(awaitable: object) -> str:
    if isinstance(awaitable, asyncio.Task):
        awaitable = awaitable.get_coro()
    return getattr(awaitable, "__qualname__", None) or type(awaitable).__name__
