"""`durably-web worker`: execute what is pending, until asked to stop."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.display import Watch
from durably_web.cli.jobfile import load_jobs
from durably_web.cli.signals import stop_request
from durably_web.engine import Durably
from durably_web.jobs import Job


def worker(
    target: Annotated[str, typer.Argument(metavar="FILE|MODULE", help="The job file, or the name of a module.")],
    database: DatabaseOption = DEFAULT,
) -> None:
    """Execute pending runs of the jobs in FILE or MODULE, until SIGTERM or SIGINT.

    On the first signal it finishes the current step of each run, gives the runs back for others to go on with, and
    exits with 0. A second signal ends it at once, which loses no stored step either.
    """
    asyncio.run(_work(load_jobs(target), database))


async def _work(jobs: dict[str, Job[Any, Any]], database: str) -> None:
    durably = Durably(database, jobs=list(jobs.values()))
    with stop_request() as stop, Watch(name_runs=True) as watch:
        durably.on("*", watch.hear)
        async with durably:
            watch.say(f"worker on {database}: {', '.join(sorted(jobs))}")
            signal = await stop.wait()
            watch.say(f"{signal.name}: finishing the current steps")
        watch.say("worker stopped")
