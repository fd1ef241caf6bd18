"""`durably-web runs import`, `confirm` and `withdraw`: runs that come from other databases, or go there, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from durably_web.cli.acting import tell
from durably_web.cli.asking import Json, RunId, ask
from durably_web.cli.choosing import require_consent
from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.mistakes import Mistake
from durably_web.engine import Durably

Handover = Annotated[
    str | None,
    typer.Option("--handover", metavar="ID", help="The handover; by default the one by which the run is offered."),
]


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `runs export --hand-over-to` has written.")],
    database: DatabaseOption = DEFAULT,
    decline: Annotated[
        bool, typer.Option("--decline", help="Never take it here, so that it can be withdrawn where it comes from.")
    ] = False,
    json: Json = False,
) -> None:
    """Take in a run that was handed over: it goes on here, with its finished steps.

    Safe to repeat. Then `runs confirm` it where it comes from.
    """
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise Mistake(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{file} is not JSON") from None

    async def take(durably: Durably) -> tuple[str, str, bool]:
        from durably_web.importing import read

        run = read(text, durably._codec)
        if decline:
            return run.run_id, run.handover_id, await durably.decline_handover(run.run_id, run.handover_id)
        # The job is wherever the workers are.
        return (await durably._take_in(run, is_known=False)).id, run.handover_id, True

    run_id, handover_id, done = ask(database, take)
    wire = {"success": done, "runId": run_id, "handoverId": handover_id}
    if decline and not done:
        raise Mistake(f"run {run_id} was taken here by this handover: `runs confirm {run_id}` where it comes from")
    tell(json, wire, f"run {run_id} is {'declined' if decline else 'here'}")


def confirm(run_id: RunId, database: DatabaseOption = DEFAULT, handover: Handover = None, json: Json = False) -> None:
    """Say that an offered run was imported where it was offered to: it never goes on here. Safe to repeat."""
    _settle(run_id, database, handover, json, "confirm")


def withdraw(
    run_id: RunId,
    database: DatabaseOption = DEFAULT,
    handover: Handover = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="It is certain that it was imported nowhere.")] = False,
    json: Json = False,
) -> None:
    """Let an offered run go on here. Only when it was declined over there, or its file was never used.

    Otherwise it would be executed in two places. `runs import FILE --decline` over there makes sure.
    """
    if not yes:
        require_consent(
            "Is it certain that the run was imported nowhere?",
            "this is only for a run that was imported nowhere, or it is executed twice",
        )
    _settle(run_id, database, handover, json, "withdraw")


def _settle(run_id: str, database: str, handover: str | None, json: bool, verb: str) -> None:
    async def settle(durably: Durably) -> str:
        found = handover
        if found is None:
            last = await last_handover(durably, run_id)
            if last is None:
                raise Mistake(f"run {run_id} was never offered: `runs export {run_id} --hand-over-to NAME` offers it")
            found = str(last["handover"])
        await getattr(durably, f"{verb}_handover")(run_id, found)
        return found

    wire: dict[str, Any] = {"success": True, "runId": run_id, "handoverId": ask(database, settle)}
    tell(json, wire, f"run {run_id} " + ("is handed over" if verb == "confirm" else "goes on here"))


async def last_handover(durably: Durably, run_id: str) -> dict[str, Any] | None:
    """Its `state`, `handover` (the id) and `target`; `None` for a run that has never been offered or taken."""
    last = None
    after: int | None = 0
    while after is not None:
        page = (await durably.get_events(run_id, after=after)).events
        last = next((event.data for event in reversed(page) if event.type == "run:handover"), last)
        after = page[-1].seq if page else None
    return last
