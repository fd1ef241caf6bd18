"""Threads for the functions of steps, which need not keep their process alive."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any

_running: set[Future[Any]] = set()
"""What the end of the process waits for."""


class Threads:
    """As many threads as calls run at once; idle ones are used again.

    Those of `concurrent.futures` would keep the process alive until the last call is over, whether or not somebody has
    given up on it. For these the end of the process waits, too, but for those that are abandoned.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        begun: Future[Any] = Future()
        _running.add(begun)
        begun.add_done_callback(_running.discard)
        self._calls.put((begun, call))
        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._work, name=f"{self._name}_{self._count}", daemon=True).start()
        return begun

    def close(self) -> None:
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


def abandon(begun: Iterable[Future[Any]]) -> None:
    """Let these calls run on, and the process end without them."""
    _running.difference_update(begun)


def _finish() -> None:
    wait(list(_running))


# Called while these threads, which are daemons, still run.
atexit.register(_finish)
