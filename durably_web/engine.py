"""`Durably`: the object that users hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

from durably_web import codec
from durably_web.arguments import check_text, checked_labels
from durably_web.backends import Durability, open_executor
from durably_web.clock import Clock, SystemClock
from durably_web.emitter import Emitter, Listener
from durably_web.errors import Conflict, InvalidInput, NotFound, RunCancelled, RunFailed
from durably_web.events import Event
from durably_web.handle import RunHandle
from durably_web.ids import IdMaker
from durably_web.jobs import Job
from durably_web.records import STATUSES, LogEntry, Progress, Run, StepRecord
from durably_web.store import operations
from durably_web.store.batch import Executor
from durably_web.store.changes import JOURNAL, RUNNABLE, end_of
from durably_web.store.operations import Outcome
from durably_web.store.rows import entry_event
from durably_web.store.store import Store
from durably_web.worker import Worker, new_worker_id

Input = TypeVar("Input")
Output = TypeVar("Output")

_EVENTS_AT_ONCE = 500


class Durably:
    """Triggers jobs, executes them, and tells of them.

        durably = Durably("app.db", jobs=[import_csv])
        async with durably:
            handle = await durably.trigger(import_csv, {"text": text})
            print(await handle.result(timeout=60))

    `database` is a file's path, `sqlite:///app.db`, `:memory:`, in the browser `opfs:name`, or an executor.
    Durations are seconds. A run whose worker has not renewed its lease for `stale_threshold` is taken over;
    leases are renewed every `heartbeat_interval`. `polling_interval` is the longest that a worker overlooks
    a run that nothing told it of.
    """

    def __init__(
        self,
        database: str | Executor = "durably.db",
        *,
        jobs: Iterable[Job[Any, Any]] = (),
        polling_interval: float = 1.0,
        heartbeat_interval: float = 5.0,
        stale_threshold: float = 30.0,
        max_concurrent_runs: int = 10,
        durability: Durability = "full",
        worker_id: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if max_concurrent_runs < 1:
            raise ValueError(f"max_concurrent_runs must be at least 1, not {max_concurrent_runs}")
        if not 0 < heartbeat_interval < stale_threshold:
            raise ValueError(
                f"heartbeat_interval ({heartbeat_interval} s) must be shorter than stale_threshold "
                f"({stale_threshold} s): otherwise leases end while their worker is alive"
            )
        self._clock = clock or SystemClock()
        self._make_id = IdMaker(self._clock)
        self._emitter = Emitter(self._clock.now)
        self._jobs: dict[str, Job[Any, Any]] = {}
        executor = open_executor(database, durability) if isinstance(database, str) else database
        self._store = Store(executor, self._clock)
        self._polling_interval = polling_interval
        self._worker = Worker(
            self._store,
            self._clock,
            self._emitter,
            self._make_id,
            self._jobs,
            worker_id=worker_id or new_worker_id(self._make_id()),
            polling_interval=polling_interval,
            heartbeat_interval=heartbeat_interval,
            stale_threshold=stale_threshold,
            max_concurrent_runs=max_concurrent_runs,
        )
        self.register(*jobs)

    # -- life --------------------------------------------------------------------------------------------

    async def migrate(self) -> None:
        """Open the database and bring its schema up to date. Safe to call again.

        Raises `NotADatabase`, `SchemaTooNew`, `StoreNotDurable` or `StoreUnavailable`; the file is then as it was.
        """
        await self._store.open()

    async def start(self) -> None:
        """Begin to execute runs in the background. Safe to call again."""
        await self._worker.start()

    async def init(self) -> None:
        """`migrate`, then `start`. Safe to call again."""
        await self.migrate()
        await self.start()

    async def stop(self) -> None:
        """Finish the current step of each run, give the leases back, and close the database.

        Whoever claims such a run next goes on behind that step. Safe to call again.
        """
        await self._worker.stop()
        self._worker.close()
        await self._store.close()

    async def __aenter__(self) -> Self:
        try:
            await self.init()
        except BaseException:
            # Nobody leaves a context that was not entered.
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def process_one(self) -> bool:
        """Execute one run that is due, to its end; `False` when there was none."""
        return await self._worker.drain(max_runs=1) == 1

    async def process_until_idle(self, *, max_runs: int | None = None, max_seconds: float | None = None) -> int:
        """Execute what is due until nothing is, or a limit is reached; tell how many runs were executed.

        After `max_seconds` nothing is begun; what has begun is finished.
        """
        return await self._worker.drain(max_runs, max_seconds)

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
        if name not in self._jobs:
            known = ", ".join(sorted(self._jobs)) or "none"
            raise NotFound(f"there is no job {name!r}; registered: {known}")
        return self._jobs[name]

    # -- triggering --------------------------------------------------------------------------------------

    @overload
    async def trigger(
        self,
        job: Job[Input, Output],
        input: Input | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> RunHandle[Output]: ...

    @overload
    async def trigger(
        self,
        job: str,
        input: Any = None,
        *,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> RunHandle[Any]: ...

    async def trigger(
        self,
        job: Job[Any, Any] | str,
        input: Any = None,
        *,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> RunHandle[Any]:
        """Ask for a run. It is stored when this returns, and will be executed, whatever happens to this process.

        An `idempotency_key` that the job has had before gives the first run. Raises `NotFound` for a job that
        is not registered, and `InvalidInput`; then there is no run.
        """
        found = self._known(job)
        text = found.encode_input(input)
        run_id, now = self._make_id(), self._clock.now()
        checked = checked_labels(labels)
        if idempotency_key is not None:
            check_text(idempotency_key, "an idempotency key")
        triggered = await self._store.write(operations.trigger(run_id, found.name, text, checked, idempotency_key, now))
        if triggered.created:
            if self._emitter.hears("run:trigger"):
                seq = cast(int, triggered.seq)
                value = codec.decode(text)
                self._emitter.emit(
                    entry_event("run:trigger", seq, 1, run_id, found.name, checked, None, None, None, now, value)
                )
            self._store.changes.notify(RUNNABLE)
            self._store.changes.notify(JOURNAL)
        return RunHandle(self, found, triggered.run_id, "created" if triggered.created else "idempotent")

    async def trigger_and_wait(
        self,
        job: Job[Input, Output] | str,
        input: Any = None,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[LogEntry], None] | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Output:
        """Trigger, wait for the end, and give the output.

        Raises what `trigger` raises, `RunFailed`, `RunCancelled`, or `TimeoutError` after `timeout` seconds
        (the run goes on).
        """
        handle = await self.trigger(
            cast("Job[Any, Output]", job), input, idempotency_key=idempotency_key, labels=labels
        )
        return await self.output_of(handle.id, self._known(job), timeout, on_progress=on_progress, on_log=on_log)

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
                raise NotFound(f"there is no run {run_id!r}")
            if run.is_terminal:
                return run
            await self._store.changes.wait(end_of(run_id), self._polling_interval, mark)

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
            raise RunCancelled(f"run {run_id} of job {run.job_name!r} was cancelled", run_id=run_id)
        known = job or self._jobs.get(run.job_name)
        return cast(Output, known.load_output(run.output) if known is not None else run.output)

    # -- reading -----------------------------------------------------------------------------------------

    async def get_run(self, run_id: str) -> Run | None:
        """The run, or `None` for an unknown id."""
        return await self._store.read(operations.get_run(run_id))

    async def get_runs(
        self,
        *,
        status: str | Sequence[str] | None = None,
        job: Job[Any, Any] | str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        offset: int | None = None,
        after: str | None = None,
    ) -> list[Run]:
        """Runs, newest first, that meet all conditions.

        `after` is the id of the last run of the page before; unlike `offset`, it does not shift when new runs come in.
        """
        statuses = [status] if isinstance(status, str) else list(status or ())
        for one in statuses:
            if one not in STATUSES:
                raise InvalidInput(f"there is no status {one!r}; there are {', '.join(STATUSES)}")
        for name, number in (("limit", limit), ("offset", offset)):
            if number is not None and number < 0:
                raise InvalidInput(f"{name} must not be negative, and is {number}")
        return await self._store.read(
            operations.get_runs(
                statuses=statuses,
                job_name=job.name if isinstance(job, Job) else job,
                labels=checked_labels(labels),
                limit=limit,
                offset=offset,
                after=after,
            )
        )

    async def get_failed_runs(self) -> list[Run]:
        """The failed runs, newest first."""
        return await self.get_runs(status="failed")

    async def get_steps(self, run_id: str) -> list[StepRecord]:
        """The steps of a run whose outcome is stored, in order. Empty for an unknown id."""
        return await self._store.read(operations.get_steps(run_id))

    async def get_logs(self, run_id: str) -> list[LogEntry]:
        """What a run has logged, in order. Empty for an unknown id."""
        return await self._store.read(operations.get_logs(run_id))

    # -- control -----------------------------------------------------------------------------------------

    async def cancel(self, run_id: str) -> None:
        """End a run that is not terminal; no step of it begins any more.

        An async step ends at its next await; a sync one runs on in its thread, and its result is dropped.
        Raises `NotFound`, or `Conflict` for a terminal run.
        """
        outcome = await self._request(operations.cancel, run_id, "cancelled")
        self._worker.interrupt(run_id)
        await self._tell_of(run_id, "run:cancel", outcome)
        self._store.changes.notify(end_of(run_id))

    async def retry(self, run_id: str) -> None:
        """Let the same failed or cancelled run go on from its first step without a stored result.

        Raises `NotFound`, or `Conflict` for any other run.
        """
        outcome = await self._request(operations.retry, run_id, "retried")
        await self._tell_of(run_id, "run:retry", outcome)
        self._store.changes.notify(RUNNABLE)

    async def retrigger(self, run_id: str) -> RunHandle[Any]:
        """Ask for a new run with the same job, input and labels as a terminal one.

        Raises `NotFound`, or `Conflict` for a run that is not terminal.
        """
        new_id = self._make_id()
        outcome = await self._store.write(operations.retrigger(new_id, run_id, self._clock.now()))
        _check(outcome, run_id, "retriggered")
        await self._tell_of(new_id, "run:trigger", outcome)
        self._store.changes.notify(RUNNABLE)
        return RunHandle(self, None, new_id, "created")

    async def delete_run(self, run_id: str) -> None:
        """Delete a terminal run with its steps and logs.

        Raises `NotFound`, or `Conflict` for a run that is not terminal.
        """
        outcome = await self._request(operations.delete_run, run_id, "deleted")
        await self._tell_of(run_id, "run:delete", outcome)
        self._store.changes.notify(end_of(run_id))

    # -- events ------------------------------------------------------------------------------------------

    def on(self, event_type: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each event of this engine, of a type or of all (`"*"`), until the result is called.

        In this process only. A listener that raises harms nobody, and shows up as `worker:error`.
        """
        return self._emitter.on(event_type, listener)

    async def subscribe(self, run_id: str | None = None, *, after: int | None = None) -> AsyncIterator[Event]:
        """The stored events after the one with seq `after`, of a run or of all; then those to come.

        From any process, in order, with no gap and no duplicate. Ends when the run does; without a run,
        never. Raises `NotFound` for a run that there is not and never was.
        """
        position = after or 0
        while True:
            mark = self._store.changes.mark(JOURNAL)
            page = await self._store.read(operations.read_events(run_id, position, _EVENTS_AT_ONCE))
            if not page.known:
                raise NotFound(f"there is no run {run_id!r}")
            for event in page.events:
                yield event
                position = event.seq or position
            if page.ended:
                return
            if len(page.events) < _EVENTS_AT_ONCE:
                await self._store.changes.wait(JOURNAL, self._polling_interval, mark)

    # -- inside ------------------------------------------------------------------------------------------

    def _known(self, job: Job[Any, Any] | str) -> Job[Any, Any]:
        if isinstance(job, str):
            return self.get_job(job)
        if not isinstance(job, Job):
            raise TypeError(f"{job!r} is not a job: decorate the function with @job")
        if self._jobs.get(job.name) is not job:
            raise NotFound(f"job {job.name!r} is not registered here: pass it in jobs=, or call register")
        return job

    async def _request(self, operation: Callable[..., Any], run_id: str, done: str) -> Outcome:
        outcome = cast(Outcome, await self._store.write(operation(run_id, self._make_id(), self._clock.now())))
        _check(outcome, run_id, done)
        return outcome

    async def _tell_of(self, run_id: str, event_type: str, outcome: Outcome) -> None:
        self._store.changes.notify(JOURNAL)
        if self._emitter.hears(event_type):
            seq = cast(int, outcome.seq)
            page = await self._store.read(operations.read_events(run_id, seq - 1, 1))
            for event in page.events:
                # Another one, when the run has been deleted meanwhile.
                if event.seq == seq:
                    self._emitter.emit(event)


def _check(outcome: Outcome, run_id: str, done: str) -> None:
    if outcome.seq is not None:
        return
    if outcome.status is None:
        raise NotFound(f"there is no run {run_id!r}")
    raise Conflict(f"run {run_id} is {outcome.status}, so it cannot be {done}")


def _log_fields(event: Event) -> tuple[Any, ...]:
    return event.level, event.message, event.data, event.step_name, event.timestamp
