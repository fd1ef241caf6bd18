"""Undoing the steps of a run that has failed or was cancelled: each once, the last one first, whatever crashes.

The store says which steps there are, the code how each is undone. Where this execution has not come by a step, the
code is asked by a replay that executes nothing (`finding.py`).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from durably_web import codec, failures, trying
from durably_web.context import current_run, ended, given_key, key_of
from durably_web.ending import Ending, end_cancelled, end_failed
from durably_web.errors import InvalidInput, LeaseLost, NotFound
from durably_web.execution import ENDS_PROCESS, Execution
from durably_web.journal import Draft, Effects
from durably_web.records import undo_of
from durably_web.retry import Retry
from durably_web.store.operations import undoing as operations
from durably_web.store.operations.undoing import StoredUndo
from durably_web.store.rows import StoredEntry

if TYPE_CHECKING:
    from durably_web.store.rows import Lease

Policies = tuple[Retry | None, float | None, bool]


class Undo(NamedTuple):
    """How the result of `step` is undone. `effects` come with the result of the step that this is kept for."""

    undo: Callable[[Any], object]
    step: Callable[..., Any]
    policies: Policies
    effects: Effects


# -- while the run is on its way -------------------------------------------------------------------------


def undoable(
    execution: Execution,
    name: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    policies: Policies,
    undo: Callable[[Any], object],
) -> Coroutine[Any, Any, Any]:
    """As `Execution.step`, of a step with an undo."""
    key = execution.key(name)
    keep(execution, key, fn, policies, undo)
    stored = execution.history.outcomes.get(key)
    if stored is not None:
        return execution.replay(stored, "run", fn)
    if execution.history.waits and (refused := execution.refused(key, "run")) is not None:
        return refused
    trial = execution.tried(key, fn, args, *policies)
    return _again(execution, key, trial) if key in execution.history.undone else trial


def item(execution: Execution, key: str, fn: Callable[..., Any], args: tuple[Any, ...], *policies: Any) -> Any:
    """As `Execution.item`, of a step with an undo."""
    trial = execution.item(key, fn, args, *policies)
    is_again = key in execution.history.undone and key not in execution.history.outcomes
    return _again(execution, key, trial) if is_again else trial


def keep(
    execution: Execution,
    key: str,
    fn: Callable[..., Any],
    policies: Policies,
    undo: Callable[[Any], object],
) -> None:
    """From now on the result of this step is stored with that it can be undone."""
    if not callable(undo):
        raise InvalidInput(f"undo of step {key!r} is a function of its result, not {undo!r}")
    if policies[2]:
        from durably_web.offloading import place_of

        place_of(undo, f"the undo of step {key!r}")
    lease = execution.lease

    def effects(number: int) -> tuple[Any, ...]:
        return operations.keep_undo(lease.run_id, lease.generation, number, key)

    execution.undos[key] = Undo(undo, fn, policies, effects)


async def _again(execution: Execution, key: str, trial: Coroutine[Any, Any, Any]) -> Any:
    """A step that was undone is done again: a server that knows its earlier request must not take it for that one."""
    token = given_key.set(_key_of_time(key, execution.history.undone[key]))
    try:
        return await trial
    finally:
        given_key.reset(token)


def _key_of_time(key: str, times: int) -> str | None:
    # No step has such a name.
    return key_of(current_run.get(), f"{key}#undone{times}" if times else key)


def dropping(lease: Lease) -> Effects:
    """What comes with the entry that a run has completed."""

    def effects(number: int) -> tuple[Any, ...]:
        return operations.drop_undos(lease.run_id, lease.generation, number)

    return effects


# -- when it has failed or was cancelled -----------------------------------------------------------------


async def undo_first(execution: Execution, detail: dict[str, Any], step_name: str | None) -> Ending | None:
    """Undo what can be undone, and let the run fail then. `None` when there is nothing."""
    # A result that nobody waits for any more may still be on its way, and is not seen yet.
    if not execution.keeps_undos:
        found = await execution.environment.store.read(operations.undos_of(execution.lease.run_id))
        if not found:
            return None
    return await Undoing(execution).begin_with(detail, step_name)


async def go_on_undoing(execution: Execution) -> Ending:
    """An earlier execution has begun to undo the run, or its cancellation has."""
    return await Undoing(execution).continue_undo()


class Undoing(Execution):
    """Takes the place of an execution whose job is not asked any more. The steps that the job may still call end."""

    def __init__(self, former: Execution) -> None:
        super().__init__(
            former.environment,
            former.caller,
            former.job,
            former.lease,
            expires_at=former.expires_at,
            renew=former._renew,
        )
        self.journal = former.journal
        # It may have begun anew.
        self.history = former.history
        self.journal.on_failure = self._write_failed
        # Its results are given to no job.
        self.order.is_over = True
        self._deadline = None
        self._task = former._task
        self._stopping = self._told_to_stop = former._told_to_stop
        self._former = former
        self._failures: dict[str, str] = {}
        # What has ended the former one is over.
        while self._task is not None and self._task.cancelling():
            self._task.uncancel()
        former._ending = LeaseLost()
        if former._deadline is not None:
            former._deadline.stop()
        if former._waits is not None:
            former._waits.close()
        former.heir = self

    @property
    def expires_at(self) -> int:
        return self._former.expires_at

    @expires_at.setter
    def expires_at(self, moment: int) -> None:
        """Kept up for the former one."""

    async def begin_with(self, detail: dict[str, Any], step_name: str | None) -> Ending:
        """Store that the run has failed, and undo it."""
        lease, now = self.lease, self.environment.clock.now()

        def effects(number: int) -> tuple[Any, ...]:
            return operations.begin_undo(lease.run_id, lease.generation, number)

        detail = {"undoing": "failed", **detail}
        data = codec.encode(detail)
        self.history.undo = StoredEntry("run:undo", step_name, data, now)
        draft = Draft("run:undo", step_name, data, detail, lease.started_at, now, effects)
        return await self._to_the_end(lambda: self._begin(draft))

    async def continue_undo(self) -> Ending:
        return await self._to_the_end(self._undo)

    async def _to_the_end(self, work: Callable[[], Coroutine[Any, Any, Ending]]) -> Ending:
        token = ended.set(self._has_ended)
        try:
            return await work()
        except BaseException as error:
            return await self._end_early(error)
        finally:
            ended.reset(token)
            self._ending = self._ending or LeaseLost()
            if self._waits is not None:
                self._waits.close()

    async def _begin(self, draft: Draft) -> Ending:
        await self.append(draft)
        return await self._undo()

    async def _undo(self) -> Ending:
        lease = self.lease
        failed = {key: codec.decode(one.data or "{}") for key, one in self.history.outcomes.items() if _fails(one)}
        stored = await self.read(operations.undos_of(lease.run_id))
        left = [one for one in stored if undo_of(one.step_name) not in failed]
        self._failures = {
            one.step_name: failed[undo_of(one.step_name)]["error"] for one in stored if undo_of(one.step_name) in failed
        }
        if lease.undoing is not None and lease.crashes > self.job.options.max_attempts:
            return await self._finish(
                f"PoisonRun: {lease.crashes} workers in a row died while it was undone, and its job allows "
                f"{self.job.options.max_attempts}",
                [one.step_name for one in left],
            )
        known = self._former.undos
        if missing := [one.step_name for one in left if one.step_name not in known]:
            from durably_web.finding import find

            await find(self, missing, known)
        for one in left:
            await self._undo_one(one, known.get(one.step_name))
        return await self._finish()

    async def _undo_one(self, stored: StoredUndo, known: Undo | None) -> None:
        step_name, key = stored.step_name, undo_of(stored.step_name)
        try:
            if known is None:
                started_at = await self.begin()
                error = NotFound(f"the code has no undo for step {step_name!r} any more")
                await self.store_failure(key, error, started_at)
                raise error
            await self._call(stored, key, known)
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            self.check()
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            if not isinstance(error, Exception):
                # Nothing that a step's own failure is; the others are undone all the same.
                error = RuntimeError(failures.describe(error))
                await self.store_failure(key, error, self.environment.clock.now())
            self._failures[step_name] = failures.describe(error)

    async def _call(self, stored: StoredUndo, key: str, known: Undo) -> None:
        lease, undo = self.lease, known.undo

        def effects(number: int) -> tuple[Any, ...]:
            return operations.drop_undo(lease.run_id, lease.generation, number, key, stored.number)

        call = undo if known.policies[2] else _without_result(undo)
        self.undos[key] = Undo(undo, call, known.policies, effects)
        try:
            value = None if stored.data is None else self._decode(stored.data)
            load = self.loader_of(known.step)
            if load is not None:
                value = load(value, f"the stored result of step {stored.step_name!r}")
        except Exception as error:
            await self.store_failure(key, error, await self.begin())
            raise
        token = given_key.set(_key_of_time(key, self.history.undone.get(stored.step_name, 0)))
        try:
            await trying.until_done(self, key, call, (value,), *known.policies)
        finally:
            given_key.reset(token)

    async def _finish(self, stopped_by: str | None = None, left: list[str] | None = None) -> Ending:
        begun = self.history.undo
        detail: dict[str, Any] = {} if begun is None or begun.data is None else codec.decode(begun.data)
        complaints = [] if stopped_by is None else [stopped_by]
        if failed := {**dict.fromkeys(left or ()), **self._failures}:
            names = [name if error is None else f"{name} ({error})" for name, error in failed.items()]
            complaints.append(f"not undone: {', '.join(names)}")
        how = self.lease.undoing or "failed"
        if how == "cancelled":
            await end_cancelled(self, "; ".join(complaints) or None)
            return "cancelled"
        told = {"error": "; ".join([detail["error"], *complaints])}
        if "traceback" in detail:
            told["traceback"] = detail["traceback"]
        await end_failed(self, told, None if begun is None else begun.step_name)
        return "failed"


def _fails(entry: StoredEntry) -> bool:
    return entry.type == "step:fail" and entry.data is not None and (entry.step_name or "").endswith(undo_of(""))


def _without_result(undo: Callable[[Any], object]) -> Callable[[Any], Any]:
    """Called as it would be; what it gives is of no use to anybody, and need not be such that it can be stored."""
    if inspect.iscoroutinefunction(undo):

        async def call(value: Any) -> None:
            await undo(value)

        return call

    def call_sync(value: Any) -> Any:
        given = undo(value)
        return _awaited(given) if inspect.isawaitable(given) else None

    return call_sync


async def _awaited(given: Awaitable[object]) -> None:
    await given
