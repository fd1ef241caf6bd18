"""What happened in one simulation: lines for a reader, a hash to compare two plays, and counts."""

from __future__ import annotations

import zlib
from collections import Counter

from tests.simulation.loop import SimulatedLoop


class Violation(AssertionError):
    """The engine did what it must never do."""


class Trace:
    """Lines with the time and whose they are. `counts` tells at the end that much has happened."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        self._loop = loop
        self._sum = 0

    def say(self, who: str, what: str) -> None:
        line = f"{self._loop.time():10.3f}  {who:<8} {what}"
        self.lines.append(line)
        self._sum = zlib.crc32(line.encode(), self._sum)

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

    @property
    def hash(self) -> str:
        """The same in each play of a seed: of all lines, and of every choice of the loop."""
        return f"{self._sum:08x}-{self._loop.history:016x}"
