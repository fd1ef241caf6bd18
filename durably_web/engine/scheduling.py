"""Schedules: jobs that are to run again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from durably_web.arguments import (
    Duration,
    check_priority,
    check_text,
    checked_labels,
    milliseconds_of,
)
from durably_web.engine.handing import Handing
from durably_web.errors import Conflict, InvalidInput, NotFound
from durably_web.handle import RunHandle
from durably_web.jobs import Job
from durably_web.records import Missed, Overlap, Schedule
from durably_web.store import operations
from durably_web.store.batch import Operation
from durably_web.store.changes import RUNNABLE

if TYPE_CHECKING:
    from durably_web.store.operations.scheduling import Changed, Definition, Stored, Timing

# So often a change is tried against others who change the same schedule.
_TRIES = 10


class Scheduling(Handing):
    """What keeps schedules.

    Each that changes one takes a `request_id`, a ULID that the caller has made: asking again with the same one has the
    effect of asking once.
    """

    async def schedule(
        self,
        job: Job[Any, Any] | str,
        *,
        name: str | None = None,
        cron: str | None = None,
        every: Duration | None = None,
        timezone: str = "UTC",
        input: Any = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        missed: Missed = "skip",
        overlap: Overlap = "skip",
        catch_up_window: Duration | None = None,
        request_id: str | None = None,
    ) -> Schedule:
        """Let a job run at each tick: one run, however many engines there are. Stored when this returns.

        `name` is the schedule's; by default the job's name. A schedule of that name becomes like this one: a program
        can call this at each start. Where nothing differs nothing is changed, and a schedule that is paused stays so.

        Give one of `cron`, five fields (`"30 2 * * mon-fri"`) in a `timezone`, and `every`, seconds from the moment on
        at which the schedule was first stored. Where clocks are changed, a time of day that is left out runs right
        behind the gap, and one that comes twice runs once; `*/10 * * * *` goes on as always. When either is changed,
        the next tick is reckoned from now on.

        `missed` says what becomes of ticks at which no engine was there: `"skip"` drops those that are late by more
        than `catch_up_window`, by default a minute; `"one"` makes one run for all of them, `"all"` one for each,
        and both drop those that are older than `catch_up_window`, by default none. `overlap` says what becomes of a
        tick while a run of the schedule is active: `"skip"` drops it; with `"queue"` its run waits until all before it
        have ended, and with `"allow"` it begins at once. Of what is dropped the event `schedule:skip` tells.

        Raises `NotFound` for a job that is not registered, `InvalidInput`, and `RequirementFailed` where what reads
        cron expressions or knows time zones is missing.
        """
        found = self._environment.known_job(job)
        name = found.name if name is None else name
        check_text(name, "a schedule's name")
        definition = self._definition(
            found, _timing(cron, every, timezone), input, labels, priority, missed, overlap, catch_up_window
        )
        asked = self._request_id(request_id)
        for _ in range(_TRIES):
            stored = await self._stored(name)
            if stored is not None and stored.definition == definition:
                return stored.record(self._codec)
            now = self._clock.now()
            created_at = now if stored is None else stored.created_at
            next_at = await _next_after(name, definition.timing, created_at, now)
            changed = await self._change(operations.put_schedule(name, definition, next_at, stored, asked, now))
            if changed.done and changed.stored is not None:
                return changed.stored.record(self._codec)
            if changed.done:
                raise NotFound(f"schedule {name!r} was removed again")
        raise _contended(name)

    async def get_schedule(self, name: str) -> Schedule | None:
        """The schedule, or `None` where there is none of that name."""
        stored = await self._stored(name)
        return None if stored is None else stored.record(self._codec)

    async def get_schedules(self) -> list[Schedule]:
        """All schedules, by their names."""
        return [stored.record(self._codec) for stored in await self._store.read(operations.get_schedules())]

    async def pause_schedule(self, name: str, *, request_id: str | None = None) -> Schedule:
        """Let a schedule tick no more until `resume_schedule`. Its runs go on. Safe to repeat. Raises `NotFound`."""
        operation = operations.pause_schedule(name, self._request_id(request_id), self._clock.now())
        changed = await self._change(operation)
        if changed.stored is None:
            raise _no_schedule(name)
        return changed.stored.record(self._codec)

    async def resume_schedule(self, name: str, *, request_id: str | None = None) -> Schedule:
        """Let a paused schedule tick again from now on; ticks of the time between are not made up for. Safe to repeat.
        Raises `NotFound`."""
        asked = self._request_id(request_id)
        for _ in range(_TRIES):
            stored = await self._stored(name)
            if stored is None:
                raise _no_schedule(name)
            if not stored.paused:
                return stored.record(self._codec)
            now = self._clock.now()
            next_at = await _next_after(name, stored.definition.timing, stored.created_at, now)
            changed = await self._change(operations.resume_schedule(name, next_at, stored, asked, now))
            if changed.done and changed.stored is not None:
                return changed.stored.record(self._codec)
        raise _contended(name)

    async def trigger_schedule(self, name: str, *, request_id: str | None = None) -> RunHandle[Any]:
        """Ask for a run of a schedule now, also of one that is paused. Its ticks stay as they are.

        Raises `NotFound`, and `Conflict` while a run of it is active and `overlap` is `"skip"`.
        """
        run_id = self._request_id(request_id)
        origin = self._environment.origin()
        outcome = await self._store.write(operations.trigger_schedule(name, run_id, self._clock.now(), origin))
        if not outcome.made:
            if outcome.job_name is None:
                raise _no_schedule(name)
            raise Conflict(
                f"run {outcome.active} of schedule {name!r} is active: wait for its end, or cancel it; or let runs "
                'overlap with overlap="queue" or "allow"'
            )
        if outcome.seq is not None:
            await self._tell_of(run_id, "run:trigger", outcome.seq)
        self._notify(RUNNABLE)
        job = None if outcome.job_name is None else self._jobs.get(outcome.job_name)
        return RunHandle(self, job, run_id, "created")

    async def remove_schedule(self, name: str, *, request_id: str | None = None) -> None:
        """Delete a schedule. Its runs stay, and go on. Raises `NotFound`."""
        operation = operations.remove_schedule(name, self._request_id(request_id), self._clock.now())
        if not (await self._change(operation)).done:
            raise _no_schedule(name)

    # -- inside ------------------------------------------------------------------------------------------

    async def _stored(self, name: str) -> Stored | None:
        found = await self._store.read(operations.get_schedules(name))
        return found[0] if found else None

    async def _change(self, operation: Operation[Changed]) -> Changed:
        changed = await self._store.write(operation)
        if changed.stored is not None and not changed.stored.paused:
            self._worker.look_for_tick(changed.stored.next_at)
        return changed

    def _definition(
        self,
        job: Job[Any, Any],
        timing: Timing,
        input: Any,
        labels: Mapping[str, str] | None,
        priority: int,
        missed: Missed,
        overlap: Overlap,
        catch_up_window: Duration | None,
    ) -> Definition:
        from durably_web.store.operations.scheduling import Definition

        if missed not in ("skip", "one", "all"):
            raise InvalidInput(f'missed is "skip", "one" or "all", not {missed!r}')
        if overlap not in ("skip", "queue", "allow"):
            raise InvalidInput(f'overlap is "skip", "queue" or "allow", not {overlap!r}')
        if overlap == "queue" and job.options.max_concurrent_per_key > 1:
            raise InvalidInput(
                f"job {job.name!r} lets {job.options.max_concurrent_per_key} runs of one key overlap, so a queue would "
                'too: take max_concurrent_per_key away, or choose overlap="skip" or "allow"'
            )
        check_priority(priority)
        window = None if catch_up_window is None else milliseconds_of(catch_up_window, "catch_up_window")
        if window == 0:
            raise InvalidInput(
                f"catch_up_window is longer than 0 seconds, not {catch_up_window!r}: no tick is so young"
            )
        text = job.encode_input(input, self._codec)
        return Definition(job.name, timing, text, checked_labels(labels), priority, missed, overlap, window)


def _timing(cron: object, every: object, timezone: object) -> Timing:
    from durably_web.store.operations.scheduling import Timing

    if (cron is None) == (every is None):
        raise InvalidInput('when: give one of cron, such as "30 2 * * *", and every, a number of seconds')
    if every is not None:
        if timezone != "UTC":
            raise InvalidInput("a timezone belongs to cron; every is the same everywhere")
        if (milliseconds := milliseconds_of(every, "every")) == 0:
            raise InvalidInput(f"every is longer than 0 seconds, not {every!r}")
        return Timing(None, None, milliseconds)
    for value, what in ((cron, "cron"), (timezone, "timezone")):
        check_text(value, what)
    return Timing(" ".join(str(cron).split()), str(timezone), None)


async def _next_after(name: str, timing: Timing, created_at: int, now: int) -> int | None:
    from durably_web.schedules import ticks_of

    next_at = (await ticks_of(*timing, created_at)).next_after(now)
    if next_at is None:
        raise InvalidInput(f"schedule {name!r} would never tick: no day fits {timing.cron!r}")
    return next_at


def _no_schedule(name: str) -> NotFound:
    return NotFound(f"there is no schedule {name!r}")


def _contended(name: str) -> Conflict:
    return Conflict(f"schedule {name!r} is changed by others all the time: ask again")
