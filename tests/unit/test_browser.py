"""What the browser's worker calls, on a bridge of Python's own to a SQLite in memory."""

from __future__ import annotations

import importlib
import json
import sqlite3
import sys
import types
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from durably_web.clock import ManualClock
from durably_web.ids import IdMaker, counted_up
from tests.support.world import bounded, until

JOBS = """
from durably_web import Retry, job, shutting_down

@job
async def echo(step, input):
    return await step.run("echo", lambda: [input, shutting_down()])

@job
async def sends(step, input):
    return await step.run("send", lambda: "sent", retry=Retry(when_offline="wait"))

@job
async def waits(step, input):
    return await step.wait_for_signal("go")
"""


class Bridge(types.ModuleType):
    """What JavaScript is to Python. One database, however many workers come and go."""

    def __init__(self) -> None:
        super().__init__("durably_bridge")
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.told: list[str | None] = []

    def run_batch(self, text: str) -> str:
        batch = json.loads(text)
        self.database.execute("BEGIN")
        try:
            rows = [self.database.execute(sql, params).fetchall() for sql, params in batch["statements"]]
        except sqlite3.Error as error:
            self.database.execute("ROLLBACK")
            return json.dumps({"error": {"code": "SQLITE_ERROR", "message": str(error), "index": 0}})
        self.database.execute("COMMIT")
        return json.dumps({"rows": rows})

    def post(self, type_: str, text: str) -> None:
        self.posted.append((type_, json.loads(text)))

    def running(self, run_id: str | None) -> None:
        self.told.append(run_id)

    def broken(self) -> None:
        raise AssertionError("no interpreter ends in these tests")

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [event for posted, event in self.posted if posted == type_]


class Worker:
    """The module as a worker has it: fresh, with the files of its page."""

    def __init__(self, bridge: Bridge, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "durably_bridge", bridge)
        monkeypatch.setattr("durably_web.files.JOBS_FOLDER", str(folder))
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
        monkeypatch.delitem(sys.modules, "durably_web.browser", raising=False)
        monkeypatch.delitem(sys.modules, "page_jobs", raising=False)
        self.browser = importlib.import_module("durably_web.browser")

    async def start(self, **settings: Any) -> Any:
        files = [{"name": "page_jobs.py", "source": JOBS}]
        given = {"jobs": files, "http_wheel": "/none.whl", "keys": [], "events": ["*", "journal"], "online": True}
        aftermath = {"orphaned": False, "blamed": None}
        started = json.loads(await bounded(self.browser.start(json.dumps({**given, **aftermath, **settings}))))
        await bounded(self.browser.begin())
        return started

    async def ask(self, line: str, body: Any = None, **more: Any) -> Any:
        method, path = line.split()
        request = {"method": method, "path": path, "query": {}, "body": body, **more}
        return json.loads(await bounded(self.browser.handle(json.dumps(request))))


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.database.close()


