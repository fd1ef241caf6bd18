"""What is refused, since it would get around what the others see to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from durably_web import Durably
from durably_web.ids import first_id
from durably_web.server import RunFilter, TriggerRequest, create_app
from tests.server.test_auth import ACME, GLOBEX, Access, Login, Tenants, ask_for, run_of

Direct = Callable[..., httpx.AsyncClient]

ELSEWHERE = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}


async def test_from_any_origin_comes_nothing_that_a_form_could_send(direct: Direct, durably: Durably) -> None:
    run_id = await run_of(durably, "acme")
    client = direct(allow_origins=["*"])
    for kind in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "text/plain; application/json"}):
        answer = await client.post("/runs/delete?jobName=echo", headers={**ELSEWHERE, **kind})
        assert answer.status_code == 403 and "Idempotency-Key" in answer.text
    assert [run.id for run in await durably.get_runs()] == [run_id]
    asked = await client.post("/trigger", json={"jobName": "echo"}, headers=ELSEWHERE)
    assert asked.status_code == 200, asked.text
    key = {"Idempotency-Key": first_id(1_900_000_000_000)}
    answer = await client.post("/runs/delete?jobName=echo&status=completed", headers={**ELSEWHERE, **key})
    assert answer.status_code == 200, answer.text
    # An origin that is named may do it all.
    client = direct(allow_origins=[ELSEWHERE["Origin"]])
    assert (await client.post("/runs/cancel?jobName=echo", headers=ELSEWHERE)).status_code == 200


async def test_more_parameters_than_anybody_needs(direct: Direct) -> None:
    client = direct()
    assert (await client.get("/runs", params=[("jobName", "echo")] * 400)).status_code == 200
    answer = await client.get("/runs", params=[("jobName", "echo")] * 501)
    assert (answer.status_code, "500" in answer.text) == (400, True)


async def test_events_have_no_scope_of_statuses(direct: Direct, durably: Durably) -> None:
    class Ended(Tenants):
        def scope_runs(self, context: str, filter: RunFilter) -> RunFilter:
            return replace(super().scope_runs(context, filter), statuses=["completed"])

    await run_of(durably, "acme", "ask")
    client = direct(auth=Ended())
    assert (await client.get("/runs", headers=ACME)).json() == []
    for path in ("/events", "/runs/subscribe"):
        assert (await client.get(path, headers=ACME)).status_code == 403, path


async def test_a_scope_of_streams_is_also_that_of_one_stream(direct: Direct, durably: Durably) -> None:
    class Narrow(Tenants):
        def scope_runs_subscribe(self, context: str, filter: RunFilter) -> RunFilter:
            return replace(self.scope_runs(context, filter), jobs=["fail"])

    quick, failed = await run_of(durably, "acme"), await run_of(durably, "acme", "fail")
    client = direct(auth=Narrow())
    for path in ("/events", "/subscribe"):
        assert (await client.get(path, params={"runId": quick}, headers=ACME)).status_code == 404
        assert (await client.get(path, params={"runId": failed}, headers=ACME)).status_code == 200
    assert (await client.get("/run", params={"runId": quick}, headers=ACME)).status_code == 200


def test_a_scope_of_streams_alone_is_refused(durably: Durably) -> None:
    class Streams(Login):
        def scope_runs_subscribe(self, context: str, filter: RunFilter) -> RunFilter:
            return filter

    with pytest.raises(TypeError, match="scope_runs"):
        create_app(durably, auth=Streams())


async def test_keys_need_a_scope_that_keeps_them_apart(direct: Direct, durably: Durably) -> None:
    class Labels(Access):
        def on_trigger(self, context: str, trigger: TriggerRequest) -> None:
            trigger.labels["org"] = context

    class Keys(Labels):
        def on_trigger(self, context: str, trigger: TriggerRequest) -> None:
            super().on_trigger(context, trigger)
            trigger.concurrency_key = trigger.concurrency_key and f"{context} {trigger.concurrency_key}"

    await durably.pause_job("ask")
    other = await durably.trigger("ask", {"n": 1}, labels={"org": "globex"}, concurrency_key="k", idempotency_key="k")
    client = direct(auth=Labels())
    evil: list[dict[str, Any]] = [
        {"concurrencyKey": "k", "coalesce": "replace", "input": {"n": 2}},
        {"concurrencyKey": "k"},
        {"idempotencyKey": "k"},
    ]
    for fields in evil:
        answer = await ask_for(client, ACME, **fields)
        assert answer.status_code == 403 and other.id not in answer.text
    run = await durably.get_run(other.id)
    assert run is not None and run.input == {"n": 1}
    assert (await ask_for(client, ACME)).status_code == 200
    client = direct(auth=Keys())
    made = [(await ask_for(client, who, concurrencyKey="k")).json() for who in (ACME, GLOBEX)]
    assert [one["disposition"] for one in made] == ["created", "created"]
    # Who is let in and has no limits needs none here.
    assert (await ask_for(direct(auth=Login()), ACME, idempotencyKey="k")).json()["runId"] == other.id


async def test_long_texts_of_schedules(direct: Direct) -> None:
    client = direct()
    for name in ("cron", "timezone"):
        body = {"jobName": "echo", "cron": "* * * * *", name: "x" * 513}
        answer = await client.put("/schedule", json=body)
        assert (answer.status_code, name in answer.text, "512" in answer.text) == (400, True, True)


async def test_schedules_that_would_do_nothing_but_tick(direct: Direct) -> None:
    client = direct()
    answer = await client.put("/schedule", json={"jobName": "echo", "everyMs": 99})
    assert (answer.status_code, "everyMs" in answer.text) == (400, True)
    assert (await client.put("/schedule", json={"jobName": "echo", "everyMs": 100})).status_code == 200
