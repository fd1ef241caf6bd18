"""The order in which a replay gives stored outcomes to a job: that in which they were stored.

Branches of a job that run beside each other meet: the first one done decides what comes next, and which step is called
`save` and which `save#2`. Later executions must meet in the same order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from durably_web.store.rows import StoredEntry

# How many turns of the event loop the branch that was given an outcome has for its next step, before another one goes
# on: it may have to pass through a few tasks on the way.
TURNS = 6


class Order:
    """Lets stored outcomes pass one after another, and new ones behind them.

    An outcome passes when those before it have, and the job has called as many steps as it had then: `calls` counts
    them. In a job without branches that is at once. Otherwise it passes when nothing else happens any more: the code
    may have changed, and what would come before it is never asked for.
    """

    __slots__ = ("_needs", "_next", "_parked", "_passed", "_places", "_turns", "calls")

    def __init__(self, outcomes: Collection[StoredEntry]) -> None:
        self._places = {entry.step_name: place for place, entry in enumerate(outcomes)}
        self._needs = [entry.calls or 0 for entry in outcomes]
        self._next = 0
        self._passed: set[int] = set()
        self._parked: dict[int, asyncio.Future[None]] = {}
        self._turns = 0
        self.calls = 0

    @property
    def is_over(self) -> bool:
        """All that was stored has been given; what is new waits for nothing."""
        return self._next >= len(self._places)

    def passes(self, key: str) -> bool:
        """Whether the stored outcome of `key` may be given to the job at once; then it has been."""
        place = self._next
        if self._passed or self._places[key] != place or self.calls < self._needs[place]:
            return False
        self._next += 1
        self._turns = TURNS
        return True

    async def turn(self, key: str) -> None:
        """Return when the outcome of `key` may be given to the job."""
        place = self._places.get(key)
        if place is None:
            # A new one. Later than all that are parked, in the order in which they come.
            place = self._places[key] = len(self._places)
            self._needs.append(0)
        if place > self._next or self.calls < self._needs[place]:
            future = self._parked[place] = asyncio.get_running_loop().create_future()
            if len(self._parked) == 1:
                self._turns = TURNS
                asyncio.get_running_loop().call_soon(self._look)
            try:
                await future
            finally:
                self._parked.pop(place, None)
        self.skip(key)

    async def last_turn(self, keys: Iterable[str]) -> None:
        """Return when the last of these outcomes may be given to the job; those before it go with it."""
        found = [key for key in keys if key in self._places]
        if found:
            last = max(found, key=self._places.__getitem__)
            for key in found:
                if key != last:
                    self.skip(key)
            await self.turn(last)

    def skip(self, key: str) -> None:
        """The outcome of `key` has been given."""
        place = self._places[key]
        if place < self._next:
            return
        self._passed.add(place)
        while self._next in self._passed:
            self._passed.discard(self._next)
            self._next += 1
        self._turns = TURNS

    def _look(self) -> None:
        if not self._parked:
            return
        if self._turns:
            self._turns -= 1
        else:
            first = min(self._parked)
            # Nobody asked for those before it.
            self._next = max(self._next, first)
            future = self._parked.pop(first)
            if not future.done():
                future.set_result(None)
            self._turns = TURNS
        asyncio.get_running_loop().call_soon(self._look)
