"""An event loop in a thread of its own, which sync code asks to do things."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import contextlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from durably_web.backends.forks import forsake
from durably_web.errors import StoreUnavailable

T = TypeVar("T")

# A fork waits so long for the loop to stand still; then it goes on without.
_SECONDS_FOR_A_FORK = 1.0

# So long the thread may take to end once nothing is to be done any more.
_SECONDS_TO_END = 2.0


class Background:
    """A loop that runs until `close`, in a daemon thread: it never keeps the interpreter from its exit.

    Any number of threads may `ask` at once. While a process forks, the loop stands still between two callbacks, so that
    no lock of a library it calls is copied into the child as taken.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._last: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._still = threading.Event()
        self._go = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        _running.add(self)

    def ask(self, make: Callable[[], Awaitable[T]], timeout: float | None = None) -> T:
        """The result of what `make` gives, awaited on the loop, in the caller's context. Who gives up cancels it.

        Raises what it raises, `TimeoutError` after `timeout` seconds, and `StoreUnavailable` when it is closed before.
        """

        async def made() -> T:
            return await make()

        with self._lock:
            # What is begun before the end is ended with it; nothing is begun that nobody would end.
            if self._closed:
                raise _stopped()
            future = asyncio.run_coroutine_threadsafe(made(), self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise _stopped() from None
        except BaseException:
            future.cancel()
            raise

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Cancel what is still under way, do `last`, and end the thread. Safe to call again.

        Returns after two seconds also where a callback of the loop does not come back.
        """
        self.end(last)
        self._thread.join(_SECONDS_TO_END)

    def end(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """As `close`, and wait for nothing: it may be called on any thread, also on its own."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._last = last
                self._loop.call_soon_threadsafe(self._loop.stop)
        _running.discard(self)

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            if self._last is not None:
                loop.run_until_complete(self._last())
        finally:
            loop.close()

    # -- forks -------------------------------------------------------------------------------------------

    def stand_still(self) -> None:
        """Let no callback run until `go_on`."""
        self._still.clear()
        self._go.clear()
        # Or its own callback forks.
        if threading.current_thread() is not self._thread:
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._wait_for_the_fork)
                self._still.wait(_SECONDS_FOR_A_FORK)

    def go_on(self) -> None:
        self._go.set()

    def _wait_for_the_fork(self) -> None:
        self._still.set()
        self._go.wait(_SECONDS_FOR_A_FORK)


def _stopped() -> StoreUnavailable:
    return StoreUnavailable("the engine was stopped while this was under way")


def refuse_where_a_loop_runs() -> None:
    """Raises `RuntimeError` where waiting would hold up an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "durably_web.blocking would hold up the event loop that runs in this thread: "
        "in async code use durably_web.Durably, and await its methods"
    )


# -- exit --------------------------------------------------------------------------------------------------


def at_exit(action: Callable[[], None]) -> None:
    """Call `action` when the interpreter exits, while threads still take work, and before any of them is waited for."""
    # `atexit` comes after that. What is registered last is called first: the module of pools is imported above.
    threading._register_atexit(action)  # type: ignore[attr-defined]


# -- forks -------------------------------------------------------------------------------------------------

_running: weakref.WeakSet[Background] = weakref.WeakSet()
_standing: list[Background] = []


def _before_a_fork() -> None:
    _standing[:] = _running
    for background in _standing:
        background.stand_still()


def _in_the_parent() -> None:
    for background in _standing:
        background.go_on()
    _standing.clear()


def _in_the_child() -> None:
    # Their threads are not here. What they used is left as it is.
    for background in _standing:
        forsake(background)
    _standing.clear()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_a_fork, after_in_parent=_in_the_parent, after_in_child=_in_the_child)
