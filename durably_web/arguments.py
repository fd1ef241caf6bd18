"""What callers pass, checked before anything is stored."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import cast

from durably_web.errors import InvalidInput
from durably_web.ids import is_id

_LONGEST = 1000 * 365.25 * 86400
_LAST_MOMENT = 253_402_300_799_999

Duration = float | datetime.timedelta
"""Seconds, or a `timedelta`."""


def check_step_name(name: object, what: str = "a step's name") -> None:
    if not isinstance(name, str) or not name or "#" in name:
        raise InvalidInput(f"{what} is a text without '#', not {name!r}: the '#' counts its occurrences")
    _check_unicode(name, what)


def check_signal_name(name: object) -> None:
    check_step_name(name, "a signal's name")
    check_text(name, "a signal's name")


def checked_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    if labels is not None and not isinstance(labels, Mapping):
        raise InvalidInput(f'labels are a mapping, such as {{"org": "acme"}}, not {labels!r}')
    checked = dict(labels or {})
    if "$type" in checked:
        # Where labels are kept, it would say that they are something else.
        raise InvalidInput("no label is called $type: give it another name")
    for key, value in checked.items():
        check_text(key, "a label's key")
        check_text(value, f"the label {key!r}")
    return checked


def check_text(value: object, what: str) -> None:
    """Of a text by which something is found: SQLite reads a text in JSON only up to a U+0000."""
    _check_unicode(value, what)
    if "\0" in cast(str, value):
        raise InvalidInput(f"{what} is a text without the character U+0000, not {value!r}")


def _check_unicode(value: object, what: str) -> None:
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
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        seconds = float(min(max(duration, -1), 2**53))
    else:
        raise InvalidInput(f"{what} is a number of seconds or a timedelta, not {duration!r}")
    # Also what is not a number.
    if not 0 <= seconds <= _LONGEST:
        raise InvalidInput(f"{what} must be between 0 seconds and 1000 years, not {duration!r}")
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
    return min(math.ceil(round(when.timestamp() * 1000, 3)), _LAST_MOMENT)


def check_request_id(request_id: object) -> None:
    if not isinstance(request_id, str) or not is_id(request_id):
        raise InvalidInput(f"a request's id is a ULID, 26 characters, not {request_id!r}")


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