@pytest.fixture
async def worker(bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    worker = Worker(bridge, tmp_path / "jobs", monkeypatch)
    yield worker
    await bounded(worker.browser.stop("close"))


def new_id() -> str:
    return IdMaker(ManualClock())()


async def finished(worker: Worker, run_id: str) -> Any:
    return await bounded(worker.browser._engine.wait_for_run(run_id))


async def test_a_request_with_an_id_is_answered_again(worker: Worker) -> None:
    assert await worker.start() == {"jobs": ["echo", "sends", "waits"]}
    asked: dict[str, Any] = {"body": {"jobName": "echo", "input": {"n": 1}}, "id": new_id()}
    for _ in range(2):
        answer = await worker.ask("POST /trigger", **asked)
        assert answer == {"status": 200, "body": {"runId": asked["id"], "disposition": "created"}}
    assert (await finished(worker, asked["id"])).output == [{"n": 1}, False]
    assert (await worker.ask("GET /runs", query={"jobName": ["echo", "waits"]}))["body"][0]["id"] == asked["id"]
    assert (await worker.ask("GET /health"))["body"] == {"ok": True}
    assert (await worker.ask("GET /stats", id="wrong"))["status"] == 400


async def test_events_are_posted_with_their_type(bridge: Bridge, worker: Worker) -> None:
    await worker.start()
    run_id = (await worker.ask("POST /trigger", {"jobName": "echo"}))["body"]["runId"]
    await finished(worker, run_id)
    await until(lambda: bridge.of("run:complete"))
    assert all(event["type"] == type_ for type_, event in bridge.posted)
    hints = bridge.of("journal")
    assert [hint["seq"] for hint in hints] == [1, 2, 3, 4] and {hint["runId"] for hint in hints} == {run_id}
    assert bridge.told == [run_id, None]
    worker.browser.listen(json.dumps(["run:trigger", "worker:shutdown"]))
    bridge.posted.clear()
    await finished(worker, (await worker.ask("POST /trigger", {"jobName": "echo"}))["body"]["runId"])
    await bounded(worker.browser.stop("pagehide"))
    assert [type_ for type_, _ in bridge.posted] == ["run:trigger", "worker:shutdown"]
    assert [event["reason"] for event in bridge.of("worker:shutdown")] == ["pagehide"]


async def test_the_page_tells_of_the_network(bridge: Bridge, worker: Worker) -> None:
    await worker.start(online=False)
    run_id = (await worker.ask("POST /trigger", {"jobName": "sends"}))["body"]["runId"]
    await until(lambda: bridge.of("run:waiting"))
    assert [event["waitsFor"] for event in bridge.of("run:waiting")] == ["network"]
    worker.browser.hear_of_network(False)
    assert not bridge.of("network:online") and not bridge.of("network:offline")
    worker.browser.hear_of_network(True)
    assert (await finished(worker, run_id)).output == "sent"
    worker.browser.hear_of_network(False)
    assert len(bridge.of("network:online")) == len(bridge.of("network:offline")) == 1


async def test_the_inbox_is_carried_out(worker: Worker) -> None:
    await worker.start()
    first, second = new_id(), new_id()
    good = {"method": "POST", "path": "/trigger", "query": {}, "body": {"jobName": "echo"}, "id": first}
    bad = {**good, "path": "/trigger-many", "body": {"jobName": "none", "items": [{}, {}]}, "id": second}
    # A number of JavaScript's may come as a float.
    for received_at in (1000, 2000.0):
        answer = json.loads(await bounded(worker.browser.admit(json.dumps(good), received_at)))
        assert answer == {"status": 200, "body": {"runId": first, "disposition": "created"}}
        answer = json.loads(await bounded(worker.browser.admit(json.dumps(bad), received_at)))
        assert [one["runId"] for one in answer["body"]] == [second, counted_up(second, 1)]
    assert (await finished(worker, first)).created_at.timestamp() == 1
    assert (await finished(worker, second)).error.startswith("NotFound: ")


@pytest.mark.parametrize(
    ("aftermath", "counted"),
    [
        ({}, {"first": 1, "second": 1}),
        ({"orphaned": False, "blamed": None}, {"first": 1, "second": 1}),
        ({"orphaned": True, "blamed": "first"}, {"first": 1, "second": 0}),
        ({"orphaned": True, "blamed": None}, {"first": 0, "second": 0}),
    ],
)
async def test_only_the_blamed_run_counts_the_death_of_its_worker(
    bridge: Bridge, worker: Worker, aftermath: dict[str, Any], counted: dict[str, int]
) -> None:
    await worker.start()
    await bounded(worker.browser.stop("close"))
    for name in counted:
        bridge.database.execute(
            "INSERT INTO durably_runs (id, job_name, status, input, labels, created_at, attempt, generation,"
            " started_at, lease_owner, lease_token, lease_expires_at)"
            " VALUES (?, 'gone', 'leased', '{}', '{}', 1, 1, 1, 1, 'tab-dead', ?, 9e15)",
            (name, name),
        )
    sys.modules.pop("page_jobs", None)
    (Path(sys.path[-1]) / "page_jobs.py").unlink()
    assert "error" not in await worker.start(**aftermath)
    found = dict(bridge.database.execute("SELECT id, crashes FROM durably_runs WHERE status = 'pending'"))
    assert found == counted
