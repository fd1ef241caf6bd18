"""Server-sent events: complete, in order, at a pace, and over when they should be."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably_web import Durably, Step, job
from durably_web.server import Limits, app, streams
from tests.server.conftest import Serve, count, echo
from tests.support.serving import SECONDS, Message, stream


async def trigger(client: httpx.AsyncClient, name: str = "echo", **fields: Any) -> str:
    answer = await client.post("/trigger", json={"jobName": name, **fields})
    return str(answer.json()["runId"])


def stored(messages: list[Message]) -> list[int]:
    return [message.data["seq"] for message in messages if message.data["seq"] is not None]


async def journal(durably: Durably, run_id: str | None = None) -> list[int | None]:
    return [event.seq for event in (await durably.get_events(run_id)).events]


async def test_a_run_from_its_first_event_to_its_end(serve: Serve, durably: Durably) -> None:
    client = await serve()
    run_id = await trigger(client)
    async with stream(client, f"/subscribe?runId={run_id}") as events:
        headers = events.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        await events.connected()
        assert events.retry == streams.RETRY_MS
        messages = await events.rest()
        # A browser connects again by itself, to a run that has nothing more to tell.
        assert events.retry == streams.RETRY_ENDED_MS
    assert stored(messages) == await journal(durably, run_id)
    assert [message.id for message in messages if message.data["seq"]] == [str(seq) for seq in stored(messages)]
    assert {message.data["runId"] for message in messages} == {run_id}
    assert messages[0].data["type"] == "run:trigger"
    assert (messages[-1].data["type"], messages[-1].data["output"]) == ("run:complete", {})
    # After its end it is told the same, and to one who knows all, nothing.
    async with stream(client, f"/subscribe?runId={run_id}") as events:
        await events.connected()
        assert stored(await events.rest()) == stored(messages)
    async with stream(client, f"/subscribe?runId={run_id}", last_event_id=messages[-1].id) as events:
        await events.connected()
        assert await events.rest() == []


async def test_a_run_that_is_deleted_ends_its_stream(serve: Serve, durably: Durably) -> None:
    client = await serve()
    run_id = await trigger(client, "fail")
    await durably.wait_for_run(run_id, timeout=SECONDS)
    await client.delete("/run", params={"runId": run_id})
    async with stream(client, f"/subscribe?runId={run_id}") as events:
        await events.connected()
        assert [message.data["type"] for message in await events.rest()] == ["run:delete"]


async def test_a_stream_that_breaks_goes_on_without_a_gap_or_a_duplicate(serve: Serve, durably: Durably) -> None:
    """Broken off after each event in turn, while runs go on."""
    client = await serve(sse_throttle=0)
    async with stream(client, "/runs/subscribe") as events:
        newest = await events.connected()
    told: list[int] = []
    position = str(newest)
    for _ in range(12):
        await trigger(client)
        async with stream(client, "/runs/subscribe", last_event_id=position) as events:
            await events.connected()
            while True:
                message = await events.next()
                assert message is not None
                if message.data["seq"] is not None:
                    break
        told.append(message.data["seq"])
        assert message.id is not None
        position = message.id
    await durably.process_until_idle()
    everything = await journal_from(durably, newest)
    async with stream(client, "/runs/subscribe", last_event_id=position) as events:
        await events.connected()
        while told[-1] != everything[-1]:
            message = await events.next()
            assert message is not None
            told += stored([message])
    assert told == everything


async def test_events_of_all_runs_from_now_on(serve: Serve, durably: Durably) -> None:
    client = await serve()
    before = await trigger(client, "fail")
    await durably.wait_for_run(before, timeout=SECONDS)
    async with (
        stream(client, "/runs/subscribe") as everything,
        stream(client, "/runs/subscribe?jobName=ask&jobName=fail") as jobs,
        stream(client, "/runs/subscribe?label.org=acme") as labels,
    ):
        for one in (everything, jobs, labels):
            await one.connected()
        first = await trigger(client, "echo", labels={"org": "acme", "n": "1"})
        await durably.wait_for_run(first, timeout=SECONDS)
        second = await trigger(client, "fail")
        await trigger(client, "echo", labels={"org": "globex"})
        last = await trigger(client, "fail", labels={"org": "acme"})
        of_all = await everything.until("run:fail")
        assert of_all[0].data["runId"] == first and of_all[0].data["type"] == "run:trigger"
        # Told by this process, and not stored.
        started = [message for message in of_all if message.data["type"] == "step:start"]
        assert started[0].data["runId"] == first and {message.id for message in started} == {None}
        assert {message.data["runId"] for message in await jobs.until("run:fail")} == {second}
        of_label = await labels.until("run:fail")
        assert {message.data["runId"] for message in of_label} == {first, last}


async def test_progress_comes_at_a_pace(serve: Serve, durably: Durably) -> None:
    """The first and the last of it, whatever the pace; and with none, every value that was stored."""
    slow, all_of_it = await serve(sse_throttle=3600), await serve(sse_throttle=0)
    run = await durably.trigger(count, {"to": 200})
    await run.result(timeout=SECONDS)
    progress = [event.progress for event in (await durably.get_events(run.id)).events if event.progress]
    assert progress[-1].current == 200
    for client, expected in ((slow, {progress[0].current, 200}), (all_of_it, {one.current for one in progress})):
        async with stream(client, f"/subscribe?runId={run.id}") as events:
            await events.connected()
            told = [one.data["progress"] for one in await events.rest() if one.data["type"] == "run:progress"]
        assert {one["current"] for one in told} == expected


async def test_progress_that_waits_comes_when_nothing_else_does(serve: Serve, durably: Durably) -> None:
    client = await serve(sse_throttle=0.02)
    gate = asyncio.Event()

    @job
    async def reports(step: Step, input: dict[str, Any]) -> None:
        async def work() -> None:
            for number in range(3):
                step.progress(number)
                await asyncio.sleep(0)
            await gate.wait()

        await step.run("work", work)

    durably.register(reports)
    async with stream(client, "/runs/subscribe?jobName=reports") as events:
        await events.connected()
        await durably.trigger(reports)
        while True:
            message = await events.next()
            assert message is not None
            if message.data["type"] == "run:progress" and message.data["progress"]["current"] == 2:
                break
        gate.set()
        await events.until("run:complete")


async def test_a_comment_where_nothing_happens(serve: Serve) -> None:
    client = await serve(heartbeat=0.01)
    async with stream(client, "/runs/subscribe") as events:
        await events.connected()
        reading = asyncio.create_task(events.next())
        async with asyncio.timeout(SECONDS):
            while events.comments < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await trigger(client)
        assert (await reading) is not None


async def test_streams_end_with_the_engine(serve: Serve, durably: Durably, caplog: pytest.LogCaptureFixture) -> None:
    client = await serve()
    async with stream(client, "/runs/subscribe") as all_runs:
        run_id = await trigger(client, "ask")
        async with stream(client, f"/subscribe?runId={run_id}") as one_run:
            for events in (all_runs, one_run):
                await events.connected()
            await durably.stop()
            for events in (all_runs, one_run):
                await events.rest()
                assert events.retry == streams.RETRY_MS
    # Because it stops, and not because it cannot be read any more.
    assert [record for record in caplog.records if record.name == "durably_web.server"] == []


async def test_there_are_so_many_streams_and_no_more(serve: Serve) -> None:
    client = await serve(limits=Limits(streams=2))
    async with stream(client, "/runs/subscribe") as first, stream(client, "/runs/subscribe") as second:
        for events in (first, second):
            await events.connected()
        refused = await client.get("/runs/subscribe")
        assert refused.status_code == 503 and refused.headers["retry-after"]
    async with asyncio.timeout(SECONDS):
        # The end of a connection takes its time to arrive.
        while await _opens(client) != 200:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def _opens(client: httpx.AsyncClient) -> int:
    async with client.stream("GET", "/runs/subscribe") as response:
        return response.status_code


async def test_who_only_asks_for_the_head_takes_no_place(serve: Serve) -> None:
    client = await serve(limits=Limits(streams=1))
    for _ in range(3):
        answer = await client.head("/runs/subscribe")
        assert (answer.status_code, answer.headers["x-accel-buffering"]) == (200, "no")


async def test_a_last_event_id_that_is_none(serve: Serve) -> None:
    client = await serve()
    for text in ("x", "-1", "1.5", "9" * 20):
        answer = await client.get("/runs/subscribe", headers={"Last-Event-ID": text})
        assert answer.status_code == 400
    # Of another database: from now on.
    async with stream(client, "/runs/subscribe", last_event_id="999999") as events:
        await events.connected()
        run_id = await trigger(client)
        assert (await events.until("run:complete"))[0].data["runId"] == run_id


async def test_what_happens_while_the_journal_is_read_is_told_once(durably: Durably) -> None:
    """Everything is offered by the hub as well as read, because the client takes its time with the first message."""
    hub = streams.Hub(durably)

    async def sees(event: Any) -> bool:
        return True

    told = streams.messages(durably, hub, lambda event: True, sees, run_id=None, after=0, throttle=0)
    connected = await anext(told)
    assert b"event: connected" in connected
    run = await durably.trigger(echo, {})
    await run.result(timeout=SECONDS)
    [listener] = hub._listeners
    async with asyncio.timeout(SECONDS):
        while not any(one.event.type == "run:complete" for one in listener._waiting):  # noqa: ASYNC110
            await asyncio.sleep(0)
    found = (await anext(told)).decode()
    # What comes next is new, though all of this waits as well.
    await durably.trigger("ask", {}, delay=1000)
    async with asyncio.timeout(SECONDS):
        while '"jobName":"ask"' not in found:
            found += (await anext(told)).decode()
    ids = [line for line in found.splitlines() if line.startswith("id: ")]
    assert ids == [f"id: {seq}" for seq in await journal(durably)]
    await told.aclose()
    assert hub.streams == 0


# -- slow clients ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def deaf(client: httpx.AsyncClient, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """A client that asks for a stream and reads nothing of it: its system's buffers take very little."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((client.base_url.host, client.base_url.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: server\r\n\r\n".encode())
        await writer.drain()
        yield reader
    finally:
        writer.close()


