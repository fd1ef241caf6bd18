"""`durably-web runs`: look at the runs of a database, and act on them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from durably_web.cli.acting import COMMANDS
from durably_web.cli.asking import Json, RunId, ask, run_of
from durably_web.cli.choosing import JobName, Labels, Statuses, choice
from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.display import data_text, output_console, print_json, print_value, status_text
from durably_web.cli.exporting import export
from durably_web.cli.handing import confirm, import_, last_handover, withdraw
from durably_web.cli.tail import tail
from durably_web.cli.times import readable, relative, until, when
from durably_web.engine import Durably
from durably_web.records import Instant, Progress, Run, StepRecord

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Look at the runs of a database, and act on them."
)

_MOST_TEXT = 200


@app.command("list")
def list_runs(
    database: DatabaseOption = DEFAULT,
    status: Statuses = None,
    job: JobName = None,
    label: Labels = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    json: Json = False,
) -> None:
    """List runs, the newest first."""
    chosen = choice(status, job, label, None)

    async def read(durably: Durably) -> list[Run]:
        return await durably.get_runs(limit=limit, **chosen.conditions())

    runs = ask(database, read)
    if json:
        print_json([run.to_wire() for run in runs])
        return
    if not runs:
        print("no runs")
        return
    labelled = any(run.labels for run in runs)
    heads = ("id", "job", "status", "progress", "created", "time", *(["labels"] if labelled else []))
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    now = _now()
    for run in runs:
        told = [_progress(run.progress), when(run.created_at), _time(run, now)]
        told += [data_text(run.labels)] if labelled else []
        table.add_row(
            Text(run.id),
            Text(run.job_name),
            status_text(run.status, paused=run.paused, undoing=run.undoing is not None),
            *map(Text, told),
        )
    output_console().print(table)


@app.command()
def show(run_id: RunId, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Show one run: its state, what it waits for, its steps with the tries that failed, and its output."""

    async def read(durably: Durably) -> tuple[Run, list[StepRecord], dict[str, Any] | None]:
        run = await run_of(durably, run_id)
        # Of an offered run nothing else tells that it is not simply paused.
        is_held = run.status == "waiting" and run.paused
        return run, await durably.get_steps(run_id), await last_handover(durably, run_id) if is_held else None

    run, steps, handover = ask(database, read)
    if json:
        print_json({**run.to_wire(), "steps": [step.to_wire() for step in steps]})
        return
    console = output_console()
    facts = Table(box=None, show_header=False, pad_edge=False)
    offered_to = handover["target"] if handover is not None and handover["state"] == "offered" else None
    for name, fact in _facts(run, steps, offered_to, _now()):
        facts.add_row(Text(name, style="bold"), fact if isinstance(fact, Text) else Text(fact))
    console.print(facts)
    if steps:
        console.print(_steps_table(steps, _now()))
    if run.output is not None:
        if not steps:
            console.print()
        console.print(Text("output", style="bold"))
        print_value(run.to_wire()["output"])


@app.command()
def logs(run_id: RunId, database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Print the log of a run, the oldest line first."""

    async def read(durably: Durably) -> list[Any]:
        await run_of(durably, run_id)
        return await durably.get_logs(run_id)

    entries = ask(database, read)
    if json:
        print_json([entry.to_wire() for entry in entries])
        return
    for entry in entries:
        wire = entry.to_wire()
        data = f"  {data_text(wire['data'])}" if wire["data"] else ""
        print(f"{when(entry.created_at)} {entry.level:<7} {entry.message}{data}")


for command in (tail, *COMMANDS):
    app.command()(command)
app.command()(export)
app.command()(confirm)
app.command()(withdraw)
app.command("import")(import_)


# -- one run -----------------------------------------------------------------------------------------------


def _facts(run: Run, steps: list[StepRecord], offered_to: str | None, now: Instant) -> Iterator[tuple[str, str | Text]]:
    """Name and value of what there is to say; nothing of what there is not."""
    yield "run", run.id
    yield "job", run.job_name
    yield "status", status_text(run.status, paused=run.paused, undoing=run.undoing is not None)
    if offered_to is not None:
        yield "waits", f"for {offered_to}, which it is offered to: durably-web runs confirm, or runs withdraw"
    elif run.status == "waiting" and (waits := _waits(run, steps, now)):
        yield "waits", waits
    for name, fact in (
        ("error", run.error),
        ("progress", _progress(run.progress)),
        ("labels", data_text(run.labels)),
        ("parent", run.parent_run_id),
        ("forked from", run.forked_from),
        ("key", run.concurrency_key),
        ("priority", str(run.priority) if run.priority else ""),
        ("attempt", str(run.attempt) if run.attempt > 1 else ""),
        ("created", when(run.created_at)),
    ):
        if fact:
            yield name, fact
    if run.status == "pending" and run.run_at is not None:
        yield "due", f"{when(run.run_at)} ({relative(run.run_at, now)})"
    if run.started_at is not None:
        yield "started", when(run.started_at)
    if run.completed_at is not None:
        took = "" if run.started_at is None else f", after {_between(run.started_at, run.completed_at)}"
        yield "ended", when(run.completed_at) + took


def _waits(run: Run, steps: list[StepRecord], now: Instant) -> str:
    """What for, and until when."""
    told = []
    for step in steps:
        moment = "" if step.until is None else f", {until(step.until, now)}"
        if step.status == "waiting":
            told.append(f"for {step.name}{moment}")
        elif step.status == "retrying":
            told.append(f"to try {step.name} again{moment}")
    if not told and run.wake_at is not None:
        return until(run.wake_at, now)
    return "; ".join(told)


def _steps_table(steps: list[StepRecord], now: Instant) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("step", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("began", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for step in steps:
        for failed in step.attempts:
            # The last one is what the step's own line tells.
            if step.status == "failed" and failed is step.attempts[-1]:
                continue
            table.add_row(
                Text(f"{step.name}, try {failed.attempt}", style="dim"),
                Text("failed", style="dim red"),
                Text(when(failed.started_at), style="dim"),
                Text(_between(failed.started_at, failed.failed_at), style="dim"),
                Text(_short(failed.error), style="dim"),
            )
        tried = f", try {step.attempt}" if step.attempts and step.attempt > 1 else ""
        ended = "" if step.completed_at is None else _between(step.started_at, step.completed_at)
        moment = "" if step.until is None or step.completed_at is not None else until(step.until, now)
        table.add_row(
            Text(step.name + tried),
            status_text(step.status),
            Text("" if step.status == "retrying" else when(step.started_at)),
            Text(ended),
            Text(_short(step.error) if step.error and step.status == "failed" else moment),
        )
    return table


def _time(run: Run, now: Instant) -> str:
    """How long it took, or when it goes on."""
    if run.completed_at is not None:
        return "" if run.started_at is None else _between(run.started_at, run.completed_at)
    if run.status == "pending" and run.run_at is not None and run.run_at > now:
        return f"due {relative(run.run_at, now)}"
    if run.status == "waiting":
        return "" if run.wake_at is None else f"wakes {relative(run.wake_at, now)}"
    return "" if run.status != "leased" or run.started_at is None else f"since {_between(run.started_at, now)}"


def _between(began: Instant, ended: Instant) -> str:
    return readable(max(0.0, (ended - began).total_seconds()))


def _short(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "…"


def _now() -> Instant:
    return datetime.datetime.now(datetime.UTC)


def _progress(progress: Progress | None) -> str:
    if progress is None:
        return ""
    return f"{progress.current:g}" if progress.total is None else f"{progress.current:g}/{progress.total:g}"
