"""An engine that sync code asks: opened at the first call, for one process, until a stop or the interpreter's exit."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from durably_web.arguments import Duration, seconds_of
from durably_web.backends.forks import forsake
from durably_web.blocking.background import Background, at_exit, refuse_where_a_loop_runs
from durably_web.emitter import Listener
from durably_web.engine import Durably as Engine
from durably_web.jobs import Job

T = TypeVar("T")

# So many seconds more than it was given may a stop take.
_GRACE = 3.0


class Base:
    """Keeps the engine, and makes another one when this one has been stopped, or belongs to the parent of a fork."""

    def __init__(
        self, make: Callable[[Iterable[Job[Any, Any]]], Engine], jobs: Iterable[Job[Any, Any]], exit_timeout: float
    ) -> None:
        self._make = make
        self._engine = make(jobs)
        self._exit_timeout = exit_timeout
        self._listeners: dict[object, tuple[str, Listener, Callable[[], object]]] = {}
        self._lock = threading.Lock()
        self._background: Background | None = None
        self._forget: Callable[[], object] = _nothing
        _all.add(self)

    def _begin(self, action: Callable[[Engine], Awaitable[None]]) -> None:
        """Ask for what lets it execute runs: from here on it is kept until it is stopped, whoever refers to it."""
        self._ask(action)
        with self._lock:
            if self._background is not None:
                _executing.add(self)

    def _ask(self, question: Callable[[Engine], Awaitable[T]]) -> T:
        refuse_where_a_loop_runs()
        background = self._background or self._open()
        engine = self._engine
        return background.ask(lambda: question(engine))

    def _do(self, action: Callable[[Engine], object]) -> None:
        """Something that is not awaited, on the engine's own thread."""

        async def act(engine: Engine) -> None:
            action(engine)

        self._ask(act)

    def _open(self) -> Background:
        with self._lock:
            if self._background is None:
                background = Background("durably")
                try:
                    background.ask(self._engine.migrate)
                except BaseException:
                    background.close()
                    raise
                self._background = background
                # One that nobody refers to any more, and that executes nothing, takes its thread with it.
                forgotten = weakref.finalize(self, background.end, self._engine.stop)
                forgotten.atexit = False
                self._forget = forgotten.detach
            return self._background

    def _close(self, timeout: Duration | None) -> None:
        refuse_where_a_loop_runs()
        with self._lock:
            background, engine = self._background, self._engine
            if background is None:
                return
            # The loop itself may be held up.
            limit = None if timeout is None else seconds_of(timeout, "timeout") + _GRACE
            stopped = False
            try:
                background.ask(lambda: engine.stop(timeout), limit)
                stopped = True
            finally:
                self._background = None
                self._forget()
                _executing.discard(self)
                self._renew()
                background.close(None if stopped else engine.abandon)

    def _listen(self, event_type: str, listener: Listener) -> Callable[[], None]:
        key = object()

        def forget() -> None:
            known = self._listeners.pop(key, None)
            if known is not None:
                known[2]()

        self._listeners[key] = (event_type, listener, self._engine.on(event_type, listener))
        return forget

    def _another(self) -> Engine:
        """An engine like this one, with its jobs and listeners."""
        engine = self._make(self._engine.jobs.values())
        for event_type, listener, _ in self._listeners.values():
            engine.on(event_type, listener)
        return engine

    def _renew(self) -> None:
        self._engine = self._make(self._engine.jobs.values())
        for key, (event_type, listener, _) in list(self._listeners.items()):
            self._listeners[key] = (event_type, listener, self._engine.on(event_type, listener))

    def _begin_again(self) -> None:
        # A thread of the parent may hold it.
        self._lock = threading.Lock()
        forsake(self._engine)
        self._forget()
        self._background = None
        self._renew()

    def _exit(self) -> None:
        try:
            self._close(self._exit_timeout)
        except Exception:
            # What is broken off is taken up by others as soon as the process is gone.
            threads = sys.modules.get("durably_web.threads")
            if threads is not None:
                threads.abandon_all()


def _nothing() -> None:
    """There is nothing to forget."""


_all: weakref.WeakSet[Base] = weakref.WeakSet()

_executing: set[Base] = set()
"""Those that execute runs: they do so, and are stopped at the exit, also where nobody else refers to them."""


def _in_the_child() -> None:
    each_of_them = list(_all)
    # The child executes nothing unless it says so itself.
    _executing.clear()
    for each in each_of_them:
        each._begin_again()


def _exit_all() -> None:
    for each in list(_all):
        each._exit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_the_child)
at_exit(_exit_all)
