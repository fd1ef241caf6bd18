"""What the parts of the engine share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durably_web.emitter import Listener
from durably_web.environment import Environment
from durably_web.errors import Conflict, InvalidInput, NotFound
from durably_web.jobs import Job
from durably_web.records import STATUSES
from durably_web.store import operations
from durably_web.store.changes import JOURNAL
from durably_web.worker import Worker


class Base:
    """The environment, the worker, and the jobs."""

    def __init__(self, environment: Environment, worker: Worker) -> None:
        self._environment = environment
        self._store = environment.store
        self._clock = environment.clock
        self._emitter = environment.emitter
        self._codec = environment.codec
        self._make_id = environment.make_id
        self._jobs = environment.jobs
        self._worker = worker

    # -- jobs --------------------------------------------------------------------------------------------

    def register(self, *jobs: Job[Any, Any]) -> None:
        """Let this engine trigger and execute these jobs. Raises `Conflict` for two jobs of one name."""
        for job in jobs:
            if not isinstance(job, Job):
                raise TypeError(f"{job!r} is not a job: decorate the function with @job")
            if self._jobs.get(job.name, job) is not job:
                raise Conflict(f"there are two jobs named {job.name!r}: give one of them another with @job(name=…)")
            self._jobs[job.name] = job

    @property
    def jobs(self) -> Mapping[str, Job[Any, Any]]:
        """The registered jobs by name."""
        return self._jobs

    def get_job(self, name: str) -> Job[Any, Any]:
        """The registered job of that name. Raises `NotFound`."""
        return self._environment.known_job(name)

    # -- events ------------------------------------------------------------------------------------------

    def on(self, event_type: str, listener: Listener) -> Any:
        """Call `listener` for each event of this engine, of a type or of all (`"*"`), until the result is called.

        In this process only. A listener that raises harms nobody, and shows up as `worker:error`.
        """
        return self._emitter.on(event_type, listener)

    async def _tell_of(self, run_id: str, event_type: str, seq: int) -> None:
        """Tell those who listen here of an entry that was just stored."""
        if self._emitter.hears(event_type):
            page = await self._store.read(operations.read_events(run_id, seq - 1, 1, self._codec))
            for event in page.events:
                # Another one, when the run has been deleted meanwhile.
                if event.seq == seq:
                    self._emitter.emit(event)

    def _notify(self, *topics: str) -> None:
        for topic in (JOURNAL, *topics):
            self._store.changes.notify(topic)


def name_of(job: Job[Any, Any] | str | None) -> str | None:
    return job.name if isinstance(job, Job) else job


def checked_statuses(status: Any) -> list[str]:
    """One status or several, as a list. Raises `InvalidInput`."""
    statuses = [status] if isinstance(status, str) else list(status or ())
    for one in statuses:
        if one not in STATUSES:
            raise InvalidInput(f"there is no status {one!r}; there are {', '.join(STATUSES)}")
    return statuses


def no_run(run_id: str) -> NotFound:
    return NotFound(f"there is no run {run_id!r}")
