"""A libSQL server on bad days: an operation is sent again until it is answered, and then the error says what to do.

Before the real server stands a transport that loses, delays and replaces what is said; time is the test's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from durably_web.backends.libsql import LibsqlExecutor
from durably_web.backends.libsql.over_httpx import HttpxTransport
from durably_web.backends.libsql.transport import NoReply, Reply, Transport
from durably_web.engine import Durably
from durably_web.errors import ConstraintViolated, ResponseTooLarge, StoreBusy, StoreError, StoreUnavailable
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store.batch import Batch, Rows, Statement
from tests.support.executors import CountingExecutor
from tests.support.servers import Sqld

CREATE = Batch("write", (Statement("CREATE TABLE durably_test (id INTEGER PRIMARY KEY) STRICT"),))
INSERT = Statement("INSERT INTO durably_test (id) VALUES (?) ON CONFLICT DO NOTHING RETURNING id", (1,))
COUNT = Statement("SELECT count(*) FROM durably_test")
WRITE = Batch("write", (INSERT, COUNT))
READ = Batch("read", (COUNT, COUNT))

Send = Callable[[], Awaitable[Reply]]
Trouble = Callable[[Send], Awaitable[Reply]]


async def lost(send: Send) -> Reply:
    raise NoReply("ConnectError: refused")


async def reply_lost(send: Send) -> Reply:
    await send()
    raise NoReply("ReadError: connection reset")


async def late(send: Send) -> Reply:
    raise NoReply("no answer within 12 seconds", late=True)


async def cut(send: Send) -> Reply:
    reply = await send()
    return reply._replace(body=reply.body[: len(reply.body) // 2])


async def not_executed(send: Send) -> Reply:
    """Says that everything went well, and leaves out what was done."""
    reply = await send()
    found = json.loads(reply.body)
    found["results"][0]["response"]["result"]["step_results"][1] = None
    return reply._replace(body=json.dumps(found).encode())


def answers(status: int, body: bytes = b"", **headers: str) -> Trouble:
    async def answer(send: Send) -> Reply:
        return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    return answer


def says(code: str, message: str = "no") -> Trouble:
    """A result of the pipeline that is an error."""
    error = {"type": "error", "error": {"code": code, "message": message}}
    return answers(200, json.dumps({"results": [error, {"type": "ok", "response": {"type": "close"}}]}).encode())


def results(**found: Any) -> Trouble:
    """A result of the batch, with these things in it."""
    told = {"step_errors": [None] * 4, **found}
    return answers(200, json.dumps({"results": [{"type": "ok", "response": {"result": told}}]}).encode())


TEMPORARY: dict[str, Trouble] = {
    "the request is lost": lost,
    "the reply is lost after the commit": reply_lost,
    "the time is up": late,
    "the reply is cut": cut,
    "a part is left out": not_executed,
    "500": answers(500, b'{"error": "Internal Error: `oops`"}'),
    "502": answers(502, b"<html>Bad gateway</html>"),
    "503": answers(503),
    "429": answers(429, b"slow down"),
    "404 of a proxy": answers(404, b"no backend"),
    "404 of a baton": answers(404, b'{"message": "The stream has expired", "code": "STREAM_EXPIRED"}'),
    "400 of a baton": answers(400, b"Received an invalid baton"),
    "400 of a stream": answers(400, b'{"message": "The stream has expired", "code": "STREAM_EXPIRED"}'),
    "the stream expires in the middle": says("STREAM_EXPIRED"),
    "an interrupt": says("SQLITE_INTERRUPT", "interrupted"),
    "a rollback": says("SQLITE_ABORT_ROLLBACK", "abort due to ROLLBACK"),
    "a changed schema": says("SQLITE_SCHEMA", "database schema has changed"),
    "a race for a lock": says("SQLITE_PROTOCOL", "locking protocol"),
    "SQLITE_BUSY": says("SQLITE_BUSY", "database is locked"),
    "the transaction takes too long": says("TRANSACTION_TIMEOUT", "Transaction timed out"),
    "another page": answers(200, b"<html>It works</html>"),
    "an empty page": answers(200, b""),
    "too few results": answers(200, b'{"results": []}'),
    "an error that is a text": answers(200, b'{"results": [{"type": "error", "error": "text"}, {}]}'),
    "an error that is nothing": answers(200, b'{"results": [{"type": "error", "error": null}, {}]}'),
    "an error of a step that is a text": results(step_results=[None], step_errors=["text"]),
    "a number that is endless": results(step_results=[{"rows": [[{"type": "integer", "value": 1e999}]]}] * 4),
    "a page of brackets": answers(200, b"[" * 100_000),
    "a redirect to nowhere": answers(307),
}


class Troubled:
    """Passes requests on to the server, but for the next ones that have a trouble."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.troubles: list[Trouble] = []
        self.always: Trouble | None = None
        self.sent: list[tuple[str, dict[str, Any], Mapping[str, str], float]] = []

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
        self.sent.append((url, json.loads(body), headers, seconds))

        async def send() -> Reply:
            return await self.inner.post(url, body, headers, seconds)

        trouble = self.troubles.pop(0) if self.troubles else self.always
        return await (send() if trouble is None else trouble(send))

    async def close(self) -> None:
        await self.inner.close()