async def test_a_client_that_reads_nothing_holds_up_nobody_and_is_dropped(
    serve: Serve, durably: Durably, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SEND_SECONDS", 0.2)
    client = await serve(limits=Limits(streams=2))
    async with deaf(client, "/runs/subscribe") as reader, stream(client, "/runs/subscribe") as events:
        await events.connected()
        assert (await client.get("/runs/subscribe")).status_code == 503
        text = "x" * 100_000
        for _ in range(60):
            run = await durably.trigger(echo, {"text": text})
            await run.result(timeout=SECONDS)
            await events.until("run:complete")
        # Its place is free, though it has never hung up.
        async with asyncio.timeout(SECONDS):
            while await _opens(client) != 200:  # noqa: ASYNC110
                await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(SECONDS):
                while await reader.read(65_536):
                    pass


async def test_who_falls_behind_misses_nothing(serve: Serve, durably: Durably, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for three events, those that do not fit are read from the journal."""
    monkeypatch.setattr(streams, "MOST_WAITING", 3)
    client = await serve(sse_throttle=0)
    async with stream(client, "/runs/subscribe") as events:
        newest = await events.connected()
        for _ in range(5):
            await durably.trigger_many(echo, [{"input": {"text": "x" * 20_000}} for _ in range(20)])
            await durably.process_until_idle()
        await durably.process_until_idle()
        last = await durably.last_seq()
        told: list[int] = []
        while not told or told[-1] != last:
            message = await events.next()
            assert message is not None
            told += stored([message])
    assert told == await journal_from(durably, newest)


async def journal_from(durably: Durably, after: int) -> list[int | None]:
    found: list[int | None] = []
    while page := (await durably.get_events(after=after)).events:
        found += [event.seq for event in page]
        after = page[-1].seq or after
    return found


# -- other processes -------------------------------------------------------------------------------------

JOB_FILE = """
from durably_web import Step, job

@job
async def far(step: Step, input: dict) -> int:
    for number in range(3):
        await step.run("save", lambda: number)
        step.progress(number + 1, total=3)
    return 3
"""


async def test_a_stream_follows_a_run_of_another_process(tmp_path: Path, serve: Serve) -> None:
    """This process only asks for it: the one that executes it is another."""
    (tmp_path / "far_jobs.py").write_text(JOB_FILE)
    namespace: dict[str, Any] = {"__name__": "far_jobs"}
    exec(compile(JOB_FILE, "far_jobs.py", "exec"), namespace)
    asking = Durably(str(tmp_path / "far.db"), jobs=[namespace["far"]])
    await asking.migrate()
    worker = None
    try:
        client = await serve(asking)
        run_id = await trigger(client, "far")
        async with stream(client, f"/subscribe?runId={run_id}") as events:
            await events.connected()
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "durably_web", "worker", "far_jobs.py", "-d", "far.db", cwd=tmp_path
            )
            messages = await events.rest()
        assert stored(messages) == await journal(asking, run_id)
        assert (messages[-1].data["type"], messages[-1].data["output"]) == ("run:complete", 3)
    finally:
        if worker is not None:
            worker.send_signal(signal.SIGTERM)
            await asyncio.wait_for(worker.wait(), SECONDS)
        await asking.stop()


SERVER = """
import socket, sys
import uvicorn
from durably_web import Durably
from durably_web.server import create_app
from far_jobs import far

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config(create_app(Durably("far.db", jobs=[far])), log_level="warning")
uvicorn.Server(config).run(sockets=[listener])
"""


async def test_a_server_that_is_told_to_stop_ends_its_streams(tmp_path: Path) -> None:
    """uvicorn would wait for them for ever. The application is served alone here, so it opens the engine itself."""
    (tmp_path / "far_jobs.py").write_text(JOB_FILE)
    (tmp_path / "serve.py").write_text(SERVER)
    server = await asyncio.create_subprocess_exec(
        sys.executable, "serve.py", cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None and server.stderr is not None
    try:
        port = int(await asyncio.wait_for(server.stdout.readline(), SECONDS))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            async with stream(client, "/runs/subscribe") as events:
                await events.connected()
                assert await trigger(client, "far")
                await events.until("run:complete")
                server.send_signal(signal.SIGTERM)
                # Broken off, or ended: a browser connects again after both.
                with contextlib.suppress(httpx.RemoteProtocolError):
                    await events.rest()
        assert await asyncio.wait_for(server.wait(), SECONDS) in (0, -signal.SIGTERM)
        assert b"Traceback" not in await server.stderr.read()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
