"""`durably-web worker`: execute what is pending, until asked to stop."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Any

import typer

from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.display import Watch
from durably_web.cli.jobfile import is_engine, load_engine
from durably_web.cli.mistakes import Mistake
from durably_web.cli.supervisor import end_with_the_supervisor, own_command, supervise
from durably_web.cli.times import parse_duration
from durably_web.engine import Durably
from durably_web.events import Event
from durably_web.forever import run_forever


def worker(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE|MODULE[:NAME]", help="The jobs; or an engine, by the name that it has in FILE or MODULE."
        ),
    ],
    database: DatabaseOption = DEFAULT,
    stop_timeout: Annotated[
        str | None,
        typer.Option(
            "--stop-timeout", metavar="DURATION", help="How long a stop waits for the current steps, as 20s; no limit."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", "-p", min=1, metavar="N", help="So many worker processes, kept alive by this.")
    ] = 1,
) -> None:
    """Execute pending runs of the jobs in FILE or MODULE, or of its engine NAME, until SIGTERM or SIGINT.

    On the first signal it finishes the current step of each run, gives the runs back for others to go on with, and
    exits with 0. With --stop-timeout it gives up on steps that take longer, says which they are, and exits with 0. A
    second signal ends it at once, which loses no stored step either. When a newer durably_web has migrated the
    database, it stops and exits with 2: start the newer version.

    With --processes it executes nothing itself: it begins so many workers, another one where one dies, after a pause
    that grows while they die young, passes signals on to each, and exits when all have. They end when it dies.
    """
    limit = None if stop_timeout is None else parse_duration(stop_timeout, "--stop-timeout")
    end_with_the_supervisor()
    durably = load_engine(target, database)
    if processes == 1:
        # An engine has its own database, and so its module has the say.
        asyncio.run(_work(durably, target if is_engine(target) else database, limit))
        return
    if os.name != "posix":
        raise Mistake("--processes needs the signals of POSIX: start several workers, each with a command of its own")
    command = own_command("worker", target, *([] if is_engine(target) else ["--database", database]))
    if stop_timeout is not None:
        command += ["--stop-timeout", stop_timeout]
    with Watch(name_runs=True) as watch:
        raise typer.Exit(asyncio.run(supervise(command, processes, watch.say)))


async def _work(durably: Durably, place: str, stop_timeout: Any) -> None:
    with Watch(name_runs=True) as watch:

        def hear(event: Event) -> None:
            # Of a newer version the last line tells.
            if event.type != "worker:error" or durably.read_only is None:
                watch.hear(event)

        durably.on("*", hear)
        await run_forever(
            durably,
            stop_timeout,
            begun=lambda: watch.say(f"worker on {place}: {', '.join(sorted(durably.jobs))}"),
            asked=lambda signal: watch.say(f"{signal.name}: finishing the current steps"),
        )
        watch.say("worker stopped")
