"""Deleting what is older than anybody wants to keep it, little by little."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from durably_web.clock import Timer
from durably_web.environment import Environment
from durably_web.errors import SchemaTooNew

# No run is kept longer than it should be by more than this part of its time, within these bounds in seconds.
_SHARE = 0.1
_OFTEN, _SELDOM = 1.0, 3600.0


class Retention:
    """Calls `purge` now and then, which deletes a bounded number of runs and tells how many."""

    def __init__(self, environment: Environment, age: float, purge: Callable[[], Awaitable[int]]) -> None:
        self._clock = environment.clock
        self._emitter = environment.emitter
        self._purge = purge
        self._interval = min(_SELDOM, max(_OFTEN, age * _SHARE))
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = True

    def start(self) -> None:
        """Begin, and at once. Safe to call again."""
        if self._stopped:
            self._stopped = False
            self._begin()

    async def stop(self) -> None:
        """Finish the transaction that is under way. Safe to call again."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            await asyncio.wait([self._task])

    async def purge(self, is_over: Callable[[], bool]) -> None:
        """Delete what there is to delete now, beside the timer, until it is over. Raises what the store raises."""
        while not is_over() and await self._purge():  # noqa: ASYNC110 — work, not a question
            await asyncio.sleep(0)

    def _begin(self) -> None:
        self._timer = None
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while not self._stopped and await self._purge():  # noqa: ASYNC110 — work, not a question
                # Others want to write too.
                await asyncio.sleep(0)
        except SchemaTooNew:
            # Nothing more is written here, and of that everybody has been told.
            self._stopped = True
        except Exception as error:
            # It is tried again later; nothing is lost by keeping a run longer.
            self._emitter.error(error, "purging runs")
        if not self._stopped:
            self._timer = self._clock.call_later(self._interval, self._begin)
