"""`durably-web run`: execute one job to its end, or go on where an earlier attempt was killed."""

from __future__ import annotations

import asyncio
import datetime
from typing import Annotated, Any

import typer

from durably_web.cli.arguments import parse_input, parse_labels
from durably_web.cli.completing import jobs_of_file
from durably_web.cli.database import DEFAULT, DatabaseOption, shown
from durably_web.cli.display import Watch, print_json, print_value
from durably_web.cli.jobfile import choose, load_jobs
from durably_web.cli.mistakes import FAILURE, Mistake
from durably_web.cli.times import parse_duration
from durably_web.codec import to_plain
from durably_web.engine import Durably
from durably_web.errors import SchemaTooNew
from durably_web.jobs import Job
from durably_web.records import STATUSES, TERMINAL, Run
from durably_web.signals import stop_request


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The job file, or the name of a module.")],
    job: Annotated[str, typer.Argument(metavar="JOB", help="The name of a job in it.", autocompletion=jobs_of_file)],
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="The input: key=text, key:=json, key=@file for a file's text, key:=@file for JSON in a file.",
        ),
    ] = None,
    database: DatabaseOption = DEFAULT,
    new: Annotated[
        bool, typer.Option("--new", help="Begin a new run, also where an unfinished one has this input.")
    ] = False,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label of a new run; may be repeated.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="DURATION", help="A new run is due so much later, as 90s or 2h.")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="Of a new run: higher first.")] = 0,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Of a new run: runs of one key never overlap.")
    ] = None,
    coalesce: Annotated[
        str | None,
        typer.Option(
            "--coalesce",
            metavar="skip|replace|queue",
            help="What if a run of the job and KEY is pending: take that; give it this input; let both wait.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the output as one line of JSON.")] = False,
) -> None:
    """Run a job and print its output.

    When the database has an unfinished run of the job with the same input, that run goes on from its first step
    without a stored result. Log lines and the progress go to stderr, the output to stdout. Exits with 1 when the run
    fails or is cancelled. Runs that it waits for, and pending ones of the file's other jobs, are executed meanwhile.
    """
    jobs = load_jobs(file)
    chosen = choose(jobs, job, file)
    value = parse_input(assignments or [])
    if coalesce not in (None, "skip", "replace", "queue"):
        raise Mistake(f"--coalesce is skip, replace or queue, not {coalesce!r}")
    if coalesce is not None and key is None:
        raise Mistake("--coalesce needs a --key, which says which runs belong together")
    options = {
        "labels": parse_labels(label or []),
        "delay": None if delay is None else parse_duration(delay, "--delay"),
        "priority": priority,
        "concurrency_key": key,
        "coalesce": coalesce,
    }
    chosen.encode_input(value)  # before a database is made for an input that does not fit
    ended = asyncio.run(_execute(list(jobs.values()), chosen, value, database, new, options))
    if ended.status == "completed":
        output = to_plain(ended.output)
        print_json(output) if json else print_value(output)
        return
    with Watch() as watch:
        reason = f"failed: {ended.error}" if ended.status == "failed" else "was cancelled"
        watch.say(f"durably-web: run {ended.id} {reason}", "red")
    raise typer.Exit(FAILURE)


async def _execute(
    jobs: list[Job[Any, Any]],
    job: Job[Any, Any],
    value: dict[str, Any],
    database: str,
    new: bool,
    options: dict[str, Any],
) -> Run:
    """The run after its end. Exits the command when it is asked to stop before."""
    began = datetime.datetime.now(datetime.UTC)
    durably = Durably(database, jobs=jobs)
    with stop_request() as stop, Watch() as watch:
        try:
            await durably.migrate()
            if durably.read_only is not None:
                raise SchemaTooNew(durably.read_only)
            durably.on("worker:error", watch.hear)
            found = None if new else await _unfinished(durably, job, value)
            if found is None:
                handle = await durably.trigger(job, value, **options)
                run_id = handle.id
                pending = "pending " if handle.disposition == "coalesced" else ""
                watch.say(f"{pending}run {run_id} in {shown(database)}")
            else:
                run_id = found.id
                count = f"{found.step_count} step{' is' if found.step_count == 1 else 's are'} stored"
                watch.say(f"resuming run {run_id} in {shown(database)}: {count}")
            await durably.start()
            ended = asyncio.ensure_future(_follow(durably, run_id, began, watch))
            stopped = asyncio.ensure_future(stop.wait())
            refused = asyncio.ensure_future(_is_refused(durably))
            try:
                await asyncio.wait({ended, stopped, refused}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return ended.result()
                if refused.done():
                    raise SchemaTooNew(durably.read_only)
            finally:
                for task in (ended, stopped, refused):
                    task.cancel()
                await asyncio.wait({ended, stopped, refused})
        finally:
            await durably.stop()
        assert stop.signal is not None
        watch.say(f"stopped by {stop.signal.name}; the same command goes on with run {run_id}")
        raise typer.Exit(128 + stop.signal)


async def _is_refused(durably: Durably) -> None:
    """Wait until a newer version has the database, and nothing is executed here any more."""
    refused = asyncio.Event()
    leave = durably.on("worker:error", lambda _event: refused.set() if durably.read_only else None)
    try:
        await refused.wait()
    finally:
        leave()


async def _follow(durably: Durably, run_id: str, began: datetime.datetime, watch: Watch) -> Run:
    """Show what happens to a run until it has ended, also when another process executes it."""
    async for event in durably.subscribe(run_id):
        # An earlier execution's lines have been shown by the command that executed it.
        if event.timestamp >= began:
            watch.hear(event)
    return await durably.wait_for_run(run_id)


async def _unfinished(durably: Durably, job: Job[Any, Any], value: dict[str, Any]) -> Run | None:
    """The oldest run of the job with this input that has not ended."""
    active = [status for status in STATUSES if status not in TERMINAL]
    found = [run for run in await durably.get_runs(job=job, status=active) if run.input == value]
    return found[-1] if found else None
