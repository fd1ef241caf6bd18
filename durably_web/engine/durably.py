"""The engine as a whole: what it is made of, and its life."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from durably_web import calls, unawaited
from durably_web.arguments import Duration, check_text, seconds_of
from durably_web.backends import Durability, open_executor
from durably_web.clock import Clock, SystemClock
from durably_web.codec import Codec, JsonCodec
from durably_web.context import Shutdown
from durably_web.emitter import Emitter
from durably_web.engine.scheduling import Scheduling
from durably_web.environment import Environment, Hooks, Watch
from durably_web.ids import IdMaker, new_worker_id
from durably_web.jobs import Job
from durably_web.network import Network
from durably_web.store.batch import Executor
from durably_web.store.store import Store
from durably_web.worker import Worker

if TYPE_CHECKING:
    from durably_web.background import Background
    from durably_web.draining import Processed
    from durably_web.retention import Retention

T = TypeVar("T")


class Durably(Scheduling):
    """Triggers jobs, executes them, and tells of them.

        durably = Durably("app.db", jobs=[import_csv])
        async with durably:
            handle = await durably.trigger(import_csv, {"text": text})
            print(await handle.result(timeout=60))

    `database` is a file's path, `sqlite:///app.db`, `:memory:`, `libsql://host`, in the browser `opfs:name`, or an
    executor.
    Durations are seconds. A run whose worker has not renewed its lease for `stale_threshold` is taken over;
    leases are renewed every `heartbeat_interval`. `polling_interval` is the longest that a worker overlooks
    a run that nothing told it of.

    Terminal runs are kept until somebody deletes them, or, with `retain_runs` (seconds or `timedelta`), until
    they are that old. With `preserve_steps=False` the results of a run's steps are emptied once it has completed.
    `codec` turns values into what is stored; the default is JSON with tags. `random_bytes` is the only source of
    chance: for ids, and for the jitter of retries. `network` says whether there is one, for steps that
    wait for it.
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
        preserve_steps: bool = True,
        retain_runs: Duration | None = None,
        durability: Durability = "full",
        worker_id: str | None = None,
        clock: Clock | None = None,
        codec: Codec | None = None,
        network: Network | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if max_concurrent_runs < 1:
            raise ValueError(f"max_concurrent_runs must be at least 1, not {max_concurrent_runs}")
        if not 0 < heartbeat_interval < stale_threshold:
            raise ValueError(
                f"heartbeat_interval ({heartbeat_interval} s) must be shorter than stale_threshold "
                f"({stale_threshold} s): otherwise leases end while their worker is alive"
            )
        if worker_id:
            check_text(worker_id, "a worker's id")
        clock = clock or SystemClock()
        codec = codec or JsonCodec()
        make_id = IdMaker(clock, random_bytes)
        # As it was given: `durably-web deploy` looks whether the environment was asked.
        self._database = database
        executor = open_executor(database, durability) if isinstance(database, str) else database
        if hasattr(codec, "seal") or hasattr(codec, "unseal"):
            from durably_web.store.sealing import sealing

            executor = sealing(executor, codec)
        environment = Environment(
            store=Store(executor, clock),
            clock=clock,
            emitter=Emitter(clock.now),
            codec=codec,
            make_id=make_id,
            random=lambda: int.from_bytes(random_bytes(6), "big") / 2**48,
            jobs={},
            polling_interval=polling_interval,
            preserve_steps=preserve_steps,
            hooks=Hooks(),
            shutdown=Shutdown(),
            network=network or Network(),
        )
        worker = Worker(
            environment,
            worker_id=worker_id or new_worker_id(make_id()),
            heartbeat_interval=heartbeat_interval,
            stale_threshold=stale_threshold,
            max_concurrent_runs=max_concurrent_runs,
        )
        super().__init__(environment, worker)
        self._retention: Retention | None = None
        self._background: Background | None = None
        self._leave: Callable[[], None] | None = None
        self._running = False
        # Those under way and who waits for each; how many there have been; and who wants to know that one begins.
        self._stops: dict[asyncio.Future[None], object] = {}
        self._stopped = 0
        self._stop_hooks: list[Callable[[], None]] = []
        # Of those who need the database longer than the runs do: set when they are done.
        self._in_use: list[asyncio.Event] = []
        environment.shutdown.wait_until = self.wait_until
        if retain_runs is not None:
            # Here, and not at the top: in a browser each module costs a millisecond at the start.
            from durably_web.retention import Retention

            age = seconds_of(retain_runs, "retain_runs")
            self._retention = Retention(environment, age, lambda: self.purge_runs(older_than=age))
        self.register(*jobs)

    async def migrate(self) -> None:
        """Open the database and bring its schema up to date. Safe to call again.

        Where a newer durably_web has migrated it, it is left as it is and only read: see `read_only`. Raises
        `NotADatabase`, `StoreNotDurable` or `StoreUnavailable`; the file is then as it was. Waits for a `stop` that is
        under way, and raises `RuntimeError` where that waits for the caller: in a run, a listener, or `wait_until`.
        """
        calls.refuse_a_beginning_process()
        await self._after_stops()
        await self._store.open()
        if not self._running:
            # What was said of a stop before is over, also for who only asks here.
            self._environment.shutdown.reason = None
        self._running = True
        if self._leave is None:
            self._leave = unawaited.watch(self._environment.shutdown, self._emitter)

    @property
    def read_only(self) -> str | None:
        """Why this engine can only read, if so: a newer durably_web has migrated the database, before or meanwhile.

        Then whatever would write raises `SchemaTooNew`, nothing is executed, and `worker:error` has told of it. It
        lasts until the database is opened again by a durably_web that knows its schema.
        """
        return None if self._store.too_new is None else str(self._store.too_new)

    async def start(self) -> None:
        """Begin to execute runs in the background, unless the engine is `read_only`. Safe to call again.

        A `stop` that comes meanwhile wins. One that is under way is waited for, as by `migrate`.
        """
        await self._after_stops()
        stopped = self._stopped
        await self._worker.start()
        if self._retention is not None and self._store.too_new is None and stopped == self._stopped:
            self._retention.start()

    async def init(self) -> None:
        """`migrate`, then `start`. Safe to call again."""
        await self._after_stops()
        stopped = self._stopped
        await self.migrate()
        # A stop that came meanwhile is meant.
        if stopped == self._stopped:
            await self.start()

    async def _after_stops(self) -> None:
        while self._stops:
            from durably_web.stopping import refuse_who_is_waited_for

            refuse_who_is_waited_for(self._environment.shutdown, self._emitter, self._background)
            await asyncio.wait(list(self._stops))

    async def stop(self, timeout: Duration | None = None) -> None:
        """Finish the current step of each run, give the leases back, and close the database. Safe to call again.

        Whoever claims such a run next goes on behind that step. What `wait_until` was given is waited for, and so are
        listeners that are async.

        With a `timeout` (seconds or `timedelta`) all of that has so long. Then it is abandoned, and `worker:error` says
        for each run in which steps it was: async functions are cancelled, and the leases of their runs given back; a
        function in a thread cannot be ended, so that its run's lease runs out by itself. What it comes to is not
        stored, and the process can end without it. Returns at most some seconds after that.
        """
        seconds = None if timeout is None else seconds_of(timeout, "timeout")
        self._stopped += 1
        for hook in list(self._stop_hooks):
            hook()
        stops, over = self._stops, asyncio.get_running_loop().create_future()
        stops[over] = asyncio.current_task()
        try:
            await self._stop(seconds)
        finally:
            stops.pop(over)
            over.set_result(None)

    async def _stop(self, seconds: float | None) -> None:
        late = False
        if seconds is None:
            await self._finish()
        else:
            from durably_web.stopping import stop_within

            waiting, worker = self._stops.values(), self._worker
            late = await stop_within(
                seconds, self._finish, self._clock, self._emitter, worker, self._background, waiting
            )
        self._running = False
        if self._leave is not None:
            self._leave()
            self._leave = None
        self._worker.close()
        await self._store.close(at_once=late)
        if late:
            from durably_web.stopping import linger

            linger(self._worker)

    async def _finish(self) -> None:
        if self._retention is not None:
            await self._retention.stop()
        await self._worker.stop()
        for done in self._in_use:
            await done.wait()
        while True:
            if self._background is not None:
                await self._background.finish(self._stops.values())
            if not await self._emitter.finish(self._stops.values()):
                break

    async def run_forever(self, *, stop_timeout: Duration | None = None) -> None:
        """`init`, then wait for SIGTERM or SIGINT, then `stop(timeout=stop_timeout)`. A second signal ends the process.

        The handlers of before are restored. Cancelling its task stops the engine, too: so it ends in a thread that is
        not the main one, and in a browser, where no signal comes. Returns when somebody else calls `stop`. Raises
        `SchemaTooNew`, after the stop, once the engine is `read_only`: so a supervisor starts the newer code.
        """
        from durably_web.forever import run_forever

        await run_forever(self, stop_timeout)

    def wait_until(self, awaitable: Awaitable[T]) -> asyncio.Future[T]:
        """A task of `awaitable`, a coroutine for instance, that `stop` waits for before it closes the database.

        An exception in it shows up as `worker:error`, with the run if a job or a step's function has called this. In a
        job file it is `durably_web.wait_until`. Raises `RuntimeError` before `init` and after `stop`.
        """
        from durably_web import background

        if not self._running:
            raise background.refuse(awaitable)
        if self._background is None:
            self._background = background.Background(self._emitter, self._environment.shutdown)
        return self._background.add(awaitable)

    async def abandon(self) -> None:
        """Close the database without finishing anything, as if the process were gone. Safe after a `stop`."""
        self._worker.close()
        await self._store.abandon()

    def announce_stop(self, reason: str) -> None:
        """Tell listeners (`worker:shutdown`), and step functions that ask (`shutting_down`), that a stop is near.
        Before the next start only the first reason is told. `stop` does so itself."""
        self._worker.announce_stop(reason)

    def blame(self, run_id: str | None) -> None:
        """Before the start: the worker before this one died under this run, or under none of its runs.

        Only of that run it counts as a death; the others are taken up as if the worker had given them back.
        """
        self._worker.blame(run_id)

    def watch_executions(self, watch: Watch | None) -> None:
        """Let each execution's coroutine be what `watch(run_id, coroutine)` makes of it, until it is called again."""
        self._environment.hooks.watched = watch

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
        return await self.process_until_idle(max_runs=1) == 1

    async def process_until_idle(self, *, max_runs: int | None = None, max_seconds: float | None = None) -> int:
        """Execute what is due until nothing is, or a limit is reached; tell how many runs were executed.

        What waits is not due. A run that is taken up several times is counted as often. After `max_seconds` nothing is
        begun; what has begun is finished.
        """
        # Not at the top: in a browser each module costs a millisecond at the start.
        from durably_web.draining import drain

        return await drain(self._worker, max_runs, max_seconds)

    async def process(self, *, max_runs: int | None = None, max_seconds: float | None = None) -> Processed:
        """`process_until_idle` for a place that nobody works in otherwise, such as a function that a cron job calls.

        After `max_seconds` the steps that execute are finished, and their runs are given back: whoever comes next goes
        on behind them. So it takes as much longer as the longest of these steps. Runs that are older than `retain_runs`
        are deleted, as far as there is time. Any number of calls, here and elsewhere, may be under way at once. Tells
        also what is left.
        """
        from durably_web.draining import drain, left

        deadline = None if max_seconds is None else self._clock.monotonic() + max_seconds
        count = await drain(self._worker, max_runs, max_seconds, give_back=True)
        if self._retention is not None:
            await self._retention.purge(lambda: deadline is not None and self._clock.monotonic() >= deadline)
        return await left(self._environment, count)