class Scene:
    """An executor in trouble, and its time, which passes when it waits."""

    def __init__(self, url: str) -> None:
        self.time = 0.0
        self.pauses: list[float] = []
        self.executor = LibsqlExecutor(url, "relaxed", connect=self._connect, sleep=self._sleep, now=lambda: self.time)
        self.transport: Troubled

    def _connect(self, url: str) -> Transport:
        self.transport = Troubled(HttpxTransport(url))
        return self.transport

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)

    async def fails(self, batch: Batch = WRITE, kind: type[StoreError] = StoreUnavailable) -> StoreError:
        with pytest.raises(kind) as caught:
            await self.executor.run(batch)
        assert type(caught.value) is kind
        return caught.value

    async def count(self) -> Rows:
        return (await self.executor.run(READ))[0]


@pytest.fixture
def url(sqld: Sqld) -> Iterator[str]:
    url = sqld.namespace()
    yield url
    sqld.drop_namespace(url)


@pytest.fixture
async def scene(url: str) -> AsyncIterator[Scene]:
    scene = Scene(url)
    await scene.executor.open()
    await scene.executor.run(CREATE)
    scene.transport.sent.clear()
    yield scene
    await scene.executor.close()


@pytest.mark.parametrize("trouble", TEMPORARY.values(), ids=TEMPORARY)
@pytest.mark.parametrize("times", [1, 3])
async def test_an_operation_is_sent_again(scene: Scene, trouble: Trouble, times: int) -> None:
    scene.transport.troubles = [trouble] * times
    results = await scene.executor.run(WRITE)
    assert results[1] == [(1,)]
    assert len(scene.transport.sent) == times + 1
    assert len(scene.pauses) == times and all(pause > 0 for pause in scene.pauses)
    assert await scene.count() == [(1,)]


@pytest.mark.parametrize("trouble", TEMPORARY.values(), ids=TEMPORARY)
async def test_what_does_not_end_becomes_one_clear_error(scene: Scene, trouble: Trouble) -> None:
    scene.transport.always = trouble
    busy = trouble in (TEMPORARY["SQLITE_BUSY"], TEMPORARY["the transaction takes too long"])
    error = await scene.fails(kind=StoreBusy if busy else StoreUnavailable)
    assert scene.executor._url in str(error) and "30 seconds" in str(error) and error.code
    assert 15 < scene.time <= 30
    assert len(scene.pauses) < 40, "the pauses grow"
    assert min(scene.pauses[-3:]) > scene.pauses[0] or trouble is late
    # It is fit for more.
    scene.transport.always = None
    assert (await scene.executor.run(WRITE))[1] == [(1,)]


async def test_pauses_are_uneven(scene: Scene) -> None:
    seen = []
    for _ in range(4):
        scene.transport.troubles = [lost]
        await scene.executor.run(READ)
        seen.append(scene.pauses[-1])
    assert len(set(seen)) == 4


async def test_who_is_asked_to_wait_waits_as_long(scene: Scene) -> None:
    scene.transport.troubles = [
        answers(429, retry_after="7"),
        answers(503, retry_after="Thu, 01 Jan 1970 00:00:00 GMT"),
    ]
    await scene.executor.run(WRITE)
    assert scene.pauses[0] == 7 and 0 < scene.pauses[1] < 1


