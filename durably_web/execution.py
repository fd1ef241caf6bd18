"""One execution of one leased run: replays what is stored, executes the rest, stores the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from durably_web import calls, codec, failures, trying
from durably_web.context import current_run, ended, shutdown
from durably_web.ending import Ending, complete, fail, fail_for, give_back, output_text, try_to_store
from durably_web.environment import Environment
from durably_web.errors import (
    ControlFlow,
    LeaseLost,
    RunInterrupted,
    RunSuspended,
    RunTimedOut,
    StoreError,
)
from durably_web.events import Event
from durably_web.jobs import Job
from durably_web.journal import Awaited, Draft, RunJournal
from durably_web.records import Kind, instant
from durably_web.replaying import TURN_SECONDS, Replaying
from durably_web.steps import Step
from durably_web.store.batch import Operation
from durably_web.store.changes import end_of
from durably_web.store.rows import Lease
from durably_web.waits import WAITS, Wait, Waits

if TYPE_CHECKING:
    from durably_web.deadline import Deadline
    from durably_web.undoing import Undo

T = TypeVar("T")

# Not the job's own failures. A browser has no process that `sys.exit()` could end: there it fails the run.
ENDS_PROCESS = (KeyboardInterrupt, GeneratorExit, *([] if sys.platform == "emscripten" else [SystemExit]))


class Execution(Replaying):
    """Runs a job's function under a lease."""

    def __init__(
        self,
        environment: Environment,
        caller: calls.Caller,
        job: Job[Any, Any],
        lease: Lease,
        *,
        expires_at: int,
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(environment, lease)
        # When the lease ends, as far as its worker knows; kept up by whoever renews it.
        self.expires_at = expires_at
        self.journal = RunJournal(environment, lease)
        self.journal.on_failure = self._write_failed
        self._waits: Waits | None = None
        self._renew = renew
        self._store = environment.store
        self._emitter = environment.emitter
        self.around_step = environment.hooks.around_step
        self.caller = caller
        self.job = job
        self._executing: dict[str, asyncio.Task[Any] | None] = {}
        if self.history.redone or lease.is_fork:
            self.order.executing = self._executing
        self._awaited: Awaited | None = None
        # Signals that a branch has chosen, and not yet stored that it took them.
        self.taken, self.taking = set[int](), asyncio.Lock()
        # How steps that were asked for can be undone, by key; and who does it, once that has begun.
        self.undos: dict[str, Undo] = {}
        # A result that can be undone is stored, or on its way.
        self.keeps_undos = False
        self.heir: Execution | None = None
        self._stopping = False
        self._told_to_stop = False
        self.finishing = False
        self._store_failed = False
        self._late = False
        self._over = False
        self._task: asyncio.Task[Any] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._deadline: Deadline | None = None
        if job.options.timeout is not None:
            # Here, and not at the top: in a browser each module costs a millisecond at the start.
            from durably_web.deadline import Deadline

            self._deadline = Deadline(self._clock, lease.started_at, job.options.timeout, self._time_out)

    # -- called by the worker ----------------------------------------------------------------------------

    async def run(self) -> Ending:
        """Execute to the end, or until `end` or `stop`. Raises nothing but the cancellation of its own task."""
        task = self._task = asyncio.current_task()
        assert task is not None
        ended.set(self._has_ended)
        current_run.set(self.lease.run_id)
        shutdown.set(self.environment.shutdown)
        try:
            # It may have been ended before it began.
            self.check()
            if self.lease.undoing is not None:
                # Not at the top: few runs are undone, and in a browser each module costs a millisecond at the start.
                from durably_web.undoing import go_on_undoing

                return await go_on_undoing(self)
            if self.lease.crashes > self.job.options.max_attempts:
                return await fail_for(
                    self,
                    f"PoisonRun: {self.lease.crashes} workers in a row died under this run without a newly stored "
                    f"step; its job allows {self.job.options.max_attempts}. When the cause is gone, retry it",
                )
            if self._deadline is not None:
                self._deadline.start()
                self.check()
            code = self.job.code
            if code != self.lease.code and code is not None:
                # Not at the top: in a browser each module costs a millisecond at the start.
                from durably_web import revisions

                if not await revisions.accept(self, code):
                    return await fail_for(self, revisions.refusal(self.job, self.lease, code))
            try:
                text = await self._call_job()
            except ENDS_PROCESS:
                raise
            except BaseException as error:
                self.check()
                if isinstance(error, asyncio.CancelledError) and task.cancelling():
                    raise
                # Also one that no `except Exception` catches: raised again it would end the run for this time
                # only. A cancellation that nobody asked this run for comes from something that the job awaited.
                await self._finish_steps()
                return await fail(self, error)
            self.check()
            await self._finish_steps()
            if self.mismatch is not None:
                # The job has caught it, and gone on with what is not so.
                return await fail(self, self.mismatch)
            return await complete(self, text)
        except BaseException as error:
            if self.heir is not None:
                # Not ended by it: the process is going down.
                raise
            return await self._end_early(error)
        finally:
            self._ending = self._ending or LeaseLost()
            if self._deadline is not None:
                self._deadline.stop()
            if self._waits is not None:
                self._waits.close()
            self.journal.close()
            changes = self._store.changes
            changes.notify(end_of(self.lease.run_id))
            if self.lease.parent_run_id is not None:
                changes.notify(WAITS)

    async def _call_job(self) -> str:
        value = self._decode(self.lease.input)
        return output_text(self, await self.job.execute(Step(self), value))

    def end(self, reason: ControlFlow) -> None:
        """End it from outside: at its next await, and at the latest at its next step."""
        if self.heir is not None:
            self.heir.end(reason)
        elif self._ending is None:
            self._ending = reason
            # Its own task is told by raising instead: a cancellation would hit the writes of its end.
            # A write of the end is fenced, and is not interrupted either.
            if self._task is not None and self._task is not asyncio.current_task() and not self.finishing:
                self._task.cancel()

    def stop(self) -> None:
        """Finish the steps that are executing, then give the lease back."""
        if self.heir is not None:
            return self.heir.stop()
        self._stopping = self._told_to_stop = True
        if not self._executing:
            self.end(RunSuspended())

    def abandon(self) -> list[str]:
        """The time of a stop is over: cancel what executes, whose results are not stored any more. Gives the steps."""
        if self.heir is not None:
            return self.heir.abandon()
        self._late = True
        self._ending = self._ending or RunSuspended()
        steps, tasks = list(self._executing), set(self._executing.values())
        if not self.finishing and not self._over:
            tasks.add(self._task)
        for task in tasks:
            if task is not None:
                task.cancel()
        return steps

    # -- called by steps ---------------------------------------------------------------------------------

    def step(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], *policies: Any
    ) -> Coroutine[Any, Any, Any]:
        """The coroutine of a step, `policies` being retry, time-out and offload. Its occurrence is counted now."""
        key = self.key(name)
        stored = self.history.outcomes.get(key)
        if stored is not None:
            return self.replay(stored, "run", fn)
        if self.history.waits and (refused := self.refused(key, "run")) is not None:
            return refused
        return self.tried(key, fn, args, *policies) if policies else trying.once(self, key, fn, args)

    def tried(
        self, key: str, fn: Callable[..., Any], args: tuple[Any, ...], *policies: Any
    ) -> Coroutine[Any, Any, Any]:
        """The coroutine of a new step that has policies."""
        return trying.until_done(self, key, fn, args, *policies)

    def item(self, key: str, fn: Callable[..., Any], args: tuple[Any, ...], *policies: Any) -> Coroutine[Any, Any, Any]:
        """The same for one of many, whose key has been counted, and of which nobody sees in what order they end."""
        stored = self.history.outcomes.get(key)
        if stored is not None:
            return self.replay(stored, "run", fn, False)
        if self.history.waits and (refused := self.refused(key, "run")) is not None:
            return refused
        return (
            self.tried(key, fn, args, *policies)
            if policies != (None, None, False)
            else trying.once(self, key, fn, args)
        )

    def waiting_step(
        self, key: str, kind: Kind, begin: Callable[[str], Coroutine[Any, Any, T]]
    ) -> Coroutine[Any, Any, T]:
        """The coroutine of a step that waits, or starts a run; `begin` makes that of one that is not stored."""
        stored = self.history.outcomes.get(key)
        if stored is not None:
            return self.replay(stored, kind)
        return self.refused(key, kind) or self._in_branch(key, begin)

    async def _in_branch(self, key: str, begin: Callable[[str], Coroutine[Any, Any, T]]) -> T:
        with self.waits.branch():
            return await begin(key)

    def begin_at_once(self) -> int | None:
        """As `begin`, where nothing is to be waited for; otherwise `None`."""
        now = self._clock.now()
        if self._ending is not None or self._stopping or now >= self.expires_at or self._before_step is not None:
            return None
        return None if self._clock.monotonic() - self._last_turn > TURN_SECONDS else now

    async def begin(self, key: str | None = None) -> int:
        """Before anything new happens, such as a call of the function of step `key`: the lease holds, and nobody wants
        the run to stop. Gives the time."""
        if self._before_step is not None and (key is not None or self.mismatch is not None):
            await self._before_step(key or "")
        self.check()
        # Here, and not behind a step: branches go on in the order in which their results were stored.
        if self._clock.monotonic() - self._last_turn > TURN_SECONDS:
            await self._next_turn()
            self.check()
        now = self._clock.now()
        if now >= self.expires_at:
            now = await self._confirm_lease()
        if self._stopping:
            raise self._suspend()
        return now

    async def until(self, moment: int) -> None:
        """Wait until a moment, here or in a later execution."""
        while self._clock.now() < moment:
            await self.park(Wait(moment))

    async def park(self, wait: Wait) -> None:
        """Wait for something; it may not have come when this returns."""
        if self.mismatch is None:
            await self.waits.park(wait)
        self.check()
        if self.mismatch is not None:
            await self._raise_mismatch("")

    async def read(self, operation: Operation[T]) -> T:
        """Ask the store something. Where it cannot answer, the run goes on later."""
        try:
            found = await self._store.read(operation)
        except StoreError as error:
            raise self._write_failed(error) from error
        self.check()
        return found

    async def append(self, draft: Draft) -> None:
        """Store an entry and all that came before it."""
        order = self.order
        in_turn = not order.is_over and draft.type != "step:wait"
        if in_turn:
            await order.begin_write(draft.step_name or "")
        draft.calls = order.calls
        try:
            if in_turn:
                # The run may have ended, or be undone by now.
                self.check_storing()
            await self.journal.append(draft)
        except (StoreError, LeaseLost) as error:
            raise self._write_failed(error) from error
        finally:
            if in_turn:
                order.end_write()

    async def store_failure(
        self, key: str, error: Exception, started_at: int, attempt: int = 1, kind: Kind = "run"
    ) -> None:
        """Store that a step failed for good."""
        self._failed.append((error, key))
        detail = {**failures.dump(error), "attempt": attempt}
        text, now = codec.encode(detail), self._clock.now()
        await self.append(Draft("step:fail", key, text, detail, started_at, now, kind=kind))

    # -- around the function of a step -------------------------------------------------------------------

    def enter(self, key: str) -> int:
        """The function of a step begins. Gives how many writers that adds, for `leave`."""
        executing = self._executing
        executing[key] = asyncio.current_task()
        # The run counts as one writer; a step beside another is one more, and they share transactions.
        parallel = int(len(executing) > 1)
        self._store.writers += parallel
        if self._emitter.hears("step:start"):
            self._tell("step:start", key)
        return parallel

    def leave(self, key: str, parallel: int) -> None:
        """A step is over, and what is to be stored of it is stored."""
        self._store.writers -= parallel
        del self._executing[key]
        if not self._executing:
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            if self._waits:
                self._waits.consider()
                if self._told_to_stop:
                    # What is left only waits, and may not notice.
                    self.end(RunSuspended())

    def check_storing(self) -> None:
        """A run that is about to be suspended still stores what its steps come to."""
        if self._late or self._store_failed or not isinstance(self._ending, RunSuspended):
            self.check()

    def go_on(self) -> None:
        """Between two steps: where the run stops."""
        if self._stopping:
            raise self._suspend()

    def tell_of_cancellation(self, key: str) -> None:
        if isinstance(self._ending, RunInterrupted):
            self._tell("step:cancel", key)

    # -- inside ------------------------------------------------------------------------------------------

    async def _confirm_lease(self) -> int:
        """It slept through its lease: another worker may have executed the next step already. Gives the time."""
        try:
            await self._renew()
        except StoreError as error:
            raise self._write_failed(error) from error
        self.check()
        return self._clock.now()

    # -- the end -----------------------------------------------------------------------------------------

    async def _end_early(self, error: BaseException) -> Ending:
        """The run goes on elsewhere or later, or has been ended by others; or this process is going down."""
        self._over = True
        if isinstance(error, StoreError | LeaseLost):
            self._write_failed(error)
        ending = self._ending
        if isinstance(ending, RunInterrupted | LeaseLost | RunTimedOut):
            for task in self._executing.values():
                # Nobody waits for these any more, and their results would be dropped.
                if task is not None and task is not self._task:
                    task.cancel()
            if isinstance(ending, RunTimedOut):
                late = str(self._deadline)
                return await try_to_store(self, lambda: fail_for(self, late), "failing a run that took too long")
            return "cancelled" if isinstance(ending, RunInterrupted) else "lost"
        if ending is None:
            # Not asked for by us: the event loop is being torn down, or the job raised it by itself.
            self._ending = RunSuspended()
        await self._finish_steps()
        # A function that was abandoned in its thread may still do something: nobody begins it again before its time.
        if not self._store_failed and not (self._late and self.caller.left_behind(self.lease.run_id)):
            await try_to_store(self, lambda: give_back(self, self._awaited), "giving a lease back")
        # Otherwise the lease runs out by itself: a database in trouble is given time, and a run that
        # cannot be stored is not begun again at once, and again.
        if ending is None:
            raise error
        return "suspended"

    async def _finish_steps(self) -> None:
        """Wait for parallel steps that are still executing: each is stored, or not begun."""
        self._stopping = True
        if self._executing:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    @property
    def waits(self) -> Waits:
        """The waits of this run; most have none."""
        if self._waits is None:
            self._waits = Waits(self.environment, lambda: bool(self._executing), self._wait_for)
        return self._waits

    def _time_out(self) -> None:
        self.end(RunTimedOut())

    def _wait_for(self, awaited: Awaited) -> None:
        if self.mismatch is not None:
            self.waits.wake()
        elif self._ending is None and not self._stopping:
            self._awaited = awaited
            self.end(RunSuspended())

    def by_deadline(self, until: int | None) -> int | None:
        """The instant `until`, or the end of the run's time if that comes first."""
        return until if self._deadline is None else self._deadline.cut(until)

    def _has_ended(self) -> bool:
        return self._late or isinstance(self._ending, RunInterrupted | LeaseLost | RunTimedOut)

    def _suspend(self) -> ControlFlow:
        self._ending = self._ending or RunSuspended()
        return self._ending

    def _write_failed(self, error: BaseException) -> ControlFlow:
        """A write did not go through: nothing more can be stored, so nothing more may be executed."""
        if self._ending is None:
            if isinstance(error, LeaseLost):
                self.end(LeaseLost())
            else:
                self._store_failed = True
                self._emitter.error(error, "storing a step", self.lease.run_id)
                self.end(RunSuspended())
        assert self._ending is not None
        return self._ending

    def _tell(self, type_: Literal["step:start", "step:cancel"], key: str) -> None:
        if not self._emitter.hears(type_):
            return
        lease, now = self.lease, instant(self._clock.now())
        self._emitter.emit(Event(type_, None, None, now, lease.run_id, lease.job_name, lease.labels, step_name=key))
