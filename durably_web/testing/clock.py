"""Time that stands still until a test lets it pass."""

from __future__ import annotations

import contextvars
import datetime
import heapq
import itertools
from collections.abc import Callable

EPOCH = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
"""When it is, at the beginning of a test that says nothing else."""


class VirtualTimer:
    """A call that was asked for, in the context of whoever asked."""

    __slots__ = ("_cancelled", "_when", "callback", "context")

    def __init__(self, when: float, callback: Callable[[], object], context: contextvars.Context) -> None:
        self._when = when
        self._cancelled = False
        self.callback = callback
        self.context = context

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        """In seconds of the clock's `monotonic`."""
        return self._when


class VirtualClock:
    """A clock for an engine whose time passes from one timer to the next, and only when it is told to."""

    def __init__(self, start: datetime.datetime = EPOCH) -> None:
        self._start = round(start.timestamp() * 1000)
        # Milliseconds since the start, to the microsecond.
        self._passed = 0.0
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._numbers = itertools.count()

    def now(self) -> int:
        return self._start + int(self._passed)

    def monotonic(self) -> float:
        return self._passed / 1000

    def call_later(self, seconds: float, callback: Callable[[], object]) -> VirtualTimer:
        return self.add(seconds, callback, contextvars.copy_context())

    def add(self, seconds: float, callback: Callable[[], object], context: contextvars.Context) -> VirtualTimer:
        moment = round(self._passed + max(0.0, seconds) * 1000, 3)
        timer = VirtualTimer(moment / 1000, callback, context)
        heapq.heappush(self._timers, (moment, next(self._numbers), timer))
        return timer

    def next_at(self) -> float | None:
        """When the next timer is due, in milliseconds since the start; `None` when there is none."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    @property
    def passed(self) -> float:
        """Milliseconds since the start."""
        return self._passed

    def ring(self) -> None:
        """Let time pass until the next timer, and make its call."""
        if self.next_at() is not None:
            moment, _, timer = heapq.heappop(self._timers)
            self._passed = max(self._passed, moment)
            timer.context.run(timer.callback)

    def pass_to(self, moment: float) -> None:
        """Let time pass, to a moment in milliseconds since the start before which nothing is due."""
        self._passed = max(self._passed, moment)
