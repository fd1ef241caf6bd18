"""Two tenants that try to reach what is the other's, by every way that there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException

from durably_web import Durably
from durably_web.api.routes import ROUTES
from durably_web.ids import first_id
from durably_web.server import RunFilter, TriggerRequest, create_app
from tests.server.conftest import Serve
from tests.support.serving import SECONDS, stream

Direct = Callable[..., httpx.AsyncClient]

ACME = {"Authorization": "Bearer acme"}
GLOBEX = {"Authorization": "Bearer globex"}


class Login:
    """Who says who it is may come in."""

    async def authenticate(self, request: Any) -> str:
        scheme, _, name = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            raise HTTPException(401, "who are you?", {"WWW-Authenticate": "Bearer"})
        return str(name)


class Tenants(Login):
    """Each sees what has its label, and nothing else."""

    def scope_runs(self, context: str, filter: RunFilter) -> RunFilter:
        return replace(filter, labels={**filter.labels, "org": context})


class Access(Login):
    """As somebody would write it who thinks of runs, and forgets the lists."""

    async def on_run_access(self, context: str, run: Any, operation: str) -> None:
        if run.labels.get("org") != context:
            raise HTTPException(403, f"not yours to {operation}")


class Both(Tenants, Access):
    pass


async def run_of(durably: Durably, org: str, name: str = "echo") -> str:
    handle = await durably.trigger(name, {}, labels={"org": org})
    if name != "ask":
        await durably.wait_for_run(handle.id, timeout=SECONDS)
    return handle.id


# -- everything asks who it is -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/subscribe?runId=x", "/runs/subscribe", "/openapi.json"])
async def test_streams_ask_who_it_is(direct: Direct, path: str) -> None:
    answer = await direct(auth=Login()).get(path)
    assert (answer.status_code, answer.json()) == (401, {"error": "who are you?"})
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]} {route[1]}")
async def test_every_route_asks_who_it_is(direct: Direct, route: tuple[str, str]) -> None:
    """Those of the table, so that one that is added later is among them."""
    method, path = route
    asked: list[str] = []
    client = direct(auth=Login(), on_request=lambda: asked.append(path))
    answer = await client.request(method, path)
    assert (answer.status_code, asked) == (401, [])
    assert (await client.request(method, path, headers=ACME)).status_code != 401
    assert asked == [path]


async def test_any_framework_may_refuse(direct: Direct) -> None:
    from fastapi import HTTPException as OfFastApi
    from litestar.exceptions import NotAuthorizedException, PermissionDeniedException

    for error, status in (
        (OfFastApi(418, "no"), 418),
        (NotAuthorizedException("no"), 401),
        (PermissionDeniedException("no"), 403),
    ):

        class Refuses:
            def authenticate(self, request: Any, error: Exception = error) -> None:
                raise error

        answer = await direct(auth=Refuses()).get("/runs")
        assert (answer.status_code, answer.json()["error"]) == (status, "no")


async def test_a_hook_that_breaks_lets_nobody_in(direct: Direct, durably: Durably) -> None:
    await run_of(durably, "acme")

    class Broken(Login):
        def scope_runs(self, context: str, filter: RunFilter) -> Any:
            filter.labels["org"] = context  # and forgets to return it

    for path in ("/runs", "/stats", "/events", "/runs/subscribe"):
        answer = await direct(auth=Broken()).get(path, headers=ACME)
        assert answer.status_code == 500 and "scope_runs" not in answer.text


def test_an_auth_that_protects_nothing_is_refused(durably: Durably) -> None:
    class Nobody:
        pass

    class Misspelt(Login):
        def scope_run(self, context: str, filter: RunFilter) -> RunFilter:
            return filter

    for wrong in (Nobody(), Misspelt()):
        with pytest.raises(TypeError):
            create_app(durably, auth=wrong)


# -- one run -----------------------------------------------------------------------------------------------

OF_A_RUN = [
    "GET /run?runId={}",
    "GET /steps?runId={}",
    "GET /logs?runId={}",
    "GET /events?runId={}",
    "GET /events?runId={}&after=1",
    "GET /subscribe?runId={}",
    "POST /cancel?runId={}",
    "POST /retry?runId={}",
    "POST /retrigger?runId={}",
    "POST /fork?runId={}",
    "POST /fork?runId={}&fromStep=first",
    "POST /signal?runId={}&name=answer",
    "POST /pause?runId={}",
    "POST /resume?runId={}",
    "DELETE /run?runId={}",
]


# These need a right of their own: tests/server/test_handover.py.
HANDED = [
    "GET /export?runId={}",
    "POST /handover/offer?runId={}",
    "POST /handover/confirm?runId={}&handoverId={}",
    "POST /handover/withdraw?runId={}&handoverId={}",
    "POST /handover/decline?runId={}&handoverId={}",
]


def test_all_routes_about_a_run_are_here() -> None:
    there = {(method, path) for (method, path), route in ROUTES.items() if "runId" in route.query}
    tried = {(line.split()[0], line.split()[1].partition("?")[0]) for line in (*OF_A_RUN, *HANDED)}
    assert there <= tried


@pytest.mark.parametrize("line", OF_A_RUN)
@pytest.mark.parametrize("name", ["echo", "ask", "fail"])
async def test_a_run_of_others_is_a_run_that_there_is_not(
    direct: Direct, durably: Durably, name: str, line: str
) -> None:
    run_id = await run_of(durably, "acme", name)
    before = await durably.get_run(run_id), await durably.get_runs()
    client = direct(auth=Tenants())
    method, path = line.split()
    refused = await client.request(method, path.format(run_id), headers=GLOBEX)
    nobody = await client.request(method, path.format(first_id(1)), headers=GLOBEX)
    assert refused.status_code == nobody.status_code == 404
    assert refused.text == nobody.text.replace(first_id(1), run_id)
    if name != "ask":
        assert (await durably.get_run(run_id), await durably.get_runs()) == before
    else:
        run = await durably.get_run(run_id)
        assert run is not None and not run.is_terminal and not run.paused
        assert len(await durably.get_runs()) == 1
    if not path.startswith("/subscribe"):
        own = await client.request(method, path.format(run_id), headers=ACME)
        assert own.status_code in (200, 409, 404) and (own.status_code != 404 or "fromStep" in path), own.text


async def test_operations_have_names(direct: Direct, durably: Durably) -> None:
    run_id = await run_of(durably, "acme", "ask")
    asked: list[str] = []

    class Names(Login):
        def on_run_access(self, context: str, run: Any, operation: str) -> None:
            assert run.id == run_id
            asked.append(operation)
            raise HTTPException(403, "no")

    client = direct(auth=Names())
    for line in OF_A_RUN:
        method, path = line.split()
        assert (await client.request(method, path.format(run_id), headers=ACME)).status_code == 403
    reading, changing = "read steps logs subscribe subscribe subscribe", "cancel retry retrigger fork fork signal"
    assert asked == [*reading.split(), *changing.split(), "pause", "resume", "delete"]


async def test_a_request_by_the_id_of_others_run_is_told_so(direct: Direct, durably: Durably) -> None:
    run_id = await run_of(durably, "acme", "ask")
    client = direct(auth=Both())
    key = {"Idempotency-Key": run_id}
    asked: dict[str, dict[str, Any]] = {"/trigger": {}, "/trigger-many": {"items": [{}]}}
    for path, body in asked.items():
        answer = await client.post(path, json={"jobName": "ask", **body}, headers={**GLOBEX, **key})
        assert answer.status_code == 409 and "give each request its own" in answer.json()["error"], answer.text
    again = await client.post("/trigger", json={"jobName": "ask"}, headers={**ACME, **key})
    assert again.json() == {"runId": run_id, "disposition": "created"}


async def test_who_deleted_a_run_may_ask_once_more(direct: Direct, durably: Durably) -> None:
    run_id = await run_of(durably, "acme")
    client = direct(auth=Both())
    key = {"Idempotency-Key": first_id(1_800_000_000_000)}
    for _ in range(2):
        assert (await client.delete("/run", params={"runId": run_id}, headers={**ACME, **key})).status_code == 200
    assert (await client.delete("/run", params={"runId": run_id}, headers=ACME)).status_code == 404
    assert (await client.delete("/run", params={"runId": run_id}, headers={**GLOBEX, **key})).status_code == 404


async def test_children_are_of_their_parents_tenant(direct: Direct, durably: Durably) -> None:
    await run_of(durably, "acme", "parent")
    [child, parent] = await durably.get_runs()
    assert child.parent_run_id == parent.id
    client = direct(auth=Tenants())
    for run in (child, parent):
        assert (await client.get("/run", params={"runId": run.id}, headers=ACME)).status_code == 200
        assert (await client.get("/run", params={"runId": run.id}, headers=GLOBEX)).status_code == 404


# -- lists -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", [Tenants(), Both(), Access()], ids=["scope", "scope and access", "access"])
async def test_lists_hold_what_is_ones_own(direct: Direct, durably: Durably, auth: Any) -> None:
    own, other = await run_of(durably, "acme"), await run_of(durably, "globex")
    client = direct(auth=auth)

    async def found(**query: Any) -> list[str]:
        return [run["id"] for run in (await client.get("/runs", params=query, headers=ACME)).json()]

    assert await found() == [own]
    assert await found(jobName="echo", status="completed") == [own]
    assert other not in await found(**{"label.org": "globex"})
    assert await found(**{"label.org": "acme", "limit": 5, "offset": 0}) == [own]
    page = (await client.get("/events", headers=ACME)).json()
    assert {event["runId"] for event in page["events"]} == {own}
    for after in (0, page["events"][2]["seq"]):
        small = (await client.get("/events", params={"after": after, "limit": 2}, headers=ACME)).json()["events"]
        assert [event["seq"] for event in small] == [one["seq"] for one in page["events"] if one["seq"] > after][:2]
    assert (await client.get("/events", params={"limit": 0}, headers=ACME)).status_code == 400
    stats = await client.get("/stats", headers=ACME)
    if isinstance(auth, Tenants):
        assert stats.json()["total"] == 1 and stats.json()["byJob"] == {"echo": {"completed": 1}}
    else:
        assert stats.status_code == 403


async def test_a_page_of_events_looks_at_so_many_and_says_where_to_go_on(
    direct: Direct, durably: Durably, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durably_web.api.routes.MOST_EVENTS", 3)
    monkeypatch.setattr("durably_web.server.access.MOST_LOOKED_AT", 6)
    for org in ("acme", "globex", "globex", "globex", "acme"):
        await run_of(durably, org)
    client = direct(auth=Tenants())
    told: list[int] = []
    sizes = []
    after: int | None = 0
    while after is not None:
        page = (await client.get("/events", params={"after": after, "limit": 2}, headers=ACME)).json()
        told += [event["seq"] for event in page["events"]]
        sizes.append(len(page["events"]))
        after = page["next"]
    # Of those in between, nothing is to be seen but that they took some looking.
    assert 0 in sizes[:-1] and max(sizes) == 2
    expected = [event.seq for event in (await durably.get_events(limit=500)).events if event.labels["org"] == "acme"]
    assert told == expected


async def test_paused_jobs_of_others_are_theirs(direct: Direct, durably: Durably) -> None:
    await run_of(durably, "acme")
    await run_of(durably, "globex", "fail")
    for name in ("echo", "fail"):
        await durably.pause_job(name)
    stats = await direct(auth=Tenants()).get("/stats", headers=ACME)
    assert stats.json()["pausedJobs"] == ["echo"]


@pytest.mark.parametrize("auth", [Tenants(), Access()], ids=["scope", "access"])
async def test_streams_tell_what_is_ones_own(serve: Serve, durably: Durably, auth: Any) -> None:
    client = await serve(auth=auth)
    for query in ("", "?label.org=globex", "?jobName=echo"):
        async with stream(client, f"/runs/subscribe{query}", headers=ACME) as events:
            position = await events.connected()
            other = await run_of(durably, "globex")
            own = await run_of(durably, "acme")
            if query == "?label.org=globex" and isinstance(auth, Access):
                continue
            heard = await events.until("run:complete")
            assert {message.data["runId"] for message in heard} == {own}
        # What was missed is no way around it either.
        async with stream(client, "/runs/subscribe", str(position), headers=GLOBEX) as events:
            await events.connected()
            assert {message.data["runId"] for message in await events.until("run:complete")} == {other}
    run_id = await run_of(durably, "acme")
    async with stream(client, f"/subscribe?runId={run_id}", headers=ACME) as events:
        await events.connected()
        assert (await events.rest())[-1].data["type"] == "run:complete"


async def test_a_stream_may_have_a_scope_of_its_own(serve: Serve, durably: Durably) -> None:
    class Narrow(Tenants):
        def scope_runs_subscribe(self, context: str, filter: RunFilter) -> RunFilter:
            return replace(self.scope_runs(context, filter), jobs=["fail"])

    client = await serve(auth=Narrow())
    async with stream(client, "/runs/subscribe", headers=ACME) as events:
        await events.connected()
        await run_of(durably, "globex", "fail")
        await run_of(durably, "acme", "echo")
        own = await run_of(durably, "acme", "fail")
        assert {message.data["runId"] for message in await events.until("run:fail")} == {own}
    assert len((await client.get("/runs", headers=ACME)).json()) == 2


async def test_a_scope_that_nothing_meets(direct: Direct, durably: Durably) -> None:
    class Nothing(Login):
        def scope_runs(self, context: str, filter: RunFilter) -> RunFilter:
            return replace(filter, jobs=[])

    run_id = await run_of(durably, "acme")
    client = direct(auth=Nothing())
    assert (await client.get("/runs", headers=ACME)).json() == []
    assert (await client.get("/events", headers=ACME)).json()["events"] == []
    assert (await client.get("/run", params={"runId": run_id}, headers=ACME)).status_code == 404
    assert (await client.get("/stats", headers=ACME)).status_code == 403
    assert (await client.post("/trigger", json={"jobName": "echo"}, headers=ACME)).status_code == 403


# -- triggers ----------------------------------------------------------------------------------------------


async def ask_for(client: httpx.AsyncClient, who: dict[str, str], **fields: Any) -> httpx.Response:
    return await client.post("/trigger", json={"jobName": "ask", **fields}, headers=who)


async def test_a_run_is_made_within_ones_scope(direct: Direct, durably: Durably) -> None:
    client = direct(auth=Tenants())
    made = await ask_for(client, ACME, labels={"n": "1"})
    assert (await durably.get_runs())[0].labels == {"org": "acme", "n": "1"}
    assert (await ask_for(client, ACME, labels={"org": "globex"})).status_code == 403
    many = [{}, {"labels": {"org": "globex"}}]
    refused = await client.post("/trigger-many", json={"jobName": "ask", "items": many}, headers=ACME)
    assert refused.status_code == 403
    assert [run.id for run in await durably.get_runs()] == [made.json()["runId"]]
    many = [{}, {"labels": {"n": "2"}}]
    assert (await client.post("/trigger-many", json={"jobName": "ask", "items": many}, headers=ACME)).status_code == 200
    assert {run.labels["org"] for run in await durably.get_runs()} == {"acme"}
    run_id = made.json()["runId"]
    await durably.cancel(run_id)
    again = await client.post("/retrigger", params={"runId": run_id}, headers=ACME)
    forked = await client.post("/fork", params={"runId": run_id}, headers=ACME)
    for one in (again, forked):
        run = await durably.get_run(one.json()["runId"])
        assert run is not None and run.labels["org"] == "acme"


async def test_keys_of_others_are_other_keys(direct: Direct, durably: Durably) -> None:
    """Otherwise one could get, or replace, the input of a run that is not one's own."""
    client = direct(auth=Tenants())
    await durably.pause_job("ask")
    first = (await ask_for(client, ACME, idempotencyKey="k", input={"n": 1})).json()
    assert (await ask_for(client, ACME, idempotencyKey="k")).json() == {**first, "disposition": "idempotent"}
    other = (await ask_for(client, GLOBEX, idempotencyKey="k")).json()
    assert other["disposition"] == "created" and other["runId"] != first["runId"]
    held = (await ask_for(client, ACME, concurrencyKey="c", input={"n": 1})).json()
    for coalesce in ("skip", "replace"):
        answer = await ask_for(client, GLOBEX, concurrencyKey="c", coalesce=coalesce, input={"n": 2})
        assert answer.json()["runId"] != held["runId"]
    run = await durably.get_run(held["runId"])
    assert run is not None and run.input == {"n": 1}
    replaced = await ask_for(client, ACME, concurrencyKey="c", coalesce="replace", input={"n": 3})
    assert replaced.json() == {"runId": held["runId"], "disposition": "coalesced"}
    # A label of one tenant cannot be written so that it looks like the key of another.
    tricky = {"Authorization": 'Bearer acme"} c'}
    assert (await ask_for(client, tricky, concurrencyKey="", coalesce="skip")).status_code == 400
    answer = await ask_for(client, tricky, concurrencyKey="c", coalesce="skip")
    assert answer.json()["runId"] != held["runId"]


