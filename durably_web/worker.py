"""Claims runs and executes them: the loop above `Execution`."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from durably_web import calls
from durably_web.clock import Timer
from durably_web.environment import Environment
from durably_web.errors import LeaseLost, ResponseTooLarge, RunInterrupted, SchemaTooNew, StorageFull
from durably_web.events import EventType
from durably_web.execution import Execution
from durably_web.store import operations
from durably_web.store.changes import JOURNAL, RUNNABLE
from durably_web.store.rows import Lease, entry_event
from durably_web.waits import WAITS

if TYPE_CHECKING:
    from durably_web.ticking import Ticking

RECOVERY = "recovery"
"""Topic: there is a reason to try again at once what failed."""


class Worker:
    """Executes up to `max_concurrent_runs` runs at once, and keeps their leases."""

    def __init__(
        self,
        environment: Environment,
        *,
        worker_id: str,
        heartbeat_interval: float,
        stale_threshold: float,
        max_concurrent_runs: int,
    ) -> None:
        self.worker_id = worker_id
        self._environment = environment
        self._store = environment.store
        self._clock = environment.clock
        self._emitter = environment.emitter
        self._jobs = environment.jobs
        self._polling_interval = environment.polling_interval
        self._heartbeat_interval = heartbeat_interval
        self._stale_threshold = stale_threshold
        self._max_concurrent_runs = max_concurrent_runs
        self._caller = calls.caller(max_concurrent_runs)
        self._executing: dict[str, tuple[Execution, asyncio.Task[object]]] = {}
        self.beginning: Lease | None = None
        self._loop: asyncio.Task[None] | None = None
        self._heartbeat: Timer | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._network = environment.network
        self._online = environment.network.online
        self._deaf: Callable[[], None] | None = None
        # Counted, so that what began before a stop knows that it is meant; and how many are under way.
        self._stops = self._stopping = 0
        # Of those who drain beside the loop: a stop waits for them.
        self.claims: set[asyncio.Future[None]] = set()
        self._paused = False
        # Of the workers that are gone when this one starts: under which runs they died, where that is known.
        self._blamed: list[str] | None = None
        # As far as the last claim saw.
        self._next_at: int | None = None
        self._keyed = True
        self._tick_at: int | None = None
        self._ticking: Ticking | None = None
        self._store.room.on_change = self._tell_of_room
        self._store.on_too_new = self._tell_of_newer

    # -- life --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to claim and execute. Runs whose worker is known to be dead are taken up at once."""
        self._environment.shutdown.reason = None
        if self._store.too_new is not None:
            return
        self._store.room.patient = True
        if self._loop is None:
            stops = self._stops
            await self.enter()
            if self._network.online:
                await self._wake_for_network()
            # Nobody else has begun meanwhile, and no stop has come.
            if stops == self._stops and self._loop is None:
                self._loop = asyncio.get_running_loop().create_task(self._work(stops))
                self._beat_later()

    async def stop(self) -> None:
        """Claim nothing more, finish the current step of each run, and give the leases back."""
        self.announce_stop("stop")
        self._stops += 1
        self._stopping += 1
        try:
            await self._stop()
        finally:
            self._stopping -= 1

    @property
    def is_leaving(self) -> bool:
        """Whether nobody is to begin anything more: a stop is under way, or is about to begin."""
        return self._stopping > 0 or self._environment.shutdown.leaving

    async def _stop(self) -> None:
        self._store.changes.notify(RUNNABLE)
        self._store.changes.notify(RECOVERY)
        self._stop_executions()
        # What cannot be stored now is done again by whoever takes these runs up.
        await self._store.room.give_up()
        loop, self._loop = self._loop, None
        if loop is not None:
            await loop
        if self._ticking is not None:
            await self._ticking.stop()
        while self.claims:
            await asyncio.wait(self.claims)
        # Those of the claims that were under way.
        self._stop_executions()
        await self._finish_all()
        self._let_go()
        while self._background:
            await asyncio.wait(self._background)

    def executions(self) -> list[tuple[str, Execution]]:
        return [(run_id, execution) for run_id, (execution, _) in self._executing.items()]

    def forget(self) -> None:
        self._executing.clear()
        self._let_go()

    def _let_go(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        if self._deaf is not None:
            self._deaf()
            self._deaf = None

    def close(self) -> None:
        self._caller.close()

    def interrupt(self, run_id: str, generation: int) -> None:
        """The run was cancelled in that generation: end its execution here, if there is one."""
        if run_id in self._executing and self._executing[run_id][0].lease.generation == generation:
            self._executing[run_id][0].end(RunInterrupted())

    def suspend(self, run_id: str) -> None:
        """The run was paused: finish its current steps and give its lease back, if it is executed here."""
        if run_id in self._executing:
            self._executing[run_id][0].stop()

    def pause(self) -> None:
        """Claim nothing more; what executes goes on."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._store.changes.notify(RUNNABLE)

    def blame(self, run_id: str | None) -> None:
        """Before the start: the worker before this one died under this run, or under none. Its other runs are innocent:
        they are taken up as if it had given them back."""
        self._blamed = [] if run_id is None else [run_id]

    def announce_stop(self, reason: str) -> None:
        """Tell listeners, and step functions that ask, that the engine is about to stop. The first reason counts."""
        shutdown = self._environment.shutdown
        if shutdown.reason is not None:
            return
        shutdown.reason = reason
        self._emitter.tell("worker:shutdown", worker_id=self.worker_id, reason=reason)

    def _tell_of_room(self, error: StorageFull | None) -> None:
        """The disk is full, and what was done waits to be stored; or nothing waits any more."""
        name: EventType = "storage:room" if error is None else "storage:full"
        text = None if error is None else f"{type(error).__name__}: {error}"
        self._emitter.tell(name, error=text, worker_id=self.worker_id)
        if error is None:
            self._store.changes.notify(RUNNABLE)
            self._store.changes.notify(RECOVERY)

    def _tell_of_newer(self, error: SchemaTooNew) -> None:
        """A newer version has the database now. Its migration has ended our leases."""
        self._emitter.error(error, "the database is only read from now on")
        # The executions that are left learn it before they begin anything more.
        for execution, _ in list(self._executing.values()):
            execution.end(LeaseLost())
        self._store.changes.notify(RUNNABLE)

    # -- claiming ----------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Leave no timer behind where nothing is executed."""
        if self._loop is None and not self._executing and self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None

    async def _work(self, stops: int) -> None:
        # The count of when the task was made: a stop may come before its first line.
        changes = self._store.changes
        while stops == self._stops:
            mark = changes.mark(RUNNABLE)
            try:
                if (room := self.room) > 0:
                    await self._claim(room, patient=True)
                if (due := self._due_ticking()) is not None:
                    due.begin()
            except SchemaTooNew:
                # Of that everybody has been told.
                return
            except Exception as error:
                # Whatever it is, a worker that gives up would leave every run behind.
                self._emitter.error(error, "claiming runs")
                # Not woken by our own notices: a database in trouble is given time.
                if stops == self._stops:
                    await changes.wait(RECOVERY, self._polling_interval)
                continue
            await changes.wait(RUNNABLE, self._patience(), mark)

    @property
    def room(self) -> int:
        """How many runs more may be begun now."""
        return 0 if self._paused or self._store.room.is_full else self._max_concurrent_runs - len(self._executing)

    def _patience(self) -> float:
        """Seconds until something may be due that nobody tells of: a moment that comes, or what was overlooked."""
        patience = min(self._polling_interval, self._until_tick())
        if self._next_at is None or self.room <= 0:
            return patience
        return min(patience, max(1, self._next_at - self._clock.now()) / 1000)

    async def _claim(self, limit: int, *, patient: bool = False) -> list[asyncio.Task[object]]:
        try:
            leases, now = await self._lease(limit, patient)
            return [self._begin(lease, now) for lease in leases]
        except ResponseTooLarge:
            from durably_web.piecemeal import claim_one_by_one

            return await claim_one_by_one(self, limit, patient)

    async def _lease(self, limit: int, patient: bool, *, bare: bool = False) -> tuple[list[Lease], int]:
        now = self._clock.now()
        limits = [job.limits for job in self._jobs.values()]
        by_limits = self._keyed or not all(job.is_plain for job in limits)
        claimed = await self._store.write(
            operations.claim(
                owner=self.worker_id,
                token=self._environment.make_id(),
                jobs=limits,
                limit=limit,
                executing=self._executing,
                now=now,
                expires_at=self._expiry(now),
                codes=json.dumps({job.name: job.known_code for job in self._jobs.values()}),
                by_limits=by_limits,
                bare=bare,
            ),
            patient=patient,
        )
        self._next_at, self._keyed, self._tick_at = claimed.next_at, claimed.keyed, claimed.tick_at
        if not claimed.leases and claimed.keyed and not by_limits:
            # Those with a key were not looked at.
            return await self._lease(limit, patient, bare=bare)
        return claimed.leases, now

    def _begin(self, lease: Lease, now: int) -> asyncio.Task[object]:
        # Who hears of it may want to know more of the lease than an event has.
        self.beginning = lease
        if self._emitter.hears("run:leased"):
            detail = {"workerId": self.worker_id, "attempt": lease.attempt}
            self._emitter.emit(
                entry_event(
                    *("run:leased", lease.seq, lease.number, lease.run_id, lease.job_name, lease.labels),
                    *(None, detail, None, now),
                )
            )
        self._store.changes.notify(JOURNAL)
        given = (self._environment, self._caller, self._jobs[lease.job_name], lease)
        execution = Execution(*given, expires_at=self._expiry(now), renew=lambda: self._renew(patient=True))
        self._store.writers += 1
        around, watched = self._environment.hooks.around_run, self._environment.hooks.watched
        executing: Coroutine[Any, Any, object] = execution.run() if around is None else around(execution)
        if watched is not None:
            executing = watched(lease.run_id, executing)
        task = asyncio.get_running_loop().create_task(executing, name=f"durably run {lease.run_id}")
        self._executing[lease.run_id] = (execution, task)
        task.add_done_callback(lambda task: self._ended(lease.run_id, task))
        self._beat_later()
        return task

    def _ended(self, run_id: str, task: asyncio.Task[object]) -> None:
        self._store.writers -= 1
        if self._executing.get(run_id, (None, None))[1] is task:
            del self._executing[run_id]
        self._store.changes.notify(RUNNABLE)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._emitter.error(error, "executing a run", run_id)

    def _stop_executions(self) -> None:
        for execution, _ in list(self._executing.values()):
            execution.stop()

    async def _finish_all(self) -> None:
        while self._executing:
            await asyncio.wait({task for _, task in self._executing.values()})

    # -- schedules ---------------------------------------------------------------------------------------

    def look_for_tick(self, moment: int | None) -> None:
        """A schedule ticks at this moment; also a worker that claims nothing now is to know it."""
        if moment is not None:
            self._tick_at = moment if self._tick_at is None else min(moment, self._tick_at)
            self._store.changes.notify(RUNNABLE)

    def _see_tick(self, moment: int | None) -> None:
        self._tick_at = moment

    async def claim_with_ticks(self, limit: int, is_over: Callable[[], bool]) -> list[asyncio.Task[object]]:
        """Begin up to `limit` runs that are due, also those that ticks get now."""
        begun = await self._claim(limit)
        while (due := self._due_ticking()) is not None and await due.work() and not begun and not is_over():
            begun = await self._claim(limit)
        return begun

    def _due_ticking(self) -> Ticking | None:
        return self._ticking if self._until_tick() == 0 else None

    def _until_tick(self) -> float:
        """Seconds until there is something to do about schedules."""
        if self._tick_at is None or self._paused or self._store.room.is_full:
            return math.inf
        if self._ticking is None:
            # Here, and not at the top: most engines have no schedules.
            from durably_web.ticking import Ticking

            self._ticking = Ticking(self._environment, self._see_tick)
        return self._ticking.wait(self._tick_at)

    async def _look_for_tick(self) -> None:
        """A worker without room claims nothing, and does not learn otherwise of the schedules of others."""
        if self.room <= 0 and not self._paused:
            self.look_for_tick(await self._store.read(operations.next_tick()))

    # -- leases ------------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Before the first claim: be known to be alive, and free the leases of those who are not."""
        self._store.announce(self.worker_id)
        if sys.platform != "emscripten":
            # Now, while the files are what was imported. In a browser nobody changes them, and the start is in a hurry.
            for job in self._jobs.values():
                job.code  # noqa: B018
        if self._deaf is None:
            self._deaf = self._network.listen(self._hear_of_network)
        await self._free_the_dead()

    async def _free_the_dead(self) -> None:
        """Free the leases of workers that are certainly gone, without waiting for their end."""
        owners = await self._store.read(operations.other_owners(self.worker_id))
        if gone := self._store.gone(owners):
            await self._store.write(operations.free_leases_of(gone, self._blamed))
            self._store.changes.notify(RUNNABLE)
        # Whoever dies from now on has another story.
        self._blamed = None

    # -- the network -------------------------------------------------------------------------------------

    def _hear_of_network(self) -> None:
        online = self._network.online
        if online != self._online:
            self._online = online
            self._emitter.tell("network:online" if online else "network:offline")
        if online:
            self._store.changes.notify(WAITS)
            self._in_background(self._wake_for_network)

    async def _wake_for_network(self) -> None:
        """Let the runs go on that wait for the network. Where that fails, they look for themselves after a while."""
        try:
            await self._store.write(operations.wake_for_network())
        except SchemaTooNew:
            return
        except Exception as error:
            self._emitter.error(error, "waking runs that wait for the network")
        else:
            self._store.changes.notify(RUNNABLE)

    def _in_background(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.get_running_loop().create_task(work())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- heartbeats --------------------------------------------------------------------------------------

    def _beat_later(self) -> None:
        if self._heartbeat is None:
            self._heartbeat = self._clock.call_later(self._heartbeat_interval, self._start_beat)

    def _start_beat(self) -> None:
        self._heartbeat = None
        self._in_background(self._beat)

    async def _beat(self) -> None:
        try:
            await self._renew()
            await self._free_the_dead()
            await self._look_for_tick()
        except Exception as error:
            # Of a full disk, and of a newer version, everybody has been told.
            if not ((isinstance(error, StorageFull) and self._store.room.is_full) or isinstance(error, SchemaTooNew)):
                self._emitter.error(error, "renewing leases")
        if self._executing or self._loop is not None:
            self._beat_later()

    async def _renew(self, *, patient: bool = False) -> None:
        """Renew the leases, and end the executions of runs that are not ours any more. Raises `StoreError`."""
        held = [(run_id, execution.lease.generation) for run_id, (execution, _) in self._executing.items()]
        if held:
            expires_at = self._expiry(self._clock.now())
            found = await self._store.write(operations.renew_leases(held, expires_at), patient=patient)
            self._settle(held, {run.run_id: run for run in found}, expires_at)

    def _expiry(self, now: int) -> int:
        return now + round(self._stale_threshold * 1000)

    def _settle(self, held: list[tuple[str, int]], found: dict[str, operations.Ownership], expires_at: int) -> None:
        for run_id, generation in held:
            if run_id not in self._executing:
                continue
            execution, _ = self._executing[run_id]
            run = found.get(run_id)
            if run is not None and run.status == "leased" and run.generation == generation:
                execution.expires_at = expires_at
                if run.paused:
                    execution.stop()
                lease = execution.lease
                self._emitter.tell("run:lease-renewed", run_id, lease.job_name, lease.labels, worker_id=self.worker_id)
            elif execution.lease.generation == generation:
                cancelled = run is not None and run.status == "cancelled"
                execution.end(RunInterrupted() if cancelled else LeaseLost())
