"""`durably-web runs tail`: what happens to a run, line by line."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any

import typer
from rich.text import Text

from durably_web.cli.asking import Json, RunId, ask, run_of
from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.display import Bar, data_text, output_console, print_json
from durably_web.cli.mistakes import FAILURE
from durably_web.cli.times import readable, until, when
from durably_web.engine import Durably
from durably_web.events import Event

_STYLES = {
    "run:complete": "green",
    "run:fail": "red",
    "run:cancel": "red",
    "step:fail": "red",
    "run:retry": "yellow",
    "run:undo": "yellow",
    "step:retry": "yellow",
    "run:waiting": "blue",
    "step:wait": "blue",
}


def tail(
    run_id: RunId,
    database: DatabaseOption = DEFAULT,
    after: Annotated[
        int | None, typer.Option("--after", metavar="SEQ", min=0, help="Only what comes behind the event SEQ.")
    ] = None,
    exit_status: Annotated[
        bool,
        typer.Option("--exit-status", help="Exit with 1 unless the run completes, for a script that waits for it."),
    ] = False,
    json: Json = False,
) -> None:
    """Print what has happened to a run, and go on until it ends. On a terminal its progress is a bar below that.

    With --json it prints one event a line; each has a `seq` for --after.
    """

    async def follow(durably: Durably) -> str:
        await run_of(durably, run_id)
        console = output_console()
        with contextlib.nullcontext() if json else Bar(console) as bar:
            async for event in durably.subscribe(run_id, after=after):
                if bar is None:
                    print_json(event.to_wire())
                elif not bar.shows(event):
                    console.print(_line(event), soft_wrap=True)
                # Whoever reads it through a pipe wants it now.
                sys.stdout.flush()
        run = await durably.get_run(run_id)
        return "deleted" if run is None else run.status

    status = ask(database, follow)
    if exit_status and status != "completed":
        raise typer.Exit(FAILURE)


def _line(event: Event) -> Text:
    return Text.assemble(
        (when(event.timestamp), "dim"), "  ", (f"{event.type:<13}", _STYLES.get(event.type, "")), "  ", _about(event)
    )


def _about(event: Event) -> str:
    parts: list[Any] = [event.step_name]
    if event.type == "log:write":
        parts = [f"{event.level:<7}", event.message, data_text(event.data or {})]
    elif event.progress is not None:
        progress = event.progress
        total = "" if progress.total is None else f"/{progress.total:g}"
        parts = [f"{progress.current:g}{total}", progress.message]
    elif event.type == "run:leased":
        parts = [f"attempt {event.attempt}"]
    elif event.type == "run:handover" and event.data is not None:
        parts = [f"to {event.data['target']}: {event.data['state']}"]
    parts += [event.error, None if event.until is None else until(event.until, event.timestamp)]
    if event.duration is not None and event.until is None:
        parts.append(f"({readable(event.duration)})")
    return "  ".join(part for part in parts if part)
