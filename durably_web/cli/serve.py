"""`durably-web serve`: jobs over HTTP, and execute their runs."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import signal
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.jobfile import load_engine, load_named
from durably_web.cli.logs import Lines, LogFormat, LogFormatOption, LogLevel, LogLevelOption, process
from durably_web.cli.mistakes import Mistake
from durably_web.cli.times import parse_duration
from durably_web.cli.watching import OWN, HealthHost, HealthPort, address_of, answering, listen, metrics_of
from durably_web.engine import Durably
from durably_web.health import EngineProbes, leave
from durably_web.logs import log_events

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

USUAL_PORT = 8174
# Seconds in which the requests under way are answered, where a stop may take as long as it likes.
_MOST_FOR_REQUESTS = 60


def serve(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE|MODULE[:NAME]", help="The jobs; or an engine, by the name that it has in FILE or MODULE."
        ),
    ],
    database: DatabaseOption = DEFAULT,
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 for a free one.")] = USUAL_PORT,
    path: Annotated[str, typer.Option("--path", help="The path below which requests are answered.")] = "/",
    auth: Annotated[
        str | None,
        typer.Option("--auth", metavar="MODULE:NAME", help="Who may do what: an object, or a class to make it of."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option("--allow-origin", help="An origin whose pages may do it, too. Can be repeated.")
    ] = None,
    work: Annotated[bool, typer.Option(help="Execute runs here; otherwise workers elsewhere do.")] = True,
    cron_secret: Annotated[
        str | None,
        typer.Option(
            "--cron-secret",
            envvar="CRON_SECRET",
            help="Let whoever sends it as Authorization: Bearer execute what is due, at /process.",
        ),
    ] = None,
    anybody: Annotated[
        bool, typer.Option("--anybody", help="Let whoever reaches the port do everything, on any address.")
    ] = False,
    stop_timeout: Annotated[
        str | None,
        typer.Option(
            "--stop-timeout", metavar="DURATION", help="How long a stop waits for the current steps, as 20s; no limit."
        ),
    ] = None,
    drain: Annotated[
        str,
        typer.Option(
            "--drain",
            metavar="DURATION",
            help="After a SIGTERM be not ready, and go on answering for so long, as 5s; 0s for nothing.",
        ),
    ] = "0s",
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Answer /metrics, to whom --auth lets; --health-port has it anyway.")
    ] = False,
    metrics_token: Annotated[
        str | None,
        typer.Option(
            envvar="DURABLY_WEB_METRICS_TOKEN",
            show_envvar=True,
            help="Answer /metrics to who knows it. Better set as a variable: others can see options.",
        ),
    ] = None,
    health_port: HealthPort = None,
    health_host: HealthHost = OWN,
    log_format: LogFormatOption = LogFormat.text,
    log_level: LogLevelOption = LogLevel.info,
) -> None:
    """Answer requests for the jobs in FILE or MODULE over HTTP, and execute their runs, until SIGTERM or SIGINT.

    Other machines are only let in with --auth or --anybody. /health/live and /health/ready are for everybody.

    On the first signal /health/ready says 503, and after --drain no more requests are taken, streams end, the current
    step of each run is finished and the runs are given back, which takes --stop-timeout at most; then it exits with 0.
    A second signal waits for nobody.
    """
    # Not at the top: no other command needs it.
    from durably_web.server import create_app

    if auth is None and not anybody and not _is_own(host):
        raise Mistake(
            f"at {host} everybody could do everything: give --auth MODULE:NAME, or --anybody if that is meant"
        )
    if cron_secret is not None and cron_secret != cron_secret.strip():
        raise Mistake("--cron-secret has white space around it, which no header can have")
    if metrics_token is not None and (not metrics_token or metrics_token != metrics_token.strip()):
        raise Mistake("the token for metrics is empty, or has white space around it: leave it out, or set it")
    limit = None if stop_timeout is None else parse_duration(stop_timeout, "--stop-timeout")
    draining = parse_duration(drain, "--drain")
    durably = load_engine(target, database)
    counted = metrics_of(durably) if metrics or metrics_token is not None or health_port is not None else None
    if counted is None and (metrics or metrics_token is not None):
        raise Mistake("--metrics needs prometheus-client: pip install 'durably-web[prometheus]'")
    app = create_app(
        durably,
        auth=None if auth is None else _auth(auth),
        allow_origins=allow_origin or (),
        work=work,
        cron_secret=cron_secret or None,
        metrics=counted if counted is not None and (metrics or metrics_token is not None) else False,
        metrics_token=metrics_token,
    )
    served: ASGIApp = _below(app, path)
    if auth is None and not anybody:
        served = _of_own_names(served, host)
    with Lines(log_format, log_level).on_stderr(), contextlib.ExitStack() as stack:
        listening = stack.enter_context(contextlib.closing(listen(host, port)))
        watched = None
        if health_port is not None:
            watched = stack.enter_context(contextlib.closing(listen(health_host, health_port)))
        stop_events = log_events(durably)

        async def main() -> None:
            async with answering(watched, EngineProbes(durably, counted)):
                if watched is not None:
                    process.info("health and metrics at %s", address_of(watched))
                await _serve(durably, served, listening, work, path, limit, draining)

        asyncio.run(main())
        stop_events()
        process.info("server stopped")


def _auth(target: str) -> object:
    found = load_named(target)
    return found() if isinstance(found, type) else found


def _is_own(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _below(app: Starlette, path: str) -> Starlette:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return app if path.strip("/") == "" else Starlette(routes=[Mount("/" + path.strip("/"), app)])


def _of_own_names(app: ASGIApp, host: str) -> ASGIApp:
    """The application, for those who call this machine by a name of its own.

    Otherwise a site could let its own name lead to here, and its pages could do everything.
    """
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # Of an address in brackets, Starlette has taken different parts for the name; no site can have one of these.
    return TrustedHostMiddleware(app, ["localhost", "127.0.0.1", "[::1]", "::1", "[", host], www_redirect=False)


async def _serve(
    durably: Durably,
    app: ASGIApp,
    listening: socket.socket,
    work: bool,
    path: str,
    stop_timeout: float | None,
    drain: float,
) -> None:
    # Opened here and not by the application, so that what is wrong with the database is this command's error.
    await durably.migrate()
    ending = _Ending(durably, stop_timeout)
    try:
        if work:
            await durably.start()
        names = ", ".join(sorted(durably.jobs))
        process.info("serving %s at %s/%s", names, address_of(listening), path.strip("/"))
        if durably.read_only is not None:
            process.warning("only reading: %s", durably.read_only)
        await _server(app, drain, ending).serve(sockets=[listening])
    finally:
        await ending.finish()


class _Ending:
    """The stop of a server. Steps are finished while the requests that are under way are answered: neither waits for
    the other, and both have `limit` seconds."""

    def __init__(self, durably: Durably, limit: float | None) -> None:
        self._durably = durably
        self.limit = limit
        self._answered = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    def announce(self) -> None:
        leave(self._durably)

    def begin(self) -> None:
        """From now on nothing more is begun."""
        if self._stopping is None:
            self._durably._in_use.append(self._answered)
            self._stopping = asyncio.ensure_future(self._durably.stop(self.limit))

    async def finish(self) -> None:
        """No request is under way any more."""
        self._answered.set()
        await (self._stopping or self._durably.stop(self.limit))


def _server(app: ASGIApp, drain: float, ending: _Ending) -> uvicorn.Server:
    import uvicorn

    loop = asyncio.get_running_loop()

    class Server(uvicorn.Server):
        """Ends at SIGINT and SIGTERM, which are then dealt with; a second one does not wait for anybody."""

        _asked = False

        def handle_exit(self, sig: int, frame: object) -> None:
            # In the middle of whatever was executed: the rest is for the loop.
            loop.call_soon_threadsafe(self._leave, signal.Signals(sig).name)

        def _leave(self, name: str) -> None:
            if self._asked:
                self.force_exit = self.should_exit = True
                return
            self._asked = True
            ending.announce()
            process.info("%s: finishing", name)
            if drain > 0:
                loop.call_later(drain, self._end)
            else:
                self._end()

        def _end(self) -> None:
            self.should_exit = True
            ending.begin()

    return Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="error",
            access_log=False,
            lifespan="off",
            server_header=False,
            # Or a client that never sends the rest of its request would be waited for.
            timeout_graceful_shutdown=_MOST_FOR_REQUESTS if ending.limit is None else math.ceil(ending.limit),
        )
    )
