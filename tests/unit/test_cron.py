"""When cron expressions tick: beside a definition that walks through every second or minute, and the library's own."""

from __future__ import annotations

import datetime
import itertools
import sys
import zoneinfo
from collections.abc import Iterator

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from durably_web import InvalidInput, RequirementFailed, cron
from durably_web.cron import Cron, load_cron

UTC = datetime.UTC
MINUTE = datetime.timedelta(minutes=1)

# With their changes by an hour, by half an hour, at midnight, by a whole day, without any, and of old days.
ZONES = {
    "Europe/Berlin": [(2026, 3, 29), (2026, 10, 25)],
    "America/New_York": [(2026, 3, 8), (2026, 11, 1)],
    "Australia/Lord_Howe": [(2026, 4, 5), (2026, 10, 4)],
    "Asia/Beirut": [(2022, 3, 27), (2022, 10, 30)],
    "America/Sao_Paulo": [(2018, 2, 18), (2018, 11, 4)],
    "America/Havana": [(2026, 3, 8), (2026, 11, 1)],
    "Africa/Casablanca": [(2026, 2, 15), (2026, 3, 22)],
    "Pacific/Apia": [(2011, 12, 30)],
    "Antarctica/Troll": [(2026, 3, 29), (2026, 10, 25)],
    "Asia/Kathmandu": [(2026, 1, 1)],
    "Europe/Lisbon": [(1992, 9, 27), (1996, 3, 31)],
    "UTC": [(2026, 3, 29)],
}


def zone_of(name: str) -> datetime.tzinfo:
    return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


def fits(expression: str, local: datetime.datetime) -> bool:
    """Whether a local time is one of an expression, as the library reads it: where no clock is ever changed."""
    return next(CronSim(expression, local - datetime.timedelta(seconds=1))) == local


