"""Serving a site on this machine only, the way a static host does: no special headers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mimetypes
import socket
from collections.abc import AsyncIterator, Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from durably_web.site.problem import SiteProblem

# What a browser insists on; a machine's own table may have something else.
TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".py": "text/x-python",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".whl": "application/zip",
}

# Seconds for downloads that are under way when the server is asked to stop.
GRACE = 1


class Files(StaticFiles):
    """A folder. A browser asks again each time and gets 304 when nothing changed, so an edit shows at the next load."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def application(routes: list[BaseRoute]) -> Starlette:
    """An application that other machines' names do not reach: a page elsewhere may not ask it under its own name."""
    for suffix, kind in TYPES.items():
        mimetypes.add_type(kind, suffix)
    return Starlette(
        routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])]
    )


def listen(port: int | None, usual: int) -> socket.socket:
    """A socket on loopback: at `port`, or at the usual one, or at any that is free. Raises `SiteProblem`."""
    try:
        return _bound(usual if port is None else port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise SiteProblem(f"nothing can be served at port {port or usual}: {error.strerror}") from None
        if port is not None:
            raise SiteProblem(f"port {port} is taken: give another --port") from None
        return _bound(0)


def _bound(port: int) -> socket.socket:
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(128)
    except BaseException:
        listening.close()
        raise
    return listening


def address(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}/"


class _Server(uvicorn.Server):
    """Ends at SIGINT and SIGTERM, which are then dealt with: the process may go on and exit with 0."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True
        self._on_exit()


Beside = Callable[[asyncio.Event], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def nothing(stop: asyncio.Event) -> AsyncIterator[None]:
    yield


def serve(app: Starlette, listening: socket.socket, beside: Beside = nothing) -> None:
    """Serve until SIGINT or SIGTERM. `beside` lasts as long; its event tells it to end."""

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        config = uvicorn.Config(
            app, log_level="critical", lifespan="off", server_header=False, timeout_graceful_shutdown=GRACE
        )
        server = _Server(config, lambda: loop.call_soon_threadsafe(stop.set))
        async with beside(stop):
            await server.serve(sockets=[listening])

    # An interrupt may come before the server listens to it.
    with contextlib.closing(listening), contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
