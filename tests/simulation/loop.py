"""An event loop without time, threads or sockets, in which a seed decides what runs next.

Every callback belongs to a `Process`, which its context names, or to the world outside of all processes. The loop
picks a process at random and in it one of the callbacks that are ready: the oldest, as asyncio does, or any. Its
time stands still while something is ready, except for small steps at random, and then goes to the next timer.
A process can be stopped for a while, as by the operating system, or killed: what it had in mind is then gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import random
from asyncio.events import Handle, TimerHandle
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("simulated_process", default=None)
"""Whose code is running; `None` is the world's."""


class Deadlock(Exception):
    """Nothing will ever happen any more: or the same again and again, while time stands still."""


class Process:
    """One process on some machine: its callbacks, and a wall clock of its own."""

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.name = name
        self.ready: list[Handle] = []
        self.dead = False
        self.asleep = False
        # Milliseconds by which its wall clock is wrong, and the latest time that it ever showed.
        self.offset = 0
        self.latest = 0
        self.commits = 0
        self._loop = loop
        self._context = contextvars.copy_context()
        self._context.run(PROCESS.set, self)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let the process execute a coroutine."""
        return self._loop.create_task(coroutine, context=self._context.copy())

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self._loop.call_soon(callback, *args, context=self._context)

    def kill(self) -> None:
        """Nothing of it happens any more; no `finally` is run."""
        self.dead = True
        self.ready.clear()

    # -- the Clock of its engine -------------------------------------------------------------------------

    def now(self) -> int:
        wall = EPOCH + round(self._loop.time() * 1000) + self.offset
        self.latest = max(self.latest, wall)
        return wall

    def monotonic(self) -> float:
        return self._loop.time()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        return self._loop.call_later(seconds, callback)


_PATIENCE = 100_000

EPOCH = 1_700_000_000_000
"""Where all wall clocks begin, in milliseconds."""


class _Future(asyncio.Future[Any]):
    """Sets of futures have the same order in each replay, wherever they lie in memory."""

    def __init__(self, *, loop: SimulatedLoop) -> None:
        super().__init__(loop=loop)
        self._hash = next(loop.numbers)

    def __hash__(self) -> int:
        return self._hash


class _Task(asyncio.Task[Any]):
    def __init__(self, coroutine: Any, *, loop: SimulatedLoop, context: contextvars.Context | None = None) -> None:
        # Before the task makes itself known to a set of all tasks.
        self._hash = next(loop.numbers)
        self.context = context or contextvars.copy_context()
        self.process = self.context.get(PROCESS)
        super().__init__(coroutine, loop=loop, context=self.context)
        loop.tasks.append(self)

    def __hash__(self) -> int:
        return self._hash


class SimulatedLoop(asyncio.BaseEventLoop):
    """`in_order` is the share of picks that take a process's oldest callback; `hurry` that of picks during which
    time goes on although something is ready."""

    def __init__(self, draw: random.Random, in_order: float = 1.0, hurry: float = 0.0) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.tasks: list[_Task] = []
        self.picks = 0
        self.history = 0
        self.failures: list[dict[str, Any]] = []
        # Raised at once, whatever is running.
        self.violation: Exception | None = None
        self._picks_then = 0
        self._draw = draw.random
        self._in_order = in_order
        self._hurry = hurry
        self._time = 0.0
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self._world = Process.__new__(Process)
        self._world.name, self._world.ready, self._world.dead, self._world.asleep = "world", [], False, False
        self._processes: list[Process] = [self._world]
        self.set_exception_handler(lambda loop, context: self.failures.append(context))

    def process(self, name: str) -> Process:
        process = Process(self, name)
        self._processes.append(process)
        return process

    # -- what asyncio asks of a loop ---------------------------------------------------------------------

    def time(self) -> float:
        return self._time

    def create_future(self) -> _Future:
        return _Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Any, *, name: str | None = None, context: Any = None, **_: Any
    ) -> _Task:
        task = _Task(coro, loop=self, context=context)
        if name is not None:
            task.set_name(name)
        return task

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]
        if context is None:
            context = contextvars.copy_context()
        handle = Handle(callback, args, self, context)
        self._add(handle, context)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> TimerHandle:
        timer = TimerHandle(when, callback, args, self, context or contextvars.copy_context())
        heapq.heappush(self._timers, (when, next(self.numbers), timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> TimerHandle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """A thread that is busy for a moment."""
        future = self.create_future()

        def work() -> None:
            if not future.done():
                try:
                    future.set_result(func(*args))
                except Exception as error:
                    future.set_exception(error)

        self.call_later(self._draw() * 0.01, work)
        return future

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        pass

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        # One of a dead process: nothing of it happens any more.
        pass

    def _write_to_self(self) -> None:
        pass

    def _process_events(self, event_list: Any) -> None:
        pass

    # -- what happens next -------------------------------------------------------------------------------

    def _add(self, handle: Handle, context: contextvars.Context) -> None:
        process = context.get(PROCESS) or self._world
        if not process.dead:
            process.ready.append(handle)

    def _run_once(self) -> None:
        self._ring()
        draw = self._draw
        if draw() < self._hurry:
            self._time += draw() * draw() * 0.05
            self._ring()
        able = [process for process in self._processes if process.ready and not process.asleep]
        while not able:
            self._skip()
            able = [process for process in self._processes if process.ready and not process.asleep]
        which = int(draw() * len(able)) if len(able) > 1 else 0
        ready = able[which].ready
        index = 0 if len(ready) == 1 or draw() < self._in_order else int(draw() * len(ready))
        handle = ready.pop(index)
        self.picks += 1
        if self.picks - self._picks_then > _PATIENCE:
            raise Deadlock(f"time has stood still for {_PATIENCE} callbacks; now {handle}")
        self.history = (self.history * 31 + which * 8 + index) & 0xFFFFFFFFFFFFFFFF
        if not handle._cancelled:
            handle._run()
            if self.violation is not None:
                raise self.violation

    def _ring(self) -> None:
        """Make ready what is due."""
        timers = self._timers
        while timers and timers[0][0] <= self._time:
            _, _, timer = heapq.heappop(timers)
            if not timer._cancelled:
                self._add(timer, timer._context)  # type: ignore[attr-defined]

    def _skip(self) -> None:
        """Let time pass until the next timer."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Deadlock("nothing is ready, and no timer is set")
        self._time = max(self._time, timers[0][0])
        self._picks_then = self.picks
        self._ring()
        self._processes = [process for process in self._processes if not process.dead]

    # -- the end -----------------------------------------------------------------------------------------

    def discard(self) -> None:
        """Close the loop and all that still hangs in it, with no word and no effect."""
        for process in self._processes:
            process.dead = True
        self._timers.clear()
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coroutine: Any = task.get_coro()
                for _ in range(10):
                    # Each time at its next await: it may clean up, but not wait.
                    with contextlib.suppress(BaseException):
                        task.context.run(coroutine.close)
                        break
            elif not task.cancelled():
                # Seen, whoever should have looked at it.
                task.exception()
        self.failures.clear()
        self._world.ready.clear()
        self.close()
