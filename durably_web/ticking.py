"""Gives the ticks of schedules their runs when their time has come. A worker without schedules does without it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import NamedTuple

from durably_web import schedules
from durably_web.environment import Environment
from durably_web.errors import SchemaTooNew
from durably_web.records import instant
from durably_web.schedules import Ticks
from durably_web.store import operations
from durably_web.store.changes import RUNNABLE
from durably_web.store.operations.firing import Next

# A transaction makes no more runs of one schedule than this, however many ticks were missed.
_RUNS_AT_ONCE = 100
_SCHEDULES_AT_ONCE = 100

_LONG_AGO = -(2**53)

# Clocks of several machines may differ by this. What is further ahead than that explains was put there by a clock that
# was wrong.
_TOLERANCE_MS = 60_000
_CHECK_SECONDS = 60.0

# After so many seconds a schedule that could not be reckoned is tried again, and then after twice as many …
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

# While there is such a schedule, it hides what is next of the others.
_LOOK_MS = 1000


class _Trouble(NamedTuple):
    pause: float
    until: float


class Ticking:
    """Of one worker. Any number of them may do the same at once: each tick gets one run."""

    def __init__(self, environment: Environment, see: Callable[[int | None], None]) -> None:
        """`see` is told the next tick each time that what was due has been looked at."""
        self._environment = environment
        self._see = see
        self._store = environment.store
        self._clock = environment.clock
        self._emitter = environment.emitter
        self._troubles: dict[str, _Trouble] = {}
        self._checked: float | None = None
        # A tick in the past that nothing can be done about before a moment.
        self._stuck: tuple[int, int] | None = None
        # When there is something to look at again.
        self._moments: list[int] = []
        self._token = environment.make_id()
        self._count = 0
        self._task: asyncio.Task[bool] | None = None

    def begin(self) -> None:
        """Work beside the claims: what reads cron expressions may have to be fetched first."""
        self._task = asyncio.get_running_loop().create_task(self.work(patient=True))
        self._task.add_done_callback(lambda _: self._store.changes.notify(RUNNABLE))

    async def stop(self) -> None:
        """Let go of what is under way; what was sent of it is right as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def wait(self, next_at: int) -> float:
        """Seconds until there is something to do, when `next_at` is the next tick of all schedules."""
        if self._task is not None and not self._task.done():
            return math.inf
        if self._stuck is not None and self._stuck[0] == next_at:
            next_at = self._stuck[1]
        wait = min(max(0, next_at - self._clock.now()) / 1000, self._until_check())
        trouble = self._troubles.get("")
        return wait if trouble is None else max(wait, trouble.until - self._clock.monotonic())

    async def work(self, *, patient: bool = False) -> bool:
        """Fire what is due; tell whether there may be new runs. What fails is told, and tried again after a while."""
        try:
            if self._until_check() == 0:
                # Before: what fails there must not keep all others from their ticks.
                self._checked = self._clock.monotonic()
                await self._correct()
            fired = await self._fire_all(patient)
            self._troubles.pop("", None)
            return fired
        except SchemaTooNew:
            # Of that everybody has been told.
            return False
        except Exception as error:
            self._put_off("", "firing schedules", error)
            return False

    def _until_check(self) -> float:
        """Seconds until the schedules are to be looked through for moments that cannot be."""
        elapsed = _CHECK_SECONDS if self._checked is None else self._clock.monotonic() - self._checked
        # Also when time has gone back. What is left of less than a millisecond is an error of rounding, and no timer
        # would be over later than now.
        return _CHECK_SECONDS - elapsed if 0 <= elapsed < _CHECK_SECONDS - 0.001 else 0

    async def _fire_all(self, patient: bool) -> bool:
        now = self._clock.now()
        self._stuck = None
        fired, after = False, _LONG_AGO
        self._moments = []
        while True:
            found = await self._store.read(operations.next_schedules(_SCHEDULES_AT_ONCE, after))
            due = [schedule for schedule in found if schedule.next_at <= now]
            some = await self._fire_each(due, now, patient)
            fired = some or fired
            if len(due) < _SCHEDULES_AT_ONCE:
                self._moments += [schedule.next_at for schedule in found[len(due) : len(due) + 1]]
                break
            # What has its moment in common with the last one, and did not fit in, is seen the next time.
            after = due[-1].next_at
            if some:
                self._moments.append(after)
            # Of the others, which could not be reckoned, it is known when they are looked at again.
        self._see(min(self._moments, default=None))
        if fired:
            self._store.changes.notify(RUNNABLE)
        return fired

    async def _fire_each(self, due: list[Next], now: int, patient: bool) -> bool:
        fired = False
        for schedule in due:
            trouble = self._troubles.get(schedule.name)
            if trouble is None or trouble.until <= self._clock.monotonic():
                try:
                    await self._fire(schedule, now, patient)
                except SchemaTooNew:
                    raise
                except Exception as error:
                    # It does not hold up the others.
                    self._put_off(schedule.name, f"firing schedule {schedule.name!r}", error)
                else:
                    fired = True
                    self._troubles.pop(schedule.name, None)
                    continue
            self._moments.append(now + _LOOK_MS)
            if self._stuck is None:
                self._stuck = (due[0].next_at, now + _LOOK_MS)
        return fired

    async def _fire(self, schedule: Next, now: int, patient: bool) -> None:
        ticks = await schedules.ticks_of(*schedule.timing, schedule.created_at)
        due = schedules.due(ticks, schedule.next_at, now, schedule.missed, schedule.catch_up_window, _RUNS_AT_ONCE)
        self._count += 1
        runs = [(tick, self._environment.make_id()) for tick in due.ticks]
        operation = operations.fire_schedule(schedule, runs, due.next_at, f"{self._token}-{self._count}", now)
        fired = await self._store.write(operation, patient=patient)
        if due.next_at is not None:
            # Who was faster may have had another schedule of this name.
            self._moments.append(due.next_at if fired.won else min(due.next_at, now + _LOOK_MS))
        for run_id in fired.made:
            await self._environment.tell_of_trigger(run_id)
        if fired.won and self._emitter.hears("schedule:skip"):
            if due.dropped is not None:
                first, last = due.dropped
                self._tell(schedule, "missed", schedules.count(ticks, first, last), first, last)
            if fired.skipped:
                self._tell(schedule, "overlap", len(fired.skipped), fired.skipped[0], fired.skipped[-1])

    def _put_off(self, name: str, what: str, error: Exception) -> None:
        before = self._troubles.get(name)
        pause = _FIRST_PAUSE if before is None else min(before.pause * 2, _LONGEST_PAUSE)
        self._troubles[name] = _Trouble(pause, self._clock.monotonic() + pause)
        self._emitter.error(error, what)

    def _tell(self, schedule: Next, reason: str, count: int, first: int, last: int) -> None:
        self._emitter.tell(
            "schedule:skip",
            None,
            schedule.job_name,
            schedule.labels,
            reason=reason,
            schedule=schedule.name,
            ticks=count,
            first_at=instant(first),
            last_at=instant(last),
        )

    async def _correct(self) -> None:
        """Schedules that wait for a moment that a wrong clock has put far ahead tick as they should by this clock."""
        after = self._clock.now() + _TOLERANCE_MS
        while found := await self._store.read(operations.next_schedules(_SCHEDULES_AT_ONCE, after)):
            for schedule in found:
                await self._correct_one(schedule)
            # Those of one moment that did not fit in are seen the next time.
            after = found[-1].next_at
            await asyncio.sleep(0)

    async def _correct_one(self, schedule: Next) -> None:
        now = self._clock.now()
        try:
            ticks: Ticks = await schedules.ticks_of(*schedule.timing, schedule.created_at)
            expected, following = ticks.next_after(now + _TOLERANCE_MS), ticks.next_after(now)
        except Exception:
            # When it is due, that will be told.
            return
        if expected is not None and expected < schedule.next_at:
            try:
                await self._store.write(operations.correct_schedule(schedule, following))
            except SchemaTooNew:
                raise
            except Exception as error:
                # It does not hold up the others.
                self._emitter.error(error, f"correcting schedule {schedule.name!r}")
