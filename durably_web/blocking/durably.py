"""The engine as sync code calls it: its life, and asking for runs."""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from durably_web.arguments import Duration
from durably_web.backends import Durability
from durably_web.blocking.background import refuse_where_a_loop_runs
from durably_web.blocking.handle import RunHandle
from durably_web.blocking.scheduling import Scheduling
from durably_web.clock import Clock
from durably_web.codec import Codec
from durably_web.emitter import Listener
from durably_web.engine import Durably as Engine
from durably_web.errors import InvalidInput
from durably_web.jobs import Input, Job, Output
from durably_web.network import Network
from durably_web.records import LogEntry, Progress
from durably_web.retry import Debounce
from durably_web.store.operations import Coalesce

if TYPE_CHECKING:
    from durably_web.draining import Processed


class Durably(Scheduling):
    """Triggers jobs, waits for them, reads them, and, where `start` is called, executes them in a thread beside.

        durably = Durably("app.db", jobs=[import_csv])
        run = durably.trigger(import_csv, {"text": text})
        print(run.result(timeout=60))

    May be used from any number of threads. Nothing is opened before the first call. After a fork the child opens the
    database for itself at its next call, and executes nothing unless it calls `start` itself. It is stopped when the
    interpreter exits; what takes longer than `exit_timeout` seconds is broken off then, and done again by whoever takes
    the run up. On a thread where an event loop runs each call raises `RuntimeError`.

    The options are those of `durably_web.Durably`; `database` is a path or a URL.
    """

    def __init__(
        self,
        database: str = "durably.db",
        *,
        jobs: Iterable[Job[Any, Any]] = (),
        polling_interval: float = 1.0,
        heartbeat_interval: float = 5.0,
        stale_threshold: float = 30.0,
        max_concurrent_runs: int = 10,
        preserve_steps: bool = True,
        retain_runs: Duration | None = None,
        durability: Durability = "full",
        worker_id: str | None = None,
        clock: Clock | None = None,
        codec: Codec | None = None,
        network: Network | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        exit_timeout: float = 5.0,
    ) -> None:
        if not isinstance(database, str):
            raise InvalidInput(f"database is a path or a URL here, not {database!r}: each process opens its own")

        def make(jobs: Iterable[Job[Any, Any]]) -> Engine:
            return Engine(
                database,
                jobs=jobs,
                polling_interval=polling_interval,
                heartbeat_interval=heartbeat_interval,
                stale_threshold=stale_threshold,
                max_concurrent_runs=max_concurrent_runs,
                preserve_steps=preserve_steps,
                retain_runs=retain_runs,
                durability=durability,
                worker_id=worker_id,
                clock=clock,
                codec=codec,
                network=network,
                random_bytes=random_bytes,
            )

        super().__init__(make, jobs, exit_timeout)

    # -- life --------------------------------------------------------------------------------------------

    def migrate(self) -> None:
        """Open the database and bring its schema up to date. Safe to call again; the first other call does it too.

        Raises `NotADatabase`, `SchemaTooNew`, `StoreNotDurable` or `StoreUnavailable`; the file is then as it was.
        """
        self._ask(Engine.migrate)

    @property
    def read_only(self) -> str | None:
        """Why this engine can only read, if so: a newer durably_web has migrated the database."""
        return self._engine.read_only

    def start(self) -> None:
        """Begin to execute runs in the background, in this process. Safe to call again."""
        self._begin(Engine.start)

    def init(self) -> None:
        """`migrate`, then `start`. Safe to call again."""
        self._begin(Engine.init)

    def run_forever(self, *, stop_timeout: Duration | None = None) -> None:
        """Execute runs in this thread, in an engine of its own, until SIGTERM or SIGINT; then stop it within
        `stop_timeout`. A second signal ends the process. For a program that is a worker and nothing else."""
        refuse_where_a_loop_runs()
        engine = self._another()
        asyncio.run(engine.run_forever(stop_timeout=stop_timeout))

    def stop(self, timeout: Duration | None = None) -> None:
        """Finish the current step of each run, give the leases back, and close the database. Safe to call again.

        After `timeout` what takes longer is abandoned, as `durably_web.Durably.stop` says; `TimeoutError` is raised
        only where code of a job holds up the event loop itself. Who waits for a run in another thread gets
        `StoreUnavailable`. The next call opens the database again.
        """
        self._close(timeout)

    def __enter__(self) -> Self:
        try:
            self.init()
        except BaseException:
            # Nobody leaves a context that was not entered.
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def process_one(self) -> bool:
        """Execute one run that is due, to its end; `False` when there was none."""
        return self._ask(Engine.process_one)

    def process_until_idle(self, *, max_runs: int | None = None, max_seconds: float | None = None) -> int:
        """Execute what is due until nothing is, or a limit is reached; tell how many runs were executed."""
        return self._ask(lambda engine: engine.process_until_idle(max_runs=max_runs, max_seconds=max_seconds))

    def process(self, *, max_runs: int | None = None, max_seconds: float | None = None) -> Processed:
        """Execute what is due, and give back what is not finished in time; tell what was done, and what is left."""
        return self._ask(lambda engine: engine.process(max_runs=max_runs, max_seconds=max_seconds))

    def announce_stop(self, reason: str) -> None:
        """Tell listeners, and step functions that ask, that a stop is near. `stop` does so itself."""
        self._do(lambda engine: engine.announce_stop(reason))

    # -- jobs and listeners ------------------------------------------------------------------------------

    def register(self, *jobs: Job[Any, Any]) -> None:
        """Let this engine trigger and execute these jobs. Raises `Conflict` for two jobs of one name."""
        self._engine.register(*jobs)

    @property
    def jobs(self) -> Mapping[str, Job[Any, Any]]:
        """The registered jobs by name."""
        return self._engine.jobs

    def get_job(self, name: str) -> Job[Any, Any]:
        """The registered job of that name. Raises `NotFound`."""
        return self._engine.get_job(name)

    def on(self, event_type: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each event of this engine, of a type or of all (`"*"`), until the result is called.

        In this process only, and on the engine's own thread: it must not call back here.
        """
        return self._listen(event_type, listener)

    # -- asking for runs ---------------------------------------------------------------------------------

    @overload
    def trigger(
        self,
        job: Job[Input, Output],
        input: Input | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        concurrency_key: str | None = None,
        coalesce: Coalesce | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        delay: Duration | None = None,
        run_at: datetime.datetime | None = None,
        debounce: Debounce | Duration | None = None,
        request_id: str | None = None,
    ) -> RunHandle[Output]: ...

    @overload
    def trigger(
        self,
        job: str,
        input: Any = None,
        *,
        idempotency_key: str | None = None,
        concurrency_key: str | None = None,
        coalesce: Coalesce | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        delay: Duration | None = None,
        run_at: datetime.datetime | None = None,
        debounce: Debounce | Duration | None = None,
        request_id: str | None = None,
    ) -> RunHandle[Any]: ...

    def trigger(
        self, job: Job[Any, Any] | str, input: Any = None, *, request_id: str | None = None, **options: Any
    ) -> RunHandle[Any]:
        """Ask for a run. It is stored when this returns, and will be executed, whatever happens to this process.

        Options and errors are those of `durably_web.Durably.trigger`.
        """
        return self._handle(lambda engine: engine.trigger(job, input, request_id=request_id, **options))

    @overload
    def trigger_many(
        self, job: Job[Input, Output], items: Iterable[Mapping[str, Any]], *, request_id: str | None = None
    ) -> list[RunHandle[Output]]: ...

    @overload
    def trigger_many(
        self, job: str, items: Iterable[Mapping[str, Any]], *, request_id: str | None = None
    ) -> list[RunHandle[Any]]: ...

    def trigger_many(
        self, job: Job[Any, Any] | str, items: Iterable[Mapping[str, Any]], *, request_id: str | None = None
    ) -> list[RunHandle[Any]]:
        """Ask for runs in one transaction: all are stored when this returns, or none."""
        handles = self._ask(lambda engine: engine.trigger_many(job, items, request_id=request_id))
        return [RunHandle(self, handle) for handle in handles]

    def trigger_and_wait(
        self,
        job: Job[Input, Output] | str,
        input: Any = None,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[LogEntry], None] | None = None,
        **options: Any,
    ) -> Output:
        """Trigger, wait for the end, and give the output. `on_progress` and `on_log` are called on the engine's thread.

        Raises what `trigger` raises, `RunFailed`, `RunCancelled`, or `TimeoutError` after `timeout` seconds (the run
        goes on).
        """
        return self._ask(
            lambda engine: engine.trigger_and_wait(
                job, input, timeout=timeout, on_progress=on_progress, on_log=on_log, **options
            )
        )

    def signal(self, run_id: str, name: str, payload: Any = None, *, request_id: str | None = None) -> None:
        """Send a signal to a run: to its next `step.wait_for_signal(name)`, now or later. Stored when this returns."""
        self._ask(lambda engine: engine.signal(run_id, name, payload, request_id=request_id))