async def test_who_is_asked_to_wait_longer_than_that_is_told_at_once(scene: Scene) -> None:
    scene.transport.troubles = [answers(429, b"plan exceeded", retry_after="3600")]
    error = await scene.fails()
    assert "429" in str(error) and "plan exceeded" in str(error)
    assert scene.pauses == []


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_is_refused(scene: Scene, status: int, sqld: Sqld) -> None:
    scene.transport.always = answers(status, b'{"error": "Unauthorized: `The JWT SECRET is invalid`"}')
    error = await scene.fails()
    assert "TURSO_AUTH_TOKEN" in str(error) and "authToken" in str(error) and "SECRET" not in str(error)
    assert len(scene.transport.sent) == 1, "nobody's token becomes right by asking again"
    scene.executor._token = "SECRET"
    error = await scene.fails()
    assert "turso db tokens create" in str(error) and "SECRET" not in str(error)
    assert scene.transport.sent[-1][2] == {"authorization": "Bearer SECRET"}


async def test_no_token_is_asked_for_where_none_is_sent(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURSO_AUTH_TOKEN", "SECRET")
    # The server is at this URL, and the executor does not know.
    there, scene.executor._url = scene.executor._url, "http://sqld.internal:8080"
    scene.transport.always = answers(401)
    error = await scene.fails()
    assert "none is sent over http" in str(error) and "https://" in str(error) and "TURSO" not in str(error)
    scene.executor._url = there


async def test_a_number_without_an_end_is_told_of_at_once(scene: Scene) -> None:
    error = await scene.fails(Batch("read", (COUNT, Statement("SELECT 1e999"))), StoreError)
    assert "without an end" in str(error) and error.code == "NOT_FINITE"
    assert len(scene.transport.sent) == 1


async def test_what_is_large_gets_the_time_to_be_sent(scene: Scene) -> None:
    await scene.executor.run(Batch("write", (COUNT, Statement("SELECT length(?)", ("x" * 1_000_000,)))))
    await scene.executor.run(WRITE)
    large, small = [sent[3] for sent in scene.transport.sent]
    assert 30 < large - small < 40, "a megabyte, at 32 kB a second"


async def test_refusals_are_not_asked_again(scene: Scene) -> None:
    for status, kind in ((400, StoreError), (413, StoreError), (422, StoreError)):
        scene.transport.sent.clear()
        scene.transport.always = answers(status, b'{"error": "never"}')
        await scene.fails(kind=kind)
        assert len(scene.transport.sent) == 1, status
    scene.transport.always = says("SQLITE_CONSTRAINT", "SQLite error: UNIQUE constraint failed")
    assert str(await scene.fails(kind=ConstraintViolated)) == "UNIQUE constraint failed"
    scene.transport.always = says("BLOCKED", "SQL write operations are forbidden: upgrade your plan")
    assert "upgrade your plan" in str(await scene.fails())
    scene.transport.always = says("SQLITE_TOOBIG", "string or blob too big")
    assert "keep large values elsewhere" in str(await scene.fails(kind=StoreError))
    scene.transport.always = says("RESPONSE_TOO_LARGE", "Response is too large")
    assert "raise --max-response-size" in str(await scene.fails(kind=ResponseTooLarge))


async def test_a_close_ends_what_is_sent_again(scene: Scene) -> None:
    async def closing(send: Send) -> Reply:
        await scene.executor.close()
        raise NoReply("closed")

    scene.transport.troubles = [closing]
    assert "not open" in str(await scene.fails())


async def test_a_close_ends_a_request_that_gets_no_answer() -> None:
    async with raw_server([b""]) as (url, seen):
        executor = LibsqlExecutor(url)
        opening = asyncio.ensure_future(executor.open())
        async with asyncio.timeout(60):
            await seen.get()
        await executor.close()
        with pytest.raises(StoreUnavailable, match="not open"):
            async with asyncio.timeout(60):
                await opening


async def test_a_server_that_is_not_there_is_told_of_soon(url: str) -> None:
    scene = Scene(url)
    scene.executor._connect = lambda url: _always(scene, lost)
    with pytest.raises(StoreUnavailable, match="refused"):
        await scene.executor.open()
    assert scene.time <= 6
    with pytest.raises(StoreUnavailable, match="not open"):
        await scene.executor.run(READ)


def _always(scene: Scene, trouble: Trouble) -> Transport:
    transport = scene.transport = Troubled(HttpxTransport(scene.executor._url))
    transport.always = trouble
    return transport


async def test_an_older_server_knows_the_version_before(url: str) -> None:
    scene = Scene(url)
    connect = scene.executor._connect

    def older(url: str) -> Transport:
        transport = connect(url)
        scene.transport.troubles = [answers(404, b"")]
        return transport

    scene.executor._connect = older
    await scene.executor.open()
    assert [sent[0].rpartition("/v")[2] for sent in scene.transport.sent] == ["3/pipeline", "2/pipeline"]
    await scene.executor.run(CREATE)
    assert (await scene.executor.run(WRITE))[1] == [(1,)]
    assert all("/v2/" in sent[0] for sent in scene.transport.sent[1:]) and scene.pauses == []
    await scene.executor.close()


async def test_what_is_no_libsql_server_is_told_of_at_once(url: str) -> None:
    scene = Scene(url)
    scene.executor._connect = lambda url: _always(scene, answers(404, b"<html>Not found</html>"))
    with pytest.raises(StoreUnavailable, match="not the URL of a libSQL server"):
        await scene.executor.open()
    assert scene.pauses == []
    scene.executor._connect = lambda url: _always(scene, answers(405, b"Method Not Allowed"))
    with pytest.raises(StoreUnavailable, match="not the URL of a libSQL server"):
        await scene.executor.open()
    assert len(scene.transport.sent) == 1


async def test_a_namespace_that_is_not_there(sqld: Sqld) -> None:
    executor = LibsqlExecutor(f"http://nowhere.localhost:{sqld.port}")
    with pytest.raises(StoreUnavailable, match=r"nowhere.* doesn't exist"):
        await executor.open()


async def test_a_name_below_localhost_is_this_machine(sqld: Sqld, url: str) -> None:
    name = url.rpartition("/")[2]
    executor = LibsqlExecutor(f"http://{name}.localhost:{sqld.port}", "relaxed")
    await executor.open()
    await executor.run(CREATE)
    await executor.close()
    scene = Scene(url)
    await scene.executor.open()
    assert await scene.count() == [(0,)], "the same database by its other address"
    await scene.executor.close()


# -- redirects ---------------------------------------------------------------------------------------------------------


async def test_redirects_are_followed_with_the_token_only_on_the_same_host(scene: Scene) -> None:
    here = scene.executor._url
    scene.transport.troubles = [answers(status, location=f"{here}/v3/pipeline") for status in (301, 302, 307, 308)]
    await scene.executor.run(WRITE)
    assert len(scene.transport.sent) == 5 and scene.pauses == []
    # Elsewhere, as there is no token to be taken along.
    scene.transport.troubles = [answers(307, location=f"{here.replace('127.0.0.1', 'localhost')}/v3/pipeline")]
    await scene.executor.run(WRITE)
    assert scene.transport.sent[-1][0].startswith("http://localhost")


async def test_a_token_goes_to_no_other_host(scene: Scene) -> None:
    scene.executor._token = "SECRET"
    scene.transport.troubles = [answers(307, location="https://elsewhere.example/v3/pipeline")]
    error = await scene.fails()
    assert "https://elsewhere.example" in str(error) and "use that URL" in str(error) and "SECRET" not in str(error)
    assert [sent[0].startswith(scene.executor._url) for sent in scene.transport.sent] == [True]


async def test_a_redirect_to_less_safety_is_not_followed(scene: Scene) -> None:
    scene.executor._url = "https://app.example"
    scene.transport.troubles = [answers(307, location="http://app.example/v3/pipeline")]
    assert "less safe" in str(await scene.fails())
    scene.transport.troubles = [answers(307, location="file:///etc/passwd")]
    assert "less safe" in str(await scene.fails())
    assert len(scene.transport.sent) == 2


@pytest.mark.parametrize("target", ["https://h:99999/", "https://h:x/", "https://[h/", "https://a…b/", "https://a..b/"])
async def test_a_redirect_to_what_is_no_url(scene: Scene, target: str) -> None:
    scene.transport.always = answers(307, location=target)
    assert "redirects to what is no URL" in str(await scene.fails())
    assert len(scene.transport.sent) == 1


async def test_redirects_share_the_time_of_one_answer(scene: Scene) -> None:
    async def slow(send: Send) -> Reply:
        scene.time += 4
        return Reply(307, {"location": f"{scene.executor._url}/v3/pipeline"}, b"")

    scene.transport.troubles = [slow, slow]
    await scene.executor.run(WRITE)
    first, second, third = [sent[3] for sent in scene.transport.sent]
    assert (round(first - second), round(second - third)) == (4, 4)


async def test_a_circle_ends(scene: Scene) -> None:
    scene.transport.always = answers(307, location=f"{scene.executor._url}/v3/pipeline")
    assert "circle" in str(await scene.fails())
    assert len(scene.transport.sent) == 6


async def test_batons_and_base_urls_are_of_streams_that_are_over(scene: Scene) -> None:
    async def sticky(send: Send) -> Reply:
        reply = await send()
        told = json.loads(reply.body) | {"baton": "abc", "base_url": "https://elsewhere.example"}
        return reply._replace(body=json.dumps(told).encode())

    scene.executor._token = "SECRET"
    scene.transport.always = sticky
    await scene.executor.run(WRITE)
    await scene.executor.run(WRITE)
    assert all(sent[0].startswith(scene.executor._url) for sent in scene.transport.sent)
    assert not any("baton" in sent[1] for sent in scene.transport.sent)


# -- what is sent ------------------------------------------------------------------------------------------------------


async def test_each_operation_is_one_request_that_leaves_nothing_open(url: str) -> None:
    scene = Scene(url)
    counted = CountingExecutor(scene.executor)

    @job
    async def three(step: Step, input: dict[str, Any]) -> int:
        return sum([await step.run(f"step {number}", int, number) for number in range(3)])

    durably = Durably(counted, jobs=[three])
    await durably.migrate()
    opened = len(scene.transport.sent) - len(counted.batches)
    assert opened == 1
    handle = await durably.trigger(three, {})
    assert await durably.process_one()
    run = await durably.get_run(handle.id)
    assert run is not None and run.output == 3
    assert len(scene.transport.sent) - opened == len(counted.batches) >= 8
    for (_, body, _, _), batch in zip(scene.transport.sent[opened:], counted.batches, strict=True):
        assert [request["type"] for request in body["requests"]] == ["batch", "close"]
        steps = body["requests"][0]["batch"]["steps"]
        assert len(steps) == (1 if len(batch.statements) == 1 else len(batch.statements) + 3)
        assert "baton" not in body
    await durably.stop()


async def test_a_batch_that_fails_leaves_no_lock(scene: Scene, url: str) -> None:
    failing = Batch("write", (INSERT, Statement("INSERT INTO durably_test VALUES (2), (2)")))
    await scene.fails(failing, ConstraintViolated)
    other = Scene(url)
    await other.executor.open()
    async with asyncio.timeout(3):
        assert (await other.executor.run(WRITE))[1] == [(1,)]
    await other.executor.close()


async def test_values_that_would_be_lost_are_not_sent(scene: Scene) -> None:
    wrong: list[Any] = [float("inf"), float("nan"), 2**63, "\ud800", object()]
    for value in wrong:
        batch = Batch("write", (COUNT, Statement("SELECT ?", (value,))))
        error = await scene.fails(batch, StoreError)
        assert error.code
    assert scene.transport.sent == []


async def test_a_value_that_the_server_does_not_take(scene: Scene) -> None:
    create = Batch("write", (Statement("CREATE TABLE durably_large (value TEXT)"),))
    await scene.executor.run(create)
    error = await scene.fails(
        Batch("write", (COUNT, Statement("INSERT INTO durably_large VALUES (?)", ("x" * 12_000_000,)))), StoreError
    )
    assert "takes no value" in str(error) and error.statement_index == 1
    assert scene.pauses == []


# -- replicas ----------------------------------------------------------------------------------------------------------


def _reached(request: dict[str, Any]) -> str | None:
    found: str | None = request["requests"][0]["batch"].get("replication_index")
    return found


async def test_reads_name_what_was_read_or_written_before(scene: Scene) -> None:
    await scene.executor.run(WRITE)
    reached = scene.executor._reached
    assert reached
    await scene.executor.run(READ)
    await scene.executor.run(WRITE)
    assert [_reached(sent[1]) for sent in scene.transport.sent] == [None, str(reached), None]


async def test_a_replica_that_cannot_catch_up_is_passed_over(scene: Scene) -> None:
    scene.transport.troubles = [late, late]
    assert await scene.count() == [(0,)]
    first, second, third = [sent[1] for sent in scene.transport.sent]
    begins = [request["requests"][0]["batch"]["steps"][0]["stmt"]["sql"] for request in (first, second, third)]
    assert begins == ["BEGIN", "BEGIN IMMEDIATE", "BEGIN"], "who writes is where the primary is; that may be away, too"
    assert [_reached(request) is None for request in (first, second, third)] == [False, True, False]
    assert scene.transport.sent[0][3] < scene.transport.sent[1][3]


async def test_an_error_tells_how_far_the_primary_has_come_too(scene: Scene) -> None:
    scene.executor._reached = None
    await scene.fails(
        Batch("write", (COUNT, Statement("INSERT INTO durably_test VALUES (2), (2)"))), ConstraintViolated
    )
    assert scene.executor._reached


async def test_a_server_that_counts_anew_is_believed(scene: Scene) -> None:
    scene.executor._reached = 10**9
    await scene.executor.run(WRITE)
    assert scene.executor._reached < 10**6


async def test_answers_that_overtake_each_other_lead_nowhere_back(scene: Scene) -> None:
    executor = scene.executor
    executor._reached = 7
    executor._learn(5, 9)
    executor._learn(5, 8)
    executor._learn(7, None)
    assert executor._reached == 9
    executor._learn(9, 3)
    assert executor._reached == 3


# -- the wire ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def raw_server(replies: list[bytes]) -> AsyncIterator[tuple[str, asyncio.Queue[bytes]]]:
    """A server that gives one of the replies to each connection, and closes it; an empty one it owes."""
    seen: asyncio.Queue[bytes] = asyncio.Queue()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            seen.put_nowait(head + await reader.readexactly(length))
            reply = replies.pop(0) if replies else b""
            writer.write(reply)
            if not reply:
                await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()
        if serving:
            await asyncio.wait(serving, timeout=10)


def _http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), length or len(body), body)


