"""Calling a step's function, sync or async."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


class Caller(Protocol):
    """Calls functions that are not coroutine functions."""

    async def call(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any: ...

    def close(self) -> None: ...


class InlineCaller:
    """Calls at once, on the event loop: where there are no threads."""

    async def call(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return fn(*args)

    def close(self) -> None:
        pass


class ThreadCaller:
    """Calls in a thread, so that heartbeats and other runs go on meanwhile.

    A thread cannot be stopped: when its run is cancelled, the function runs to its end and its result is dropped.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._pool is None:
            # Not at the top: Pyodide has no threads, and should not spend time on loading them.
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="durably-step")
        context = contextvars.copy_context()
        call = partial(context.run, _without_stop_iteration, fn, args)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _without_stop_iteration(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return fn(*args)
    except StopIteration as error:
        # A future cannot carry one, and would never be done. Coroutines turn it into the same.
        raise RuntimeError("a step raised StopIteration") from error


def caller(threads: int) -> Caller:
    """The caller for this platform."""
    return InlineCaller() if sys.platform == "emscripten" else ThreadCaller(threads)


async def call(caller: Caller, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """The result of `fn(*args)`, awaited where it has to be."""
    if inspect.iscoroutinefunction(fn):
        return await fn(*args)
    result = await caller.call(fn, args)
    # Such as the coroutine of `lambda: fetch(url)`.
    return await result if inspect.isawaitable(result) else result
