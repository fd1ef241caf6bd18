"""The port at which a process answers whoever watches over it: a container's platform, or Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from durably_web.cli.mistakes import Mistake
from durably_web.health import Probes

if TYPE_CHECKING:
    from durably_web.engine import Durably
    from durably_web.metrics import Metrics

HealthPort = Annotated[
    int | None,
    typer.Option(
        "--health-port",
        min=0,
        max=65535,
        metavar="PORT",
        help="Answer /health/live, /health/ready and /metrics at a port of its own; 0 for a free one.",
    ),
]
HealthHost = Annotated[
    str, typer.Option("--health-host", metavar="HOST", help="The address of that port; 0.0.0.0 in a container.")
]
OWN = "127.0.0.1"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `Mistake`."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Mistake(f"nothing can be served at {host}, port {port}: {error.strerror}") from None


def address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def metrics_of(durably: Durably) -> Metrics | None:
    """What counts; `None` without the extra, which whoever asks for metrics is told."""
    try:
        from durably_web.metrics import Metrics
    except ImportError:
        return None
    return Metrics(durably, process=True)


@contextlib.asynccontextmanager
async def answering(listening: socket.socket | None, probes: Probes) -> AsyncIterator[None]:
    """Answer at the socket while the context lasts; nothing without one."""
    if listening is None:
        yield
        return
    import uvicorn

    from durably_web.server.health import watching_app

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # They are for the process as a whole.
            yield

    config = uvicorn.Config(
        watching_app(probes),
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        # Whoever keeps a connection open keeps no process.
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="health port")
    try:
        yield
    finally:
        server.should_exit = True
        await serving