def expected(expression: str, name: str, begin: datetime.datetime, end: datetime.datetime) -> list[datetime.datetime]:
    """The ticks in (begin, end], by going through all minutes."""
    zone = zone_of(name)
    minutes = [begin + MINUTE * n for n in range(1, (end - begin) // MINUTE + 1)]
    fields = expression.split()
    if fields[0].startswith("*") or fields[1].startswith("*"):
        return [one for one in minutes if fits(expression, one.astimezone(zone).replace(tzinfo=None))]
    found = []
    seen: set[datetime.datetime] = set()
    # From long before: what came once does not come again.
    early = [begin - MINUTE * n for n in range(36 * 60, -1, -1)]
    before: datetime.datetime | None = None
    for instant in (*early, *minutes):
        local = instant.astimezone(zone).replace(tzinfo=None)
        # What is left out between the minute before and this one is due now.
        passed = [local]
        if before is not None and local - before > MINUTE:
            passed = [before + MINUTE * n for n in range(1, (local - before) // MINUTE + 1)]
        due = [one for one in passed if one not in seen and fits(expression, one)]
        seen.update(passed)
        before = local
        if due and instant > begin:
            found.append(instant)
    return found


def reckoned(
    expression: str, name: str, begin: datetime.datetime, end: datetime.datetime
) -> Iterator[datetime.datetime]:
    ticks, moment = Cron(expression, name), round(begin.timestamp() * 1000)
    while (found := ticks.next_after(moment)) is not None and found <= end.timestamp() * 1000:
        assert found > moment
        moment = found
        yield datetime.datetime.fromtimestamp(found / 1000, UTC)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    pair = st.tuples(number, number).map(sorted)
    return st.one_of(
        st.just("*"),
        st.integers(2, max(2, high // 2)).map(lambda step: f"*/{step}"),
        number.map(str),
        st.lists(number, min_size=2, max_size=4, unique=True).map(lambda some: ",".join(map(str, some))),
        pair.map(lambda ends: f"{ends[0]}-{ends[1]}"),
        st.tuples(pair, st.integers(1, 20)).map(lambda one: f"{one[0][0]}-{one[0][1]}/{one[1]}"),
    )


# Hours of the night, in which clocks are changed, come often.
expressions = st.tuples(
    field(0, 59),
    st.one_of(field(0, 23), field(0, 4)),
    st.one_of(st.just("*"), field(1, 28)),
    st.just("*"),
    st.one_of(st.just("*"), field(0, 6)),
).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(expressions, st.sampled_from(sorted(ZONES)), st.integers(0, 3), st.integers(-30 * 60, 18 * 60))
@example("30 2 * * *", "Europe/Berlin", 0, -600)
@example("*/30 * * * *", "Europe/Berlin", 1, -600)
@example("*/10 2-4 * * *", "Australia/Lord_Howe", 0, 0)
@example("*/30 0 * * *", "Asia/Beirut", 0, -600)
@example("0 12 30 * *", "Pacific/Apia", 0, -600)
@example("10,50 2,3 * * *", "Europe/Berlin", 0, -600)
def test_the_ticks_around_a_change(expression: str, name: str, which: int, offset: int) -> None:
    changes = ZONES[name]
    begin = datetime.datetime(*changes[which % len(changes)], tzinfo=UTC) + MINUTE * offset
    end = begin + datetime.timedelta(hours=40)
    found = list(reckoned(expression, name, begin, end))
    assert found == expected(expression, name, begin, end), (expression, name)


@settings(max_examples=100, deadline=None)
@given(expressions, st.sampled_from(["Europe/Berlin", "America/New_York"]), st.integers(0, 365 * 24 * 60))
def test_the_library_itself_has_the_same_ticks(expression: str, name: str, minutes: int) -> None:
    begin = datetime.datetime(2026, 1, 1, tzinfo=UTC) + MINUTE * minutes
    own = CronSim(expression, begin.astimezone(zone_of(name)))
    # It gives a tick twice where two local times lie in one gap, and one that has passed when asked within an hour that
    # comes twice.
    theirs = [one.astimezone(UTC) for one in itertools.islice(own, 40)]
    theirs = sorted({one for one in theirs if one > begin})[:20]
    ours = list(itertools.islice(reckoned(expression, name, begin, begin + datetime.timedelta(days=4000)), len(theirs)))
    assert ours == theirs


@pytest.mark.parametrize(
    ("expression", "begin", "ticks"),
    [
        ("30 2 * * *", (3, 28, 12), ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("30 2 * * *", (10, 24, 12), ["2026-10-25T00:30", "2026-10-26T01:30"]),
        # Asked within the hour that comes twice, after the first time.
        ("30 2 * * *", (10, 25, 1), ["2026-10-26T01:30"]),
        ("0 30 2 * * *", (3, 28, 12), ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("59 59 23 31 12 *", (3, 28, 12), ["2026-12-31T22:59", "2027-12-31T22:59"]),
        ("0 9 L * *", (1, 30, 12), ["2026-01-31T08:00", "2026-02-28T08:00"]),
        ("0 9 * * mon#2", (1, 1, 12), ["2026-01-12T08:00", "2026-02-09T08:00"]),
        ("0 0 29 2 *", (1, 1, 12), ["2028-02-28T23:00", "2032-02-28T23:00"]),
    ],
)
def test_known_days(expression: str, begin: tuple[int, int, int], ticks: list[str]) -> None:
    start = datetime.datetime(2026, *begin, tzinfo=UTC)
    found = itertools.islice(reckoned(expression, "Europe/Berlin", start, start + datetime.timedelta(days=9000)), 2)
    assert [one.isoformat()[:16] for one in found][: len(ticks)] == ticks


def test_moments_between_seconds_and_before_the_epoch() -> None:
    every_second = Cron("* * * * * *")
    assert every_second.next_after(1_700_000_000_000) == 1_700_000_001_000
    assert every_second.next_after(1_700_000_000_999) == 1_700_000_001_000
    assert every_second.next_after(-1) == 0
    assert Cron("0 0 1 1 *", "Europe/Berlin").next_after(-1) == 31_532_400_000


def test_the_end_of_the_calendar() -> None:
    last = round(datetime.datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC).timestamp() * 1000)
    for name in ("UTC", "Europe/Berlin", "America/New_York"):
        assert Cron("* * * * *", name).next_after(last) is None
        assert Cron("0 0 * * *", name).next_after(last) is None


async def test_where_no_zones_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """UTC needs none; for any other one it is said what is missing."""
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    # With the parts of it that somebody has asked for before.
    for name in ["tzdata", *[one for one in sys.modules if one.startswith("tzdata.")]]:
        monkeypatch.setitem(sys.modules, name, None)
    try:
        assert (await load_cron("0 0 * * *")).next_after(0) == 86_400_000
        with pytest.raises(RequirementFailed, match="tzdata is not installed"):
            await load_cron("0 0 * * *", "Europe/Berlin")
    finally:
        zoneinfo.reset_tzpath()
    monkeypatch.setattr(cron, "_known_zone", lambda name: None)
    with pytest.raises(InvalidInput, match="no time zone 'Europe/Berlin'"):
        Cron("0 0 * * *", "Europe/Berlin")


async def test_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(RequirementFailed, match="cronsim is not installed"):
        await load_cron("0 0 * * *")
