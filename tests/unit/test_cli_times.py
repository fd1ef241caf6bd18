"""Durations and instants on the command line."""

from __future__ import annotations

import datetime

import pytest

from durably_web.cli.mistakes import Mistake
from durably_web.cli.times import parse_before, parse_duration, readable

NOON = datetime.datetime(2030, 1, 31, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("250ms", 0.25),
        ("90s", 90),
        ("1.5h", 5400),
        ("15m", 900),
        ("15min", 900),
        ("2h30m", 9000),
        ("2h 30min", 9000),
        ("7d", 604_800),
        ("1w", 604_800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--delay") == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "7days", "-1s", "1h,", "1 year", "2h 30", "999999999w"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(Mistake, match="--delay is "):
        parse_duration(text, "--delay")


def test_instants_and_ages() -> None:
    assert parse_before("2030-01-31T12:00:00Z", "--older-than") == NOON
    assert parse_before("2030-01-31T14:00+02:00", "--older-than") == NOON
    # Without a zone it is the one of this machine.
    assert parse_before("2030-01-31", "--older-than").astimezone() == datetime.datetime(2030, 1, 31).astimezone()
    week = datetime.timedelta(days=7)
    before = datetime.datetime.now(datetime.UTC) - week
    assert before <= parse_before("7d", "--older-than") <= datetime.datetime.now(datetime.UTC) - week


@pytest.mark.parametrize("text", ["", "7days", "yesterday", "2030-13-01", "0001-01-01T00:00+14:00"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(Mistake, match="--older-than is an age such as 7d, or an instant"):
        parse_before(text, "--older-than")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0614, "61 ms"),
        (0.9996, "1.0 s"),
        (3.21, "3.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (65, "1 min 5 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (3 * 86400 - 8, "3 d"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (40 * 86400, "40 d"),
    ],
)
def test_a_person_reads_durations(seconds: float, text: str) -> None:
    assert readable(seconds) == text
