"""The application in others: below a path, with their lifespan, in the frameworks that it is made for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from litestar import Litestar, asgi
from starlette.applications import Starlette
from starlette.routing import Mount

from durably_web import Durably, Step, job
from durably_web.server import create_app, lifespan
from tests.server.conftest import JOBS
from tests.support.serving import SECONDS, served, stream

Framework = Callable[..., Any]


def in_starlette(durably: Durably, path: str, **options: Any) -> Any:
    return Starlette(routes=[Mount(path, create_app(durably))], lifespan=lifespan(durably, **options))


def in_fastapi(durably: Durably, path: str, **options: Any) -> Any:
    app = FastAPI(lifespan=lifespan(durably, **options))
    app.mount(path, create_app(durably))
    return app


def in_litestar(durably: Durably, path: str, **options: Any) -> Any:
    mounted = asgi(path, is_mount=True, copy_scope=True)(create_app(durably))
    return Litestar([mounted], lifespan=[lifespan(durably, **options)], openapi_config=None)


def alone(durably: Durably, path: str, **options: Any) -> Any:
    """Not mounted: then it opens the engine by itself."""
    return create_app(durably, **options)


FRAMEWORKS = pytest.mark.parametrize("framework", [in_starlette, in_fastapi, in_litestar, alone])


@asynccontextmanager
async def client_of(framework: Framework, durably: Durably, **options: Any) -> Any:
    path = "" if framework is alone else "/api/durably"
    async with (
        served(framework(durably, path, **options), lifespan="on") as address,
        httpx.AsyncClient(base_url=f"{address}{path}") as client,
    ):
        yield client


@FRAMEWORKS
async def test_from_a_trigger_to_the_end_of_its_stream(framework: Framework, tmp_path: Path) -> None:
    durably = Durably(str(tmp_path / "mounted.db"), jobs=JOBS)
    async with client_of(framework, durably) as client:
        made = (await client.post("/trigger", json={"jobName": "echo", "input": {"n": 1}})).json()
        async with stream(client, f"/subscribe?runId={made['runId']}") as events:
            await events.connected()
            assert (await events.rest())[-1].data["output"] == {"n": 1}
        [run] = (await client.get("/runs", params={"jobName": "echo", "status": "completed"})).json()
        assert run["id"] == made["runId"]
        missing = await client.get("/nothing/at/all")
        assert missing.status_code == 404 and missing.json()["error"]
        described = (await client.get("/openapi.json")).json()
        assert described["servers"] == [{"url": client.base_url.path.rstrip("/") or "/"}]
        assert (await client.get("/health")).status_code == 200
    # With the application, the engine has stopped.
    again = Durably(str(tmp_path / "mounted.db"), jobs=JOBS)
    await again.migrate()
    assert [run.status for run in await again.get_runs()] == ["completed"]
    await again.stop()
    with pytest.raises(Exception, match="is not open"):
        await durably.get_runs()


@FRAMEWORKS
async def test_a_process_that_only_asks(framework: Framework, tmp_path: Path) -> None:
    """Triggers and streams are here, and the worker is another engine."""
    asking = Durably(str(tmp_path / "shared.db"), jobs=JOBS)
    async with client_of(framework, asking, work=False) as client:
        run_id = (await client.post("/trigger", json={"jobName": "echo"})).json()["runId"]
        async with stream(client, f"/subscribe?runId={run_id}") as events:
            await events.connected()
            first = await events.next()
            assert first is not None and first.data["type"] == "run:trigger"
            assert len(await asking.get_runs(status="pending")) == 1
            async with Durably(str(tmp_path / "shared.db"), jobs=JOBS) as working:
                await working.wait_for_run(run_id, timeout=SECONDS)
                assert (await events.rest())[-1].data["type"] == "run:complete"


async def test_a_stop_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    """For a step that never ends."""
    begun = asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    @job
    async def hangs(step: Step, input: dict[str, Any]) -> None:
        await step.run("endless", endless)

    durably = Durably(str(tmp_path / "hangs.db"), jobs=[hangs])
    async with asyncio.timeout(SECONDS):
        async with lifespan(durably, stop_timeout=0.01)():
            await durably.trigger(hangs)
            await begun.wait()


async def test_a_mounted_application_without_a_lifespan_says_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    durably = Durably(str(tmp_path / "closed.db"), jobs=JOBS)
    app = Starlette(routes=[Mount("/api", create_app(durably))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        answer = await client.get("/api/health")
    assert answer.status_code == 503
    assert "is not open" in caplog.text
