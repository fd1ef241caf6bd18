"""What stands between a client and a PostgreSQL server, and lets a test see and stop what passes.

It knows of the protocol how a client's message "Sync" and a server's "ready for query" look at the end of a piece.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Literal, Self

SYNC = b"S\x00\x00\x00\x04"
_READY = (b"Z\x00\x00\x00\x05I", b"Z\x00\x00\x00\x05T", b"Z\x00\x00\x00\x05E")

Habit = Literal["pass", "withhold", "lose", "drop", "swallow"]


class Between:
    """Listens on a random port of the loopback, while it is entered.

    `habit` is what happens to the next things asked, on every connection:
    pass      nothing
    withhold  no answer is passed on before everything is asked, up to the sync; but while it connects
    lose      it is done, and the answer is lost with the connection; then `pass`
    drop      the connection is cut before it arrives; then `pass`
    swallow   nothing arrives any more, and nobody is told
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.habit: Habit = "pass"
        self.syncs = 0
        self.asked = bytearray()
        """What clients have asked, since somebody cleared it."""
        self._upstream = host, port
        self._end = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """End all connections."""
        self._end.set()
        self._end = asyncio.Event()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = asyncio.ensure_future(self._end.wait())
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            end.cancel()
            writer.transport.abort()
            return
        # Set while an answer may be passed on.
        complete = asyncio.Event()
        complete.set()
        there = asyncio.create_task(self._ask(reader, server_writer, complete))
        back = asyncio.create_task(self._answer(server_reader, writer, complete))
        try:
            await asyncio.wait([there, back, end], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back, end):
                task.cancel()
            await asyncio.gather(there, back, end, return_exceptions=True)
            for each in (writer, server_writer):
                each.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, complete: asyncio.Event) -> None:
        connected = False
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                self.asked += piece
                if self.habit == "drop":
                    self.habit = "pass"
                    return
                if self.habit == "swallow":
                    continue
                if self.habit == "withhold" and connected:
                    complete.clear()
                writer.write(piece)
                await writer.drain()
                if self.asked.endswith(SYNC):
                    self.syncs += 1
                    connected = True
                    complete.set()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, complete: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await complete.wait()
                if self.habit == "lose":
                    if piece.endswith(_READY):
                        self.habit = "pass"
                        return
                    continue
                if self.habit == "swallow":
                    continue
                writer.write(piece)
                await writer.drain()
