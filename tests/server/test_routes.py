"""What a client of the wire sees: answers, errors, limits."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably_web import Durably
from durably_web.ids import first_id
from durably_web.server import Limits, create_app
from durably_web.store import migrations
from durably_web.store.operations import schema
from tests.server.conftest import echo

Direct = Callable[..., httpx.AsyncClient]


async def trigger(client: httpx.AsyncClient, name: str = "echo", **fields: Any) -> str:
    answer = await client.post("/trigger", json={"jobName": name, **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["runId"])


async def test_from_a_trigger_to_its_output(direct: Direct, durably: Durably) -> None:
    client = direct()
    answer = await client.post("/trigger", json={"jobName": "echo", "input": {"n": 1}, "labels": {"org": "acme"}})
    assert answer.json()["disposition"] == "created"
    assert answer.headers["cache-control"] == "no-store"
    run_id = answer.json()["runId"]
    await durably.wait_for_run(run_id, timeout=20)
    run = (await client.get("/run", params={"runId": run_id})).json()
    assert (run["status"], run["output"], run["labels"]) == ("completed", {"n": 1}, {"org": "acme"})
    needed = "id jobName status input output error labels progress createdAt startedAt completedAt stepCount"
    assert {*needed.split(), "isTerminal", "isActive"} <= run.keys()
    steps = (await client.get("/steps", params={"runId": run_id})).json()
    assert [step["name"] for step in steps] == ["first", "second"]
    [line] = (await client.get("/logs", params={"runId": run_id})).json()
    assert (line["message"], line["data"]) == ("half way", {"n": 1})
    assert (await client.get("/stats")).json()["byStatus"] == {"completed": 1}
    again = (await client.post("/retrigger", params={"runId": run_id})).json()
    assert again["success"] is True and again["runId"] != run_id
    await durably.wait_for_run(again["runId"], timeout=20)
    assert (await client.delete("/run", params={"runId": run_id})).json() == {"success": True}
    assert [run["id"] for run in (await client.get("/runs")).json()] == [again["runId"]]
    assert (await client.get("/health")).json() == {"ok": True}


async def test_filters_that_come_several_times(direct: Direct, durably: Durably) -> None:
    """As URLSearchParams of the npm client appends them."""
    client = direct()
    ids = [await trigger(client, name, labels={"n": str(n)}) for n, name in enumerate(["echo", "ask", "fail"])]
    for run_id in (ids[0], ids[2]):
        await durably.wait_for_run(run_id, timeout=20)

    async def found(*query: tuple[str, str]) -> list[str]:
        return [run["id"] for run in (await client.get("/runs", params=list(query))).json()]

    assert await found(("status", "completed"), ("status", "failed")) == [ids[2], ids[0]]
    assert await found(("status", "completed,failed")) == [ids[2], ids[0]]
    assert await found(("jobName", "echo"), ("jobName", "ask")) == [ids[1], ids[0]]
    assert await found(("label.n", "1")) == [ids[1]]
    assert await found(("limit", "1"), ("offset", "1")) == [ids[1]]
    counted = (await client.get("/stats", params=[("jobName", "echo"), ("jobName", "fail")])).json()
    assert counted["byStatus"] == {"completed": 1, "failed": 1}


async def test_a_request_that_comes_again_has_the_effect_of_one(direct: Direct) -> None:
    client = direct()
    key = {"Idempotency-Key": first_id(1_700_000_000_000)}
    for _ in range(2):
        answer = await client.post("/trigger", json={"jobName": "ask"}, headers=key)
        assert answer.json() == {"runId": key["Idempotency-Key"], "disposition": "created"}
    assert len((await client.get("/runs")).json()) == 1
    refused = await client.post("/trigger", json={"jobName": "ask"}, headers={"Idempotency-Key": "x"})
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("line", "body", "status"),
    [
        ("POST /trigger", {"jobName": "nobody"}, 404),
        ("POST /trigger", {"jobName": "echo", "input": 5}, 400),
        ("POST /trigger", {"jobName": "echo", "labels": {"a": 1}}, 400),
        ("POST /trigger", {"jobName": "echo", "timeout": 1}, 400),
        ("POST /trigger", [], 400),
        ("POST /trigger", None, 400),
        ("GET /run?runId=nobody", None, 404),
        ("GET /run", None, 400),
        ("GET /runs?status=odd", None, 400),
        ("GET /runs?limit=-1", None, 400),
        ("GET /runs?org=acme", None, 400),
        ("GET /subscribe?runId=nobody", None, 404),
        ("GET /subscribe", None, 400),
        ("GET /runs/subscribe?status=failed", None, 400),
        ("POST /cancel?runId=nobody", None, 404),
        ("POST /signal?runId=nobody&name=a", None, 404),
        ("DELETE /run?runId=nobody", None, 404),
        ("GET /nothing", None, 404),
        ("GET /trigger", None, 405),
        ("GET /trigger/", None, 405),
        ("GET //run", None, 404),
    ],
)
async def test_refusals(direct: Direct, line: str, body: Any, status: int) -> None:
    method, path = line.split()
    answer = await direct().request(method, path, **({} if body is None else {"json": body}))
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str) and answer.json()["error"]


async def test_a_state_that_forbids_it_is_a_conflict(direct: Direct, durably: Durably) -> None:
    client = direct()
    run_id = await trigger(client)
    await durably.wait_for_run(run_id, timeout=20)
    answer = await client.post("/cancel", params={"runId": run_id})
    assert (answer.status_code, answer.json()["name"]) == (409, "Conflict")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"jobName": "echo", "input": {"text": "' + b"x" * 2000 + b'"}}', 413),
        (b'{"jobName": "echo", "input": ' + b'{"a":' * 30 + b"1" + b"}" * 30 + b"}", 400),
        (b"[" * 100_000, 413),
        (b'{"jobName": "echo", "input": {"n": NaN}}', 400),
        (b'{"jobName": "echo"', 400),
        (b"\xff\xfe", 400),
        (b'{"jobName": "' + b"e" * 40 + b'"}', 400),
        (b'{"jobName": "echo", "labels": {"a": "1", "b": "2", "c": "3"}}', 400),
        (b'{"jobName": "echo", "labels": {"a": "' + b"1" * 40 + b'"}}', 400),
        (b'{"jobName": "echo", "idempotencyKey": "' + b"1" * 40 + b'"}', 400),
        (b'{"jobName": "echo", "input": {"n": ' + b"1" * 900 + b"}}", 200),
    ],
)
async def test_limits(direct: Direct, body: bytes, status: int) -> None:
    client = direct(limits=Limits(body=1000, depth=20, labels=2, label=32, name=32))

    async def in_parts() -> Any:
        yield body[: len(body) // 2]
        yield body[len(body) // 2 :]

    for content in (body, in_parts()):
        answer = await client.post("/trigger", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text


async def test_a_deep_body_within_the_size(direct: Direct) -> None:
    answer = await direct().post(
        "/trigger", content=b"[" * 500_000 + b"]" * 500_000, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "the body must be at most 100 levels deep")


async def test_a_list_is_whole_or_refused(direct: Direct, durably: Durably) -> None:
    client = direct(limits=Limits(runs=2))
    ids = [await trigger(client, "ask") for _ in range(2)]
    assert [one["id"] for one in (await client.get("/runs")).json()] == ids[::-1]
    ids.append(await trigger(client, "ask"))
    for path in ("/runs", "/runs?status=waiting,pending,leased", "/runs?limit=3"):
        answer = await client.get(path)
        assert answer.status_code == 400 and "limit" in answer.json()["error"], path
    first = (await client.get("/runs?limit=2")).json()
    rest = (await client.get("/runs", params={"after": first[-1]["id"]})).json()
    assert [one["id"] for one in first + rest] == ids[::-1]
    schema = (await client.get("/openapi.json")).json()["paths"]["/runs"]["get"]["parameters"]
    assert next(one for one in schema if one["name"] == "limit")["schema"]["maximum"] == 2


async def test_many_items_are_refused_before_they_are_looked_at(direct: Direct) -> None:
    client = direct(limits=Limits(items=2))
    answer = await client.post("/trigger-many", json={"jobName": "echo", "items": [{}, {}, {}]})
    assert answer.status_code == 400
    answer = await client.post("/trigger-many", json={"jobName": "echo", "items": [{}, {}]})
    assert [one["disposition"] for one in answer.json()] == ["created", "created"]


async def test_a_signal_may_be_anything(direct: Direct, durably: Durably) -> None:
    client = direct(limits=Limits(labels=1))
    for payload in (None, 5, "yes", {"labels": {"a": "b", "c": "d"}}):
        run_id = await trigger(client, "ask")
        sent: Any = {} if payload is None else {"json": payload}
        await client.post("/signal", params={"runId": run_id, "name": "answer"}, **sent)
        assert (await durably.wait_for_run(run_id, timeout=20)).output == payload


# -- other sites -----------------------------------------------------------------------------------------


async def test_a_page_of_another_site_changes_nothing(direct: Direct) -> None:
    client = direct()
    other = {"Origin": "https://evil.example"}
    for headers in (
        other,
        {**other, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
    ):
        answer = await client.post("/trigger", json={"jobName": "ask"}, headers=headers)
        assert answer.status_code == 403
    # What a form may send needs no permission of the server.
    answer = await client.post("/trigger", content='{"jobName": "ask"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400
    assert (await client.get("/runs")).json() == []
    own = {"Origin": "http://server"}
    for headers in (own, {**own, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}):
        assert (await client.post("/trigger", json={"jobName": "ask"}, headers=headers)).status_code == 200


async def test_cors_is_off_until_an_origin_is_named(direct: Direct) -> None:
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    plain = direct()
    for answer in (await plain.get("/runs", headers=asked), await plain.options("/trigger", headers=asked)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    client = direct(allow_origins=["https://app.example"])
    answer = await client.options("/trigger", headers=asked)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    posted = await client.post("/trigger", json={"jobName": "ask"}, headers={**asked, "Sec-Fetch-Site": "cross-site"})
    assert posted.status_code == 200
    other = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in (await client.options("/trigger", headers=other)).headers
    assert (await client.post("/trigger", json={"jobName": "ask"}, headers=other)).status_code == 403


# -- what is wrong with the server -----------------------------------------------------------------------


async def test_of_an_internal_error_the_caller_learns_an_id(
    direct: Direct, durably: Durably, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(durably, "get_run", broken)
    with caplog.at_level(logging.ERROR, "durably_web.server"):
        answer = await direct().get("/run", params={"runId": "x"})
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    reference = answer.json()["error"].removeprefix("internal error ")
    assert reference in caplog.text and "hunter2" in caplog.text


async def test_without_a_database_it_is_unavailable(tmp_path: Path, direct: Direct) -> None:
    """The path of the file is nobody's business."""
    closed = Durably(str(tmp_path / "closed.db"), jobs=[echo])
    client = direct(closed)
    for method, path in (("GET", "/health"), ("GET", "/runs"), ("GET", "/runs/subscribe"), ("POST", "/trigger")):
        body: Any = {"json": {"jobName": "echo"}} if method == "POST" else {}
        answer = await client.request(method, path, **body)
        assert (answer.status_code, answer.json()["name"]) == (503, "StoreUnavailable")
        assert "closed.db" not in answer.text and "cannot be opened or reached" in answer.text


