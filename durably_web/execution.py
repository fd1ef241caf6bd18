"""One execution of one leased run: replays what is stored, executes the rest, stores the end."""

from __future__ import annotations

import asyncio
import contextvars
import math
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal

from durably_web import calls, codec, failures
from durably_web.clock import Clock
from durably_web.emitter import Emitter
from durably_web.errors import (
    ControlFlow,
    LeaseLost,
    NotSerializable,
    RunInterrupted,
    RunSuspended,
    StoreError,
)
from durably_web.events import Event
from durably_web.jobs import Job
from durably_web.journal import Draft, RunJournal
from durably_web.records import Level, Progress, instant
from durably_web.steps import Step
from durably_web.store.changes import end_of
from durably_web.store.rows import Lease, StoredEntry
from durably_web.store.store import Store

# An execution that never waits for anything still lets the event loop turn this often.
TURN_SECONDS = 0.01

Ending = Literal["completed", "failed", "cancelled", "lost", "suspended"]

_current_step: contextvars.ContextVar[str | None] = contextvars.ContextVar("durably_current_step", default=None)


class Execution:
    """Runs a job's function under a lease."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        emitter: Emitter,
        caller: calls.Caller,
        job: Job[Any, Any],
        lease: Lease,
        *,
        expires_at: int,
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        self.lease = lease
        # When the lease ends, as far as its worker knows; kept up by whoever renews it.
        self.expires_at = expires_at
        self._renew = renew
        self._store = store
        self._clock = clock
        self._emitter = emitter
        self._caller = caller
        self._job = job
        self._journal = RunJournal(store, clock, emitter, lease)
        self._journal.on_failure = self._write_failed
        self._memo = _memo(lease.entries)
        self._occurrences: dict[str, int] = {}
        self._executing: dict[str, asyncio.Task[Any] | None] = {}
        self._failed: tuple[BaseException, str] | None = None
        self._last_turn = clock.monotonic()
        self._ending: ControlFlow | None = None
        self._stopping = False
        self._finishing = False
        self._store_failed = False
        self._task: asyncio.Task[Any] | None = None
        self._idle: asyncio.Future[None] | None = None

    # -- called by the worker ----------------------------------------------------------------------------

    async def run(self) -> Ending:
        """Execute to the end, or until `end` or `stop`. Raises nothing but the cancellation of its own task."""
        task = self._task = asyncio.current_task()
        assert task is not None
        try:
            # It may have been ended before it began.
            self._check()
            try:
                output = await self._job.execute(Step(self), codec.decode(self.lease.input))
                text = self._encode_output(output)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:
                self._check()
                if isinstance(error, asyncio.CancelledError) and task.cancelling():
                    raise
                # Also one that no `except Exception` catches: raised again it would end the run for this time
                # only. A cancellation that nobody asked this run for comes from something that the job awaited.
                return await self._fail(error)
            self._check()
            await self._finish_steps()
            await self._finish("completed", text, None, self._last_entry("run:complete", None, None))
            return "completed"
        except BaseException as error:
            return await self._end_early(error)
        finally:
            self._ending = self._ending or LeaseLost()
            self._journal.close()
            self._store.changes.notify(end_of(self.lease.run_id))

    def end(self, reason: ControlFlow) -> None:
        """End it from outside: at its next await, and at the latest at its next step."""
        if self._ending is None:
            self._ending = reason
            # Its own task is told by raising instead: a cancellation would hit the writes of its end.
            # A write of the end is fenced, and is not interrupted either.
            if self._task is not None and self._task is not asyncio.current_task() and not self._finishing:
                self._task.cancel()

    def stop(self) -> None:
        """Finish the steps that are executing, then give the lease back."""
        self._stopping = True
        if not self._executing:
            self.end(RunSuspended())

    # -- called by steps ---------------------------------------------------------------------------------

    def step(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
        """The coroutine of a step. Its occurrence is counted now, in the order of the calls."""
        if type(name) is not str or not name or "#" in name or not (name.isascii() or _is_unicode(name)):
            raise ValueError(f"a step's name is a text without '#', not {name!r}: the '#' counts its occurrences")
        count = self._occurrences.get(name, 0) + 1
        self._occurrences[name] = count
        key = name if count == 1 else f"{name}#{count}"
        stored = self._memo.get(key)
        if stored is not None:
            return self._replay(stored)
        return self._execute(key, fn, args)

    def log(self, level: Level, message: str, data: dict[str, Any]) -> None:
        detail = {"level": level, "message": str(message), "data": data}
        try:
            text = codec.encode(detail)
        except NotSerializable:
            # A log line must not end a run.
            detail["data"] = {key: repr(value) for key, value in data.items()}
            text = codec.encode(detail)
        self._journal.log(_current_step.get(), text)

    def progress(self, current: float, total: float | None, message: str | None) -> None:
        # Checked here, where the job sees its mistake: later it would be in the way of a step's result.
        self._journal.progress(
            Progress(
                _number(current), None if total is None else _number(total), None if message is None else str(message)
            )
        )

    # -- steps -------------------------------------------------------------------------------------------

    async def _replay(self, stored: StoredEntry) -> Any:
        self._check()
        if self._turn_is_over():
            await self._next_turn()
        assert stored.data is not None
        if stored.type == "step:complete":
            return codec.decode(stored.data)
        raise failures.revive(codec.decode(stored.data))

    async def _execute(self, key: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self._check()
        started_at = self._clock.now()
        if started_at >= self.expires_at:
            started_at = await self._confirm_lease()
        if self._stopping:
            raise self._suspend()
        executing = self._executing
        executing[key] = asyncio.current_task()
        # The run counts as one writer; a step beside another is one more, and they share transactions.
        parallel = int(len(executing) > 1)
        self._store.writers += parallel
        token = _current_step.set(key)
        try:
            if self._emitter.hears("step:start"):
                self._tell("step:start", key)
            try:
                result = await calls.call(self._caller, fn, args)
                text, value = codec.store(result)
            except NotSerializable as error:
                self._check_storing()
                error = NotSerializable(f"the result of step {key!r} cannot be stored: {error}")
                await self._store_failure(key, error, started_at)
                raise error from None
            except Exception as error:
                self._check_storing()
                await self._store_failure(key, error, started_at)
                raise
            self._check_storing()
            await self._append(Draft("step:complete", key, text, value, started_at, self._clock.now()))
        except asyncio.CancelledError:
            if isinstance(self._ending, RunInterrupted) and self._emitter.hears("step:cancel"):
                self._tell("step:cancel", key)
            raise
        finally:
            _current_step.reset(token)
            self._store.writers -= parallel
            del executing[key]
            if self._idle is not None and not executing and not self._idle.done():
                self._idle.set_result(None)
        if self._stopping:
            raise self._suspend()
        if self._turn_is_over():
            await self._next_turn()
        return value

    async def _confirm_lease(self) -> int:
        """It slept through its lease: another worker may have executed the next step already. Gives the time."""
        try:
            await self._renew()
        except StoreError as error:
            raise self._write_failed(error) from error
        self._check()
        return self._clock.now()

    def _turn_is_over(self) -> bool:
        return self._clock.monotonic() - self._last_turn > TURN_SECONDS

    async def _next_turn(self) -> None:
        """Let others run."""
        await asyncio.sleep(0)
        self._last_turn = self._clock.monotonic()

    async def _store_failure(self, key: str, error: Exception, started_at: int) -> None:
        self._failed = (error, key)
        detail = failures.dump(error)
        draft = Draft("step:fail", key, codec.encode(detail), detail, started_at, self._clock.now())
        await self._append(draft)

    async def _append(self, draft: Draft) -> None:
        try:
            await self._journal.append(draft)
        except (StoreError, LeaseLost) as error:
            raise self._write_failed(error) from error

    # -- the end -----------------------------------------------------------------------------------------

    async def _fail(self, error: BaseException) -> Ending:
        await self._finish_steps()
        text = failures.describe(error)
        step_name = self._failed[1] if self._failed and self._failed[0] is error else None
        detail = {"error": text, "traceback": "".join(traceback.format_exception(error))}
        draft = self._last_entry("run:fail", detail, step_name)
        await self._finish("failed", None, text, draft)
        return "failed"

    async def _finish(
        self, status: Literal["completed", "failed"], output: str | None, error: str | None, last: Draft
    ) -> None:
        self._finishing = True
        await self._journal.finish(status, output, error, last)

    async def _end_early(self, error: BaseException) -> Ending:
        """The run goes on elsewhere, or has been ended by others; or this process is going down."""
        if isinstance(error, StoreError | LeaseLost):
            self._write_failed(error)
        ending = self._ending
        if isinstance(ending, RunInterrupted | LeaseLost):
            for task in self._executing.values():
                # Nobody waits for these any more, and their results would be dropped.
                if task is not None and task is not self._task:
                    task.cancel()
            return "cancelled" if isinstance(ending, RunInterrupted) else "lost"
        if ending is None:
            # Not asked for by us: the event loop is being torn down, or the job raised it by itself.
            self._ending = RunSuspended()
        try:
            await self._finish_steps()
            if not self._store_failed:
                await self._journal.flush()
                await self._journal.release()
            # Otherwise the lease runs out by itself: a database in trouble is given time, and a run that
            # cannot be stored is not begun again at once, and again.
        except (StoreError, LeaseLost) as failure:
            self._emitter.error(failure, "giving a lease back", self.lease.run_id)
        if ending is None:
            raise error
        return "suspended"

    async def _finish_steps(self) -> None:
        """Wait for parallel steps that are still executing: each is stored, or not begun."""
        self._stopping = True
        if self._executing:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def _encode_output(self, output: object) -> str:
        try:
            return codec.store(output)[0]
        except NotSerializable as error:
            raise NotSerializable(f"the output of job {self._job.name!r} cannot be stored: {error}") from None

    def _last_entry(self, type_: str, detail: dict[str, Any] | None, step_name: str | None) -> Draft:
        data = None if detail is None else codec.encode(detail)
        return Draft(type_, step_name, data, detail, self.lease.started_at, self._clock.now())

    # -- inside ------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._ending is not None:
            raise self._ending

    def _check_storing(self) -> None:
        """A run that is about to be suspended still stores what its steps come to."""
        if self._store_failed or not isinstance(self._ending, RunSuspended):
            self._check()

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
        lease = self.lease
        now = instant(self._clock.now())
        self._emitter.emit(Event(type_, None, None, now, lease.run_id, lease.job_name, lease.labels, step_name=key))


def _is_unicode(text: str) -> bool:
    """Whether a text can be stored as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: float) -> float:
    """A number as JSON has it, of what another library may call one."""
    if type(value) is int and abs(value) < 2**63:
        return value
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a progress must be a finite number, not {value!r}")
    return number


def _memo(entries: list[StoredEntry]) -> dict[str, StoredEntry]:
    """The stored outcome of each step. A failure counts until the run is retried."""
    memo: dict[str, StoredEntry] = {}
    for entry in entries:
        if entry.type == "run:retry":
            memo = {name: stored for name, stored in memo.items() if stored.type == "step:complete"}
        elif entry.step_name is not None and entry.type != "log:write":
            memo[entry.step_name] = entry
    return memo
