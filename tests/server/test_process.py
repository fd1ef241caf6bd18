"""`/process`: who may call it, what it takes, and that a deployment needs nothing else to execute its runs."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount

from durably_web import Durably, ManualClock, Step, job
from durably_web.server import Limits, create_app, lifespan
from tests.server.conftest import JOBS
from tests.support.serving import SECONDS, served

SECRET = "a secret that only the cron job knows"
BEARER = {"Authorization": f"Bearer {SECRET}"}

Direct = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def durably(tmp_path: Path) -> AsyncIterator[Durably]:
    """An engine that nobody starts."""
    engine = Durably(str(tmp_path / "functions.db"), jobs=JOBS, durability="relaxed")
    await engine.migrate()
    yield engine
    await engine.stop()


async def trigger(client: httpx.AsyncClient, name: str = "echo") -> str:
    answer = await client.post("/trigger", json={"jobName": name})
    return str(answer.raise_for_status().json()["runId"])


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_call_executes_what_is_due(direct: Direct, durably: Durably, method: str) -> None:
    client = direct(cron_secret=SECRET)
    run_ids = [await trigger(client) for _ in range(3)]
    await trigger(client, "ask")
    answer = await client.request(method, "/process", headers=BEARER)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"processed": 4, "due": 0, "leased": 0, "later": 0, "nextAt": None}
    assert answer.headers["cache-control"] == "no-store"
    for run_id in run_ids:
        run = await durably.get_run(run_id)
        assert run is not None and run.status == "completed"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        SECRET,
        f"Basic {SECRET}",
        f"Bearer {SECRET[:-1]}",
        f"Bearer {SECRET}x",
        f"Bearer {SECRET.upper()}",
        "Bearer ünknown",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_without_the_secret_nothing_happens(
    direct: Direct, durably: Durably, method: str, authorization: str | None
) -> None:
    client = direct(cron_secret=SECRET)
    run_id = await trigger(client)
    headers = {} if authorization is None else {b"Authorization": authorization.encode()}
    answer = await client.request(method, "/process?maxMs=nonsense", headers=headers)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    run = await durably.get_run(run_id)
    assert run is not None and run.status == "pending"


async def test_without_a_secret_there_is_no_such_route(direct: Direct) -> None:
    client = direct()
    for headers in ({}, BEARER, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
        for method in ("GET", "POST"):
            assert (await client.request(method, "/process", headers=headers)).status_code == 404
    assert "/process" not in (await client.get("/openapi.json")).json()["paths"]


@pytest.mark.parametrize("secret", ["", " ", "secret\n", " secret"])
async def test_a_secret_that_is_none_is_refused(durably: Durably, secret: str) -> None:
    with pytest.raises(ValueError, match="cron_secret"):
        create_app(durably, cron_secret=secret)


async def test_the_secret_is_compared_in_constant_time(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return real(given, known)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    client = direct(cron_secret=SECRET)
    assert (await client.get("/process", headers={"Authorization": "Bearer guess"})).status_code == 401
    assert (await client.get("/process", headers=BEARER)).status_code == 200
    assert compared == [(b"guess", SECRET.encode()), (SECRET.encode(), SECRET.encode())]


async def test_a_secret_may_have_any_letters(direct: Direct) -> None:
    client = direct(cron_secret="Schlüssel")
    assert (await client.get("/process", headers={b"Authorization": "bearer Schlüssel".encode()})).status_code == 200


async def test_it_does_not_ask_auth(direct: Direct, durably: Durably) -> None:
    """The secret is for nothing else, and who may do everything else may not do this."""

    class Nobody:
        def authenticate(self, request: Any) -> None:
            raise HTTPException(401, "nobody")

    class Everybody:
        def authenticate(self, request: Any) -> None: ...

        def on_admin(self, context: None, operation: str) -> None: ...

    client = direct(auth=Nobody(), cron_secret=SECRET)
    assert (await client.get("/process", headers=BEARER)).status_code == 200
    assert (await client.get("/runs", headers=BEARER)).status_code == 401
    client = direct(auth=Everybody(), cron_secret=SECRET)
    assert (await client.get("/runs")).status_code == 200
    assert (await client.get("/process")).status_code == 401


async def test_limits_of_the_call_and_of_the_author(direct: Direct) -> None:
    client = direct(cron_secret=SECRET, limits=Limits(process_runs=3, process_seconds=20))
    for _ in range(8):
        await trigger(client)

    async def call(path: str = "/process", method: str = "POST", **options: Any) -> Any:
        answer = await client.request(method, path, headers=BEARER, **options)
        return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json()["error"])

    assert (await call("/process?maxRuns=1"))["processed"] == 1
    assert (await call("/process?maxRuns=1", "GET"))["processed"] == 1
    assert (await call(json={"maxRuns": 1, "maxMs": 5000}))["processed"] == 1
    assert (await call(json={"maxRuns": 0}))["processed"] == 0
    assert (await call(json={"maxMs": 0}))["processed"] == 0
    left = await call()
    assert (left["processed"], left["due"]) == (3, 2), "the author's limit, where none is given"
    assert left["nextAt"] is not None
    refused: list[tuple[str, Any]] = [
        ("/process?maxRuns=4", None),
        ("/process?maxMs=20001", None),
        ("/process", {"maxRuns": 4}),
        ("/process?maxRuns=-1", None),
        ("/process?maxRuns=many", None),
        ("/process?maxRuns=1&maxRuns=2", None),
        ("/process", {"maxMs": 0.5}),
        ("/process", {"maxMs": True}),
        ("/process", []),
        ("/process?maxRuns=1", {"maxRuns": 1}),
        ("/process?max_seconds=1", None),
        ("/process", {"runs": 1}),
    ]
    for path, body in refused:
        status, error = await call(path, json=body) if body is not None else await call(path)
        assert status == 400 and error, (path, body)
    assert (await client.head("/process", headers=BEARER)).status_code == 405
    assert (await client.delete("/process", headers=BEARER)).status_code == 405
    assert (await call())["processed"] == 2


async def test_at_its_time_a_call_gives_back_what_it_has_not_finished(tmp_path: Path, direct: Direct) -> None:
    clock = ManualClock()

    async def second() -> None:
        clock.advance(1)

    @job
    async def endless(step: Step, input: dict[str, Any]) -> None:
        while True:
            await step.run("again", second)

    engine = Durably(str(tmp_path / "endless.db"), jobs=[endless], clock=clock)
    await engine.migrate()
    client = direct(engine, cron_secret=SECRET)
    run_id = await trigger(client, "endless")
    for calls in (1, 2):
        answer = (await client.post("/process?maxMs=5000", headers=BEARER)).json()
        assert (answer["processed"], answer["due"], answer["leased"]) == (1, 1, 0)
        run = await engine.get_run(run_id)
        assert run is not None and (run.status, run.attempt) == ("pending", calls)
        assert 4 * calls <= len(await engine.get_steps(run_id)) <= 6 * calls
    await engine.stop()


async def test_calls_at_the_same_time_are_harmless(direct: Direct, durably: Durably) -> None:
    client = direct(cron_secret=SECRET)
    for _ in range(20):
        await trigger(client)
    answers = await asyncio.gather(*(client.get("/process", headers=BEARER) for _ in range(4)))
    assert sum(answer.json()["processed"] for answer in answers) == 20
    runs = await durably.get_runs()
    assert {run.status for run in runs} == {"completed"} and {run.attempt for run in runs} == {1}


async def test_on_request_is_called_for_who_has_the_secret(direct: Direct) -> None:
    seen: list[str] = []

    def refuse(request: Any) -> None:
        seen.append(request.method)
        raise HTTPException(429, "too often")

    client = direct(cron_secret=SECRET, on_request=refuse)
    assert (await client.get("/process")).status_code == 401 and not seen
    assert (await client.get("/process", headers=BEARER)).status_code == 429 and seen == ["GET"]


async def test_a_database_that_is_not_there_is_a_503(tmp_path: Path) -> None:
    app = create_app(Durably(str(tmp_path / "closed.db"), jobs=JOBS), cron_secret=SECRET)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        assert (await client.get("/process", headers=BEARER)).status_code == 503


async def test_a_function_that_lives_for_one_request(tmp_path: Path) -> None:
    """Each request is a process of its own: one asks, the others are those of a cron job. No worker is anywhere."""
    database = str(tmp_path / "functions.db")

    def function() -> Any:
        durably = Durably(database, jobs=JOBS, durability="relaxed")
        app = create_app(durably, cron_secret=SECRET)
        return Starlette(routes=[Mount("/api", app)], lifespan=lifespan(durably, work=False))

    async def invoke(method: str, path: str, **options: Any) -> Any:
        tasks = asyncio.all_tasks()
        async with (
            served(function(), lifespan="on") as address,
            httpx.AsyncClient(base_url=f"{address}/api", timeout=SECONDS) as client,
        ):
            answer = await client.request(method, path, **options)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= tasks, "nothing is left of the function"
        return answer.raise_for_status().json()

    run_id = (await invoke("POST", "/trigger", json={"jobName": "parent"}))["runId"]
    assert (await invoke("GET", f"/run?runId={run_id}"))["status"] == "pending"
    statuses = []
    for _ in range(3):
        await invoke("GET", "/process?maxRuns=1", headers=BEARER)
        statuses.append((await invoke("GET", f"/run?runId={run_id}"))["status"])
    assert statuses == ["waiting", "pending", "completed"], "its child is a run as well"
