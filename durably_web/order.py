"""The order in which a replay gives stored outcomes to a job: that in which they were stored.

Branches of a job that run beside each other meet: the first one done decides what comes next, and which step is called
`save` and which `save#2`. Later executions must meet in the same order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sized
from typing import cast

from durably_web.store.rows import StoredEntry

# How many turns of the event loop a task has to notice what it was given, before the next outcome passes. A few, since
# it may have to go through `asyncio.wait` or `gather`.
TURNS = 3

# How many turns nothing must happen before an outcome passes out of turn.
LAST_TURNS = 6

# How often is looked whether a step that is done again has come to an end.
HELD_SECONDS = 0.02


class Order:
    """Lets stored outcomes pass one after another, and new ones behind them.

    An outcome passes when those before it have, and the job has called as many steps as it had then: `calls` counts
    them. In a job without branches that is at once. Otherwise it passes when nothing else happens any more: the code
    may have changed, and what would come before it is never asked for.

    What is done again, after a retry or in a fork, is stored last, though the job had it before others: `calls` says
    where it stands. Behind those with as many calls: of two outcomes of one moment the order is lost when the first of
    them counts no more, and branches that share names may then meet in another order.
    """

    __slots__ = (
        "_entries",
        "_looks",
        "_most_calls",
        "_next",
        "_parked",
        "_passed",
        "_places",
        "_quiet",
        "_stored",
        "_writing",
        "calls",
        "executing",
        "has_jumped",
        "is_over",
    )

    def __init__(self, outcomes: Collection[StoredEntry]) -> None:
        self.calls = 0
        self.has_jumped = False
        """One was given before those that nobody asked for."""
        self.is_over = not outcomes
        """All that was stored has been given; what is new waits for nothing."""
        self.executing: Sized = ()
        """Steps that are executing, of a run in which something may be done again, after a retry or in a fork: its
        branch calls the steps that others wait for, however long it takes."""
        self._entries = sorted(outcomes, key=lambda entry: entry.calls or 0)
        self._stored = len(self._entries)
        # None where it is not known, in entries from before it was kept: these come first.
        self._most_calls = None if self._entries and self._entries[0].calls is None else self._last_calls()
        self._next = 0
        # Only for a job with branches.
        self._places: dict[str | None, int] | None = None
        self._passed: set[int] = set()
        self._parked: dict[int, asyncio.Future[None]] = {}
        self._looks = False
        self._writing = 0
        self._quiet = 0

    def _last_calls(self) -> int:
        return (self._entries[-1].calls or 0) if self._entries else 0

    @property
    def goes_on(self) -> bool:
        """Whether something is stored that the job came to later than it is now: it had called more steps by then."""
        most = self._most_calls
        return not self.is_over and (most is None or most > self.calls)

    def passes(self, stored: StoredEntry) -> bool:
        """Whether this outcome may be given to the job at once; then it has been."""
        place = self._next
        if self.is_over or stored is not self._entries[place] or (stored.calls or 0) > self.calls or self._writing:
            return False
        if self._passed or self._parked:
            self._go_on(place + 1)
        else:
            self._next = place + 1
            self.is_over = place + 1 == len(self._entries)
        return True

    def _find(self, key: str) -> int | None:
        if self._places is None:
            self._places = {entry.step_name: place for place, entry in enumerate(self._entries)}
        return self._places.get(key)

    async def turn(self, key: str) -> None:
        """Return when the outcome of `key` may be given to the job."""
        place = self._find(key)
        if place is None:
            # A new one. Later than all that are parked, in the order in which they come.
            place = len(self._entries)
            self._entries.append(StoredEntry("step:complete", key, None, 0))
            cast("dict[str | None, int]", self._places)[key] = place
        if place > self._next or (place == self._next and not self._may_pass(place)):
            future = self._parked[place] = asyncio.get_running_loop().create_future()
            if not self._looks:
                self._looks = True
                self._quiet = 0
                asyncio.get_running_loop().call_soon(self._look)
            try:
                await future
            finally:
                self._parked.pop(place, None)
        self.skip(key)

    async def last_turn(self, keys: Iterable[str]) -> None:
        """Return when the last of these outcomes may be given to the job; those before it go with it."""
        found = sorted((place, key) for key in keys if (place := self._find(key)) is not None)
        for _, key in found[:-1]:
            self.skip(key)
        if found:
            await self.turn(found[-1][1])

    async def begin_write(self, key: str) -> None:
        """Return when a new outcome may be stored. Until `end_write` none that is stored passes: its `calls` tell later
        executions where it stands."""
        await self.turn(key)
        self._writing += 1

    def end_write(self) -> None:
        self._writing -= 1
        self._quiet = 0

    def skip(self, key: str) -> None:
        """The outcome of `key` has been given."""
        place = self._find(key)
        if place is None or place < self._next:
            return
        self._passed.add(place)
        self._go_on(self._next)

    def _go_on(self, place: int) -> None:
        """All before `place` have been given."""
        if self._passed:
            while place in self._passed:
                self._passed.discard(place)
                place += 1
        self._next = place
        self._quiet = 0
        self.is_over = place >= len(self._entries)

    def _look(self) -> None:
        """Once a turn while some are parked."""
        if not self._parked:
            self._looks = False
            return
        self._quiet += 1
        place = self._next
        is_next = place in self._parked and self._may_pass(place)
        if self._quiet > (TURNS if is_next else LAST_TURNS):
            # Otherwise nobody asks for those before it, or makes the calls that are missing; a new one may make them.
            new = [one for one in self._parked if one >= self._stored]
            is_held = not is_next and (self._writing > 0 or len(self.executing) > len(new))
            if is_held and not new:
                asyncio.get_running_loop().call_later(HELD_SECONDS if not self._writing else 0, self._look)
                return
            found = new if is_held else self._parked
            self._release(
                place if is_next else min(found, key=lambda one: ((self._entries[one].calls or 0) > self.calls, one))
            )
        asyncio.get_running_loop().call_soon(self._look)

    def _may_pass(self, place: int) -> bool:
        return (self._entries[place].calls or 0) <= self.calls and (not self._writing or place >= self._stored)

    def _release(self, place: int) -> None:
        future = self._parked.pop(place)
        if not future.done():
            future.set_result(None)
        self._quiet = 0
        if place < self._stored:
            self.has_jumped = self.has_jumped or place > self._next
            # What is stored from now on comes behind it.
            self.calls = max(self.calls, self._entries[place].calls or 0)
            self._go_on(max(self._next, place + 1))
