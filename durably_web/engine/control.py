"""What is asked of runs that exist: one at a time, or all that a filter finds."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from durably_web.arguments import Duration, checked_labels, milliseconds_of, moment_of
from durably_web.engine.base import Jobs, checked_statuses, names_of, no_run
from durably_web.engine.triggering import Triggering
from durably_web.errors import Conflict, InvalidInput, NotFound
from durably_web.events import Event
from durably_web.handle import RunHandle
from durably_web.jobs import Job
from durably_web.records import instant
from durably_web.store import operations
from durably_web.store.batch import Operation
from durably_web.store.changes import RUNNABLE, end_of
from durably_web.store.operations import Copied, Filter, Outcome, Switched
from durably_web.store.operations.building import part_of
from durably_web.waits import WAITS

# The most runs that one transaction changes.
RUNS_AT_ONCE = 500

_ACTIVE = ("pending", "leased", "waiting")
_TERMINAL = ("completed", "failed", "cancelled")


class Control(Triggering):
    """What changes runs from outside.

    Each takes a `request_id`, a ULID that the caller has made: asking again with the same one, of any engine on the
    database, has the effect of asking once, and does not raise where it did not then. A new run has it as its id.
    """

    # -- one run -----------------------------------------------------------------------------------------

    async def cancel(self, run_id: str, *, request_id: str | None = None) -> None:
        """End a run that is not terminal, and all that it has started; no step of them begins any more.

        An async step ends at its next await; a sync one runs on in its thread, and its result is dropped: it can
        ask `durably_web.cancelled()`. Where steps have an `undo`, they are undone first, and the run is `"cancelled"`
        when that is done; until then it is active, and `undoing`. Raises `NotFound`, or `Conflict` for a run that is
        terminal or being undone.
        """
        _check(await self._cancel([run_id], self._request_id(request_id)), run_id, "cancelled")

    async def retry(self, run_id: str, *, request_id: str | None = None) -> None:
        """Let the same failed or cancelled run go on from its first step without a stored result.

        Steps that were undone have none any more: they are executed again.
        Raises `NotFound`, or `Conflict` for any other run.
        """
        _check(await self._retry([run_id], self._request_id(request_id)), run_id, "retried")

    async def delete_run(self, run_id: str, *, request_id: str | None = None) -> None:
        """Delete a terminal run with its steps and logs.

        Raises `NotFound`, or `Conflict` for a run that is not terminal.
        """
        _check(await self._delete([run_id], self._request_id(request_id)), run_id, "deleted")

    async def retrigger(self, run_id: str, *, request_id: str | None = None) -> RunHandle[Any]:
        """Ask for a new run with the same job, input, labels, key and priority as a terminal one.

        Raises `NotFound`, or `Conflict` for a run that is not terminal, or a `request_id` that is another run's.
        """
        new_id, origin = self._request_id(request_id), self._environment.origin()
        copied = await self._store.write(operations.retrigger(new_id, run_id, self._clock.now(), origin))
        _check_made(new_id, copied)
        if not copied.made and copied.status is not None:
            raise Conflict(f"run {run_id} is {copied.status}, so it cannot be retriggered")
        return await self._handle_of(new_id, run_id, copied)

    async def fork(self, run_id: str, *, from_step: str | None = None, request_id: str | None = None) -> RunHandle[Any]:
        """Ask for a new run like another, in whatever state that is, that goes on where that one was.

        It has the other's input and labels, and its stored results: all of them, or those from before the first
        entry of `from_step` (`"save#2"`), which is then executed again with all that follows. Raises `NotFound` for no
        such run, or no such step in it, and `Conflict` for a `request_id` that is another run's.
        """
        new_id, origin = self._request_id(request_id), self._environment.origin()
        copied = await self._store.write(operations.fork(new_id, run_id, from_step, self._clock.now(), origin))
        _check_made(new_id, copied)
        if not copied.made and copied.status is not None:
            raise NotFound(f"run {run_id} has no step {from_step!r}")
        return await self._handle_of(new_id, run_id, copied)

    async def pause(self, run_id: str, *, request_id: str | None = None) -> None:
        """Let nobody begin or go on with a run until `resume`. Safe to repeat.

        One that is executing finishes its current steps first. What it waits for goes on: time passes, signals
        are kept. Raises `NotFound`, or `Conflict` for a terminal run.
        """
        _check_switched(await self._pause([run_id], self._request_id(request_id)), run_id, "paused")

    async def resume(self, run_id: str, *, request_id: str | None = None) -> None:
        """Take `pause` back. Safe to repeat. Raises `NotFound`, or `Conflict` for a terminal run."""
        _check_switched(await self._resume([run_id], self._request_id(request_id)), run_id, "resumed")

    # -- a job, and this worker --------------------------------------------------------------------------

    async def pause_job(self, job: Job[Any, Any] | str, *, request_id: str | None = None) -> None:
        """Let no worker claim a run of this job until `resume_job`. What executes goes on. Safe to repeat."""
        name, asked = self._environment.known_job(job).name, self._request_id(request_id)
        await self._store.write(operations.pause_job(name, asked, self._clock.now()))

    async def resume_job(self, job: Job[Any, Any] | str, *, request_id: str | None = None) -> None:
        """Take `pause_job` back. Safe to repeat."""
        name, asked = self._environment.known_job(job).name, self._request_id(request_id)
        await self._store.write(operations.resume_job(name, asked, self._clock.now()))
        self._notify(RUNNABLE)

    def pause_worker(self) -> None:
        """Claim nothing more in this engine until `resume_worker`. What executes goes on."""
        self._worker.pause()

    def resume_worker(self) -> None:
        """Take `pause_worker` back."""
        self._worker.resume()

    # -- all that a filter finds -------------------------------------------------------------------------

    async def cancel_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """Cancel every run that is not terminal and meets the conditions; tells how many.

        `status`, `job`, `labels` as in `get_runs`; `created_before`, a datetime with a time zone. At least one of
        them. In transactions of at most 500 runs. What they started is cancelled with them, and not counted.
        """
        return await self._each(_filter(_ACTIVE, **which), self._cancel, request_id)

    async def retry_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """`retry` every failed or cancelled run that meets the conditions of `cancel_runs`; tells how many."""
        return await self._each(_filter(("failed", "cancelled"), **which), self._retry, request_id)

    async def delete_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """Delete every terminal run that meets the conditions of `cancel_runs`; tells how many."""
        return await self._each(_filter(_TERMINAL, **which), self._delete, request_id)

    async def pause_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """`pause` every active run that is not paused and meets the conditions of `cancel_runs`; tells how many."""
        return await self._each(_filter(_ACTIVE, **which)._replace(paused=False), self._pause, request_id)

    async def resume_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """`resume` every run that is paused and meets the conditions of `cancel_runs`; tells how many."""
        return await self._each(_filter(_ACTIVE, **which)._replace(paused=True), self._resume, request_id)

    async def purge_runs(
        self, *, older_than: Duration | datetime.datetime, limit: int = RUNS_AT_ONCE, request_id: str | None = None
    ) -> int:
        """Delete terminal runs that ended more than `older_than` ago, or before that datetime; tells how many.

        At most `limit`, oldest first, in transactions of at most 500. Call it again while it tells of `limit`.
        """
        if type(limit) is not int or limit < 0:
            raise InvalidInput(f"limit must not be negative, and is {limit!r}")
        if isinstance(older_than, datetime.datetime):
            cutoff = moment_of(older_than, "older_than")
        else:
            cutoff = self._clock.now() - milliseconds_of(older_than, "older_than")

        def delete(run_ids: list[str], request_id: str) -> Awaitable[Outcome]:
            return self._delete(run_ids, request_id, cutoff)

        return await self._each(Filter(_TERMINAL, ended_before=cutoff), delete, request_id, limit)

    # -- inside ------------------------------------------------------------------------------------------

    async def _each(
        self,
        which: Filter,
        change: Callable[[list[str], str], Awaitable[Outcome | Switched]],
        request_id: str | None,
        limit: int | None = None,
    ) -> int:
        """Change all that the filter finds, page by page, each by a request of its own; tells how many runs."""
        asked, count = self._request_id(request_id), 0
        if request_id is not None:
            known = await self._store.read(operations.find_answer(asked))
            if known.answer is not None:
                return known.answer
            # It may have been broken off on its way.
            count, which = known.so_far, which._replace(unrequested=asked)
        async for page in self._pages(which, None if limit is None else limit - count):
            outcome = await change(page, part_of(asked, page[0]))
            changed = outcome.runs if isinstance(outcome, Switched) else outcome.changed
            count += sum(run_id in changed for run_id in page)
        if request_id is not None:
            await self._store.write(operations.store_answer(asked, count, self._clock.now()))
        return count

    async def _pages(self, which: Filter, limit: int | None = None) -> AsyncIterator[list[str]]:
        """The ids of the runs in bounded pages. What changes meanwhile is seen to by each change itself."""
        while limit is None or limit > 0:
            size = RUNS_AT_ONCE if limit is None else min(limit, RUNS_AT_ONCE)
            page = await self._store.read(operations.find_runs(which, size))
            if page:
                yield page
            if len(page) < size:
                return
            which = which._replace(after=page[-1])
            limit = None if limit is None else limit - len(page)

    async def _cancel(self, run_ids: list[str], request_id: str) -> Outcome:
        # An entry of one or the other type.
        outcome = await self._request(operations.cancel, run_ids, request_id, "run:cancel", "run:undo")
        for run_id, generation in outcome.generations.items():
            self._worker.interrupt(run_id, generation)
            self._store.changes.notify(end_of(run_id))
        # The next of a key may begin, and a parent goes on.
        self._notify(RUNNABLE, WAITS)
        return outcome

    async def _retry(self, run_ids: list[str], request_id: str) -> Outcome:
        outcome = await self._request(operations.retry, run_ids, request_id, "run:retry")
        self._notify(RUNNABLE)
        return outcome

    async def _delete(self, run_ids: list[str], request_id: str, ended_before: int | None = None) -> Outcome:
        def delete(ids: Sequence[str], request_id: str, now: int) -> Operation[Outcome]:
            return operations.delete_runs(ids, request_id, now, ended_before)

        outcome = await self._request(delete, run_ids, request_id, "run:delete")
        for run_id in outcome.changed:
            self._store.changes.notify(end_of(run_id))
        return outcome

    async def _pause(self, run_ids: list[str], request_id: str, *, held: bool = False) -> Switched:
        switched = await self._store.write(operations.pause(run_ids, request_id, self._clock.now(), held=held))
        # Of what is resumed by now, the worker finds out that it may go on.
        for run_id in switched.runs:
            self._worker.suspend(run_id)
        await self._tell_of_switch("run:pause", request_id, switched)
        return switched

    async def _resume(self, run_ids: list[str], request_id: str, *, held: bool = False) -> Switched:
        switched = await self._store.write(operations.resume(run_ids, request_id, self._clock.now(), held=held))
        await self._tell_of_switch("run:resume", request_id, switched)
        return switched

    async def _request(
        self,
        operation: Callable[[Sequence[str], str, int], Operation[Outcome]],
        run_ids: list[str],
        request_id: str,
        *event_types: str,
    ) -> Outcome:
        outcome = await self._store.write(operation(run_ids, request_id, self._clock.now()))
        self._notify()
        for run_id, seq in outcome.changed.items():
            for event_type in event_types:
                await self._tell_of(run_id, event_type, seq)
        return outcome

    async def _handle_of(self, new_id: str, source_id: str, copied: Copied) -> RunHandle[Any]:
        if not copied.made:
            raise no_run(source_id)
        if copied.seq is not None:
            await self._tell_of(new_id, "run:trigger", copied.seq)
        self._notify(RUNNABLE)
        return RunHandle(self, None, new_id, "created")

    async def _tell_of_switch(self, event_type: Any, request_id: str, switched: Switched) -> None:
        self._notify(RUNNABLE)
        if not self._emitter.hears(event_type) or not self._is_new(request_id):
            return
        now = instant(self._clock.now())
        for run_id in switched.runs:
            run = await self.get_run(run_id)
            if run is not None:
                self._emitter.emit(Event(event_type, None, None, now, run_id, run.job_name, run.labels))


def _filter(
    allowed: tuple[str, ...],
    *,
    status: str | Sequence[str] | None = None,
    job: Jobs | None = None,
    labels: Mapping[str, str] | None = None,
    created_before: datetime.datetime | None = None,
) -> Filter:
    names = names_of(job)
    if status is None and not names and not labels and created_before is None:
        raise InvalidInput("which runs: give status, job, labels or created_before")
    statuses = checked_statuses(status) or allowed
    return Filter(
        [one for one in statuses if one in allowed] or ["none"],
        names,
        checked_labels(labels),
        None if created_before is None else moment_of(created_before, "created_before"),
    )


def _check(outcome: Outcome, run_id: str, done: str) -> None:
    if run_id not in outcome.changed:
        _refuse(outcome.statuses.get(run_id), run_id, done)


def _check_made(new_id: str, copied: Copied) -> None:
    if copied.taken:
        raise Conflict(f"the request's id {new_id} is that of another run, so no run was made: give each its own")


def _check_switched(switched: Switched, run_id: str, done: str) -> None:
    if run_id not in switched.runs:
        _refuse(switched.statuses.get(run_id), run_id, done)


def _refuse(status: str | None, run_id: str, done: str) -> None:
    if status is None:
        raise no_run(run_id)
    raise Conflict(f"run {run_id} is {status}, so it cannot be {done}")
