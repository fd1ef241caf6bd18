"""Tells whose code the event loop is about to run: whoever has to end a worker that hangs knows then under which run.

Where there is one thread, a step that never ends stops everything, and nobody inside can say so afterwards. It has to
be known before: each task that runs code of a job is resumed through here. Only a change of the run is told, so that a
run alone costs one comparison for each time it is resumed; and its end, so that it is not blamed for what comes later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from typing import Any

_run: ContextVar[str | None] = ContextVar("durably_run", default=None)


class Running:
    """Calls `tell(run_id)` before code of another run is run than of the one last told; `tell(None)` when it ends."""

    def __init__(self, tell: Callable[[str | None], object]) -> None:
        self.tell = tell
        self.last: str | None = None

    def watch(self, run_id: str, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """The coroutine of an execution, watched. The tasks that it makes know from their context whose they are."""
        return _Watched(self, run_id, coroutine, named=False)

    def watch_branches(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch also the tasks that runs make, such as those of `asyncio.gather`."""
        create = loop.create_task

        # In the place of a task factory: Pyodide's loop gives one neither a context nor its own class of tasks.
        def create_task(coro: Any, *, context: Context | None = None, **options: Any) -> asyncio.Task[Any]:
            run_id = _run.get() if context is None else context.get(_run)
            if run_id is not None and asyncio.iscoroutine(coro) and not isinstance(coro, _Watched):
                coro = _Watched(self, run_id, coro)
            return create(coro, context=context, **options)

        loop.create_task = create_task  # type: ignore[method-assign]


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that says whose it is before it goes on."""

    __slots__ = ("_branch", "_coroutine", "_named", "_run_id", "_running")

    def __init__(
        self, running: Running, run_id: str, coroutine: Coroutine[Any, Any, Any], *, named: bool = True
    ) -> None:
        self._running = running
        self._run_id = run_id
        self._coroutine = coroutine
        # Its context knows the run: that of a branch has it from where the branch was made.
        self._named = self._branch = named

    def send(self, value: Any) -> Any:
        if self._running.last != self._run_id or not self._named:
            self._enter()
        try:
            return self._coroutine.send(value)
        except BaseException:
            self._leave()
            raise

    def throw(self, *error: Any) -> Any:
        if self._running.last != self._run_id:
            self._enter()
        try:
            return self._coroutine.throw(*error)
        except BaseException:
            self._leave()
            raise

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def _enter(self) -> None:
        if not self._named:
            # Only now: this is the task's own context.
            _run.set(self._run_id)
            self._named = True
        if self._running.last != self._run_id:
            self._running.last = self._run_id
            self._running.tell(self._run_id)

    def _leave(self) -> None:
        # The end of a branch is not the end of its run.
        if not self._branch and self._running.last == self._run_id:
            self._running.last = None
            self._running.tell(None)
