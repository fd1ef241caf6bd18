"""What is due of a schedule: which of its ticks get a run, and which are dropped."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from durably_web.cron import load_cron
from durably_web.records import Missed

GRACE_MS = 60_000
"""With `missed="skip"`: a tick that is not later than this is on time."""

# So far dropped ticks are counted.
_MOST_COUNTED = 1000


class Ticks(Protocol):
    """The ticks of a schedule, without end or beginning. Instants are milliseconds."""

    def next_after(self, moment: int) -> int | None:
        """The first tick after a moment; `None` where there is none any more."""
        ...


class Every:
    """A tick every so many milliseconds, counted from a moment that stays the same, so that nothing drifts."""

    def __init__(self, every: int, anchor: int) -> None:
        self._every = every
        self._anchor = anchor

    def next_after(self, moment: int) -> int | None:
        return self._anchor + ((moment - self._anchor) // self._every + 1) * self._every


async def ticks_of(cron: str | None, timezone: str | None, every: int | None, created_at: int) -> Ticks:
    """The ticks of a schedule. Raises `InvalidInput` and `RequirementFailed`, as `load_cron`."""
    if every is not None:
        return Every(every, created_at)
    assert cron is not None
    return await load_cron(cron, timezone or "UTC")


class Due(NamedTuple):
    """The `ticks` that get a run, oldest first; the tick to look at next; from where to where ticks were dropped."""

    ticks: list[int]
    next_at: int | None
    dropped: tuple[int, int] | None


def due(ticks: Ticks, next_at: int, now: int, missed: Missed, window: int | None, most: int) -> Due:
    """What is due from the tick `next_at` on, which has come. At most `most` runs; the others are due next.

    Ticks that are older than `window` are dropped; with "one", all but the last one.
    """
    if missed == "skip" and window is None:
        window = GRACE_MS
    first: int | None = next_at
    if window is not None and next_at < now - window:
        first = ticks.next_after(now - window - 1)
    if missed == "one" and first is not None and first <= now:
        first = _last(ticks, first, now)
    found: list[int] = []
    following = first
    while following is not None and following <= now and len(found) < most:
        found.append(following)
        following = ticks.next_after(following)
    if first == next_at:
        return Due(found, following, None)
    last_dropped = _last(ticks, next_at, (now + 1 if first is None else first) - 1)
    return Due(found, following, (next_at, last_dropped))


def count(ticks: Ticks, first: int, last: int) -> int:
    """How many ticks there are from one to another; where they are very many, so many as were counted."""
    counted, moment = 1, ticks.next_after(first)
    while moment is not None and moment <= last and counted < _MOST_COUNTED:
        counted += 1
        moment = ticks.next_after(moment)
    return counted


def _last(ticks: Ticks, first: int, until: int) -> int:
    """The last tick of those from `first`, which is one, `until` a moment."""
    before, behind = first - 1, until
    # There is a tick behind `before`, and none behind `behind`, up to the end.
    while behind - before > 1:
        middle = (before + behind) // 2
        found = ticks.next_after(middle)
        if found is not None and found <= until:
            before = middle
        else:
            behind = middle
    found = ticks.next_after(before)
    assert found is not None
    return found
