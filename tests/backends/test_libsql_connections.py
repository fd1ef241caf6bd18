"""What httpx does with connections to a libSQL server: when requests are cancelled, in every moment of one, when an
answer is slow, and when what comes is not one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import anyio
import httpx
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


async def test_an_answer_that_has_begun_gets_more_time() -> None:
    enough = asyncio.Event()
    ended = asyncio.Event()

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER[:-1])
        await enough.wait()
        writer.write(ANSWER[-1:])
        writer.close()
        ended.set()

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = HttpxTransport(url)
    asking = asyncio.create_task(transport.post(url, b"{}", {}, 20))
    await until(lambda: transport._under_way)
    [scope] = transport._under_way.values()
    await until(lambda: scope.deadline - anyio.current_time() > 60)
    enough.set()
    assert (await asking).body == b"{}"
    await transport.close()
    await ended.wait()
    server.close()


async def test_what_breaks_inside_of_tls_is_no_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = HttpxTransport("https://host")

    async def broken(request: httpx.Request) -> httpx.Response:
        raise ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]")

    monkeypatch.setattr(transport._client, "_transport", httpx.MockTransport(broken))
    with pytest.raises(NoReply, match=r"SSLError.*BAD_RECORD") as caught:
        await transport.post("https://host", b"{}", {}, 30)
    assert not caught.value.late
    await transport.close()
