"""Time, as the engine is given it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that was asked for and can still be taken back."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Where the engine gets time from; it reads no other clock."""

    def now(self) -> int:
        """Milliseconds since the epoch, UTC. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the event loop after `seconds`."""
        ...


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self._now = now
        self._start = now
        self._timers: list[_ManualTimer] = []

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._start) / 1000

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = _ManualTimer(self._now + round(seconds * 1000), callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, and make each call that falls due, in order of its time."""
        end = self._now + round(seconds * 1000)
        while due := [timer for timer in self._timers if not timer.cancelled and timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self._timers.remove(timer)
            self._now = max(self._now, timer.when)
            timer.callback()
        self._now = end
        self._timers = [timer for timer in self._timers if not timer.cancelled]


class _ManualTimer:
    __slots__ = ("callback", "cancelled", "when")

    def __init__(self, when: int, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
