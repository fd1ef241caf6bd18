"""Durations and instants, as people read them."""

from __future__ import annotations

from durably_web.records import Instant

_LARGE_UNITS = ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s"))


def readable(seconds: float) -> str:
    """A duration with two units at most: `350 ms`, `3.2 s`, `1 min 5 s`, `2 h 5 min`, `3 d 4 h`."""
    if round(seconds * 1000) < 1000:
        return f"{round(seconds * 1000)} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for large, small, unit, rest in _LARGE_UNITS:
        # Rounded to what is shown, and only then split.
        whole = round(seconds / small) * small
        if whole >= large:
            more = whole % large // small
            return f"{whole // large} {unit}" + (f" {more} {rest}" if more else "")
    return f"{round(seconds)} s"


def when(instant: Instant | None) -> str:
    """An instant in the local time zone, to the second."""
    return instant.astimezone().strftime("%Y-%m-%d %H:%M:%S") if instant else ""


def relative(instant: Instant, now: Instant) -> str:
    """`in 2 h 5 min`, or `due` once it is over."""
    seconds = (instant - now).total_seconds()
    return f"in {readable(seconds)}" if seconds > 0 else "due"


def until(instant: Instant, now: Instant) -> str:
    """`until 2030-01-31 12:00:00 (in 2 h 5 min)`."""
    return f"until {when(instant)} ({relative(instant, now)})"
