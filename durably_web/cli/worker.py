"""`durably-web worker`: execute what is pending, until asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Annotated

import typer

from durably_web.cli.database import DEFAULT, DatabaseOption, shown
from durably_web.cli.gathering import VARIABLE, Gathered, answering_the_supervisor
from durably_web.cli.jobfile import is_engine, load_engine
from durably_web.cli.logs import Lines, LogFormat, LogFormatOption, LogLevel, LogLevelOption, process, supervisor
from durably_web.cli.mistakes import Mistake
from durably_web.cli.supervisor import end_with_the_supervisor, own_command, supervise
from durably_web.cli.times import parse_duration
from durably_web.cli.watching import OWN, HealthHost, HealthPort, address_of, answering, listen, metrics_of
from durably_web.engine import Durably
from durably_web.events import Event
from durably_web.forever import run_forever
from durably_web.health import EngineProbes
from durably_web.logs import log_event


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
    health_port: HealthPort = None,
    health_host: HealthHost = OWN,
    log_format: LogFormatOption = LogFormat.text,
    log_level: LogLevelOption = LogLevel.info,
) -> None:
    """Execute pending runs of the jobs in FILE or MODULE, or of its engine NAME, until SIGTERM or SIGINT.

    On the first signal it finishes the current step of each run, gives the runs back for others to go on with, and
    exits with 0. With --stop-timeout it gives up on steps that take longer, says which they are, and exits with 0. A
    second signal ends it at once, which loses no stored step either. When a newer durably_web has migrated the
    database, it stops and exits with 2: start the newer version.

    With --processes it executes nothing itself: it begins so many workers, another one where one dies, after a pause
    that grows while they die young, passes signals on to each, and exits when all have. They end when it dies.

    With --health-port it answers whoever watches over it, also for all of its workers, until the very end of a stop.
    """
    limit = None if stop_timeout is None else parse_duration(stop_timeout, "--stop-timeout")
    end_with_the_supervisor()
    durably = load_engine(target, database)
    lines = Lines(log_format, log_level)
    with lines.on_stderr(), contextlib.ExitStack() as stack:
        port = None
        if health_port is not None:
            port = stack.enter_context(contextlib.closing(listen(health_host, health_port)))
        if processes == 1:
            # An engine has its own database, and so its module has the say.
            asyncio.run(_work(durably, target if is_engine(target) else shown(database), limit, port))
            return
        if os.name != "posix":
            raise Mistake(
                "--processes needs the signals of POSIX: start several workers, each with a command of its own"
            )
        own = [] if is_engine(target) else ["--database", database]
        command = own_command("worker", target, *own, *lines.options())
        if stop_timeout is not None:
            command += ["--stop-timeout", stop_timeout]
        raise typer.Exit(asyncio.run(_supervise(command, processes, port)))


async def _supervise(command: list[str], processes: int, port: socket.socket | None) -> int:
    gathered = Gathered(processes)
    # Where nobody asks, nothing is counted.
    asked = None if port is None else gathered
    async with answering(port, gathered):
        _tell_of(port)
        return await supervise(command, processes, lambda text: supervisor.info("%s", text), asked)


async def _work(durably: Durably, place: str, stop_timeout: float | None, port: socket.socket | None) -> None:

    def hear(event: Event) -> None:
        # Of a newer version the last line tells.
        if event.type != "worker:error" or durably.read_only is None:
            log_event(event, durably)

    durably.on("*", hear)
    is_asked = port is not None or VARIABLE in os.environ
    probes = EngineProbes(durably, metrics_of(durably) if is_asked else None)
    async with answering(port, probes), answering_the_supervisor(probes):
        _tell_of(port)
        await run_forever(
            durably,
            stop_timeout,
            begun=lambda: process.info("worker on %s: %s", place, ", ".join(sorted(durably.jobs))),
            asked=lambda signal: process.info("%s: finishing the current steps", signal.name),
        )
        process.info("worker stopped")


def _tell_of(port: socket.socket | None) -> None:
    if port is not None:
        process.info("health and metrics at %s", address_of(port))
