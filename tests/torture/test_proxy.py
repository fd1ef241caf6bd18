"""The network between us and a database: what it does to a question and to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.torture.plan import Cut, cuts
from tests.torture.proxy import Proxy

SECONDS = 10


class Echo:
    """A server that says what it was told, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line.upper())
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def network(*plan: Cut) -> AsyncIterator[tuple[Echo, Proxy]]:
    """In which this happens to the first connection, and nothing to those behind it."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    async with server, asyncio.timeout(SECONDS):
        async with Proxy("127.0.0.1", echo.port, lambda number: iter(() if number else plan)) as proxy:
            yield echo, proxy


class Talk:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, text: bytes) -> bytes:
        """The answer; as much of it as came before the end, without its line end then."""
        self._writer.write(text)
        with contextlib.suppress(OSError):
            return await self._reader.readline()
        return b""

    def close(self) -> None:
        self._writer.close()


@contextlib.asynccontextmanager
async def talk(proxy: Proxy) -> AsyncIterator[Talk]:
    talk = Talk(*await asyncio.open_connection("127.0.0.1", proxy.port))
    yield talk
    talk.close()


async def test_what_nothing_happens_to_passes() -> None:
    async with network() as (echo, proxy), talk(proxy) as one:
        assert [await one.say(b"a\n"), await one.say(b"b\n")] == [b"A\n", b"B\n"]
        assert echo.heard == [b"a\n", b"b\n"] and proxy.done == {"connections": 1}


async def test_a_question_that_is_cut_does_not_arrive() -> None:
    async with network(Cut(3, "cut", 0)) as (echo, proxy), talk(proxy) as one:
        assert await one.say(b"a\n") == b"A\n"
        assert await one.say(b"b\n") == b""
        assert echo.heard == [b"a\n"] and proxy.done["cut"] == 1


async def test_a_lost_answer_is_one_to_what_was_done() -> None:
    async with network(Cut(3, "lose", 0)) as (echo, proxy), talk(proxy) as one:
        assert await one.say(b"a\n") == b"A\n"
        assert await one.say(b"b\n") == b""
        assert echo.heard == [b"a\n", b"b\n"] and proxy.done["lose"] == 1


async def test_an_answer_that_is_torn() -> None:
    async with network(Cut(2, "tear", 0)) as (echo, proxy), talk(proxy) as one:
        assert await one.say(b"abcde\n") in (b"ABC", b"")
        assert echo.heard == [b"abcde\n"] and proxy.done["tear"] == 1


async def test_what_is_delayed_arrives() -> None:
    async with network(Cut(1, "delay", 0.01), Cut(1, "delay", 0.01)) as (_, proxy), talk(proxy) as one:
        assert await one.say(b"a\n") == b"A\n"
        assert proxy.done["delay"] == 2


async def test_another_connection_has_its_own_fate() -> None:
    async with network(Cut(1, "cut", 0)) as (_, proxy), talk(proxy) as one, talk(proxy) as other:
        assert await one.say(b"a\n") == b""
        assert await other.say(b"a\n") == b"A\n"


async def test_a_server_that_is_away_is_an_end() -> None:
    async with network() as (_, proxy):
        nobody = Proxy("127.0.0.1", 9, lambda number: iter(()))
        async with nobody, talk(nobody) as one:
            assert await one.say(b"a\n") == b""
        assert proxy.done["connections"] == 0


async def test_nothing_goes_wrong_in_the_calm() -> None:
    async with network(*[Cut(1, "cut", 0)] * 5) as (_, proxy), talk(proxy) as one:
        proxy.calm()
        assert await one.say(b"a\n") == b"A\n"


@pytest.mark.parametrize("connection", [0, 1, 7])
def test_a_seed_decides_what_happens_to_the_nth_connection(connection: int) -> None:
    def first(seed: int, connection: int) -> list[Cut]:
        return [*itertools.islice(cuts(seed, connection, 50), 20)]

    assert first(1, connection) == first(1, connection)
    assert first(1, connection) != first(2, connection) != first(1, connection + 1)
    kinds = {cut.kind for number in range(connection, connection + 10) for cut in first(1, number)}
    assert kinds == {"cut", "tear", "lose", "delay"}


def test_between_no_faults_there_is_none() -> None:
    nothing: Iterator[Cut] = cuts(1, 0, 0)
    assert [*nothing] == []