RIGHT = json.dumps(
    {
        "baton": None,
        "results": [
            {
                "type": "ok",
                "response": {
                    "type": "batch",
                    "result": {
                        "step_results": [{"rows": [[{"type": "integer", "value": "2"}]]}],
                        "step_errors": [None],
                    },
                },
            },
            {"type": "ok", "response": {"type": "close"}},
        ],
    }
).encode()


@pytest.mark.parametrize(
    "reply",
    [
        b"\n",
        b"SSH-2.0-OpenSSH\r\n",
        _http(RIGHT[:20], length=len(RIGHT)),
        _http(b"", "503 Service Unavailable"),
        _http(b"", "204 No Content"),
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnone",
    ],
    ids=["closed", "another protocol", "cut", "503", "204", "not gzip"],
)
async def test_httpx_tells_each_trouble_in_the_same_words(reply: bytes) -> None:
    async with raw_server([reply, _http(RIGHT)]) as (url, seen):
        executor = LibsqlExecutor(url, sleep=lambda seconds: asyncio.sleep(0))
        await executor.open()
        assert seen.qsize() == 2 and seen.get_nowait() == seen.get_nowait()
        await executor.close()


async def test_httpx_gives_up_in_time() -> None:
    async with raw_server([]) as (url, _):
        transport = HttpxTransport(url)
        with pytest.raises(NoReply) as caught:
            await transport.post(url, b"{}", {}, 0.05)
        assert caught.value.late
        await transport.close()


async def test_a_port_where_nobody_listens() -> None:
    async with raw_server([]) as (url, _):
        pass
    transport = HttpxTransport(url)
    with pytest.raises(NoReply, match="ConnectError"):
        await transport.post(url, b"{}", {}, 5)
    await transport.close()


async def test_the_token_is_sent_as_a_header() -> None:
    async with raw_server([_http(RIGHT)]) as (url, seen):
        executor = LibsqlExecutor(f"{url}?authToken=a.b-c")
        await executor.open()
        request = seen.get_nowait().replace(b"Authorization", b"authorization")
        assert b"\r\nauthorization: Bearer a.b-c\r\n" in request and b"POST /v3/pipeline HTTP" in request
        await executor.close()
