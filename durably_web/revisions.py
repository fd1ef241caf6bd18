"""What happens when the code of a job is not what a run was executed with before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from durably_web import codec
from durably_web.arguments import check_step_name
from durably_web.context import current_step
from durably_web.errors import InvalidInput
from durably_web.history import History
from durably_web.jobs import Job
from durably_web.journal import Draft
from durably_web.order import Order
from durably_web.store import operations
from durably_web.store.rows import Lease

if TYPE_CHECKING:
    from durably_web.execution import Execution

# How many turns of the event loop nothing must be asked for, until branches that nobody awaits have asked for all.
_QUIET_TURNS = 16


async def accept(execution: Execution, code: str) -> bool:
    """Before the job is called with other code than the run has stored: do as the job's `on_change` says.

    False when the run must fail for it. What is to be stored travels with the next write.
    """
    lease, history, journal = execution.lease, execution.history, execution.journal
    if lease.code is None or not (history.outcomes or history.tries or history.waits):
        journal.code = (code,)
        return True
    policy = execution.job.options.on_change
    forgotten = await _undoable(execution) if policy == "restart" else []
    # Whoever retries a run that was refused accepts what is there then.
    journal.code = (None if policy == "fail" else code,)
    _note(execution, "run:code-changed", None, {"from": lease.code, "to": code, "policy": policy})
    if policy == "restart":
        detail: dict[str, Any] = {"notUndone": forgotten}
        if history.undone:
            # No server may take what is done from now on for what was undone.
            detail["undone"] = history.undone
        restart = _note(execution, "run:restart", None, detail)
        restart.effects = lambda number: operations.restart(lease.run_id, lease.generation, number)
        execution.history = History([])
        execution.history.undone = dict(history.undone)
        execution.order = Order([])
        journal.forget()
    return policy != "fail"


async def _undoable(execution: Execution) -> list[str]:
    """The steps that were done and could be undone, the first one first."""
    if not execution.lease.has_undos:
        return []
    from durably_web.store.operations.undoing import undos_of

    found = await execution.read(undos_of(execution.lease.run_id))
    return [undo.step_name for undo in reversed(found)]


def refusal(job: Job[Any, Any], lease: Lease, code: str) -> str:
    """Why a run fails whose job wants no other code."""
    return (
        f"CodeChanged: the code of job {job.name!r} is {code}, and the run has stored steps with {lease.code}; its job "
        "says on_change='fail'. Deploy the code that it began with, or make the new one fit; then retry the run"
    )


def patched(execution: Execution, name: str) -> bool:
    """The answer of `step.patched(name)`."""
    check_step_name(name)
    if (outer := current_step.get()) is not None:
        raise InvalidInput(f"patched({name!r}) is asked inside of step {outer!r}: a job asks it, a step's function not")
    execution.asked_patches.add(name)
    patches = execution.history.patches
    if name not in patches:
        if execution.mismatch is not None:
            raise execution.mismatch
        patches[name] = execution.is_at_the_end
        _note(execution, "run:patched", None, {"name": name, "patched": patches[name]})
    return patches[name]


async def report_unasked(execution: Execution, to_the_end: bool) -> None:
    """Tell, with the run's end, of each stored step that the code has not asked for; once.

    Where the job has failed, only of those that are stored before one that it has asked for: the others may still be.
    """
    if execution.mismatch is not None:
        return
    if to_the_end:
        await _let_branches_ask(execution)
    reported = execution.history.reported
    for key in execution.unasked(to_the_end):
        if key not in reported:
            _note(execution, "step:unasked", key, None)
    if to_the_end:
        for name, answer in execution.history.patches.items():
            # The code that is behind the change alone is what a run with the answer `True` has.
            if not answer and name not in execution.asked_patches:
                _note(execution, "step:unasked", None, {"patch": name})


async def _let_branches_ask(execution: Execution) -> None:
    calls, turns = execution.order.calls, 0
    while turns < _QUIET_TURNS and not execution.has_asked_for_all:
        await asyncio.sleep(0)
        turns += 1
        if execution.order.calls != calls:
            calls, turns = execution.order.calls, 0


def _note(execution: Execution, type_: str, step_name: str | None, detail: dict[str, Any] | None) -> Draft:
    data = None if detail is None else codec.encode(detail)
    draft = Draft(type_, step_name, data, detail, None, execution.environment.clock.now())
    execution.journal.note(draft)
    return draft
