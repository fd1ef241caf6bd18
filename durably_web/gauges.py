"""How the queue stands, read from the store no more often than it costs little."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from durably_web.errors import StoreError
from durably_web.store import operations
from durably_web.store.operations import counting

if TYPE_CHECKING:
    from durably_web.engine import Durably

# However many ask: the answer of the last reading is given for so many seconds.
FRESH_SECONDS = 5.0
# Reading takes this part of the time at most: what took 50 ms is not repeated for 5 s.
SHARE = 0.01
# Seconds until a database that does not answer is given up.
PATIENCE = 5.0

# Of each kind of runs in the queue, so many are looked at.
MOST_RUNS = 50_000
# Runs that wait without a limit are looked for among all there are: so many at once, and so often for one reading.
PAGE = 2_000
PAGES = 10


class Queue(NamedTuple):
    """Counts by job; `oldest` is seconds. `asked` says whether the database has answered. `waiting` is `None` until all
    runs have been looked through once."""

    asked: bool
    due: dict[str, int]
    oldest: dict[str, float]
    leased: dict[str, int]
    delayed: dict[str, int]
    waiting: dict[str, int] | None


NOTHING = Queue(False, {}, {}, {}, {}, {})


class QueueGauges:
    """Reads the queue of one engine's database."""

    def __init__(self, durably: Durably) -> None:
        self._store = durably._environment.store
        self._clock = durably._environment.clock
        self.last = NOTHING
        self._again_at = 0.0
        self._reading: asyncio.Future[None] | None = None
        # Where the walk through the runs is, what it has found so far, and what the last whole one found.
        self._after = ""
        self._found: dict[str, int] = {}
        self._waiting: dict[str, int] | None = None

    async def read(self) -> Queue:
        """The queue as it stands, or stood at most some seconds ago. Raises nothing."""
        if self._reading is None and self._clock.monotonic() >= self._again_at:
            self._reading = asyncio.ensure_future(self._read())
        if self._reading is not None:
            # Whoever is cancelled does not end it for the others.
            await asyncio.wait([self._reading])
        return self.last

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _read(self) -> None:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                state = await self._store.read(operations.queue_state(MOST_RUNS))
                await self._walk()
            now = self._clock.now()
            self.last = Queue(
                True,
                state.due,
                {job: max(0, now - oldest) / 1000 for job, oldest in state.oldest.items()},
                state.leased,
                state.delayed,
                None if self._waiting is None else _sum(state.timed, self._waiting),
            )
        except (StoreError, TimeoutError):
            self.last = NOTHING
        finally:
            ended = self._clock.monotonic()
            self._again_at = ended + max(FRESH_SECONDS, (ended - began) / SHARE)
            self._reading = None

    async def _walk(self) -> None:
        """Go on with looking for runs that wait without a limit. A short table is walked through each time."""
        for _ in range(PAGES):
            page: counting.WaitingPage = await self._store.read(operations.waiting_page(self._after, PAGE))
            self._found = _sum(self._found, page.counts)
            if page.after is None:
                self._waiting, self._found, self._after = self._found, {}, ""
                return
            self._after = page.after
            # Steps want their turn too.
            await asyncio.sleep(0)


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {job: one.get(job, 0) + other.get(job, 0) for job in (*one, *other)}
