"""`durably-web serve`: jobs over HTTP, and execute their runs."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.display import Watch
from durably_web.cli.jobfile import load_engine, load_named
from durably_web.cli.mistakes import Mistake
from durably_web.engine import Durably

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

USUAL_PORT = 8174


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
) -> None:
    """Answer requests for the jobs in FILE or MODULE over HTTP, and execute their runs, until SIGTERM or SIGINT.

    Other machines are only let in with --auth or --anybody.
    """
    # Not at the top: no other command needs it.
    from durably_web.server import create_app

    if auth is None and not anybody and not _is_own(host):
        raise Mistake(
            f"at {host} everybody could do everything: give --auth MODULE:NAME, or --anybody if that is meant"
        )
    durably = load_engine(target, database)
    if cron_secret is not None and cron_secret != cron_secret.strip():
        raise Mistake("--cron-secret has white space around it, which no header can have")
    app = create_app(
        durably,
        auth=None if auth is None else _auth(auth),
        allow_origins=allow_origin or (),
        work=work,
        cron_secret=cron_secret or None,
    )
    served: ASGIApp = _below(app, path)
    if auth is None and not anybody:
        served = _of_own_names(served, host)
    with contextlib.closing(_listen(host, port)) as listening, Watch(name_runs=True) as watch:
        durably.on("*", watch.hear)
        asyncio.run(_serve(durably, served, listening, work, watch, path))
        watch.say("server stopped")


def _auth(target: str) -> object:
    found = load_named(target)
    return found() if isinstance(found, type) else found


def _is_own(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Mistake(f"nothing can be served at {host}, port {port}: {error.strerror}") from None


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


async def _serve(durably: Durably, app: ASGIApp, listening: socket.socket, work: bool, watch: Watch, path: str) -> None:
    import uvicorn

    from durably_web.server import lifespan

    class Server(uvicorn.Server):
        """Ends at SIGINT and SIGTERM, which are then dealt with; a second one does not wait for anybody."""

        def handle_exit(self, sig: int, frame: object) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True

    server = Server(uvicorn.Config(app, log_level="error", lifespan="off", server_header=False))
    # Opened here and not by the application, so that what is wrong with the database is this command's error.
    async with lifespan(durably, work=work)():
        host, port = listening.getsockname()[:2]
        where = f"[{host}]" if ":" in host else host
        names = ", ".join(sorted(durably.jobs))
        watch.say(f"serving {names} at http://{where}:{port}/{path.strip('/')}")
        if durably.read_only is not None:
            watch.say(f"only reading: {durably.read_only}")
        await server.serve(sockets=[listening])
