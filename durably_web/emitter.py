"""Tells those who listen in this process what happens."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from durably_web.events import EVENT_TYPES, Event, EventType
from durably_web.failures import describe
from durably_web.records import instant

Listener = Callable[[Event], Awaitable[None] | None]


class Emitter:
    """Hands events to listeners. A listener that raises harms nobody; it shows up as `worker:error`.

    What an async one does is a task, which a stop waits for.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._listeners: dict[str, list[Listener]] = {}
        self._tasks: set[asyncio.Future[None]] = set()

    def on(self, event_type: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each event of a type, or of all types with `"*"`, until the result is called."""
        if event_type != "*" and event_type not in EVENT_TYPES:
            raise ValueError(f"there is no event {event_type!r}; there are {', '.join(sorted(EVENT_TYPES))}, and '*'")
        listeners = self._listeners.setdefault(event_type, [])
        listeners.append(listener)

        def unsubscribe() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return unsubscribe

    def hears(self, event_type: str) -> bool:
        """Whether anybody listens: asked before an event is built."""
        listeners = self._listeners
        return bool(listeners) and bool(listeners.get(event_type) or listeners.get("*"))

    def emit(self, event: Event) -> None:
        for listener in (*self._listeners.get(event.type, ()), *self._listeners.get("*", ())):
            try:
                result = listener(event)
                if inspect.isawaitable(result):
                    task = asyncio.ensure_future(result)
                    self._tasks.add(task)
                    task.add_done_callback(lambda task, event=event: self._done(task, event))  # type: ignore[misc]
            except Exception as error:
                self._report(error, event)

    def tell(
        self,
        event_type: EventType,
        run_id: str | None = None,
        job_name: str | None = None,
        labels: dict[str, str] | None = None,
        **about: Any,
    ) -> None:
        """Tell of something that is not stored. Costs nothing where nobody listens."""
        if self.hears(event_type):
            now = instant(self._now())
            self.emit(Event(event_type, None, None, now, run_id, job_name, labels or {}, **about))

    def error(self, error: BaseException, context: str, run_id: str | None = None) -> None:
        """Tell of something that went wrong beside the runs: `worker:error`."""
        self.tell("worker:error", run_id, error=describe(error), context=context)

    async def finish(self, waiting: Collection[object]) -> bool:
        """Wait for the listeners that are async and have begun; but not for those that are `waiting` for a stop.
        Tells whether there were any."""
        left = [task for task in self._tasks if task not in waiting]
        if left:
            await asyncio.wait(left)
        return bool(left)

    def has_begun(self, task: object) -> bool:
        """Whether this is the task of a listener."""
        return task in self._tasks

    def abandon(self, waiting: Collection[object]) -> None:
        """Cancel them, but for those that are `waiting`."""
        for task in list(self._tasks):
            if task not in waiting:
                task.cancel()

    def _done(self, task: asyncio.Future[None], event: Event) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(error, event)

    def _report(self, error: BaseException, event: Event) -> None:
        if event.type != "worker:error":
            self.error(error, f"a listener for {event.type}", event.run_id)
            return
        # One for worker:error must not be called about itself; the loop's handler is where its error is seen.
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a listener for worker:error raised", "exception": error}
            )
