"""Durations and instants, as people write and read them."""

from __future__ import annotations

import datetime
import re

from durably_web.cli.mistakes import Mistake
from durably_web.readable import readable, relative, until, when
from durably_web.records import Instant

__all__ = ["parse_before", "parse_duration", "readable", "relative", "until", "when"]

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|[smhdw])\s*")
_AGE = re.compile(f"(?:{_PART.pattern})+")
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
