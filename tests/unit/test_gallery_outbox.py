"""The job of examples/outbox here, against the example's own server."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from durably_web import Durably, ManualClock
from examples.outbox.server import Reports
from tests.support.examples import imported


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Line:
    """The server, and answers that say something else than what it did."""

    def __init__(self, database: Path) -> None:
        self.reports = Reports(str(database))
        self.database = database
        self.answers: list[str] = []
        self.keys: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.keys.append(environ["HTTP_IDEMPOTENCY_KEY"])
        told = self.answers.pop(0) if self.answers else None
        return self.reports(environ, lambda status, headers: start_response(told or status, headers))

    def ledger(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return [json.loads(text) for (text,) in connection.execute("SELECT report FROM reports ORDER BY number")]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path / "reports.db")


@pytest.fixture
def address(line: Line) -> Iterator[str]:
    with make_server("127.0.0.1", 0, line, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/reports"
        server.shutdown()
        thread.join(timeout=10)


@pytest.fixture
def jobs(root: Path) -> Iterator[ModuleType]:
    with imported(root / "examples" / "outbox" / "site") as jobs:
        yield jobs


def report(endpoint: str, what: str) -> dict[str, str]:
    return {"endpoint": endpoint, "what": what, "where": "here", "written": "2026-11-29T12:00:00Z"}


async def test_a_report_that_came_twice_is_one(jobs: ModuleType, line: Line, address: str) -> None:
    clock = ManualClock()
    durably = Durably(":memory:", jobs=[jobs.send_report], clock=clock)
    await durably.migrate()
    # It arrived, and the answer said otherwise.
    line.answers = ["503 Busy", "429 Busy"]
    runs = [
        await durably.trigger(jobs.send_report, report(address, what), concurrency_key="outbox", coalesce="queue")
        for what in ("one", "two")
    ]
    for _ in range(3):
        await durably.process_until_idle()
        clock.advance(60)
    assert await runs[0].result(timeout=10) == {"number": 1}
    assert await runs[1].result(timeout=10) == {"number": 2}
    assert line.keys == [f"{runs[0].id}/send"] * 3 + [f"{runs[1].id}/send"]
    assert [one["what"] for one in line.ledger()] == ["one", "two"]
    assert "endpoint" not in line.ledger()[0]
    await durably.stop()


async def test_what_is_refused_fails_at_once_with_the_server_s_words(
    jobs: ModuleType, line: Line, address: str
) -> None:
    async with Durably(":memory:", jobs=[jobs.send_report]) as durably:
        runs = [
            await durably.trigger(jobs.send_report, report(endpoint, what))
            for endpoint, what in ((address, "x" * 1001), (f"{address}/no", "one"))
        ]
        long, lost = [await durably.wait_for_run(run.id, timeout=30) for run in runs]
    assert long.error == "Fatal: the server refused it: a report has 1 to 1000 characters"
    assert lost.error == "Fatal: the server refused it: send reports to /reports"
    assert line.ledger() == [] and len(line.keys) == 2


def test_a_report_without_a_key_is_refused(line: Line) -> None:
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/reports"}
    assert line.reports.respond(environ) == ("400 Bad Request", {"error": "a report needs an Idempotency-Key"})
