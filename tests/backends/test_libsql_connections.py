"""What becomes of connections to a libSQL server when requests are cancelled, in every moment of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from durably_web.backends.libsql.over_httpx import HttpxTransport
from durably_web.backends.libsql.transport import NoReply
from tests.support.world import until

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
MOMENTS = 60
"""More turns of the loop than a request takes."""


@pytest.fixture
async def answering() -> AsyncIterator[str]:
    """The URL of a server that answers at once, on connections that stay open."""
    serving: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(answer(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    if serving:
        await asyncio.wait(serving, timeout=10)


async def _cancelled_after(transport: HttpxTransport, url: str, turns: int) -> bool:
    """Ask, and cancel it after so many turns of the loop; whether it was still under way."""
    asking = asyncio.create_task(transport.post(url, b"{}", {}, 30))
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    try:
        await asking
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize("at_once", [1, 8], ids=["alone", "most wait for a connection"])
async def test_who_is_cancelled_keeps_no_connection(answering: str, at_once: int) -> None:
    transport = HttpxTransport(answering, connections=2)
    pool = transport._client._transport._pool  # type: ignore[attr-defined]
    cancelled = 0
    async with asyncio.timeout(60):
        for turns in range(MOMENTS):
            each = [_cancelled_after(transport, answering, turns + number) for number in range(at_once)]
            cancelled += sum(await asyncio.gather(*each))
        await until(lambda: not transport._under_way)
        assert cancelled > 10
        assert [connection for connection in pool.connections if not connection.is_idle()] == []
        assert (await transport.post(answering, b"{}", {}, 30)).status == 200
        await transport.close()


async def test_a_close_ends_those_that_wait_for_a_connection_as_well(answering: str) -> None:
    transport = HttpxTransport(answering)
    asking = [asyncio.create_task(transport.post(answering, b"{}", {}, 30)) for _ in range(200)]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await transport.close()
        ended = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(one, NoReply) for one in ended)
    with pytest.raises(NoReply, match="closed"):
        await transport.post(answering, b"{}", {}, 30)
