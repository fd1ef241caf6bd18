"""An application behind real sockets, on the event loop of the test, and a reader of server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

import httpx
import uvicorn

SECONDS = 20
"""The longest that anything is waited for."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are pytest's."""
        yield


@asynccontextmanager
async def served(app: Any, lifespan: Literal["on", "off"] = "off", **options: Any) -> AsyncIterator[str]:
    """Serve an application; gives its address, without a slash at its end. At the end connections are broken off."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(
        uvicorn.Config(app, log_level="warning", lifespan=lifespan, timeout_graceful_shutdown=0, **options)
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(SECONDS):
            while not server.started:
                assert not serving.done(), serving
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, SECONDS)
        listener.close()


@contextlib.contextmanager
def served_in_thread(app: Any, **options: Any) -> Iterator[str]:
    """The same for tests that are not async, on an event loop of its own; the application opens the engine."""
    addresses: queue.Queue[str | None] = queue.Queue()
    ending = threading.Event()

    async def main() -> None:
        async with served(app, lifespan="on", **options) as address:
            addresses.put(address)
            await asyncio.to_thread(ending.wait)

    def run() -> None:
        try:
            asyncio.run(main())
        finally:
            addresses.put(None)

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    try:
        address = addresses.get(timeout=SECONDS)
        assert address is not None, "the server did not start"
        yield address
    finally:
        ending.set()
        thread.join(SECONDS)


class Message(NamedTuple):
    """One server-sent event."""

    type: str
    id: str | None
    data: Any


class Stream:
    """The messages of a response, one after the other."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments = 0
        self.retry: int | None = None
        self._lines = response.aiter_lines()

    async def connected(self) -> int:
        """Wait for the first message; the seq of the newest stored event then."""
        message = await self.next()
        assert message is not None and message.type == "connected"
        return int(message.data["seq"])

    async def next(self) -> Message | None:
        """The next message; `None` at the end."""
        type, id, data = "message", None, []
        async with asyncio.timeout(SECONDS):
            async for line in self._lines:
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if line.startswith(":"):
                    self.comments += 1
                elif field == "event":
                    type = value
                elif field == "id":
                    id = value
                elif field == "retry":
                    self.retry = int(value)
                elif field == "data":
                    data.append(value)
                elif not line and data:
                    return Message(type, id, json.loads("\n".join(data)))
        return None

    async def rest(self) -> list[Message]:
        """All that comes until the end."""
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
        return found

    async def until(self, type: str) -> list[Message]:
        """All that comes until an event of this type, with it."""
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
            if message.data.get("type") == type:
                return found
        raise AssertionError(f"the stream ended without {type}: {found}")


@asynccontextmanager
async def stream(
    client: httpx.AsyncClient, path: str, last_event_id: str | None = None, **options: Any
) -> AsyncIterator[Stream]:
    headers = dict(options.pop("headers", {}))
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    async with client.stream("GET", path, headers=headers, timeout=SECONDS, **options) as response:
        assert response.status_code == 200, await response.aread()
        yield Stream(response)
