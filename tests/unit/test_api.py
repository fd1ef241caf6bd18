"""The routes, on a database in memory: what they answer, and what they refuse."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any

import pytest

from durably_web import Durably, ManualClock, Step, job
from durably_web.api import Request, Response, respond
from durably_web.errors import InvalidInput

LATER = "2030-01-31T12:00:00.000Z"


@job
async def echo(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    await step.run("first", lambda: 1)
    await step.run("second", lambda: 2)
    return input


@job
async def ask(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("answer")


@job
async def fail(step: Step, input: dict[str, Any]) -> None:
    raise ValueError("no such thing")


class Api:
    """Sends requests to an engine that executes only what it is told to."""

    def __init__(self, durably: Durably, clock: ManualClock) -> None:
        self.durably = durably
        self.clock = clock

    async def send(self, line: str, body: Any = None, **query: Any) -> Response:
        method, path = line.split()
        return await respond(self.durably, Request(method, path, query, body))

    async def ask(self, line: str, body: Any = None, **query: Any) -> Any:
        """The body of an answer that is no error."""
        response = await self.send(line, body, **query)
        assert response.status == 200, response
        return response.body

    async def trigger(self, name: str = "echo", **fields: Any) -> str:
        return str((await self.ask("POST /trigger", {"jobName": name, **fields}))["runId"])

    async def run(self, run_id: str) -> Any:
        return await self.ask("GET /run", runId=run_id)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    clock = ManualClock()
    durably = Durably(":memory:", jobs=[echo, ask, fail], clock=clock)
    await durably.migrate()
    try:
        yield Api(durably, clock)
    finally:
        await durably.stop()


# -- triggers ----------------------------------------------------------------------------------------------


async def test_a_trigger_with_every_field(api: Api) -> None:
    first = {"jobName": "echo", "input": {"n": 1}, "labels": {"org": "acme"}, "priority": 7, "idempotencyKey": "k"}
    made = await api.ask("POST /trigger", {**first, "concurrencyKey": "c", "coalesce": "queue", "runAt": LATER})
    assert made["disposition"] == "created"
    run = await api.run(made["runId"])
    assert (run["input"], run["labels"], run["priority"]) == ({"n": 1}, {"org": "acme"}, 7)
    assert (run["concurrencyKey"], run["runAt"], run["status"]) == ("c", LATER, "pending")
    again = await api.ask("POST /trigger", first)
    assert again == {"runId": made["runId"], "disposition": "idempotent"}


async def test_a_zone_other_than_utc(api: Api) -> None:
    run_id = await api.trigger(runAt="2030-01-31T14:00:00+02:00")
    assert (await api.run(run_id))["runAt"] == LATER


async def test_milliseconds(api: Api) -> None:
    run = await api.run(await api.trigger(delayMs=1500))
    assert instant(run["runAt"]) - instant(run["createdAt"]) == datetime.timedelta(milliseconds=1500)
    debounced = {"jobName": "echo", "concurrencyKey": "c", "debounceMs": 200, "debounceMaxMs": 1000}
    made = [await api.ask("POST /trigger", {**debounced, "input": {"n": n}}) for n in (1, 2)]
    assert [one["disposition"] for one in made] == ["created", "coalesced"]
    run = await api.run(made[0]["runId"])
    assert (run["input"], run["id"]) == ({"n": 2}, made[1]["runId"])
    assert instant(run["runAt"]) - instant(run["createdAt"]) == datetime.timedelta(milliseconds=200)


async def test_coalescing(api: Api) -> None:
    first = await api.trigger(concurrencyKey="c")
    refused = await api.send("POST /trigger", {"jobName": "echo", "concurrencyKey": "c"})
    assert refused.status == 409 and refused.body["name"] == "Conflict" and first in refused.body["error"]
    for coalesce in ("skip", "replace"):
        again = await api.ask("POST /trigger", {"jobName": "echo", "concurrencyKey": "c", "coalesce": coalesce})
        assert again == {"runId": first, "disposition": "coalesced"}


async def test_trigger_many(api: Api) -> None:
    items = [{"input": {"n": 1}, "priority": 1}, {"input": {"n": 2}, "concurrencyKey": "c", "labels": {"a": "b"}}, {}]
    made = await api.ask("POST /trigger-many", {"jobName": "echo", "items": items})
    assert [one["disposition"] for one in made] == ["created"] * 3
    runs = [await api.run(one["runId"]) for one in made]
    assert [run["input"] for run in runs] == [{"n": 1}, {"n": 2}, {}]
    assert [run["priority"] for run in runs] == [1, 0, 0]
    assert runs[1]["concurrencyKey"] == "c" and runs[1]["labels"] == {"a": "b"}

    refused = await api.send("POST /trigger-many", {"jobName": "echo", "items": [{}, {"concurrencyKey": "c"}]})
    assert refused.status == 409
    assert len(await api.ask("GET /runs")) == 3


# -- signals, control --------------------------------------------------------------------------------------


async def test_a_signal(api: Api) -> None:
    run_id = await api.trigger("ask")
    await api.durably.process_until_idle()
    assert (await api.run(run_id))["status"] == "waiting"
    [step] = await api.ask("GET /steps", runId=run_id)
    assert (step["name"], step["status"], step["until"]) == ("answer", "waiting", None)
    assert await api.ask("POST /signal", {"yes": True}, runId=run_id, name="answer") == {"success": True}
    await api.durably.process_until_idle()
    assert (await api.run(run_id))["output"] == {"yes": True}
    assert (await api.send("POST /signal", 1, runId=run_id, name="answer")).status == 409


async def test_pause_and_resume(api: Api) -> None:
    run_id = await api.trigger()
    assert await api.ask("POST /pause", runId=run_id) == {"success": True}
    await api.durably.process_until_idle()
    assert (await api.run(run_id))["paused"] is True
    await api.ask("POST /resume", runId=run_id)
    await api.ask("POST /pause", jobName="echo")
    assert (await api.ask("GET /stats"))["pausedJobs"] == ["echo"]
    await api.durably.process_until_idle()
    assert (await api.run(run_id))["status"] == "pending"
    await api.ask("POST /resume", jobName="echo")
    await api.durably.process_until_idle()
    assert (await api.run(run_id))["status"] == "completed"


async def test_fork(api: Api) -> None:
    run_id = await api.trigger(input={"n": 1}, labels={"a": "b"})
    await api.durably.process_until_idle()
    forked = await api.ask("POST /fork", runId=run_id, fromStep="second")
    assert forked["success"] is True
    run = await api.run(forked["runId"])
    assert (run["forkedFrom"], run["input"], run["labels"], run["stepCount"]) == (run_id, {"n": 1}, {"a": "b"}, 1)
    assert (await api.run((await api.ask("POST /fork", runId=run_id))["runId"]))["stepCount"] == 2
    refused = await api.send("POST /fork", runId=run_id, fromStep="third")
    assert refused.status == 404 and "third" in refused.body["error"]


async def test_many_runs_at_once(api: Api) -> None:
    ids = [await api.trigger("fail" if n < 2 else "echo", labels={"half": str(n % 2)}) for n in range(4)]
    assert await api.ask("POST /runs/pause", **{"label.half": "0"}) == {"count": 2}
    assert await api.ask("POST /runs/resume", status="pending") == {"count": 2}
    assert await api.ask("POST /runs/cancel", jobName="echo", **{"label.half": "1"}) == {"count": 1}
    await api.durably.process_until_idle()
    statuses = [(await api.run(run_id))["status"] for run_id in ids]
    assert statuses == ["failed", "failed", "completed", "cancelled"]
    assert await api.ask("POST /runs/retry", status="failed,completed") == {"count": 2}
    assert await api.ask("POST /runs/delete", createdBefore="2000-01-01T00:00:00Z") == {"count": 0}
    assert await api.ask("POST /runs/delete", createdBefore="2100-01-01T00:00:00Z") == {"count": 2}
    assert {run["status"] for run in await api.ask("GET /runs")} == {"pending"}


async def test_a_schedule(api: Api) -> None:
    asked = {
        "name": "often",
        "jobName": "echo",
        "cron": "30 7 * * mon-fri",
        "timezone": "Europe/Berlin",
        "input": {"n": 1},
        "labels": {"org": "acme"},
        "priority": 2,
        "missed": "one",
        "overlap": "queue",
        "catchUpWindowMs": 1500,
    }
    made = await api.ask("PUT /schedule", asked)
    moments = {"createdAt": "2023-11-14T22:13:20.000Z", "updatedAt": "2023-11-14T22:13:20.000Z", "lastAt": None}
    assert made == {**asked, "everyMs": None, "paused": False, "nextAt": "2023-11-15T06:30:00.000Z", **moments}
    assert await api.ask("PUT /schedule", asked) == made
    other = await api.ask("PUT /schedule", {"jobName": "echo", "everyMs": 250})
    assert (other["name"], other["everyMs"], other["timezone"], other["cron"]) == ("echo", 250, None, None)
    assert await api.ask("GET /schedules") == [other, made]
    assert await api.ask("GET /schedule", name="often") == made

    assert (await api.ask("POST /schedule/pause", name="often"))["nextAt"] is None
    assert (await api.ask("POST /schedule/resume", name="often"))["nextAt"] == made["nextAt"]
    by_hand = await api.ask("POST /schedule/trigger", name="often")
    assert by_hand["disposition"] == "created"
    run = await api.run(by_hand["runId"])
    assert (run["schedule"], run["scheduledAt"], run["input"], run["priority"]) == ("often", None, {"n": 1}, 2)
    await api.ask("POST /schedule/trigger", name="echo")
    assert (await api.send("POST /schedule/trigger", name="echo")).status == 409
    assert [run["id"] for run in await api.ask("GET /runs", schedule="often")] == [by_hand["runId"]]

    assert await api.ask("DELETE /schedule", name="often") == {"success": True}
    assert await api.ask("GET /schedules") == [await api.ask("GET /schedule", name="echo")]


async def test_a_tick(api: Api) -> None:
    told: list[Any] = []
    api.durably.on("schedule:skip", lambda event: told.append(event.to_wire()))
    await api.ask("PUT /schedule", {"jobName": "echo", "everyMs": 60_000, "labels": {"a": "b"}})
    api.clock.advance(180)
    await api.durably.process_until_idle()
    runs = await api.ask("GET /runs", schedule="echo")
    assert [run["scheduledAt"] for run in runs] == ["2023-11-14T22:15:20.000Z"]
    assert [(one["reason"], one["ticks"], one["firstAt"], one["lastAt"]) for one in told] == [
        ("missed", 1, "2023-11-14T22:14:20.000Z", "2023-11-14T22:14:20.000Z"),
        ("overlap", 1, "2023-11-14T22:16:20.000Z", "2023-11-14T22:16:20.000Z"),
    ]
    assert told[0] | {"schedule": "echo", "jobName": "echo", "runId": None, "labels": {"a": "b"}} == told[0]
    assert (await api.ask("GET /schedule", name="echo"))["lastAt"] == "2023-11-14T22:15:20.000Z"


async def test_purge(api: Api) -> None:
    for _ in range(3):
        await api.trigger()
    await api.durably.process_until_idle()
    assert await api.ask("POST /purge", {"olderThanMs": 3_600_000}) == {"count": 0}
    assert await api.ask("POST /purge", {"olderThan": "2100-01-01T00:00:00Z", "limit": 2}) == {"count": 2}
    api.clock.advance(3601)
    assert await api.ask("POST /purge", {"olderThanMs": 3_600_000.0}) == {"count": 1}


async def test_jobs_by_several_names(api: Api) -> None:
    ids = {name: await api.trigger(name) for name in ("echo", "ask", "fail")}

    async def found(names: Any) -> list[str]:
        return sorted(run["jobName"] for run in await api.ask("GET /runs", jobName=names))

    assert await found(["echo", "fail"]) == ["echo", "fail"]
    assert await found(["echo", "echo", "none"]) == ["echo"] == await found(["echo"]) == await found("echo")
    assert await found(["none"]) == []
    assert await api.ask("POST /runs/pause", jobName=["echo", "ask"]) == {"count": 2}
    assert await api.ask("POST /runs/cancel", jobName=["ask", "fail"], status="pending") == {"count": 2}
    assert (await api.run(ids["echo"]))["status"] == "pending"
    assert {run.job_name for run in await api.durably.get_runs(job=[echo, "ask"])} == {"echo", "ask"}
    with pytest.raises(InvalidInput, match="the list is empty"):
        await api.durably.delete_runs(status="failed", job=[])


# -- reading -----------------------------------------------------------------------------------------------


async def test_health(api: Api) -> None:
    assert await api.ask("GET /health") == {"ok": True}
    await api.durably.stop()
    response = await api.send("GET /health")
    assert (response.status, response.body["name"]) == (503, "StoreUnavailable")


async def test_stats(api: Api) -> None:
    await api.trigger()
    await api.trigger("fail")
    await api.durably.process_until_idle()
    await api.trigger("ask")
    assert await api.ask("GET /stats") == {
        "total": 3,
        "byStatus": {"completed": 1, "failed": 1, "pending": 1},
        "byJob": {"ask": {"pending": 1}, "echo": {"completed": 1}, "fail": {"failed": 1}},
        "pausedJobs": [],
        "storageFull": False,
    }


async def test_several_statuses_and_pages(api: Api) -> None:
    ids = [await api.trigger(name) for name in ("echo", "fail", "ask")]
    await api.durably.process_until_idle()
    found = await api.ask("GET /runs", status="completed,failed")
    assert [run["id"] for run in found] == [ids[1], ids[0]]
    assert [run["id"] for run in await api.ask("GET /runs", after=ids[2], limit="1")] == [ids[1]]


async def test_events_in_pages(api: Api) -> None:
    run_id, other = await api.trigger(), await api.trigger("ask")
    await api.durably.process_until_idle()
    whole = await api.ask("GET /events", runId=run_id)
    assert whole["ended"] is True
    types = [event["type"] for event in whole["events"]]
    assert types == ["run:trigger", "run:leased", "step:complete", "step:complete", "run:complete"]
    read: list[Any] = []
    while True:
        after = str(read[-1]["seq"]) if read else "0"
        page = await api.ask("GET /events", runId=run_id, after=after, limit="2")
        read += page["events"]
        if page["ended"]:
            assert page["next"] is None
            break
        assert len(page["events"]) == 2
        assert page["next"] == read[-1]["seq"]
    assert read == whole["events"]
    assert (await api.ask("GET /events", runId=other))["ended"] is False
    everything = await api.ask("GET /events")
    assert everything["ended"] is False and everything["next"] is None
    assert {event["runId"] for event in everything["events"]} == {run_id, other}


# -- refusals ----------------------------------------------------------------------------------------------

TRIGGER = "POST /trigger"
MANY = "POST /trigger-many"


@pytest.mark.parametrize(
    ("line", "query", "body", "complaint"),
    [
        (TRIGGER, {}, None, "a trigger must be a JSON object"),
        (TRIGGER, {}, [], "a trigger must be a JSON object"),
        (TRIGGER, {}, {}, "jobName must be a string"),
        (TRIGGER, {}, {"jobName": 1}, "jobName must be a string"),
        (TRIGGER, {}, {"jobName": "echo", "delay": 1}, "a trigger has no delay; it has jobName, input, "),
        (TRIGGER, {"x": "1"}, {"jobName": "echo"}, "/trigger has no parameter x; it knows none"),
        (TRIGGER, {}, {"jobName": "echo", "input": 5}, "input"),
        *(
            (TRIGGER, {}, {"jobName": "echo", field: value}, complaint)
            for field, value, complaint in (
                ("idempotencyKey", 1, "idempotencyKey must be a string"),
                ("idempotencyKey", "", "idempotencyKey must be a string"),
                ("concurrencyKey", ["c"], "concurrencyKey must be a string"),
                ("coalesce", "first", 'coalesce must be "skip", "replace" or "queue"'),
                ("coalesce", ["skip"], "coalesce must be"),
                ("coalesce", "skip", "concurrency_key"),
                ("labels", ["a"], "labels must be a JSON object"),
                ("labels", {"a": 1}, "the values of labels must be strings"),
                ("priority", "1", "priority must be a whole number"),
                ("priority", 1.5, "priority must be a whole number"),
                ("priority", True, "priority must be a whole number"),
                ("priority", 2**31, "priority must be a whole number"),
                ("delayMs", "1", "delayMs must be a number of milliseconds"),
                ("delayMs", -1, "delayMs must be a number of milliseconds"),
                ("delayMs", True, "delayMs must be a number of milliseconds"),
                ("delayMs", float("nan"), "delayMs must be a number of milliseconds"),
                ("delayMs", 1e15, "delayMs must be a number of milliseconds"),
                ("runAt", 1, "runAt must be a string"),
                ("runAt", "tomorrow", "runAt must be an instant with a zone"),
                ("runAt", "2030-01-31T12:00:00", "runAt must be an instant with a zone"),
                ("runAt", "2030-01-31", "runAt must be an instant with a zone"),
                ("runAt", "0001-01-01T00:00:00+10:00", "runAt must be an instant with a zone"),
                ("debounceMs", "1", "debounceMs must be a number of milliseconds"),
                ("debounceMaxMs", 5, "debounceMaxMs needs debounceMs"),
            )
        ),
        (TRIGGER, {}, {"jobName": "echo", "delayMs": 1, "runAt": LATER}, "delay and run_at"),
        (TRIGGER, {}, {"jobName": "echo", "concurrencyKey": "c", "debounceMs": 1, "delayMs": 1}, "debounce"),
        (TRIGGER, {}, {"jobName": "echo", "concurrencyKey": "c", "debounceMs": 2, "debounceMaxMs": 1}, "debounceMaxMs"),
        (MANY, {}, {"jobName": "echo", "items": {}}, "items must be a JSON array"),
        (MANY, {}, {"jobName": "echo", "items": [5]}, "items[0] must be a JSON object"),
        (MANY, {}, {"jobName": "echo", "items": [{}, {"n": 1}]}, "items[1] has no n; it has input, "),
        (MANY, {}, {"jobName": "echo", "items": [{"debounceMs": 1}]}, "items[0] has no debounceMs"),
        (MANY, {}, {"jobName": "echo", "items": [{"priority": "1"}]}, "items[0]: priority must be"),
        ("POST /signal", {"runId": "x"}, None, "name is missing"),
        ("POST /signal", {"name": "x"}, None, "runId is missing"),
        ("POST /pause", {}, None, "give one of runId and jobName"),
        ("POST /resume", {"runId": "x", "jobName": "y"}, None, "give one of runId and jobName"),
        ("POST /fork", {"runId": "x", "fromStep": ""}, None, "fromStep is missing"),
        ("POST /purge", {}, {}, "give one of olderThan, an instant, and olderThanMs"),
        ("POST /purge", {}, {"olderThan": LATER, "olderThanMs": 1}, "give one of olderThan"),
        ("POST /purge", {}, {"olderThan": 5}, "olderThan must be a string"),
        ("POST /purge", {}, {"olderThanMs": 1, "limit": -1}, "limit must be a whole number"),
        ("POST /purge", {}, {"olderThanMs": 1, "limit": "1"}, "limit must be a whole number"),
        ("POST /runs/delete", {}, None, "which runs"),
        ("POST /runs/delete", {"jobname": "echo"}, None, "has no parameter jobname; it knows jobName, "),
        ("POST /runs/cancel", {"createdBefore": "now"}, None, "createdBefore must be an instant with a zone"),
        ("POST /runs/cancel", {"status": "odd"}, None, "status must be one of pending"),
        ("POST /runs/cancel", {"label.": "x"}, None, "label"),
        ("GET /runs", {"status": ""}, None, "status must be one of pending"),
        ("GET /runs", {"limit": "-1"}, None, "limit must be a whole number"),
        ("GET /runs", {"limit": "9" * 30}, None, "limit must be a whole number"),
        ("GET /events", {"limit": "0"}, None, "limit must be a number from 1 to 500"),
        ("GET /events", {"after": "x"}, None, "after must be a whole number"),
        ("GET /run", {}, None, "runId is missing"),
        ("GET /run", {"runId": ["a"]}, None, "runId must be given once"),
        ("GET /runs", {"status": ["failed", "odd"]}, None, "status must be one of"),
        ("GET /runs", {"limit": ["1", "2"]}, None, "limit must be given once"),
        ("GET /runs", {"label.a": ["b", "c"]}, None, "label.a must be given once"),
        ("GET /runs", {"jobName": []}, None, "jobName is missing"),
        ("GET /runs", {"jobName": ["a", ""]}, None, "jobName is missing"),
        ("GET /runs", {"jobName": ["a", 1]}, None, "jobName must be a string"),
        ("GET /runs", {"limit": 1}, None, "limit must be a string"),
        ("POST /runs/delete", {"jobName": []}, None, "jobName is missing"),
        ("POST /pause", {"jobName": ["echo", "ask"]}, None, "jobName must be given once"),
        ("PUT /schedule", {}, None, "a schedule must be a JSON object"),
        ("PUT /schedule", {}, {}, "jobName must be a string"),
        ("PUT /schedule", {}, {"jobName": "echo"}, "give one of cron"),
        ("PUT /schedule", {}, {"jobName": "echo", "cron": "* * * * *", "everyMs": 5}, "give one of cron"),
        ("PUT /schedule", {}, {"jobName": "echo", "every": 5}, "a schedule has no every; it has "),
        ("PUT /schedule", {}, {"jobName": "echo", "everyMs": "5"}, "everyMs must be a number of milliseconds"),
        ("PUT /schedule", {}, {"jobName": "echo", "everyMs": 0}, "longer than 0 seconds"),
        ("PUT /schedule", {}, {"jobName": "echo", "cron": 5}, "cron must be a string"),
        ("PUT /schedule", {}, {"jobName": "echo", "cron": "* * *"}, "five fields"),
        (
            "PUT /schedule",
            {},
            {"jobName": "echo", "cron": "* * * * *", "timezone": "Nowhere"},
            "no time zone 'Nowhere'",
        ),
        ("PUT /schedule", {}, {"jobName": "echo", "everyMs": 5, "missed": "odd"}, "missed is"),
        ("PUT /schedule", {}, {"jobName": "echo", "everyMs": 5, "overlap": "odd"}, "overlap is"),
        ("PUT /schedule", {}, {"jobName": "echo", "everyMs": 5, "labels": {"a": 1}}, "the values of labels"),
        ("PUT /schedule", {"name": "x"}, {"jobName": "echo", "everyMs": 5}, "/schedule has no parameter name"),
        ("PUT /schedule", {}, {"jobName": "echo", "everyMs": 5, "catchUpWindowMs": -1}, "catchUpWindowMs must be"),
        ("GET /schedule", {}, None, "name is missing"),
        ("POST /schedule/pause", {"name": ""}, None, "name is missing"),
        ("GET /schedules", {"name": "x"}, None, "/schedules has no parameter name"),
        ("GET /health", {"deep": "1"}, None, "/health has no parameter deep"),
    ],
)
async def test_what_is_wrong_is_told_and_changes_nothing(
    api: Api, line: str, query: dict[str, Any], body: Any, complaint: str
) -> None:
    response = await api.send(line, body, **query)
    assert response.status == 400, response
    assert complaint in response.body["error"]
    assert response.body.keys() == {"error", "name"}
    assert await api.ask("GET /runs") == []


@pytest.mark.parametrize(
    ("line", "query"),
    [
        ("GET /nowhere", {}),
        ("GET /trigger", {}),
        ("GET /run", {"runId": "x"}),
        ("GET /events", {"runId": "x"}),
        ("POST /signal", {"runId": "x", "name": "y"}),
        ("POST /pause", {"jobName": "x"}),
        *((f"POST /{verb}", {"runId": "x"}) for verb in "cancel retry retrigger fork pause resume".split()),
        ("DELETE /run", {"runId": "x"}),
        ("GET /schedule", {"name": "x"}),
        ("DELETE /schedule", {"name": "x"}),
        *((f"POST /schedule/{verb}", {"name": "x"}) for verb in "pause resume trigger".split()),
    ],
)
async def test_what_is_not_there(api: Api, line: str, query: dict[str, str]) -> None:
    response = await api.send(line, **query)
    assert (response.status, response.body["name"]) == (404, "NotFound")


def instant(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
