"""Timing. What is compared takes turns in one run, and medians count: a busy machine then slows both alike."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import NamedTuple

Round = Callable[[], Awaitable[float]]
"""Does its work once, and gives a rate per second or a duration in milliseconds."""


class Comparison(NamedTuple):
    """Medians of two that took turns; `ratio` is the median of each turn's own ratio."""

    ours: float
    raw: float
    ratio: float


async def take_turns(ours: Round, raw: Round, rounds: int, *, enough_seconds: float = 30.0) -> Comparison:
    """A B A B …: `rounds` turns after one that warms up, fewer when they take longer than `enough_seconds`."""
    await raw()
    await ours()
    ends = time.monotonic() + enough_seconds
    turns: list[tuple[float, float]] = []
    while len(turns) < rounds and (time.monotonic() < ends or not turns):
        limit = await raw()
        turns.append((await ours(), limit))
    return compare(turns)


def compare(turns: list[tuple[float, float]]) -> Comparison:
    """Of turns that were measured, each as `(ours, raw)`."""
    return Comparison(
        median(own for own, _ in turns),
        median(limit for _, limit in turns),
        median(own / limit for own, limit in turns),
    )


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._begun

    def milliseconds(self) -> float:
        return self.seconds() * 1000

    def rate(self, count: int) -> float:
        return count / self.seconds()
