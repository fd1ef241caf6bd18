"""Steps that start other runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from durably_web import codec
from durably_web.errors import Conflict, DurablyError, RunCancelled, RunFailed
from durably_web.jobs import Job
from durably_web.journal import Draft
from durably_web.records import Kind
from durably_web.store import operations
from durably_web.store.changes import JOURNAL, RUNNABLE
from durably_web.store.operations import ChildOutcome, Trigger
from durably_web.waits import Wait

if TYPE_CHECKING:
    from durably_web.execution import Execution


class Child(NamedTuple):
    """A run that a step asks for, checked. `run_at` is an instant in milliseconds, or `None` for at once."""

    job: Job[Any, Any]
    input: str
    labels: Mapping[str, str] | None
    priority: int
    concurrency_key: str | None
    run_at: int | None


async def call(execution: Execution, key: str, child: Child) -> Any:
    """Start a run and wait for its output, which is given as it is stored.

    Started at most once: the entry that says so is stored with it.
    """
    started_at = await execution.begin()
    begun = execution.history.waits.get(key)
    if begun is not None and not (begun.retried and await _has_failed(execution, begun.detail["child"])):
        run_id, started_at = begun.detail["child"], begun.at
    else:
        await _check_key(execution, child)
        run_id = execution.environment.make_id()
        detail = {"child": run_id}
        await _start(execution, "step:wait", key, codec.encode(detail), detail, child, run_id, started_at)
    while True:
        outcome = await execution.read(operations.child_outcome(run_id))
        error = _error_of(outcome, run_id, child.job.name)
        if error is not None:
            await execution.store_failure(key, error, started_at, kind="call")
            raise error
        assert outcome is not None
        if outcome.output is not None:
            value = execution.environment.codec.decode(outcome.output)
            finished_at = execution.environment.clock.now()
            await execution.append(
                Draft("step:complete", key, outcome.output, value, started_at, finished_at, kind="call")
            )
            return value
        await execution.park(Wait(None, child=run_id))


async def trigger(execution: Execution, key: str, child: Child) -> str:
    """Start a run and go on; gives its id."""
    now = await execution.begin()
    run_id = execution.environment.make_id()
    text = execution.environment.codec.encode(run_id)
    await _start(execution, "step:complete", key, text, run_id, child, run_id, now)
    return run_id


async def _check_key(execution: Execution, child: Child) -> None:
    """A run that holds the key itself would wait for its child, and the child for the key."""
    key = child.concurrency_key
    if key is not None:
        holders = await execution.read(operations.holders_among_ancestors(execution.lease.run_id, key))
        if holders >= child.job.options.max_concurrent_per_key:
            raise Conflict(
                f"run {execution.lease.run_id}, or one that waits for it, holds the concurrency key {key!r}, so a "
                "child with that key could never begin: give it another key, or none"
            )


async def _has_failed(execution: Execution, run_id: str) -> bool:
    """Such as one that was cancelled with its parent. When that is retried, it calls another one."""
    outcome = await execution.read(operations.child_outcome(run_id))
    return _error_of(outcome, run_id, "") is not None


def _error_of(outcome: ChildOutcome | None, run_id: str, job_name: str) -> DurablyError | None:
    if outcome is None:
        return RunFailed(f"run {run_id} of job {job_name!r} was deleted before its output was seen", run_id=run_id)
    if outcome.status == "failed":
        return RunFailed(f"run {run_id} of job {job_name!r} failed: {outcome.error}", run_id=run_id)
    if outcome.status == "cancelled":
        return RunCancelled(f"run {run_id} of job {job_name!r} was cancelled", run_id=run_id)
    return None


async def _start(
    execution: Execution, type_: str, key: str, text: str, detail: Any, child: Child, run_id: str, now: int
) -> None:
    lease = execution.lease
    asked = Trigger(
        run_id,
        child.job.name,
        child.input,
        dict(lease.labels if child.labels is None else child.labels),
        now,
        priority=child.priority,
        run_at=child.run_at,
        concurrency_key=child.concurrency_key,
        per_key=child.job.options.max_concurrent_per_key,
        origin=execution.environment.origin(),
    )

    def effects(number: int) -> tuple[Any, ...]:
        return operations.create_child(lease.run_id, lease.generation, number, key, asked)

    kind: Kind = "call" if type_ == "step:wait" else "trigger"
    await execution.append(Draft(type_, key, text, detail, now, now, effects, kind))
    execution.environment.store.changes.notify(RUNNABLE)
    execution.environment.store.changes.notify(JOURNAL)
    await execution.environment.tell_of_trigger(run_id)