async def test_a_database_that_can_only_be_read(direct: Direct, durably: Durably, tmp_path: Path) -> None:
    """A newer durably_web has migrated it: what is there is shown, and what would write is refused."""
    run = await durably.trigger("echo", {})
    await run.result(timeout=20)
    with sqlite3.connect(tmp_path / "server.db") as newer:
        newer.execute(schema.RECORD_MIGRATION, (migrations.LATEST + 1, 0))
    newer.close()
    client = direct()
    assert [one["id"] for one in (await client.get("/runs")).json()] == [run.id]
    for answer in (
        await client.post("/trigger", json={"jobName": "echo"}),
        await client.delete("/run", params={"runId": run.id}),
    ):
        assert (answer.status_code, answer.json()["name"]) == (503, "SchemaTooNew")
        assert "newer durably_web" in answer.json()["error"]
    assert (await client.get("/health")).status_code == 200


async def test_on_request(direct: Direct) -> None:
    seen: list[Any] = []

    async def each(request: Any) -> None:
        seen.append(request.url.path)

    await direct(on_request=each).get("/runs")
    await direct(on_request=lambda: seen.append("plain")).get("/runs")
    assert seen == ["/runs", "plain"]


@pytest.mark.parametrize("options", [{"sse_throttle": -1}, {"heartbeat": 0}])
def test_options_that_make_no_sense(options: dict[str, Any], durably: Durably) -> None:
    with pytest.raises(ValueError):
        create_app(durably, **options)
