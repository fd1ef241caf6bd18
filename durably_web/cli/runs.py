"""`durably-web runs`: look at the runs of a database, and act on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from durably_web.cli.arguments import parse_labels
from durably_web.cli.database import DEFAULT, DatabaseOption, require_existing
from durably_web.cli.display import data_text, output_console, print_json, print_value, status_text, when
from durably_web.cli.mistakes import Mistake
from durably_web.engine import Durably
from durably_web.records import STATUSES, Progress, Run

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Look at the runs of a database, and act on them."
)

RunId = Annotated[str, typer.Argument(metavar="ID", help="The id of the run.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, with the names that the HTTP interface uses.")]


@app.command("list")
def list_runs(
    database: DatabaseOption = DEFAULT,
    status: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(STATUSES)}.")] = None,
    job: Annotated[str | None, typer.Option(help="Only runs of this job.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Only runs with it; may be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    json: Json = False,
) -> None:
    """List runs, the newest first."""
    if status is not None and status not in STATUSES:
        raise Mistake(f"there is no status {status!r}; there is {', '.join(STATUSES)}")
    labels = parse_labels(label or [])

    async def read(durably: Durably) -> list[Run]:
        return await durably.get_runs(status=status, job=job, labels=labels, limit=limit)

    runs = _ask(database, read)
    if json:
        print_json([run.to_wire() for run in runs])
        return
    if not runs:
        print("no runs")
        return
    labelled = any(run.labels for run in runs)
    heads = ("id", "job", "status", "progress", "created", *(["labels"] if labelled else []))
    table = Table(*heads, box=None, pad_edge=False)
    for run in runs:
        told = (_progress(run.progress), when(run.created_at), *([data_text(run.labels)] if labelled else []))
        table.add_row(Text(run.id), Text(run.job_name), status_text(run.status), *map(Text, told))
    output_console().print(table)


@app.command()
def show(run_id: RunId, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Show one run: its state, its stored steps, and its output."""

    async def read(durably: Durably) -> tuple[Run, list[Any]]:
        return await _get(durably, run_id), await durably.get_steps(run_id)

    run, steps = _ask(database, read)
    if json:
        print_json({**run.to_wire(), "steps": [step.to_wire() for step in steps]})
        return
    facts = {
        "run": run.id,
        "job": run.job_name,
        "status": run.status,
        "error": run.error,
        "progress": _progress(run.progress),
        "labels": data_text(run.labels),
        "attempt": str(run.attempt),
        "created": when(run.created_at),
        "started": when(run.started_at),
        "ended": when(run.completed_at),
    }
    rows = [
        {
            "step": step.name,
            "status": step.status,
            "attempt": step.attempt,
            "stored": when(step.completed_at),
            "error": step.error or "",
        }
        for step in steps
    ]
    print_value({**{name: fact for name, fact in facts.items() if fact}, **({"steps": rows} if rows else {})})
    if run.output is not None:
        print("\noutput")
        print_value(run.output)


@app.command()
def logs(run_id: RunId, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Print the log of a run, the oldest line first."""

    async def read(durably: Durably) -> list[Any]:
        await _get(durably, run_id)
        return await durably.get_logs(run_id)

    entries = _ask(database, read)
    if json:
        print_json([entry.to_wire() for entry in entries])
        return
    for entry in entries:
        data = f"  {data_text(entry.data)}" if entry.data else ""
        print(f"{when(entry.created_at)} {entry.level:<7} {entry.message}{data}")


@app.command()
def retry(run_id: RunId, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Let a failed or cancelled run go on from its first step without a stored result."""
    _act(
        database,
        json,
        run_id,
        lambda durably: durably.retry(run_id),
        f"run {run_id} is pending again",
    )


@app.command()
def retrigger(run_id: RunId, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Make a new run with the input and the labels of an earlier one."""

    async def make(durably: Durably) -> str:
        return (await durably.retrigger(run_id)).id

    made = _ask(database, make)
    print_json({"success": True, "runId": made}) if json else print(f"run {made} is pending")


@app.command()
def cancel(run_id: RunId, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Cancel a run that has not ended; whoever executes it ends it at its next step at the latest."""
    _act(database, json, run_id, lambda durably: durably.cancel(run_id), f"run {run_id} is cancelled")


@app.command()
def delete(run_id: RunId, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Delete a run that has ended, with its steps and its log."""
    _act(database, json, run_id, lambda durably: durably.delete_run(run_id), f"run {run_id} is deleted")


def _act(database: str, json: bool, run_id: str, act: Callable[[Durably], Awaitable[None]], done: str) -> None:
    _ask(database, act)
    print_json({"success": True, "runId": run_id}) if json else print(done)


def _ask(database: str, question: Callable[[Durably], Awaitable[T]]) -> T:
    """Ask the engine on an existing database, without executing anything there."""

    async def ask() -> T:
        async with _open(require_existing(database)) as durably:
            return await question(durably)

    return asyncio.run(ask())


@asynccontextmanager
async def _open(database: str) -> AsyncIterator[Durably]:
    durably = Durably(database)
    await durably.migrate()
    try:
        yield durably
    finally:
        await durably.stop()


async def _get(durably: Durably, run_id: str) -> Run:
    run = await durably.get_run(run_id)
    if run is None:
        raise Mistake(f"there is no run {run_id}")
    return run


def _progress(progress: Progress | None) -> str:
    if progress is None:
        return ""
    return f"{progress.current:g}" if progress.total is None else f"{progress.current:g}/{progress.total:g}"
