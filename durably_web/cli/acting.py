"""`durably-web runs …`: what changes runs, one of them or all that meet conditions."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import typer

from durably_web.cli.asking import Json, RunId, ask
from durably_web.cli.choosing import Choice, CreatedBefore, JobName, Labels, Statuses, Yes, choice, confirm
from durably_web.cli.completing import run_ids
from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.display import print_json
from durably_web.cli.mistakes import Mistake
from durably_web.cli.times import parse_before
from durably_web.engine import Durably

OneOrMany = Annotated[
    str | None,
    typer.Argument(
        metavar="ID", help="The id of a run; or give conditions for many.", show_default=False, autocompletion=run_ids
    ),
]

_ACTIVE = ("pending", "leased", "waiting")
_TERMINAL = ("completed", "failed", "cancelled")


class _Act(NamedTuple):
    """Something to do to one run or to many."""

    verb: str
    allowed: tuple[str, ...]
    """Statuses of runs that it can be done to."""
    done: str
    help: str


_ACTS = (
    _Act(
        "retry",
        ("failed", "cancelled"),
        "pending again",
        "Let failed or cancelled runs go on from their first step without a stored result.",
    ),
    _Act(
        "cancel",
        _ACTIVE,
        "cancelled",
        "Cancel runs that have not ended, and all that they have started; whoever executes one ends it at its next "
        "step at the latest.",
    ),
    _Act(
        "pause",
        _ACTIVE,
        "paused",
        "Let nobody begin or go on with runs until they are resumed. Time and signals go on counting.",
    ),
    _Act("resume", _ACTIVE, "resumed", "Let paused runs go on."),
    _Act("delete", _TERMINAL, "deleted", "Delete runs that have ended, with their steps and logs."),
)


def _command(act: _Act) -> Callable[..., None]:
    def command(
        run_id: OneOrMany = None,
        database: DatabaseOption = DEFAULT,
        status: Statuses = None,
        job: JobName = None,
        label: Labels = None,
        created_before: CreatedBefore = None,
        yes: Yes = False,
        json: Json = False,
    ) -> None:
        chosen = choice(status, job, label, created_before)
        if run_id is None:
            _act_on_many(act, chosen, database, yes, json)
        elif chosen.is_open:
            _act_on_one(act, run_id, database, json)
        else:
            raise Mistake("give the id of a run or conditions, not both")

    command.__name__ = act.verb
    command.__doc__ = f"{act.help}\n\nOne run, or all that meet the conditions."
    return command


def _act_on_one(act: _Act, run_id: str, database: str, json: bool) -> None:
    async def one(durably: Durably) -> None:
        await getattr(durably, "delete_run" if act.verb == "delete" else act.verb)(run_id)

    ask(database, one)
    tell(json, {"success": True, "runId": run_id}, f"run {run_id} is {act.done}")


def _act_on_many(act: _Act, chosen: Choice, database: str, yes: bool, json: bool) -> None:
    if chosen.is_open:
        raise Mistake("which runs? Give the id of one, or --status, --job, --label or --created-before")

    async def many(durably: Durably) -> int:
        if not yes and not await confirm(durably, act.verb, chosen, act.allowed):
            return 0
        count: int = await getattr(durably, f"{act.verb}_runs")(**chosen.conditions())
        return count

    count = ask(database, many)
    tell(json, {"count": count}, f"{_runs(count)} {act.done}")


def retrigger(run_id: RunId, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Make a new run with the input and the labels of an earlier one."""

    async def make(durably: Durably) -> str:
        return (await durably.retrigger(run_id)).id

    _tell_of_new(ask(database, make), json)


def fork(
    run_id: RunId,
    database: DatabaseOption = DEFAULT,
    from_step: Annotated[
        str | None,
        typer.Option("--from-step", metavar="STEP", help="The first step to execute again, as `save#2`."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a new run with the input, the labels and the stored results of another one.

    It has all results, or those from before STEP; what has none is executed.
    """

    async def make(durably: Durably) -> str:
        return (await durably.fork(run_id, from_step=from_step)).id

    _tell_of_new(ask(database, make), json)


def signal(
    run_id: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that the job waits for.")],
    payload: Annotated[str | None, typer.Argument(metavar="PAYLOAD", help="JSON; null by default.")] = None,
    database: DatabaseOption = DEFAULT,
    json: Json = False,
) -> None:
    """Send a signal to a run: to its next wait for NAME, now or later."""
    try:
        value = None if payload is None else json_module.loads(payload)
    except (json_module.JSONDecodeError, RecursionError) as error:
        raise Mistake(f"PAYLOAD is not JSON: {error}; a text is in quotes, as '\"yes\"'") from None
    ask(database, lambda durably: durably.signal(run_id, name, value))
    tell(json, {"success": True, "runId": run_id}, f"signal {name} is stored for run {run_id}")


def purge(
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="WHEN", help="Ended longer ago, as 7d; or before a day, as 2030-01-31."),
    ],
    database: DatabaseOption = DEFAULT,
    limit: Annotated[
        int | None, typer.Option(min=0, help="At most so many, the oldest first; without it, all.")
    ] = None,
    json: Json = False,
) -> None:
    """Delete runs that ended long ago, with their steps and logs."""
    before = parse_before(older_than, "--older-than")

    async def delete_in_batches(durably: Durably) -> int:
        total = 0
        while limit is None or total < limit:
            size = 500 if limit is None else min(500, limit - total)
            count = await durably.purge_runs(older_than=before, limit=size)
            total += count
            if count < size:
                break
        return total

    count = ask(database, delete_in_batches)
    tell(json, {"count": count}, f"{_runs(count)} deleted")


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs" if count else "no run"


def _tell_of_new(run_id: str, json: bool) -> None:
    tell(json, {"success": True, "runId": run_id}, f"run {run_id} is pending")


def tell(json: bool, value: Any, text: str) -> None:
    print_json(value) if json else print(text)


COMMANDS: tuple[Callable[..., None], ...] = (signal, *map(_command, _ACTS), retrigger, fork, purge)
