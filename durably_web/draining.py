"""Executes what is due and ends: for whoever calls now and then, and has only so long."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Set
from typing import TYPE_CHECKING, Any, NamedTuple

from durably_web.records import Instant, instant, wire_instant
from durably_web.store import operations

if TYPE_CHECKING:
    from durably_web.environment import Environment
    from durably_web.worker import Worker


class Processed(NamedTuple):
    """What a call of `process` has done, and what it has left, of the jobs that its engine has.

    `processed` is how many runs were taken up; one that was taken up several times is counted as often. `due` is how
    many could be taken up now, and `leased` how many workers hold. `later` is how many wait for a moment: they sleep,
    begin later, or try again. `next_at` is when there is something to do again by time alone: a moment that has passed
    where something is due already, and `None` where only a trigger or a signal can bring something.
    """

    processed: int
    due: int
    leased: int
    later: int
    next_at: Instant | None

    def to_wire(self) -> dict[str, Any]:
        return {
            "processed": self.processed,
            "due": self.due,
            "leased": self.leased,
            "later": self.later,
            "nextAt": wire_instant(self.next_at),
        }


async def drain(
    worker: Worker, max_runs: int | None = None, max_seconds: float | None = None, *, give_back: bool = False
) -> int:
    """Execute what is due until nothing is, or a limit is reached; tell how many runs were executed.

    With `max_seconds`, nothing is begun after them; what has begun is finished, or with `give_back` it is given back
    behind the steps that execute then.
    """
    try:
        return await _Drain(worker, max_seconds, give_back).work(max_runs)
    finally:
        worker.rest()


async def left(environment: Environment, processed: int) -> Processed:
    """What there is to do now, and later."""
    now = environment.clock.now()
    found = await environment.store.read(operations.outlook(environment.jobs, now))
    moments = [now] if found.due else [moment for moment in found.moments if moment is not None]
    return Processed(processed, found.due, found.leased, found.later, _instant(min(moments, default=None)))


def _instant(moment: int | None) -> datetime.datetime | None:
    return None if moment is None else instant(moment)


class _Drain:
    def __init__(self, worker: Worker, max_seconds: float | None, give_back: bool) -> None:
        self._worker = worker
        self._clock = worker._clock
        self._stops = worker._stops
        self._deadline = None if max_seconds is None else self._clock.monotonic() + max_seconds
        self._give_back = give_back
        self._own: set[asyncio.Task[object]] = set()

    async def work(self, max_runs: int | None) -> int:
        worker = self._worker
        if worker.is_leaving:
            # What is begun now would only hold up the stop.
            return 0
        worker._environment.shutdown.reason = None
        worker._store.room.patient = True
        await worker.enter()
        count = 0
        while True:
            before = {task for _, task in worker._executing.values()}
            room = worker.room if max_runs is None else min(worker.room, max_runs - count)
            begun = [] if room <= 0 or self._is_over() else await self._claim(room)
            count += len(begun)
            self._own.update(begun)
            if begun:
                continue
            ends = self._give_back and self._is_late()
            if ends:
                self._stop_own()
            # With a limit that is reached, what the background executes beside it is not waited for.
            tasks = {task for _, task in worker._executing.values()}
            if not before <= tasks:
                # Whatever ended while it was looked for more may have left something to do.
                continue
            waiting: Set[asyncio.Task[object]] = self._own if ends or count == max_runs else tasks
            if not waiting:
                return count
            await self._until_one_ends(waiting, at_deadline=self._give_back and not ends)
            self._own = {task for task in self._own if not task.done()}

    async def _claim(self, room: int) -> list[asyncio.Task[object]]:
        claiming = asyncio.get_running_loop().create_future()
        self._worker.claims.add(claiming)
        try:
            return await self._worker.claim_with_ticks(room, self._is_over)
        finally:
            self._worker.claims.discard(claiming)
            claiming.set_result(None)

    def _is_late(self) -> bool:
        return self._deadline is not None and self._clock.monotonic() >= self._deadline

    def _is_over(self) -> bool:
        return self._stops != self._worker._stops or self._worker.is_leaving or self._is_late()

    def _stop_own(self) -> None:
        for execution, task in list(self._worker._executing.values()):
            if task in self._own:
                execution.stop()

    async def _until_one_ends(self, tasks: Set[asyncio.Task[object]], *, at_deadline: bool) -> None:
        if not at_deadline or self._deadline is None:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return
        late = asyncio.get_running_loop().create_future()
        seconds = max(0.0, self._deadline - self._clock.monotonic())
        timer = self._clock.call_later(seconds, lambda: None if late.done() else late.set_result(None))
        try:
            await asyncio.wait({*tasks, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
