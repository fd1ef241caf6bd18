"""Reading runs, waiting for them, following their events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from durably_web.arguments import checked_labels
from durably_web.engine.base import Base, Jobs, checked_statuses, names_of, no_run
from durably_web.errors import InvalidInput, NotFound, ResponseTooLarge, RunCancelled, RunFailed
from durably_web.events import Event
from durably_web.jobs import Job
from durably_web.records import LogEntry, Progress, Run, Stats, StepRecord
from durably_web.store import operations
from durably_web.store.batch import Operation
from durably_web.store.changes import JOURNAL, end_of
from durably_web.store.operations import EventPage, Filter

Output = TypeVar("Output")

_EVENTS_AT_ONCE = 500


class Reading(Base):
    """What changes nothing."""

    # -- waiting -----------------------------------------------------------------------------------------

    async def wait_for_run(
        self,
        run_id: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[LogEntry], None] | None = None,
    ) -> Run:
        """The run once it is terminal, whoever executes it.

        Raises `NotFound` for an unknown id, also when the run is deleted meanwhile, and `TimeoutError` after
        `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            if on_progress is None and on_log is None:
                return await self._wait(run_id)
            async for event in self.subscribe(run_id):
                if event.type == "run:progress" and on_progress is not None and event.progress is not None:
                    on_progress(event.progress)
                elif event.type == "log:write" and on_log is not None:
                    on_log(LogEntry(*_log_fields(event)))
            return await self._wait(run_id)

    async def _wait(self, run_id: str) -> Run:
        while True:
            mark = self._store.changes.mark(end_of(run_id))
            run = await self.get_run(run_id)
            if run is None:
                raise no_run(run_id)
            if run.is_terminal:
                return run
            await self._store.changes.wait(end_of(run_id), self._environment.polling_interval, mark)

    async def output_of(
        self,
        run_id: str,
        job: Job[Any, Output] | None = None,
        timeout: float | None = None,
        **listeners: Any,
    ) -> Output:
        """Wait for a run and give its output. Raises `RunFailed`, `RunCancelled`, `NotFound`, `TimeoutError`."""
        run = await self.wait_for_run(run_id, timeout=timeout, **listeners)
        if run.status == "failed":
            raise RunFailed(f"run {run_id} of job {run.job_name!r} failed: {run.error}", run_id=run_id)
        if run.status == "cancelled":
            why = "was cancelled" if run.error is None else f"was cancelled: {run.error}"
            raise RunCancelled(f"run {run_id} of job {run.job_name!r} {why}", run_id=run_id)
        known = job or self._jobs.get(run.job_name)
        return cast(Output, known.load_output(run.output) if known is not None else run.output)

    # -- reading -----------------------------------------------------------------------------------------

    async def get_run(self, run_id: str) -> Run | None:
        """The run, or `None` for an unknown id."""
        return await self._store.read(operations.get_run(run_id, self._codec))

    async def get_runs(
        self,
        *,
        status: str | Sequence[str] | None = None,
        job: Jobs | None = None,
        labels: Mapping[str, str] | None = None,
        schedule: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
        after: str | None = None,
    ) -> list[Run]:
        """Runs, newest first, that meet all conditions: of one status or several, of one job or several,
        asked for by one schedule.

        `after` is the id of the last run of the page before; unlike `offset`, it does not shift when new runs come in.
        """
        statuses = checked_statuses(status)
        for name, number in (("limit", limit), ("offset", offset)):
            if number is not None and number < 0:
                raise InvalidInput(f"{name} must not be negative, and is {number}")
        which = Filter(statuses, names_of(job), checked_labels(labels), after=after, schedule=schedule)
        return await self._store.read(operations.get_runs(which, self._codec, limit, offset))

    async def get_failed_runs(self) -> list[Run]:
        """The failed runs, newest first."""
        return await self.get_runs(status="failed")

    async def get_steps(self, run_id: str) -> list[StepRecord]:
        """The steps of a run as they stand, with the tries that failed, in order. Empty for an unknown id."""
        return await self._store.read(operations.get_steps(run_id, self._codec))

    async def get_logs(self, run_id: str) -> list[LogEntry]:
        """What a run has logged, in order. Empty for an unknown id."""
        return await self._store.read(operations.get_logs(run_id))

    async def export_run(self, run_id: str) -> dict[str, Any]:
        """Everything that is stored of a run, of one moment, as plain JSON: `docs/export.md` says what is in it.

        Values are readable, also where the database has them sealed. For `durably-web verify`. Raises `NotFound`.
        """
        # Not at the top: in a browser each module costs a millisecond at the start.
        from durably_web.export import exported

        whole = await self._store.read(operations.get_whole(run_id))
        if whole is None:
            raise no_run(run_id)
        return exported(whole, self._codec)

    async def stats(self, *, job: Jobs | None = None, labels: Mapping[str, str] | None = None) -> Stats:
        """How many runs there are by status and job, which jobs are paused, and whether the disk is full. Counts all
        runs that meet the conditions."""
        names = names_of(job)
        counted = await self._store.read(operations.stats(Filter((), names, checked_labels(labels))))
        if names:
            counted = counted._replace(paused_jobs=[name for name in counted.paused_jobs if name in names])
        return counted._replace(storage_full=self._store.room.is_full)

    async def check_health(self) -> None:
        """Return if the database answers. Raises `StoreError` if it does not."""
        await self._store.read(operations.schema_version())

    # -- events ------------------------------------------------------------------------------------------

    async def get_events(
        self, run_id: str | None = None, *, after: int | None = None, limit: int = _EVENTS_AT_ONCE
    ) -> EventPage:
        """The stored events after the one with seq `after`, of a run or of all: `limit` at most, and whether the run
        has ended with them. Raises `NotFound` for a run that there is not and never was.
        """
        return await self._read_events(run_id, operations.read_events(run_id, after or 0, limit, self._codec))

    async def _read_events(self, run_id: str | None, operation: Operation[EventPage]) -> EventPage:
        page = await self._store.read(operation)
        if not page.known:
            raise NotFound(f"there is no run {run_id!r}")
        return page

    async def last_seq(self) -> int:
        """The seq of the newest stored event; 0 when there is none."""
        return await self._store.read(operations.last_seq())

    async def subscribe(self, run_id: str | None = None, *, after: int | None = None) -> AsyncIterator[Event]:
        """The stored events after the one with seq `after`, of a run or of all; then those to come.

        From any process, in order, with no gap and no duplicate. Ends when the run does; without a run,
        never. Raises `NotFound` for a run that there is not and never was.
        """

        async def ask(after: int, size: int) -> EventPage:
            # Whoever follows does not need all of a page before he sees the first of it.
            operation = operations.read_events(run_id, after, size, self._codec)
            return await self._read_events(run_id, operation._replace(in_pages=None))

        position, pages = after or 0, None
        while True:
            mark = self._store.changes.mark(JOURNAL)
            try:
                page = await (ask(position, _EVENTS_AT_ONCE) if pages is None else pages.read(ask, position))
            except ResponseTooLarge:
                if pages is not None:
                    raise
                # Not at the top: in a browser each module costs a millisecond at the start.
                from durably_web.store.paging import Pages

                pages = Pages(_EVENTS_AT_ONCE)
                continue
            for event in page.events:
                yield event
                position = event.seq or position
            if page.ended:
                return
            if len(page.events) < (_EVENTS_AT_ONCE if pages is None else pages.asked):
                await self._store.changes.wait(JOURNAL, self._environment.polling_interval, mark)


def _log_fields(event: Event) -> tuple[Any, ...]:
    return event.level, event.message, event.data, event.step_name, event.timestamp
