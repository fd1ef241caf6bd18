"""Runs that come to a server and leave it, and who may let them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException

from durably_web import Durably
from durably_web.ids import first_id
from durably_web.server import Limits, TriggerRequest
from tests.server.conftest import JOBS
from tests.server.test_auth import ACME, GLOBEX, HANDED, Login, Tenants
from tests.support.serving import SECONDS

Direct = Callable[..., httpx.AsyncClient]

KEY = first_id(1_800_000_000_000)


class Movers(Tenants):
    """Each tenant may let runs come, and go, but not those that are marked."""

    def on_export(self, context: str, run: Any, operation: str) -> None:
        if run.labels.get("stays"):
            raise HTTPException(403, f"no {operation} of what stays")

    def on_import(self, context: str, run: TriggerRequest) -> None:
        if run.input.get("forbidden"):
            raise HTTPException(403, "not that one")


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Durably]:
    """Another engine, as that of a page."""
    async with Durably(str(tmp_path / "page.db"), jobs=JOBS, durability="relaxed") as page:
        yield page


async def offered(page: Durably, job: str = "ask", input: Any = None, **options: Any) -> dict[str, Any]:
    run_id = (await page.trigger(job, input or {}, **options)).id
    offer = await page.offer_run(run_id, "the server", timeout=SECONDS)
    assert offer.document is not None
    return offer.document


async def test_a_run_comes_goes_on_and_leaves(direct: Direct, durably: Durably, page: Durably) -> None:
    client = direct()
    run_id = (await page.trigger("ask", {"a": 1.0}, labels={"a": "b"})).id
    offer = await page.offer_run(run_id, "the server", timeout=SECONDS)
    for sent in (offer.document, {"document": json.dumps(offer.document)}):
        answer = await client.post("/runs/import", json=sent)
        assert (answer.status_code, answer.json()) == (200, {"success": True, "runId": run_id})
    asked = {"runId": run_id, "handoverId": offer.handover_id}
    assert (await client.post("/handover/decline", params=asked)).json() == {"declined": False}
    await page.confirm_handover(run_id, offer.handover_id)
    # And back, by HTTP on the side that gives.
    headers = {"Idempotency-Key": KEY}
    body: dict[str, Any] = {}
    for _ in range(2):
        answer = await client.post(
            "/handover/offer", params={"runId": run_id}, json={"target": "page"}, headers=headers
        )
        body = answer.json()
        assert (answer.status_code, body["state"], body["handoverId"]) == (200, "offered", KEY), body
    assert json.loads(body["document"])["run"]["input"] == {"a": 1.0} and '"a": 1.0' in body["document"]
    await page.import_run(body["document"])
    asked = {"runId": run_id, "handoverId": KEY}
    for _ in range(2):
        assert (await client.post("/handover/confirm", params=asked)).status_code == 200
    assert (await client.post("/handover/withdraw", params=asked)).status_code == 409
    answer = await client.post("/handover/offer", params={"runId": run_id}, json={"target": "page"})
    assert (answer.json()["state"], answer.json()["document"]) == ("given", None)
    assert (await client.get("/run", params={"runId": run_id})).json()["error"] == "handed over to page"
    await page.signal(run_id, "answer", 7)
    assert await page.output_of(run_id, timeout=SECONDS) == 7
    assert (await client.get("/export", params={"runId": run_id})).json()["run"]["id"] == run_id


async def test_an_offer_is_withdrawn(direct: Direct, durably: Durably) -> None:
    client = direct()
    run_id = (await durably.trigger("ask", {})).id
    offer = (await client.post("/handover/offer", params={"runId": run_id}, json={"target": "x"})).json()
    answer = await client.post("/signal", params={"runId": run_id, "name": "answer"}, json=1)
    assert answer.status_code == 409 and "offered to another database" in answer.json()["error"]
    asked = {"runId": run_id, "handoverId": offer["handoverId"]}
    for _ in range(2):
        assert (await client.post("/handover/withdraw", params=asked)).status_code == 200
    assert (await client.post("/signal", params={"runId": run_id, "name": "answer"}, json=1)).status_code == 200
    assert await durably.output_of(run_id, timeout=SECONDS) == 1


# -- what a server refuses -----------------------------------------------------------------------------------


async def test_what_is_too_large_or_damaged_is_refused(direct: Direct, durably: Durably, page: Durably) -> None:
    document = await offered(page)
    size = len(json.dumps(document))
    client = direct(limits=Limits(body=200, document=2 * size, labels=1, label=8, name=8))
    deep: Any = None
    for _ in range(300):
        deep = [deep]
    for body, status, told in (
        ({"document": "x" * 2 * size}, 413, f"at most {2 * size} bytes"),
        ({**document, "run": {**document["run"], "input": deep}}, 400, "levels deep"),
        ({**document, "run": {**document["run"], "labels": {"a": "b", "c": "d"}}}, 400, "at most 1 labels"),
        ({**document, "run": {**document["run"], "labels": {"a": "b" * 9}}}, 400, "at most 8 characters"),
        ({**document, "run": {**document["run"], "jobName": "b" * 9}}, 400, "at most 8 characters"),
        ({**document, "version": 2}, 400, "newer durably_web"),
        ({**document, "journal": []}, 400, "damaged"),
        ({"document": "{"}, 400, "not JSON"),
        ({"document": 7}, 400, "must be a string"),
        ([document], 400, "must be a JSON object"),
        (None, 400, "must be a JSON object"),
    ):
        answer = await client.post("/runs/import", json=body)
        assert (answer.status_code, told in answer.json()["error"]) == (status, True), (body, answer.text)
    assert await durably.get_runs() == []
    assert (await client.post("/runs/import", json=document)).status_code == 200


async def test_a_conflict_is_a_409(direct: Direct, durably: Durably, page: Durably) -> None:
    client, document = direct(), await offered(page)
    asked = {"runId": document["run"]["id"], "handoverId": document["handover"]["id"]}
    assert (await client.post("/handover/decline", params=asked)).json() == {"declined": True}
    answer = await client.post("/runs/import", json=document)
    assert answer.status_code == 409 and "was declined here" in answer.json()["error"]
    assert (await client.post("/handover/confirm", params=asked)).status_code == 404


# -- who may -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", HANDED)
async def test_it_is_denied_unless_auth_says_otherwise(direct: Direct, durably: Durably, line: str) -> None:
    """Also to the administrator, to whom on_run_access and on_admin allow everything."""

    class Admin(Tenants):
        def on_run_access(self, context: str, run: Any, operation: str) -> None: ...

        def on_admin(self, context: str, operation: str) -> None: ...

    run_id = (await durably.trigger("ask", {}, labels={"org": "acme"})).id
    method, path = line.split()
    answer = await direct(auth=Admin()).request(method, path.format(run_id, KEY), headers=ACME, json={"target": "x"})
    assert answer.status_code == 403 and "of auth" in answer.json()["error"], answer.text
    run = await durably.get_run(run_id)
    assert run is not None and not run.paused
    assert (await direct(auth=Admin()).post("/runs/import", headers=ACME, json={})).status_code == 403


@pytest.mark.parametrize("line", HANDED)
async def test_a_run_of_others_is_none(direct: Direct, durably: Durably, line: str) -> None:
    run_id = (await durably.trigger("ask", {}, labels={"org": "acme"})).id
    marked = (await durably.trigger("ask", {}, labels={"org": "acme", "stays": "yes"})).id
    method, path = line.split()
    client = direct(auth=Movers())
    answer = await client.request(method, path.format(run_id, KEY), headers=GLOBEX, json={"target": "x"})
    assert answer.status_code == (409 if "decline" in path else 404), answer.text
    if "decline" not in path:
        answer = await client.request(method, path.format(marked, KEY), headers=ACME, json={"target": "x"})
        assert answer.status_code == 403 and "of what stays" in answer.text
    for one in (run_id, marked):
        run = await durably.get_run(one)
        assert run is not None and not run.paused


async def test_nobody_learns_of_the_runs_of_others_or_takes_them_back_by_importing(
    direct: Direct, durably: Durably, page: Durably
) -> None:
    """Also without a scope: who may not touch a run may not send one in its place, whatever became of it."""

    class Owners(Login):
        def on_run_access(self, context: str, run: Any, operation: str) -> None:
            if run.labels.get("org") != context:
                raise HTTPException(403, f"no {operation} for {context}")

        def on_import(self, context: str, run: TriggerRequest) -> None: ...

    client = direct(auth=Owners())
    document = await offered(page, labels={"org": "acme"})
    run_id, handover_id = document["run"]["id"], document["handover"]["id"]
    assert (await client.post("/runs/import", headers=ACME, json=document)).status_code == 200
    await page.confirm_handover(run_id, handover_id)
    back = await durably.offer_run(run_id, "page")
    await page.import_run(back.document)
    await durably.confirm_handover(run_id, back.handover_id)
    again = await page.offer_run(run_id, "the server", timeout=SECONDS)
    asked = {"runId": run_id, "handoverId": again.handover_id}
    for path, body, query in (("/runs/import", again.document, {}), ("/handover/decline", None, asked)):
        answer = await client.post(path, headers=GLOBEX, json=body, params=query)
        assert (answer.status_code, answer.json()["error"]) == (403, "no handover for globex"), path
    run = await durably.get_run(run_id)
    assert run is not None and run.status == "cancelled"
    assert (await client.post("/runs/import", headers=ACME, json=again.document)).status_code == 200


async def test_who_imports_gets_what_a_trigger_would_get(direct: Direct, durably: Durably, page: Durably) -> None:
    client = direct(auth=Movers())
    options: Any = {"idempotency_key": "k", "concurrency_key": "c", "labels": {"mine": "yes"}}
    document = await offered(page, **options)
    run_id = document["run"]["id"]
    for _ in range(2):
        assert (await client.post("/runs/import", headers=ACME, json=document)).status_code == 200
    run = await durably.get_run(run_id)
    assert run is not None and run.labels == {"org": "acme", "mine": "yes"}
    assert (run.idempotency_key, run.concurrency_key) == ('{"org":"acme"} k', '{"org":"acme"} c')
    # The same key asked for at this server is this run.
    asked = {"jobName": "ask", "input": {}, "idempotencyKey": "k"}
    assert (await client.post("/trigger", headers=ACME, json=asked)).json()["runId"] == run_id
    # Nobody else takes it, or its id, or comes with labels of others.
    answer = await client.post("/runs/import", headers=GLOBEX, json=document)
    assert answer.status_code == 409 and "that of another run" in answer.json()["error"]
    other = await offered(page, labels={"org": "acme"})
    assert (await client.post("/runs/import", headers=GLOBEX, json=other)).status_code == 403
    forbidden = await offered(page, input={"forbidden": True})
    answer = await client.post("/runs/import", headers=ACME, json=forbidden)
    assert (answer.status_code, answer.json()["error"]) == (403, "not that one")
    assert [one.id for one in await durably.get_runs()] == [run_id]
    # There and back and there again, its keys are made once.
    await page.confirm_handover(run_id, document["handover"]["id"])
    offer = await client.post("/handover/offer", params={"runId": run_id}, json={"target": "page"}, headers=ACME)
    await page.import_run(offer.json()["document"])
    gone = {"runId": run_id, "handoverId": offer.json()["handoverId"]}
    assert (await client.post("/handover/confirm", params=gone, headers=ACME)).status_code == 200
    again = await page.offer_run(run_id, "the server", timeout=SECONDS)
    assert (await client.post("/runs/import", headers=GLOBEX, json=again.document)).status_code == 409
    assert (await client.post("/runs/import", headers=ACME, json=again.document)).status_code == 200
    run = await durably.get_run(run_id)
    assert run is not None and run.idempotency_key == '{"org":"acme"} k' and run.is_active
