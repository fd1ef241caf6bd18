"""The server, in front of it something that breaks connections on demand, and beside it a page with the client.

It answers below `/api/durably`. It runs in a thread with an event loop of its own, on loopback.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from durably_web import Durably
from durably_web.jobs import Job
from durably_web.server import create_app
from tests.support.serving import served

API = "/api/durably"
PAGE = '<!doctype html><meta charset="utf-8"><title>test</title><link rel="icon" href="data:,">'
PATIENCE_S = 30
STREAMS = ("/subscribe", "/runs/subscribe")


class Asked(NamedTuple):
    """One request that has come."""

    method: str
    path: str
    key: str | None
    """Of the header `Idempotency-Key`."""


class HttpServer:
    """What a test sees of the server. Its methods are called from the test's thread."""

    def __init__(self, durably: Durably, loop: asyncio.AbstractEventLoop) -> None:
        self.durably = durably
        self.asked: list[Asked] = []
        self.address = ""
        self.refuses_streams = False
        """As something in between may, that waits for the end of every answer."""
        self.replies_to_drop = 0
        self.requests_to_drop = 0
        self.is_away = False
        self.connections: set[Connection] = set()
        """Those of streams."""
        self._loop = loop

    def call(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something on the server's event loop."""

        async def waited() -> Any:
            return await work()

        future: Future[Any] = asyncio.run_coroutine_threadsafe(waited(), self._loop)
        return future.result(PATIENCE_S)

    def drop_requests(self, count: int) -> None:
        """Of the next requests that change something: break the connection before anything is done."""
        self.requests_to_drop = count

    def drop_replies(self, count: int) -> None:
        """Of the next requests that change something: do what they ask, and break the connection."""
        self.replies_to_drop = count

    def go_away(self) -> None:
        """Answer as a gateway does that finds no server behind it, and break every stream."""
        self.is_away = True
        self.cut_streams()

    def come_back(self) -> None:
        self.is_away = False

    def cut_streams(self) -> None:
        """Break every stream at once."""

        async def cut() -> None:
            cut = list(self.connections)
            for connection in cut:
                connection.transport.abort()
            async with asyncio.timeout(PATIENCE_S):
                while self.connections.intersection(cut):  # noqa: ASYNC110
                    await asyncio.sleep(0)

        self.call(cut)

    def cut_streams_within_an_event(self) -> None:
        """Break every stream in the middle of what it sends next."""
        for connection in list(self.connections):
            connection.breaks = True

    @property
    def streams(self) -> int:
        """How many there are."""
        return len(self.connections)


class Connection:
    """That of one request, at the side of the server."""

    def __init__(self, send: Any) -> None:
        # Of uvicorn: there is no way to break a connection that all servers have.
        self.transport: asyncio.Transport = send.__self__.transport
        self.breaks = False
        self._send = send

    async def send(self, message: Any) -> None:
        body = message.get("body", b"")
        if not self.breaks or not body:
            await self._send(message)
        elif not self.transport.is_closing():
            await self._send({**message, "body": body[: len(body) // 2]})
            # Closed, not aborted: the half is sent.
            self.transport.close()


class Breakable:
    """An application that is reached as well as the test wants."""

    def __init__(self, app: Any, server: HttpServer) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        server = self._server
        path, method = scope["path"].removeprefix(API), scope["method"]
        server.asked.append(Asked(method, path, Request(scope).headers.get("idempotency-key")))
        if server.is_away:
            await PlainTextResponse("no server", 502)(scope, receive, send)
        elif path in STREAMS and server.refuses_streams:
            await PlainTextResponse("no streams", 501)(scope, receive, send)
        elif path in STREAMS:
            connection = Connection(send)
            server.connections.add(connection)
            try:
                await self._app(scope, receive, connection.send)
            finally:
                server.connections.discard(connection)
        elif method != "GET" and server.requests_to_drop:
            server.requests_to_drop -= 1
            Connection(send).transport.abort()
        elif method != "GET" and server.replies_to_drop:
            server.replies_to_drop -= 1

            async def to_nobody(message: Any) -> None: ...

            await self._app(scope, receive, to_nobody)
            Connection(send).transport.abort()
        else:
            await self._app(scope, receive, send)


@contextmanager
def http_server(
    database: Path, jobs: Iterable[Job[Any, Any]], client: Path, site: Path | None = None
) -> Iterator[HttpServer]:
    """A server with an engine of its own, in a thread.

    `client` is the folder of the client's modules, and `site` that of the pages, if there are any but an empty one.
    """
    started: Future[HttpServer] = Future()
    stop: list[Callable[[], Any]] = []

    async def main() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        async with Durably(str(database), jobs=jobs) as durably:
            server = HttpServer(durably, loop)
            empty = Route("/", lambda request: HTMLResponse(PAGE))
            app = Starlette(
                routes=[
                    # What a client hears here is compared with what is stored.
                    Mount(API, create_app(durably, sse_throttle=0)),
                    Mount("/durably-web", StaticFiles(directory=client)),
                    empty if site is None else Mount("/", StaticFiles(directory=site, html=True)),
                ]
            )
            async with served(Breakable(app, server), proxy_headers=False) as address:
                server.address = f"{address}/"
                started.set_result(server)
                await stopping.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=run, name="http server", daemon=True)
    thread.start()
    try:
        yield started.result(PATIENCE_S)
    finally:
        for end in stop:
            end()
        thread.join(PATIENCE_S)
