"""What an engine, its worker and its executions share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from durably_web.clock import Clock
from durably_web.codec import Codec
from durably_web.context import Shutdown
from durably_web.emitter import Emitter
from durably_web.errors import NotFound
from durably_web.jobs import Job
from durably_web.network import Network
from durably_web.store import operations
from durably_web.store.store import Store

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from durably_web.execution import Execution
    from durably_web.store.rows import Lease


Watch = Callable[[str, Coroutine[Any, Any, object]], Coroutine[Any, Any, object]]


class Hooks:
    """What somebody wants to be around executions; `None` costs nothing.

    `around_run` is awaited in the place of `Execution.run`, and awaits that; it is called once for each lease.
    `before_step` is awaited before each call of a step's function, with the step's key, and `around_step` is entered
    for it. `at_trigger` is asked where a run is asked for, and
    what it gives is the `data` of the run's first journal entry. `watched` is given the coroutine of each execution,
    and gives the one that is made a task of.
    """

    __slots__ = ("around_run", "around_step", "at_trigger", "before_step", "watched")

    def __init__(self) -> None:
        self.around_run: Callable[[Execution], Coroutine[Any, Any, object]] | None = None
        self.before_step: Callable[[str], Coroutine[Any, Any, None]] | None = None
        self.around_step: Callable[[Lease, str, int], AbstractContextManager[object]] | None = None
        self.at_trigger: Callable[[], str | None] | None = None
        self.watched: Watch | None = None


class Environment(NamedTuple):
    """Everything that code outside of this package decides comes in here: the engine reads no other clock, makes no
    other id, draws from no other source of randomness, and knows of no other network. Durations are seconds."""

    store: Store
    clock: Clock
    emitter: Emitter
    codec: Codec
    make_id: Callable[[], str]
    random: Callable[[], float]
    jobs: dict[str, Job[Any, Any]]
    polling_interval: float
    preserve_steps: bool
    hooks: Hooks
    shutdown: Shutdown
    network: Network

    def origin(self) -> str | None:
        """What is to be kept with a run that is asked for now."""
        return None if self.hooks.at_trigger is None else self.hooks.at_trigger()

    async def tell_of_trigger(self, run_id: str) -> None:
        """Tell those who listen in this process of a run that was just stored."""
        if self.emitter.hears("run:trigger"):
            page = await self.store.read(operations.read_events(run_id, 0, 1, self.codec))
            for event in page.events:
                self.emitter.emit(event)

    def known_job(self, job: Job[Any, Any] | str) -> Job[Any, Any]:
        """The registered job that is meant. Raises `NotFound`."""
        if isinstance(job, str):
            if job not in self.jobs:
                known = ", ".join(sorted(self.jobs)) or "none"
                raise NotFound(f"there is no job {job!r}; registered: {known}")
            return self.jobs[job]
        if not isinstance(job, Job):
            raise TypeError(f"{job!r} is not a job: decorate the function with @job")
        if self.jobs.get(job.name) is not job:
            raise NotFound(f"job {job.name!r} is not registered here: pass it in jobs=, or call register")
        return job
