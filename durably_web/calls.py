"""Calling a step's function, sync or async, and no longer than it may take."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from durably_web.clock import Clock
from durably_web.context import current_run, ended

if TYPE_CHECKING:
    from durably_web.offloading import Offloader
    from durably_web.threads import Threads


class Caller:
    """Calls functions that are not coroutine functions: here at once, on the event loop, where there are no threads."""

    _offloader: Offloader | None = None

    async def call(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return fn(*args)

    @property
    def offloader(self) -> Offloader:
        """Calls functions elsewhere. What it needs is loaded with the first of them."""
        if self._offloader is None:
            from durably_web.offloading import offloader

            self._offloader = offloader()
        return self._offloader

    def left_behind(self, run_id: str | None = None) -> bool:
        """Whether a function still runs that nobody waits for: of a run, or of any."""
        return False

    def abandon(self) -> None:
        """Let the process end without waiting for such functions."""

    def close(self) -> None:
        """End what is still executed here. It can be used again."""
        offloader, self._offloader = self._offloader, None
        if offloader is not None:
            offloader.close()


class ThreadCaller(Caller):
    """Calls in a thread, so that heartbeats and other runs go on meanwhile.

    At most `threads` functions run at once. A thread cannot be stopped: a function that nobody waits for any more,
    since its run was cancelled or its time is over, runs to its end beside them, and its result is dropped. The end of
    the process waits for it, unless a stop had a deadline and abandoned it.
    """

    def __init__(self, threads: int) -> None:
        self._free = asyncio.Semaphore(threads)
        self._threads: Threads | None = None
        self._left: dict[Callable[..., Any], str | None] = {}

    async def call(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._threads is None:
            # Not at the top: Pyodide has no threads, and should not spend time on loading them.
            from durably_web.threads import Threads

            self._threads = Threads("durably-step")
        async with self._free:
            context = contextvars.copy_context()
            call = partial(context.run, _without_stop_iteration, fn, args)
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
            except asyncio.CancelledError:
                self._left[call] = current_run.get()
                # Those that are over by now are forgotten.
                self.left_behind()
                raise

    def left_behind(self, run_id: str | None = None) -> bool:
        if self._left:
            from durably_web.threads import is_running

            self._left = {call: run for call, run in self._left.items() if is_running(call)}
        return bool(self._left) if run_id is None else run_id in self._left.values()

    def abandon(self) -> None:
        from durably_web import threads

        threads.abandon(self._left)

    def close(self) -> None:
        super().close()
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)


def _without_stop_iteration(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return fn(*args)
    except StopIteration as error:
        # A future cannot carry one, and would never be done. Coroutines turn it into the same.
        raise RuntimeError("a step raised StopIteration") from error


def caller(threads: int) -> Caller:
    """The caller for this platform."""
    return Caller() if sys.platform == "emscripten" else ThreadCaller(threads)


def refuse_a_beginning_process() -> None:
    """Raises `RuntimeError` in a process that is being started for offloaded functions, and imports the main script."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and getattr(processes.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a process that was started by another one imports the main script again, and must not begin an engine: "
            'what the script does besides defining belongs under `if __name__ == "__main__":`'
        )


async def call(caller: Caller, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """The result of `fn(*args)`, awaited where it has to be."""
    if inspect.iscoroutinefunction(fn):
        return await fn(*args)
    result = await caller.call(fn, args)
    # Such as the coroutine of `lambda: fetch(url)`.
    return await result if inspect.isawaitable(result) else result


async def call_within(
    seconds: float, clock: Clock, caller: Caller, fn: Callable[..., Any], args: tuple[Any, ...], what: str
) -> Any:
    """As `call`; raises `TimeoutError` when it takes longer. What is async is cancelled, and what is sync abandoned:
    in a thread at once, without threads as soon as it returns."""
    late = f"{what} took longer than {seconds:g} s"
    outer = ended.get()
    over = False
    token = ended.set(lambda: over or (outer is not None and outer()))
    begun = clock.monotonic()
    timer = None
    limit = asyncio.timeout(None)
    try:
        async with limit:
            # By the engine's clock, not by the loop's.
            timer = clock.call_later(seconds, lambda: _expire(limit))
            result = await call(caller, fn, args)
    except TimeoutError:
        over = limit.expired()
        if not over:
            # The function's own.
            raise
        raise TimeoutError(late) from None
    finally:
        if timer is not None:
            timer.cancel()
        ended.reset(token)
    if clock.monotonic() - begun > seconds:
        raise TimeoutError(late)
    return result


def _expire(limit: asyncio.Timeout) -> None:
    # Over already, when the function returned in the same turn.
    if not limit.expired() and limit.when() is None:
        limit.reschedule(asyncio.get_running_loop().time())
