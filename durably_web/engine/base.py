"""What the parts of the engine share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from durably_web.arguments import check_request_id
from durably_web.emitter import Listener
from durably_web.environment import Environment
from durably_web.errors import Conflict, InvalidInput, NotFound
from durably_web.ids import counted_up
from durably_web.jobs import Job
from durably_web.records import STATUSES
from durably_web.store import operations
from durably_web.store.changes import JOURNAL
from durably_web.worker import Worker

Jobs = Job[Any, Any] | str | Iterable[Job[Any, Any] | str]
"""One job or several, by name or as they are."""

# So many of what was told are known, in case the same request comes again.
_REMEMBERED = 1000


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
        self._seen: dict[object, None] = {}

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
        """Tell those who listen here of an entry that was just stored; once, however often its request comes."""
        if self._emitter.hears(event_type) and self._is_new(seq):
            page = await self._store.read(operations.read_events(run_id, seq - 1, 1, self._codec))
            for event in page.events:
                # Another one, when the run has been deleted meanwhile.
                if event.seq == seq:
                    self._emitter.emit(event)

    # -- requests ----------------------------------------------------------------------------------------

    def _request_id(self, given: str | None, by: int = 0) -> str:
        """The id of a request, or of its part `by`, which is counted up from it. Raises `InvalidInput`."""
        if given is None:
            return self._make_id()
        check_request_id(given)
        try:
            return counted_up(given, by) if by else given
        except ValueError as error:
            raise InvalidInput(str(error)) from None

    def _is_new(self, key: object) -> bool:
        """Whether this is asked for the first time, as far back as requests are repeated to the same engine."""
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return True

    def _notify(self, *topics: str) -> None:
        for topic in (JOURNAL, *topics):
            self._store.changes.notify(topic)


def names_of(job: Jobs | None) -> list[str]:
    """The names of one job or several; none for any job. Raises `InvalidInput` for an empty list."""
    if job is None:
        return []
    several = [job] if isinstance(job, Job | str) else list(job)
    if not several:
        # Whoever chose none does not mean all.
        raise InvalidInput("which jobs: the list is empty")
    return [one.name if isinstance(one, Job) else one for one in several]


def checked_statuses(status: Any) -> list[str]:
    """One status or several, as a list. Raises `InvalidInput`."""
    statuses = [status] if isinstance(status, str) else list(status or ())
    for one in statuses:
        if one not in STATUSES:
            raise InvalidInput(f"there is no status {one!r}; there are {', '.join(STATUSES)}")
    return statuses


def no_run(run_id: str) -> NotFound:
    return NotFound(f"there is no run {run_id!r}")
