"""An engine in memory and in virtual time, which can be killed and goes on."""

from __future__ import annotations

import asyncio
import datetime
import random
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from durably_web.arguments import Duration, seconds_of
from durably_web.backends import open_executor
from durably_web.engine import Durably
from durably_web.engine.base import no_run
from durably_web.jobs import Job
from durably_web.records import Run
from durably_web.store.batch import Batch
from durably_web.testing import settings
from durably_web.testing.clock import EPOCH, VirtualClock
from durably_web.testing.dying import Link, Trap, outcome_of
from durably_web.testing.errors import NeverCame, NotDurable, Stuck
from durably_web.testing.loop import PROCESS, Process, Stage
from durably_web.testing.nearby import Nearby

if TYPE_CHECKING:
    from durably_web.testing.witness import Witness

YEAR = 365 * 86_400.0

# Nothing is overlooked in one process, and a lease of somebody dead is free at once: nothing has to happen for these.
_NEVER = 100 * YEAR

# Seconds of real time: how long real threads and requests may take.
PATIENCE = 30.0
_LOOK = 0.005
_IN_FLIGHT = 1.0

# How many turns of the event loop nothing must happen.
_QUIET_TURNS = 3


class VirtualDurably(Durably):
    """A `Durably` on `:memory:` for tests: nothing in it takes real time, and it can be killed.

        async with VirtualDurably(jobs=[remind]) as durably:
            run = await durably.trigger(remind)
            await durably.advance(hours=24)
            assert await run.result() == "sent"

    Its clock stands still. `settle` executes what is due; `advance` lets time pass and executes what becomes due,
    in order. While a step executes, what it waits for by `asyncio.sleep` or `asyncio.timeout` is virtual time too;
    threads are waited for. Ids, and the jitter of retries, are the same each time (`seed`).

    After a crash a new engine goes on with what is stored; listeners and handles stay. Other options are those of
    `Durably`.
    """

    def __init__(
        self,
        *,
        jobs: Iterable[Job[Any, Any]] = (),
        start: datetime.datetime = EPOCH,
        seed: int = 0,
        patience: float = PATIENCE,
        witness: Witness | None = None,
        **options: Any,
    ) -> None:
        self._virtual = VirtualClock(start)
        self._memory = open_executor(":memory:", "relaxed")
        self._options: dict[str, Any] = {
            "clock": self._virtual,
            "random_bytes": random.Random(seed).randbytes,
            "polling_interval": _NEVER,
            "heartbeat_interval": _NEVER,
            "stale_threshold": 2 * _NEVER,
            **options,
        }
        self._patience = patience
        self._processes: list[Process] = []
        self._traps: list[Trap] = []
        self._unborn: dict[str, str] = {}
        self._stage: Stage | None = None
        self._driving: asyncio.Lock | None = None
        self.crashes: list[str] = []
        """What happened to the engine, in words."""
        self._witness = witness or _witness_of_all()
        self._is_watched = witness is None and self._witness is not None
        self._begin(jobs)

    @property
    def is_open(self) -> bool:
        """Whether it has begun, and was not stopped."""
        return self._stage is not None

    # -- time --------------------------------------------------------------------------------------------

    def now(self) -> datetime.datetime:
        """What time it is in here."""
        return datetime.datetime.fromtimestamp(self._virtual.now() / 1000, datetime.UTC)

    async def settle(self) -> None:
        """Execute what is due, until all that is left waits. Steps that wait in place let time pass."""
        await self._drive(None)

    async def advance(
        self,
        duration: Duration = 0.0,
        *,
        seconds: float = 0.0,
        minutes: float = 0.0,
        hours: float = 0.0,
        days: float = 0.0,
    ) -> None:
        """Let time pass, by seconds or a `timedelta`, and execute all that becomes due, at its moment and in order."""
        total = seconds_of(duration, "duration") + seconds + 60 * minutes + 3600 * hours + 86_400 * days
        if total < 0:
            raise ValueError(f"time does not go back: {total:g} s")
        await self._drive(self._virtual.passed + total * 1000)

    async def pass_on(self) -> bool:
        """Let time pass until something is due, and execute that; `False` when time alone brings nothing."""
        await self.settle()
        moment = self._next_at(_NEVER / 2)
        if moment is None:
            return False
        await self._drive(moment)
        return True

    async def wait_for_run(self, run_id: str, *, timeout: float | None = None, **listeners: Any) -> Run:
        """As `Durably.wait_for_run`; lets time pass for it. Raises `Stuck` when time alone does not help."""
        end = None if timeout is None else self._virtual.passed + timeout * 1000
        while True:
            await self.settle()
            run = await self.get_run(run_id)
            if run is None:
                raise no_run(run_id)
            if run.is_terminal:
                return await super().wait_for_run(run_id, **listeners)
            moment = self._next_at(_NEVER / 2)
            if end is not None and (moment is None or moment > end):
                await self._drive(end)
                raise TimeoutError(f"run {run_id} of job {run.job_name!r} is {run.status} after {timeout:g} s")
            if moment is None:
                raise Stuck(f"run {run_id} of job {run.job_name!r} is {run.status}, and {await self._why(run)}")
            await self._drive(moment)

    async def _why(self, run: Run) -> str:
        waits = [step.waits_for for step in await self.get_steps(run.id) if step.status == "waiting" and step.waits_for]
        if not waits:
            return "time alone does not wake it"
        return f"waits for {', '.join(waits)}, which nobody sends" if waits else "waits"

    # -- crashes -----------------------------------------------------------------------------------------

    def crash_before(self, step: str) -> None:
        """Kill the engine, once, when the function of this step is about to be called. Steps of one name are `save`,
        `save#2`, …"""
        self._unborn[step] = f"before step {step!r}"

    def crash_during(self, step: str) -> None:
        """Kill the engine, once, when the function of this step has returned and nothing of it is stored."""
        self._traps.append(Trap("before", outcome_of(step), f"during step {step!r}"))

    def crash_after(self, step: str) -> None:
        """Kill the engine, once, when what this step came to is stored and its job does not know yet."""
        self._traps.append(Trap("after", outcome_of(step), f"after step {step!r}"))

    def crash_at(self, number: int, when: Any, what: str) -> None:
        """Kill the engine, once, before or after its write of this number from now on, counted from 1."""
        first = len(self._link.writes)
        self._traps.append(Trap(when, lambda count, batch: count - first == number, what))

    async def crash(self) -> None:
        """Kill the engine now; the next one takes over at once."""
        self._die("at the test's request")
        await self.settle()

    def _die(self, what: str) -> None:
        self.crashes.append(what)
        self._process.kill()

    def _sprung(self, trap: Trap) -> None:
        self._traps.remove(trap)
        self.crashes.append(trap.what)

    # -- life --------------------------------------------------------------------------------------------

    async def migrate(self) -> None:
        self._enter()
        await super().migrate()

    async def start(self) -> None:
        self._enter()
        await self._in_process(super().start)

    async def stop(self, timeout: Duration | None = None) -> None:
        if self._stage is None:
            await super().stop(timeout)
        elif self._process.dead:
            await self._memory.close()
        else:
            # What cannot end by itself waits for time or for something that does not come.
            for execution, _ in list(self._worker._executing.values()):
                execution.stop()
            await self._wait_for(self._in_process(partial(super().stop, timeout)))
        for process in self._processes:
            process.kill()
            process.bury()
        await self._memory.close()
        if self._stage is not None:
            stage, self._stage = self._stage, None
            stage.leave()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        never = [*self._unborn.values(), *[trap.what for trap in self._traps]]
        if error is None and never:
            raise NeverCame(f"the engine was to be killed {', '.join(never)}, and that never came")
        if error is None and self._is_watched and self._witness is not None and self._witness.findings:
            raise NotDurable(", ".join(self._jobs), list(self._witness.findings.values()))

    def _enter(self) -> None:
        if self._stage is None:
            self._stage = Stage.enter()
            self._driving = asyncio.Lock()

    def _begin(self, jobs: Iterable[Job[Any, Any]]) -> None:
        """A new life: everything but the database is new."""
        process = self._process = Process(self._virtual)
        self._processes.append(process)
        self._link = Link(self._memory, process)
        self._link.traps = self._traps
        self._link.on_death = self._sprung
        super().__init__(self._link, jobs=list(jobs), **self._options)
        self._worker._caller._offloader = Nearby(self._worker._caller)  # type: ignore[assignment]
        hooks = self._environment.hooks
        hooks.around_run = self._around_run
        hooks.before_step = self._before_step
        if self._witness is not None:
            process.watcher = watcher = self._witness.watcher
            hooks.watched = lambda run_id, coroutine: watcher.dress(coroutine)

    async def _around_run(self, execution: Any) -> object:
        process = self._process
        process.executions.append(execution)
        if self._witness is None:
            return await execution.run()
        return await self._witness.around(execution)

    async def _before_step(self, key: str) -> None:
        if key in self._unborn:
            self._die(self._unborn.pop(key))
            await asyncio.get_running_loop().create_future()

    async def _take_over(self) -> None:
        """After a death: the next life."""
        dead = self._process
        await self._threads_of(dead)
        emitter, seen = self._emitter, self._worker
        seen.close()
        if self._witness is not None:
            self._witness.died()
        self._begin(list(self._jobs.values()))
        self._emitter._listeners = emitter._listeners
        await super().migrate()
        await self._in_process(super().start)

    def _in_process(self, act: Callable[[], Any]) -> asyncio.Task[Any]:
        """A task that is a part of the engine's process."""
        token = PROCESS.set(self._process)
        try:
            return asyncio.get_running_loop().create_task(act())
        finally:
            PROCESS.reset(token)

    # -- driving -----------------------------------------------------------------------------------------

    async def _drive(self, until: float | None) -> None:
        """Let happen what is due, and with `until`, in milliseconds since the start, what becomes due until then."""
        if self._stage is None or self._driving is None:
            raise RuntimeError("the engine has not begun: use `async with`, or `await durably.init()`")
        async with self._driving:
            await self._drive_alone(until)

    async def _drive_alone(self, until: float | None) -> None:
        while True:
            await self._quiet()
            if self._process.dead:
                await self._take_over()
                continue
            moment = self._virtual.next_at()
            if self._worker._executing:
                # It waits in place, for time or for something real.
                if moment is None or moment > self._virtual.passed + YEAR * 1000:
                    await self._something_real()
                    continue
                await self._given_time()
                moment = self._virtual.next_at()
                if moment is None:
                    continue
            elif until is None or moment is None or moment > until:
                break
            self._virtual.ring()
        if until is not None:
            self._virtual.pass_to(until)

    def _next_at(self, horizon: float) -> float | None:
        moment = self._virtual.next_at()
        return None if moment is None or moment > self._virtual.passed + horizon * 1000 else moment

    async def _quiet(self) -> None:
        """Return when nothing happens any more by itself."""
        stage = self._stage
        assert stage is not None
        quiet = 0
        while quiet < _QUIET_TURNS:
            before = stage.activity
            await asyncio.sleep(0)
            # One of them is this.
            quiet = quiet + 1 if stage.activity - before <= 1 else 0
            if quiet and self._process.at_work():
                await self._threads_of(self._process)
                quiet = 0

    async def _threads_of(self, process: Process) -> None:
        at_work = process.at_work()
        if not at_work:
            return
        done, _ = await asyncio.wait(
            at_work,
            timeout=self._patience,
            return_when=asyncio.ALL_COMPLETED if process.dead else asyncio.FIRST_COMPLETED,
        )
        if not done:
            # It is left alone from now on.
            process.threads.clear()
            raise Stuck(f"{self._doing()} has kept a thread busy for {self._patience:g} s of real time")

    async def _given_time(self) -> None:
        """Before time is let pass under a step: where it may wait for a socket, that is given a moment."""
        stage = self._stage
        assert stage is not None
        if stage.talks():
            await self._until_active(_IN_FLIGHT)

    async def _something_real(self) -> None:
        if not await self._until_active(self._patience):
            raise Stuck(
                f"{self._doing()} waits for something that does not come: nothing that it asked of time is left"
            )

    async def _until_active(self, seconds: float) -> bool:
        stage = self._stage
        assert stage is not None
        looks = round(seconds / _LOOK)
        for _ in range(looks):
            before = stage.activity
            await asyncio.sleep(_LOOK)
            # This, and its timer.
            if stage.activity - before > 2:
                return True
        return False

    async def _wait_for(self, task: asyncio.Future[Any]) -> None:
        while not task.done():
            await self._quiet()
            if not task.done() and self._next_at(YEAR) is not None:
                self._virtual.ring()
            elif not task.done() and not await self._until_active(min(_IN_FLIGHT, self._patience)):
                # It hangs, as what it executes does.
                self._process.kill()
                return
        await task

    def _doing(self) -> str:
        doing = [
            f"step {key!r} of run {run_id} (job {execution.job.name!r})"
            for run_id, (execution, _) in self._worker._executing.items()
            for key in (execution._executing or ["(outside of a step)"])
        ]
        return ", ".join(doing) or "the engine"

    @property
    def _writes(self) -> list[Batch]:
        return self._link.writes


def _witness_of_all() -> Witness | None:
    if not settings.watch:
        return None
    from durably_web.testing.witness import Witness

    return Witness()


def engine(*, jobs: Iterable[Job[Any, Any]] = (), **options: Any) -> VirtualDurably:
    """A `VirtualDurably` to enter: `async with testing.engine(jobs=[remind]) as durably:`."""
    return VirtualDurably(jobs=jobs, **options)
