"""How much is done in a round, and how often."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    rounds: int
    steps: int
    runs: int
    pending: int
    finished: int
    triggers: int
    waiting: int


FULL = Size(rounds=7, steps=2000, runs=1000, pending=10_000, finished=1_000_000, triggers=50, waiting=10_000)
QUICK = Size(rounds=3, steps=1000, runs=500, pending=1_000, finished=50_000, triggers=20, waiting=1_000)
