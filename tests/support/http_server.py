"""A small HTTP server over `durably_web.api.respond`: real sockets, and breakable on demand.

It answers the paths of the API below `/api/durably`, and serves a page and the client beside it. It runs in a thread
with an event loop of its own, on loopback, and every connection carries one request.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from durably_web import Durably
from durably_web.api import Request, respond
from durably_web.events import Event
from durably_web.jobs import Job

API = "/api/durably"
PAGE = b'<!doctype html><meta charset="utf-8"><title>test</title><link rel="icon" href="data:,">'
PATIENCE_S = 30


class Asked(NamedTuple):
    """One request that has come."""

    method: str
    path: str
    key: str | None
    """Of the header `Idempotency-Key`."""


class HttpServer:
    """What a test sees of the server. Its methods are called from the test's thread."""

    def __init__(self, durably: Durably, loop: asyncio.AbstractEventLoop, client: Path) -> None:
        self.durably = durably
        self.asked: list[Asked] = []
        self.address = ""
        self.refuses_streams = False
        """As something in between may, that waits for the end of every answer."""
        self._loop = loop
        self._client = client
        self._streams: set[_Stream] = set()
        self._replies_to_drop = 0
        self._requests_to_drop = 0
        self._away = False
        self._seq = 0

    def call(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something on the server's event loop."""

        async def waited() -> Any:
            return await work()

        future: Future[Any] = asyncio.run_coroutine_threadsafe(waited(), self._loop)
        return future.result(PATIENCE_S)

    def drop_requests(self, count: int) -> None:
        """Of the next requests that change something: break the connection before anything is done."""
        self._requests_to_drop = count

    def drop_replies(self, count: int) -> None:
        """Of the next requests that change something: do what they ask, and break the connection."""
        self._replies_to_drop = count

    def go_away(self) -> None:
        """Answer as a gateway does that finds no server behind it, and break every stream."""
        self._away = True
        self.cut_streams()

    def come_back(self) -> None:
        self._away = False

    def cut_streams(self) -> None:
        """Break every stream at once."""

        async def cut() -> None:
            for stream in self._streams:
                stream.cut()

        self.call(cut)

    def cut_streams_within_an_event(self) -> None:
        """Break every stream in the middle of what it sends next."""
        for stream in list(self._streams):
            stream.breaks = True

    @property
    def streams(self) -> int:
        """How many there are."""
        return len(self._streams)

    # -- on the server's event loop ----------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ", 2)
            lines = (line.partition(":") for line in head[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in lines}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            await self._answer(method, target, headers, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        url = urlsplit(target)
        if not url.path.startswith(API):
            await self._file(url.path, writer)
            return
        path = url.path.removeprefix(API)
        self.asked.append(Asked(method, path, headers.get("idempotency-key")))
        if self._away:
            await _reply(writer, 502, "text/plain", b"no server")
        elif path == "/health":
            await _reply_json(writer, 200, {"ok": True})
        elif path == "/runs/subscribe" and self.refuses_streams:
            await _reply(writer, 501, "text/plain", b"no streams")
        elif path == "/runs/subscribe":
            await self._stream(headers.get("last-event-id"), writer)
        else:
            query = {
                name: values if len(values) > 1 else values[0]
                for name, values in parse_qs(url.query, keep_blank_values=True).items()
            }
            await self._respond(method, path, query, json.loads(body) if body else None, headers, writer)

    async def _respond(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: Any,
        headers: dict[str, str],
        writer: asyncio.StreamWriter,
    ) -> None:
        changes = method != "GET"
        if changes and self._requests_to_drop:
            self._requests_to_drop -= 1
            writer.transport.abort()
            return
        status, answer = await respond(self.durably, Request(method, path, query, body, headers.get("idempotency-key")))
        if changes and self._replies_to_drop:
            self._replies_to_drop -= 1
            writer.transport.abort()
            return
        await _reply_json(writer, status, answer)

    async def _file(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/":
            await _reply(writer, 200, "text/html", PAGE)
            return
        file = self._client / path.removeprefix("/durably-web/")
        if file.parent == self._client and file.suffix == ".js" and file.is_file():
            await _reply(writer, 200, "text/javascript", file.read_bytes())
        else:
            await _reply(writer, 404, "text/html", b"<h1>not found</h1>")

    async def _stream(self, last_event_id: str | None, writer: asyncio.StreamWriter) -> None:
        newest = await self._last_seq()
        stream = _Stream(self.durably, writer)
        self._streams.add(stream)
        try:
            await stream.run(newest, after=newest if last_event_id is None else int(last_event_id))
        finally:
            self._streams.discard(stream)

    async def _last_seq(self) -> int:
        """The seq of the last stored event."""
        while events := (await self.durably.get_events(after=self._seq)).events:
            self._seq = events[-1].seq or self._seq
        return self._seq


class _Stream:
    """Server-sent events: the stored ones in order behind `after`, the others as they happen."""

    def __init__(self, durably: Durably, writer: asyncio.StreamWriter) -> None:
        self.breaks = False
        self._durably = durably
        self._writer = writer
        self._task = asyncio.current_task()

    def cut(self) -> None:
        self._writer.transport.abort()
        assert self._task is not None
        self._task.cancel()

    async def run(self, newest: int, *, after: int) -> None:
        unsubscribe = self._durably.on("*", lambda event: self._send(event) if event.seq is None else None)
        try:
            self._writer.write(_head(200, "text/event-stream"))
            # Sent again soon: a test must not wait for the seconds that browsers take by themselves.
            self._writer.write(b"retry: 50\n")
            self._write(f'event: connected\nid: {after}\ndata: {{"seq": {newest}}}\n\n')
            async for event in self._durably.subscribe(after=after):
                self._send(event)
                await self._writer.drain()
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            unsubscribe()

    def _send(self, event: Event) -> None:
        position = "" if event.seq is None else f"id: {event.seq}\n"
        self._write(f"{position}data: {json.dumps(event.to_wire())}\n\n")

    def _write(self, message: str) -> None:
        if self._writer.is_closing():
            return
        data = message.encode()
        if self.breaks:
            self._writer.write(data[: len(data) // 2])
            # Closed, not aborted: the half is sent.
            self._writer.close()
            assert self._task is not None
            self._task.cancel()
        else:
            self._writer.write(data)


async def _reply_json(writer: asyncio.StreamWriter, status: int, body: Any) -> None:
    await _reply(writer, status, "application/json", json.dumps(body).encode())


async def _reply(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes) -> None:
    writer.write(_head(status, kind, len(body)) + body)
    await writer.drain()


def _head(status: int, kind: str, length: int | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {status} Status",
        f"Content-Type: {kind}; charset=utf-8",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextmanager
def http_server(database: Path, jobs: Iterable[Job[Any, Any]], client: Path) -> Iterator[HttpServer]:
    """A server with an engine of its own, in a thread. `client` is the folder of the client's modules."""
    started: Future[HttpServer] = Future()
    stop: list[Callable[[], Any]] = []

    async def main() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        async with Durably(str(database), jobs=jobs) as durably:
            server = HttpServer(durably, loop, client)
            listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
            server.address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
            started.set_result(server)
            await stopping.wait()
            listener.close()
            for stream in list(server._streams):
                stream.cut()

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
