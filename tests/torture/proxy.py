"""A network in front of a database that cuts connections, delays, and loses replies.

It knows nothing of what passes, so it is for PostgreSQL and HTTP alike. What goes wrong on the n-th connection is drawn
from the seed: a fault is due after so many pieces of traffic, in either direction.

cut    the connection ends, and the piece does not arrive
tear   half of an answer arrives, then the connection ends
lose   what is asked arrives, the answer is swallowed, then the connection ends
delay  the piece arrives late
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from tests.torture.plan import Cut

# An answer that is swallowed has ended when nothing of it has come for so long, and at the latest after the other.
QUIET_SECONDS = 0.03
LOSING_SECONDS = 5.0
PIECE = 65536

Cuts = Callable[[int], Iterator[Cut]]


class Proxy:
    """Listens on a random port of the loopback, while it is entered, and passes on to `host` and `port`."""

    def __init__(self, host: str, port: int, cuts: Cuts) -> None:
        self.port = 0
        self.done: collections.Counter[str] = collections.Counter()
        """How many faults there were of each kind, and `connections`."""
        self._upstream = host, port
        self._cuts = cuts
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._calm = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def calm(self) -> None:
        """From now on nothing goes wrong any more."""
        self._calm = True

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.done["connections"]
        self.done["connections"] += 1
        task = asyncio.get_running_loop().create_task(self._pass_on(number, reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _pass_on(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            # The database is down, and whoever asks sees the same as without us.
            writer.transport.abort()
            return
        connection = _Connection(self, self._cuts(number))
        there = asyncio.create_task(connection.ask(reader, server_writer))
        back = asyncio.create_task(connection.answer(server_reader, writer))
        try:
            # When one side has ended, so has the other: neither protocol goes on with half a connection.
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            for each in (writer, server_writer):
                if connection.is_cut:
                    each.transport.abort()
                else:
                    each.close()

    def is_calm(self) -> bool:
        return self._calm


class _Connection:
    def __init__(self, proxy: Proxy, cuts: Iterator[Cut]) -> None:
        self._proxy = proxy
        self._cuts = cuts
        self._next = next(cuts, None)
        self._left = self._next.after if self._next is not None else 0
        self._losing = False
        self._swallowed = asyncio.Event()
        self.is_cut = False

    def _due(self) -> Cut | None:
        """The fault that this piece meets."""
        if self._next is None or self._losing or self._proxy.is_calm():
            return None
        self._left -= 1
        if self._left > 0:
            return None
        due, self._next = self._next, next(self._cuts, None)
        self._left = self._next.after if self._next is not None else 0
        return due

    def _cut(self, kind: str) -> None:
        self._proxy.done[kind] += 1
        self.is_cut = True

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                due = self._due()
                kind = None if due is None else due.kind
                if kind in ("cut", "tear"):
                    return self._cut("cut")
                if due is not None and kind == "delay":
                    await self._delay(due)
                if kind == "lose":
                    self._losing = True
                writer.write(piece)
                await writer.drain()
                if kind == "lose":
                    await self._until_swallowed()
                    return self._cut("lose")

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                if self._losing:
                    self._swallowed.set()
                    continue
                due = self._due()
                kind = None if due is None else due.kind
                if kind == "tear":
                    writer.write(piece[: len(piece) // 2])
                    await writer.drain()
                    return self._cut("tear")
                if kind in ("cut", "lose"):
                    # What was asked has been done: to lose is to cut now.
                    return self._cut("lose")
                if due is not None and kind == "delay":
                    await self._delay(due)
                writer.write(piece)
                await writer.drain()
        if self._losing:
            # Until the other direction has noticed, nobody is told.
            self._swallowed.set()
            await asyncio.Event().wait()

    async def _delay(self, due: Cut) -> None:
        self._proxy.done["delay"] += 1
        await asyncio.sleep(due.seconds)

    async def _until_swallowed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOSING_SECONDS):
                await self._swallowed.wait()
                while True:
                    self._swallowed.clear()
                    await asyncio.wait_for(self._swallowed.wait(), QUIET_SECONDS)
