"""Reading runs, waiting for them, following their events, from sync code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from durably_web.blocking.base import Base
from durably_web.engine import Durably as Engine
from durably_web.engine.base import Jobs
from durably_web.events import Event
from durably_web.jobs import Job, Output
from durably_web.records import LogEntry, Progress, Run, Stats, StepRecord
from durably_web.store.operations import EventPage


class Reading(Base):
    """What changes nothing."""

    def wait_for_run(
        self,
        run_id: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[LogEntry], None] | None = None,
    ) -> Run:
        """The run once it is terminal, whoever executes it. Raises `NotFound`, or `TimeoutError` after `timeout`."""
        return self._ask(
            lambda engine: engine.wait_for_run(run_id, timeout=timeout, on_progress=on_progress, on_log=on_log)
        )

    def output_of(self, run_id: str, job: Job[Any, Output] | None = None, timeout: float | None = None) -> Output:
        """Wait for a run and give its output. Raises `RunFailed`, `RunCancelled`, `NotFound`, `TimeoutError`."""
        return self._ask(lambda engine: engine.output_of(run_id, job, timeout))

    def get_run(self, run_id: str) -> Run | None:
        """The run, or `None` for an unknown id."""
        return self._ask(lambda engine: engine.get_run(run_id))

    def get_runs(
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
        """Runs, newest first, that meet all conditions: of statuses, of jobs, with labels, of a schedule."""
        return self._ask(
            lambda engine: engine.get_runs(
                status=status, job=job, labels=labels, schedule=schedule, limit=limit, offset=offset, after=after
            )
        )

    def get_failed_runs(self) -> list[Run]:
        """The failed runs, newest first."""
        return self._ask(Engine.get_failed_runs)

    def get_steps(self, run_id: str) -> list[StepRecord]:
        """The steps of a run as they stand, with the tries that failed, in order. Empty for an unknown id."""
        return self._ask(lambda engine: engine.get_steps(run_id))

    def get_logs(self, run_id: str) -> list[LogEntry]:
        """What a run has logged, in order. Empty for an unknown id."""
        return self._ask(lambda engine: engine.get_logs(run_id))

    def export_run(self, run_id: str) -> dict[str, Any]:
        """Everything that is stored of a run, of one moment, as plain JSON. Raises `NotFound`."""
        return self._ask(lambda engine: engine.export_run(run_id))

    def stats(self, *, job: Jobs | None = None, labels: Mapping[str, str] | None = None) -> Stats:
        """How many runs there are by status and job. Counts all runs that meet the conditions."""
        return self._ask(lambda engine: engine.stats(job=job, labels=labels))

    def last_seq(self) -> int:
        """The seq of the newest event; `subscribe(after=…)` with it gives what comes from now on."""
        return self._ask(Engine.last_seq)

    def check_health(self) -> None:
        """Return if the database answers. Raises `StoreError` if it does not."""
        self._ask(Engine.check_health)

    def get_events(self, run_id: str | None = None, *, after: int | None = None, limit: int = 500) -> EventPage:
        """The stored events after the one with seq `after`, of a run or of all. Raises `NotFound`."""
        return self._ask(lambda engine: engine.get_events(run_id, after=after, limit=limit))

    def subscribe(self, run_id: str | None = None, *, after: int | None = None) -> Iterator[Event]:
        """The stored events after the one with seq `after`, of a run or of all; then those to come.

        Ends when the run does; without a run, never. Raises `NotFound` for a run that there is not and never was.
        """
        position = after
        while True:
            # A look at a time, and nothing is left open on the loop when somebody stops to iterate.
            events = self._ask(partial(_next, run_id, position))
            if not events:
                return
            for event in events:
                yield event
                position = event.seq or position


async def _next(run_id: str | None, after: int | None, engine: Engine) -> list[Event]:
    """Some of the events behind `after`, once there are any; none when there will be none."""
    found: list[Event] = []
    stream = engine.subscribe(run_id, after=after)
    try:
        async for event in stream:
            found.append(event)
            break
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    if found:
        page = await engine.get_events(run_id, after=found[-1].seq, limit=100)
        found += page.events
    return found
