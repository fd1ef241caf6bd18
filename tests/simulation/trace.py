"""What happened in one simulation: lines for a reader, a hash to compare two plays, and counts."""

from __future__ import annotations

import zlib
from collections import Counter

from tests.simulation.loop import SimulatedLoop


class Violation(AssertionError):
    """The engine did what it must never do."""


class Trace:
    """Lines with the time and whose they are, if they are wanted. `counts` tells at the end that much has happened."""

    def __init__(self, loop: SimulatedLoop, wanted: bool) -> None:
        self.lines: list[str] = []
        self.wanted = wanted
        self.counts: Counter[str] = Counter()
        self._loop = loop
        self._sum = 0

    def say(self, who: str, what: str) -> None:
        if self.wanted:
            self.lines.append(f"{self._loop.time():10.3f}  {who:<8} {what}")

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] += number

    def fail(self, message: str) -> None:
        """End the simulation: raised by the loop, where nobody can catch it."""
        if self._loop.violation is None:
            self.say("checker", f"VIOLATION: {message}")
            self._loop.violation = Violation(message)

    def check(self, condition: object, message: str) -> None:
        if not condition:
            self.fail(message)

    def stored(self, entry: object) -> None:
        """Something that goes into the hash."""
        self._sum = zlib.crc32(repr(entry).encode(), self._sum)

    @property
    def hash(self) -> str:
        """The same in each play of a seed: of all that was stored, and of every choice of the loop."""
        return f"{self._sum:08x}-{self._loop.history:016x}"
