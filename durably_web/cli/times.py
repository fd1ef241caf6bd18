"""Durations and instants, as people write and read them."""

from __future__ import annotations

import datetime
import re

from durably_web.cli.mistakes import Mistake
from durably_web.records import Instant

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|[smhdw])\s*")
_AGE = re.compile(f"(?:{_PART.pattern})+")
_LARGE_UNITS = ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s"))
_LONGEST = 100 * 366 * 86400.0


def parse_duration(text: str, option: str) -> float:
    """`90s`, `15m`, `2h30m`, `7d`, `1w`, in seconds."""
    total, at = 0.0, 0
    while found := _PART.match(text, at):
        total += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if at == 0 or at < len(text):
        raise Mistake(f"{option} is a duration such as 90s, 15m, 2h30m or 7d, not {text!r}")
    if total > _LONGEST:
        raise Mistake(f"{option} is more than 100 years: {text!r}")
    return total


def parse_before(text: str, option: str) -> Instant:
    """An instant such as `2030-01-31` or `2030-01-31T12:00`, here where it has no zone; or an age such as `7d`."""
    try:
        if _AGE.fullmatch(text):
            age = datetime.timedelta(seconds=parse_duration(text, option))
            return datetime.datetime.now(datetime.UTC) - age
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise Mistake(f"{option} is an age such as 7d, or an instant such as 2030-01-31T12:00, not {text!r}") from None


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