async def test_on_trigger_may_change_and_refuse(direct: Direct, durably: Durably) -> None:
    class Changes(Tenants):
        async def on_trigger(self, context: str, trigger: TriggerRequest) -> TriggerRequest | None:
            if trigger.input == {"no": 1}:
                raise HTTPException(403, "not this")
            trigger.labels["by"] = context
            return replace(trigger, idempotency_key=None) if trigger.idempotency_key else None

    client = direct(auth=Changes())
    assert (await ask_for(client, ACME, input={"no": 1})).status_code == 403
    for _ in range(2):
        made = (await ask_for(client, ACME, idempotencyKey="k", labels={"a": "b"}, priority=3)).json()
        assert made["disposition"] == "created"
    run = (await durably.get_runs())[0]
    assert run.labels == {"a": "b", "by": "acme", "org": "acme"} and run.priority == 3
    items = [{}, {"input": {"no": 1}}]
    refused = await client.post("/trigger-many", json={"jobName": "ask", "items": items}, headers=ACME)
    assert refused.status_code == 403 and len(await durably.get_runs()) == 2


# -- what concerns everybody -------------------------------------------------------------------------------

FOR_ALL = {
    "POST /purge": {"olderThanMs": 0},
    "POST /pause?jobName=echo": None,
    "POST /resume?jobName=echo": None,
    **{f"POST /runs/{verb}?jobName=echo": None for verb in "cancel retry pause resume delete".split()},
}


