"""Health and metrics of a server: who may ask, and what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount

from durably_web import Durably, health
from durably_web.errors import StorageFull, StoreUnavailable
from durably_web.server import create_app
from durably_web.server.health import watching_app
from durably_web.store.batch import Batch, Rows
from tests.support.backends import SqliteMemory
from tests.support.executors import Wrapper
from tests.support.world import bounded

OK = (200, {"status": "ok"})
UNAVAILABLE = (503, {"status": "unavailable"})

Direct = Callable[..., httpx.AsyncClient]


class Nobody:
    def authenticate(self, request: Request) -> None:
        raise HTTPException(401, "who are you?")


class Somebody:
    """Lets everybody in, and to the metrics those who say that they are an admin."""

    def authenticate(self, request: Request) -> str:
        return request.headers.get("x-name", "")

    def on_admin(self, context: str, operation: str) -> None:
        if (context, operation) != ("admin", "metrics"):
            raise HTTPException(403, "no")


class Breaking(Wrapper):
    """A database that goes away, or does not answer."""

    error: Exception | None = None
    answers: asyncio.Event | None = None

    async def run(self, batch: Batch) -> list[Rows]:
        if self.answers is not None:
            await self.answers.wait()
        if self.error is not None:
            raise self.error
        return await super().run(batch)


async def told(client: httpx.AsyncClient, path: str) -> tuple[int, Any]:
    answer = await client.get(path)
    return answer.status_code, answer.json()


async def test_both_are_answered_without_auth_and_say_nothing_but_their_status(direct: Direct) -> None:
    client = direct(auth=Nobody())
    for path in ("/health/live", "/health/live/", "/health/ready", "/health/ready/"):
        assert await told(client, path) == OK, path
        answer = await client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert answer.headers["cache-control"] == "no-store"
    # What there was before is as guarded as it was.
    assert (await client.get("/health")).status_code == 401
    assert (await client.post("/health/live")).status_code == 405


async def test_below_a_mount(durably: Durably) -> None:
    app = Starlette(routes=[Mount("/api/durably", create_app(durably))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        assert await told(client, "/api/durably/health/ready") == OK


@pytest.fixture
async def breaking(direct: Direct) -> Any:
    backend = SqliteMemory()
    executor = Breaking(backend.connect())
    durably = Durably(executor, polling_interval=3600, heartbeat_interval=3600, stale_threshold=7200)
    yield durably, executor, direct(durably)
    executor.error = None
    await bounded(durably.stop())
    await backend.close()


async def test_an_engine_is_ready_from_its_start_to_its_stop(breaking: Any) -> None:
    durably, _, client = breaking
    assert await told(client, "/health/ready") == UNAVAILABLE
    assert await told(client, "/health/live") == OK
    await durably.init()
    assert await told(client, "/health/ready") == OK
    # Of whoever is about to leave, others are told before it begins.
    health.leave(durably)
    assert await told(client, "/health/ready") == UNAVAILABLE
    assert await told(client, "/health/live") == OK
    assert durably.announce_stop("stop") is None
    await durably.stop()
    assert (await health.ready(durably)).reason == "it stops"
    assert await told(client, "/health/live") == OK


async def test_during_a_stop_it_is_alive_and_not_ready(durably: Durably, direct: Direct) -> None:
    client = direct()
    seen: list[Any] = []

    async def look() -> None:
        seen.extend([await told(client, "/health/ready"), await told(client, "/health/live")])

    durably.on("worker:shutdown", lambda event: look())
    await durably.stop()
    assert seen == [UNAVAILABLE, OK]


@pytest.mark.parametrize("error", [StoreUnavailable("/secret/path is gone"), RuntimeError("a bug")])
async def test_without_its_database_it_is_alive_and_not_ready(
    breaking: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    durably, executor, client = breaking
    caplog.set_level("INFO", "durably_web.health")
    await durably.init()
    executor.error = error
    for _ in range(3):
        assert await told(client, "/health/ready") == UNAVAILABLE
        assert await told(client, "/health/live") == OK
    executor.error = None
    assert await told(client, "/health/ready") == OK
    # Told once, and not for each probe; with the reason, which no stranger is told.
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"not ready: {type(error).__name__}: {error}", "ready again"]


async def test_a_database_that_does_not_answer_is_not_waited_for(breaking: Any) -> None:
    durably, executor, _ = breaking
    await durably.init()
    executor.answers = asyncio.Event()
    verdict = await bounded(health.ready(durably, timeout=0.01))
    executor.answers.set()
    assert not verdict.ok and "has not answered within 0.01 s" in verdict.reason


async def test_without_room_it_is_not_ready(breaking: Any) -> None:
    durably, _, client = breaking
    await durably.init()
    room = durably._environment.store.room

    async def full() -> None:
        raise StorageFull("no room")

    room.lack(StorageFull("no room"), full, lambda error: None)
    assert await told(client, "/health/ready") == UNAVAILABLE
    assert await told(client, "/health/live") == OK


async def test_a_worker_that_has_ended_by_itself_is_not_alive(breaking: Any) -> None:
    """It catches what can be caught; what cannot is a cancellation from outside."""
    durably, _, client = breaking
    await durably.init()
    loop = durably._worker._loop
    loop.cancel()
    await asyncio.wait([loop])
    assert await told(client, "/health/live") == UNAVAILABLE
    assert await told(client, "/health/ready") == UNAVAILABLE
    durably._worker._loop = None


async def test_a_newer_database_makes_it_unready_and_not_dead(durably: Durably, direct: Direct) -> None:
    client = direct()
    durably._store._refuse(99)
    assert await told(client, "/health/ready") == UNAVAILABLE
    assert await told(client, "/health/live") == OK


# -- metrics -----------------------------------------------------------------------------------------------


def counted(text: str) -> dict[str, float]:
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


async def test_metrics_are_there_when_they_are_asked_for(durably: Durably, direct: Direct) -> None:
    assert (await direct().get("/metrics")).status_code == 404
    client = direct(metrics=True)
    handle = await durably.trigger("echo", {})
    await bounded(handle.result())
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert counted(answer.text)["durably_database_up"] == 1
    assert 'durably_runs_ended_total{job="echo",status="completed"} 1.0' in answer.text


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer", 401),
        ("Basic c2VjcmV0", 401),
        ("secret", 401),
        ("Bearer secreté", 401),
        ("Bearer secret", 200),
        ("bearer secret", 200),
    ],
)
@pytest.mark.parametrize("auth", [None, Nobody()])
async def test_with_a_token_they_are_for_who_knows_it(
    direct: Direct, auth: object, header: str | None, status: int
) -> None:
    client = direct(auth=auth, metrics_token="secret")
    headers = [] if header is None else [(b"Authorization", header.encode())]
    answer = await client.get("/metrics", headers=headers)
    assert answer.status_code == status
    assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)
    assert ("durably_" in answer.text) == (status == 200)


async def test_a_token_may_have_any_letters(direct: Direct) -> None:
    client = direct(metrics_token="Schlüssel")
    assert (await client.get("/metrics", headers={b"Authorization": "Bearer Schlüssel".encode()})).status_code == 200
    assert (await client.get("/metrics", headers={b"Authorization": b"Bearer Schlussel"})).status_code == 401


@pytest.mark.parametrize("token", ["", "  ", "secret\n", " secret"])
def test_a_token_that_was_forgotten_is_refused(durably_of_nobody: Durably, token: str) -> None:
    with pytest.raises(ValueError, match="metrics_token is empty"):
        create_app(durably_of_nobody, metrics_token=token)


@pytest.fixture
def durably_of_nobody() -> Durably:
    return Durably(":memory:")


async def test_with_auth_and_without_a_token_they_are_for_admins(direct: Direct) -> None:
    assert (await direct(auth=Nobody(), metrics=True).get("/metrics")).status_code == 401

    class Everybody:
        def authenticate(self, request: Request) -> None: ...

    # Nobody was named who may.
    assert (await direct(auth=Everybody(), metrics=True).get("/metrics")).status_code == 403
    client = direct(auth=Somebody(), metrics=True)
    assert (await client.get("/metrics", headers={"X-Name": "user"})).status_code == 403
    assert (await client.get("/metrics", headers={"X-Name": "admin"})).status_code == 200


async def test_without_the_extra_the_port_says_what_to_install() -> None:
    probes = health.EngineProbes(Durably(":memory:"))
    transport = httpx.ASGITransport(watching_app(probes))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        answer = await client.get("/metrics")
        assert answer.status_code == 501 and "pip install 'durably-web[prometheus]'" in answer.text
        assert await told(client, "/health/live") == OK
        assert await told(client, "/health/ready") == UNAVAILABLE
        assert (await client.get("/runs")).status_code == 404, "nothing else is answered at it"
