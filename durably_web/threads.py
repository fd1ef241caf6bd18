"""Threads for the functions of steps, which need not keep their process alive."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, wait
from functools import partial
from queue import SimpleQueue
from typing import Any

_begun: dict[Callable[..., Any], Future[Any]] = {}
"""The calls that are not over."""

_abandoned: set[Future[Any]] = set()
"""Those that the end of the process does not wait for."""


class Threads(Executor):
    """As many threads as calls run at once; idle ones are used again.

    Those of `concurrent.futures` would keep the process alive until the last call is over, whether or not somebody has
    given up on it. For these the end of the process waits, too, but for those that are abandoned.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        call = partial(fn, *args, **options) if args or options else fn
        begun: Future[Any] = Future()
        _begun[fn] = begun
        begun.add_done_callback(lambda begun: _over(fn, begun))
        self._calls.put((begun, call))
        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._work, name=f"{self._name}_{self._count}", daemon=True).start()
        return begun

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end when they have nothing to do."""
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            begun, call = item
            if begun.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:
                    begun.set_exception(error)
                else:
                    begun.set_result(result)
                    del result
            # Nothing of it is kept until the next one comes.
            del item, begun, call
            self._idle.release()


def is_running(fn: Callable[..., Any]) -> bool:
    """Whether a thread executes this call, which is not wanted any more. One that has not begun never will."""
    begun = _begun.get(fn)
    return begun is not None and not begun.cancel() and not begun.done()


def abandon(calls: Iterable[Callable[..., Any]]) -> None:
    """Let these calls run on, and the process end without them."""
    _abandoned.update(_begun[fn] for fn in calls if fn in _begun)


def abandon_all() -> None:
    """Let all that still runs run on, and the process end without it."""
    _abandoned.update(_begun.values())


def _over(fn: Callable[..., Any], begun: Future[Any]) -> None:
    _begun.pop(fn, None)
    _abandoned.discard(begun)


def _finish() -> None:
    wait(set(_begun.values()) - _abandoned)


# Called while these threads, which are daemons, still run.
atexit.register(_finish)

# The child of a fork has none of them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begun.clear)
