"""Tasks that a job began and nobody awaits: where one raises, it is told like any other error."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from collections.abc import Callable
from typing import Any

from durably_web.context import Shutdown, current_run, current_step, shutdown
from durably_web.emitter import Emitter

Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], Any]


def watch(engine: Shutdown, emitter: Emitter) -> Callable[[], None]:
    """Tell of such tasks of this engine's runs, until the result is called.

    The loop says so when the task is freed, to its exception handler. That of the application is called as before,
    and also for what has nothing to do with us.
    """
    loop = asyncio.get_running_loop()
    before: Handler | None = loop.get_exception_handler()
    watching = True

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if watching:
            _tell(loop, context, engine, emitter)
        if before is not None:
            before(loop, context)
        else:
            loop.default_exception_handler(context)

    def leave() -> None:
        nonlocal watching
        watching = False
        # Somebody who came later calls ours, and it goes on passing on.
        if loop.get_exception_handler() is handle:
            loop.set_exception_handler(before)

    loop.set_exception_handler(handle)
    return leave


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any], engine: Shutdown, emitter: Emitter) -> None:
    task, error = context.get("future"), context.get("exception")
    if not isinstance(error, BaseException):
        return
    name, found = "a task", None
    if isinstance(task, asyncio.Task):
        name, found = f"task {task.get_name()}", _context_of(task)
    elif sys.platform == "emscripten" and "message" not in context:
        # Pyodide's loop tells of a task that fails while nobody awaits it, at once and in the context that it began in.
        found = contextvars.copy_context()
    if found is None or found.get(shutdown) is not engine:
        return
    step = found.get(current_step)
    where = "background work" if found.get(current_run) is None else "the job" if step is None else f"step {step!r}"
    # A task may be freed in any thread, and in the middle of anything.
    if not loop.is_closed():
        what = f"{name}, which {where} began and nobody awaits"
        loop.call_soon_threadsafe(emitter.error, error, what, found.get(current_run))


def _context_of(task: asyncio.Task[Any]) -> contextvars.Context | None:
    if sys.version_info >= (3, 12):
        return task.get_context()
    # Before that, it is only to be seen that the task holds on to it.
    return next((one for one in gc.get_referents(task) if isinstance(one, contextvars.Context)), None)
