"""The OpenAPI document is complete, and nothing that it allows, or forbids, breaks the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from durably_web import Durably
from durably_web.api.routes import ROUTES
from durably_web.server import Limits, QStash, create_app
from durably_web.server.doors import Door
from durably_web.server.openapi import document
from durably_web.server.processing import Processing
from durably_web.server.qstash import Receiving
from tests.server.conftest import JOBS
from tests.support.serving import SECONDS, served_in_thread

SECRET = "of the cron job"
QSTASH = QStash("https://app.example", current_signing_key="c" * 32, next_signing_key="n" * 32)
LIMITS = Limits(process_runs=5, process_seconds=2)
# Of the application that is served; only what it describes is taken from this one, whose engine is never opened.
DOORS: list[Door] = [
    Processing(Durably(":memory:"), SECRET, LIMITS),
    Receiving(Durably(":memory:"), QSTASH, LIMITS),
]
OF_DOORS = {("GET", "/process"), ("POST", "/process"), ("POST", "/qstash"), ("POST", "/qstash/{job}")}
DOCUMENT = document("", LIMITS, DOORS)
schema = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
STREAMS = ("/subscribe", "/runs/subscribe")
PROBES = ("/health/live", "/health/ready")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all examples: what one leaves behind is found by the next."""
    database = tmp_path_factory.mktemp("openapi") / "openapi.db"
    durably = Durably(str(database), jobs=JOBS, durability="relaxed")
    app = create_app(durably, limits=LIMITS, cron_secret=SECRET, qstash=QSTASH)
    with served_in_thread(app) as address:
        for name in ("echo", "ask", "fail"):
            httpx.post(f"{address}/trigger", json={"jobName": name}).raise_for_status()
        yield address


@schema.exclude(path=list(STREAMS)).parametrize()
@settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_nothing_breaks_the_server(case: Any, address: str) -> None:
    """No 500, whatever is sent; and what is answered is what the document says."""
    chosen = str((case.query or {}).get("runId", ""))
    if len(chosen) % 2:
        # Half of the examples are about runs that there are: otherwise all would end with a 404.
        runs = httpx.get(f"{address}/runs", params={"limit": 5}).json()
        case.query["runId"] = runs[len(chosen) % len(runs)]["id"] if runs else chosen
    if isinstance(case.body, dict) and "jobName" in case.body and len(str(case.body)) % 2:
        case.body["jobName"] = ("echo", "ask", "fail")[len(str(case.body)) % 3]
    if case.path == "/process" and len(str(case.query)) % 4:
        # Some of the examples are those of somebody who does not know it.
        case.headers["Authorization"] = f"Bearer {SECRET}"
    response = case.call(base_url=address, timeout=SECONDS)
    case.validate_response(response, checks=CHECKS)


def test_the_document_has_every_route() -> None:
    described = {(method.upper(), path) for path, one in DOCUMENT["paths"].items() for method in one}
    assert described == {*ROUTES, *(("GET", path) for path in (*STREAMS, *PROBES)), *OF_DOORS}
    [secret, signature] = DOCUMENT["components"]["securitySchemes"].values()
    assert secret["scheme"] == "bearer" and signature["name"] == "Upstash-Signature"
    ids = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z]+", one) for one in ids)


async def test_it_is_served(direct: Callable[..., httpx.AsyncClient]) -> None:
    answer = await direct().get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    described = answer.json()
    assert described["paths"].keys() == DOCUMENT["paths"].keys() - {path for _, path in OF_DOORS}
    assert "securitySchemes" not in described["components"]
    whole = await direct(limits=LIMITS, cron_secret=SECRET, qstash=QSTASH).get("/openapi.json")
    assert whole.json() == {**DOCUMENT, "servers": [{"url": "/"}]}