@pytest.mark.parametrize("line", FOR_ALL)
@pytest.mark.parametrize("auth", [Login(), Tenants(), Access()], ids=["login", "scope", "access"])
async def test_what_concerns_everybody_is_refused(direct: Direct, durably: Durably, auth: Any, line: str) -> None:
    own, other = await run_of(durably, "acme"), await run_of(durably, "globex")
    method, path = line.split()
    answer = await direct(auth=auth).request(method, path, json=FOR_ALL[line], headers=ACME)
    assert answer.status_code == 403
    assert {run.id for run in await durably.get_runs()} == {own, other}
    assert (await durably.stats()).paused_jobs == []


async def test_routes_that_nobody_thought_of_are_refused(direct: Direct) -> None:
    """Every route of the table is about one run, or a list that has a scope, or nobody may use it."""
    client = direct(auth=Tenants())
    harmless = {"/trigger", "/trigger-many", "/runs", "/events", "/stats", "/health"}
    for (method, path), route in ROUTES.items():
        if path not in harmless and ("runId" not in route.query):
            answer = await client.request(method, path, headers=ACME)
            assert answer.status_code == 403, (method, path)


async def test_an_administrator(direct: Direct, durably: Durably) -> None:
    asked: list[str] = []

    class Admin(Tenants):
        def on_admin(self, context: str, operation: str) -> None:
            asked.append(operation)
            if operation == "purge":
                raise HTTPException(403, "not even you")

    own, other = await run_of(durably, "acme"), await run_of(durably, "globex")
    client = direct(auth=Admin())
    assert (await client.post("/purge", json={"olderThanMs": 0}, headers=ACME)).status_code == 403
    assert (await client.post("/pause?jobName=echo", headers=ACME)).status_code == 200
    # Of many runs, those of the caller.
    for query in ("label.org=globex", "jobName=echo"):
        answer = await client.post(f"/runs/delete?{query}", headers=ACME)
        assert answer.status_code == 200, answer.text
    assert [run.id for run in await durably.get_runs()] == [other] != [own]
    assert asked == ["purge", "pause_job", "delete_runs", "delete_runs"]


async def test_without_auth_everybody_may_do_everything(direct: Direct, durably: Durably) -> None:
    own = await run_of(durably, "acme")
    client = direct()
    assert (await client.get("/run", params={"runId": own})).status_code == 200
    assert (await client.post("/runs/delete?jobName=echo")).json() == {"count": 1}
