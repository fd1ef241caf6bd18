"""How long a run may take, by the clock on the wall: sleeps, waits and restarts count."""

from __future__ import annotations

from collections.abc import Callable

from durably_web.arguments import Duration, seconds_of
from durably_web.clock import Clock, Timer

# Browsers count a timer's milliseconds in 31 bits.
_LONGEST_TIMER = 86_400.0


class Deadline:
    """Calls `end` when a run has taken too long since an instant in milliseconds."""

    def __init__(self, clock: Clock, started_at: int, timeout: Duration, end: Callable[[], None]) -> None:
        self._clock = clock
        self._seconds = seconds_of(timeout, "timeout")
        self._moment = started_at + round(self._seconds * 1000)
        self._end = end
        self._timer: Timer | None = None

    def start(self) -> None:
        """End the run if its time is over, and else come back when it will be: the clock may jump."""
        left = (self._moment - self._clock.now()) / 1000
        if left > 0:
            self._timer = self._clock.call_later(min(left, _LONGEST_TIMER), self.start)
        else:
            self._end()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def cut(self, until: int | None) -> int:
        """The instant `until`, or the end of the run's time if that comes first."""
        return self._moment if until is None else min(until, self._moment)

    def __str__(self) -> str:
        return f"TimeoutError: the run took longer than {self._seconds:g} s"
