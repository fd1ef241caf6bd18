"""The running event loop, as it is for engines that can be killed and live in virtual time.

A process is one life of an engine. All that it begins carries it in its context: so nothing of it is called any more
once it is dead, not even a `finally`, and what its runs ask of the loop's time is asked of the engine's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, WeakSet

from durably_web.context import current_run
from durably_web.errors import LeaseLost
from durably_web.testing.clock import VirtualClock, VirtualTimer

if TYPE_CHECKING:
    from durably_web.testing.effects import Watcher

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("durably_process", default=None)


class Process:
    """One life of an engine."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.dead = False
        self.tasks: dict[asyncio.Task[Any], contextvars.Context] = {}
        self.futures: WeakSet[asyncio.Future[Any]] = WeakSet()
        # Of functions that threads execute: they cannot be killed.
        self.threads: set[asyncio.Future[Any]] = set()
        self.executions: list[Any] = []
        # Sees what jobs do outside of their steps, if somebody wants to know.
        self.watcher: Watcher | None = None

    def at_work(self) -> set[asyncio.Future[Any]]:
        """The threads that execute something. Nothing else is told when one of a dead process is done."""
        self.threads = {future for future in self.threads if not future.done()}
        return self.threads

    def kill(self) -> None:
        """Nothing of it happens any more."""
        self.dead = True

    def call(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        if not self.dead:
            callback(*args)

    def bury(self) -> None:
        """Let go of what hangs in a dead process, without a word and without an effect on its store."""
        for execution in self.executions:
            execution._ending = LeaseLost()
        heard, sys.unraisablehook = sys.unraisablehook, lambda args: None
        try:
            for task, context in self.tasks.items():
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    _close(task.get_coro(), context)
                    _forget(task)
            self.tasks.clear()
        finally:
            sys.unraisablehook = heard
        for future in list(self.futures):
            if future.done() and not future.cancelled():
                # Nobody is left who could look at it.
                future.exception()


def _close(coroutine: Any, context: contextvars.Context) -> None:
    for _ in range(10):
        # At each of its awaits: it may clean up, but not wait.
        with contextlib.suppress(BaseException):
            context.run(coroutine.close)
            break


def _forget(task: asyncio.Task[Any]) -> None:
    # Whoever closes the loop would wake it.
    unregister = getattr(asyncio.tasks, "_unregister_task", None)
    if unregister is not None:
        unregister(task)


class Stage:
    """What is put in the place of a loop's own methods, as long as somebody has an engine on it."""

    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Stage]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.activity = 0
        self._users = 0
        # A method of the loop that calls another one means the real one.
        self._inside = False
        self._originals: dict[str, Any] = {}
        self._sockets = _sockets(loop)

    @classmethod
    def enter(cls) -> Stage:
        loop = asyncio.get_running_loop()
        stage = cls._all.get(loop)
        if stage is None:
            stage = cls._all[loop] = cls(loop)
        if stage._users == 0:
            stage._set_up(loop)
        stage._users += 1
        return stage

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            loop = asyncio.get_running_loop()
            for name in self._originals:
                with contextlib.suppress(AttributeError):
                    delattr(loop, name)
            self._originals.clear()

    def talks(self) -> bool:
        """Whether somebody on this loop may wait for a socket."""
        return _sockets(asyncio.get_running_loop()) > self._sockets

    def _set_up(self, loop: asyncio.AbstractEventLoop) -> None:
        originals = self._originals
        for name in ("call_soon", "call_later", "call_at", "time", "create_task", "create_future", "run_in_executor"):
            originals[name] = getattr(loop, name)
        own_soon, own_later, own_at = originals["call_soon"], originals["call_later"], originals["call_at"]
        own_time, own_task, own_thread = originals["time"], originals["create_task"], originals["run_in_executor"]

        def call_soon(callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
            self.activity += 1
            process = PROCESS.get() if context is None else context.get(PROCESS)
            if process is None or self._inside:
                return own_soon(callback, *args, context=context)
            if process.dead:
                handle = asyncio.Handle(callback, args, loop, context)
                handle.cancel()
                return handle
            before, self._inside = self._inside, True
            try:
                return own_soon(process.call, callback, args, context=context)
            finally:
                self._inside = before

        def of_a_run(context: contextvars.Context | None) -> Process | None:
            if context is None:
                return None if current_run.get() is None else PROCESS.get()
            return None if context.get(current_run) is None else context.get(PROCESS)

        def virtual(process: Process, delay: float, callback: Any, args: Any, context: Any) -> VirtualTimer:
            if process.watcher is not None:
                process.watcher.timer(delay)
            known = contextvars.copy_context() if context is None else context
            return process.clock.add(delay, lambda: process.call(callback, args), known)

        def call_later(delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
            process = None if self._inside else of_a_run(context)
            if process is None or delay <= 0:
                before, self._inside = self._inside, True
                try:
                    return own_later(delay, callback, *args, context=context)
                finally:
                    self._inside = before
            return virtual(process, delay, callback, args, context)

        def call_at(when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
            process = None if self._inside else of_a_run(context)
            if process is None:
                return own_at(when, callback, *args, context=context)
            return virtual(process, when - process.clock.monotonic(), callback, args, context)

        def time() -> Any:
            process = None if self._inside else of_a_run(None)
            return own_time() if process is None else process.clock.monotonic()

        def create_task(coroutine: Any, **options: Any) -> Any:
            context = options.get("context")
            process = PROCESS.get() if context is None else context.get(PROCESS)
            if process is None:
                return own_task(coroutine, **options)
            if context is None:
                context = options["context"] = contextvars.copy_context()
            if process.watcher is not None and current_run.get() is not None and asyncio.iscoroutine(coroutine):
                coroutine = process.watcher.dress(coroutine)
            task = own_task(coroutine, **options)
            process.tasks[task] = context
            task.add_done_callback(lambda task: process.tasks.pop(task, None))
            if process.watcher is not None:
                process.watcher.task(task)
            return task

        def create_future() -> Any:
            future = originals["create_future"]()
            process = PROCESS.get()
            if process is not None:
                process.futures.add(future)
            return future

        def run_in_executor(executor: Any, function: Any, *args: Any) -> Any:
            future = own_thread(executor, function, *args)
            process = PROCESS.get()
            if process is not None:
                process.threads.add(future)
            return future

        for replacement in (call_soon, call_later, call_at, time, create_task, create_future, run_in_executor):
            setattr(loop, replacement.__name__, replacement)


def _sockets(loop: asyncio.AbstractEventLoop) -> int:
    """How many sockets a loop listens to, where it can be seen."""
    selector: Any = getattr(loop, "_selector", None)
    found = None if selector is None else selector.get_map()
    return 0 if found is None else len(found)
