"""How an execution ends, as it is stored: its run has completed, failed, or goes on later."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

from durably_web import codec, failures
from durably_web.errors import LeaseLost, NotSerializable, StoreError
from durably_web.journal import Awaited, Draft
from durably_web.retry import Retry
from durably_web.store import operations
from durably_web.store.changes import RUNNABLE

if TYPE_CHECKING:
    from durably_web.execution import Execution

Ending = Literal["completed", "failed", "cancelled", "lost", "suspended"]


def output_text(execution: Execution, output: object) -> str:
    """The output of the job as it is stored. Raises `NotSerializable`."""
    try:
        return codec.store(output, execution.environment.codec)[0]
    except NotSerializable as error:
        raise NotSerializable(f"the output of job {execution.job.name!r} cannot be stored: {error}") from None


async def complete(execution: Execution, output: str) -> Ending:
    await _report_unasked(execution, True)
    last = _entry(execution, "run:complete", None)
    if execution.undos or execution.lease.has_undos:
        from durably_web.undoing import dropping

        last.effects = dropping(execution.lease)
    await _finish(execution, "completed", output, None, last)
    return "completed"


async def fail(execution: Execution, error: BaseException) -> Ending:
    """The job raised: the run fails, or is tried again as its policy asks for."""
    retry, attempt = execution.job.options.retry, execution.history.run_tries + 1
    if execution.mismatch is not None:
        # Also where the job has made another error of it. It would be the same the next time.
        retry, error = None, execution.mismatch
    text = failures.describe(error)
    if retry is not None and isinstance(error, Exception):
        try:
            again = retry.covers(error, attempt)
        except Exception as own:
            # The policy's.
            again, error, text = False, own, failures.describe(own)
        if again:
            return await _retry(execution, text, retry, attempt)
    await _report_unasked(execution, False)
    # Not at the top: most runs do not fail.
    from durably_web.redaction import redacted_trace

    detail = {"error": text, "traceback": redacted_trace(traceback.format_exception(error))}
    return await _fail(execution, detail, execution.step_of(error))


async def _report_unasked(execution: Execution, to_the_end: bool) -> None:
    if execution.lease.entries and not execution.has_asked_for_all:
        # Not at the top: there is nothing to report of most runs.
        from durably_web import revisions

        await revisions.report_unasked(execution, to_the_end)


async def fail_for(execution: Execution, error: str) -> Ending:
    """What ends the run is not an exception of its own."""
    return await _fail(execution, {"error": error}, None)


async def _fail(execution: Execution, detail: dict[str, Any], step_name: str | None) -> Ending:
    if execution.undos or execution.lease.has_undos:
        # Not at the top: few jobs have steps that can be undone.
        from durably_web.undoing import undo_first

        ending = await undo_first(execution, detail, step_name)
        if ending is not None:
            return ending
    await end_failed(execution, detail, step_name)
    return "failed"


async def end_failed(execution: Execution, detail: dict[str, Any], step_name: str | None) -> None:
    await _finish(execution, "failed", None, detail["error"], _entry(execution, "run:fail", detail, step_name))


async def end_cancelled(execution: Execution, error: str | None) -> None:
    """`error` tells of steps that could not be undone."""
    detail = None if error is None else {"error": error}
    await _finish(execution, "cancelled", None, error, _entry(execution, "run:cancel", detail))


async def give_back(execution: Execution, awaited: Awaited | None) -> Ending:
    """Give the lease back: until something of `awaited` comes, or for whoever claims the run next."""
    if awaited is not None:
        until = execution.by_deadline(awaited.until)
        network = execution.environment.network
        detail = {"until": until} if awaited.network is None else {"until": until, "network": True}
        await execution.journal.suspend(awaited._replace(until=until), _entry(execution, "run:waiting", detail))
        if awaited.network is not None and awaited.network != network.returns:
            # It came back while that was on its way, and found no run to wake.
            await execution.environment.store.write(operations.wake_for_network())
        # The worker reckons anew when the next run is due.
        execution.environment.store.changes.notify(RUNNABLE)
    else:
        await execution.journal.flush()
        await execution.journal.release()
    return "suspended"


async def try_to_store(execution: Execution, write: Callable[[], Awaitable[Ending]], what: str) -> Ending:
    """Where it cannot be stored, the lease runs out by itself."""
    try:
        return await write()
    except LeaseLost:
        # Such as a run that was cancelled, or taken over, in the meantime.
        return "lost"
    except StoreError as failure:
        execution.environment.emitter.error(failure, what, execution.lease.run_id)
        return "lost"


async def _retry(execution: Execution, error: str, retry: Retry, attempt: int) -> Ending:
    environment = execution.environment
    until = environment.clock.now() + round(retry.delay(attempt, environment.random) * 1000)
    last = _entry(execution, "run:retry", {"error": error, "attempt": attempt, "until": until})
    execution.finishing = True
    await execution.journal.suspend(Awaited(execution.by_deadline(until)), last)
    return "suspended"


async def _finish(
    execution: Execution,
    status: Literal["completed", "failed", "cancelled"],
    output: str | None,
    error: str | None,
    last: Draft,
) -> None:
    execution.finishing = True
    await execution.journal.finish(status, output, error, last)


def _entry(execution: Execution, type_: str, detail: dict[str, Any] | None, step_name: str | None = None) -> Draft:
    data = None if detail is None else codec.encode(detail)
    now = execution.environment.clock.now()
    return Draft(type_, step_name, data, detail, execution.lease.started_at, now)
