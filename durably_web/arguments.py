"""What callers pass, checked before anything is stored."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping

from durably_web.errors import InvalidInput

Duration = float | datetime.timedelta
"""Seconds, or a `timedelta`."""


def checked_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    checked = dict(labels or {})
    for key, value in checked.items():
        check_text(key, "a label's key")
        check_text(value, f"the label {key!r}")
    return checked


def check_text(value: object, what: str) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{what} must be a text that is not empty, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} is not valid Unicode: {value!r}") from None


def seconds_of(duration: object, what: str) -> float:
    """A duration in seconds. Raises `InvalidInput` when it is negative, endless, or none at all."""
    if isinstance(duration, datetime.timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool) and abs(duration) < 2**53:
        seconds = float(duration)
    else:
        raise InvalidInput(f"{what} is a number of seconds or a timedelta, not {duration!r}")
    if not math.isfinite(seconds) or seconds < 0:
        raise InvalidInput(f"{what} must be 0 seconds or more, not {duration!r}")
    return seconds


def milliseconds_of(duration: object, what: str) -> int:
    """As `seconds_of`, rounded up, so that nothing is due before its time."""
    return math.ceil(round(seconds_of(duration, what) * 1000, 6))


def moment_of(when: object, what: str) -> int:
    """An aware datetime as milliseconds since the epoch. Raises `InvalidInput` for any other value."""
    if not isinstance(when, datetime.datetime) or when.utcoffset() is None:
        raise InvalidInput(
            f"{what} is a datetime with a time zone, such as datetime.now(UTC) + timedelta(hours=1), not {when!r}"
        )
    return math.ceil(round(when.timestamp() * 1000, 3))


def check_priority(priority: object) -> None:
    if type(priority) is not int or abs(priority) >= 2**31:
        raise InvalidInput(f"priority is a whole number of at most 32 bits, higher first, not {priority!r}")


def due_at(delay: Duration | None, run_at: datetime.datetime | None, now: int) -> int | None:
    """The instant when a run is due, in milliseconds; `None` for at once. Raises `InvalidInput`."""
    if delay is not None:
        if run_at is not None:
            raise InvalidInput("delay and run_at both say when the run is due: give one of them")
        return now + milliseconds_of(delay, "delay")
    return None if run_at is None else moment_of(run_at, "run_at")
