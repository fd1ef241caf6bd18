"""`durably-web schedules`: look at the schedules of a database, and act on them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from durably_web.cli.asking import Json, ask
from durably_web.cli.completing import schedule_names
from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.display import output_console, print_json
from durably_web.cli.times import readable, when
from durably_web.engine import Durably
from durably_web.records import Schedule

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Look at the schedules of a database, and act on them."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the schedule.", autocompletion=schedule_names)]


@app.command("list")
def list_schedules(database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """List schedules by their names: when each ticks, and when next."""
    found = ask(database, lambda durably: durably.get_schedules())
    if json:
        print_json([schedule.to_wire() for schedule in found])
        return
    if not found:
        print("no schedules")
        return
    table = Table("name", "job", "when", "next", "last", "missed", "overlap", box=box.SIMPLE_HEAD, pad_edge=False)
    for schedule in found:
        moments = ("paused" if schedule.paused else when(schedule.next_at), when(schedule.last_at))
        cells = (schedule.name, schedule.job_name, _when(schedule), *moments, schedule.missed, schedule.overlap)
        table.add_row(*map(Text, cells))
    output_console().print(table)


@app.command()
def pause(name: Name, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Let a schedule tick no more until it is resumed. Its runs go on."""
    schedule = ask(database, lambda durably: durably.pause_schedule(name))
    _tell(json, schedule.to_wire(), f"schedule {name} is paused")


@app.command()
def resume(name: Name, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Let a paused schedule tick again, from now on."""
    schedule = ask(database, lambda durably: durably.resume_schedule(name))
    _tell(json, schedule.to_wire(), f"schedule {name} ticks next {when(schedule.next_at)}")


@app.command()
def trigger(name: Name, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Ask for a run of a schedule now; whoever has its job executes it."""

    async def make(durably: Durably) -> str:
        return (await durably.trigger_schedule(name)).id

    run_id = ask(database, make)
    _tell(json, {"success": True, "runId": run_id}, f"run {run_id} is pending")


@app.command()
def remove(name: Name, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Delete a schedule. Its runs stay, and go on. A program that still asks for it makes it again."""
    ask(database, lambda durably: durably.remove_schedule(name))
    _tell(json, {"success": True}, f"schedule {name} is removed")


def _when(schedule: Schedule) -> str:
    if schedule.every is not None:
        return f"every {readable(schedule.every)}"
    zone = "" if schedule.timezone == "UTC" else f" {schedule.timezone}"
    return f"{schedule.cron}{zone}"


def _tell(json: bool, value: Any, text: str) -> None:
    print_json(value) if json else print(text)
