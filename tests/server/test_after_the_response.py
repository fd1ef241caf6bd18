"""`wait_until` in a route: the client has its answer, the work goes on, and a stop waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from durably_web import Durably, Event, shutting_down
from durably_web.server import lifespan
from tests.server.conftest import JOBS, echo
from tests.support.serving import SECONDS, served


async def test_the_answer_comes_first_and_the_stop_last(tmp_path: Path) -> None:
    durably = Durably(str(tmp_path / "after.db"), jobs=JOBS, durability="relaxed")
    app = FastAPI(lifespan=lifespan(durably, work=False))
    answered, stopping = asyncio.Event(), asyncio.Event()
    asked: list[int] = []
    errors: list[Any] = []
    reasons: list[Any] = []

    def hear_of_stop(event: Event) -> None:
        reasons.append(event.reason)
        stopping.set()

    durably.on("worker:error", errors.append)
    durably.on("worker:shutdown", hear_of_stop)

    async def count(n: int) -> None:
        await answered.wait()
        await stopping.wait()
        assert shutting_down()
        asked.append(n)
        # The database is open until the last of it is over.
        await durably.trigger(echo, {"n": n})

    async def breaks() -> None:
        await answered.wait()
        raise ConnectionError("the mail server is gone")

    @app.post("/order")
    async def order(n: int) -> dict[str, int]:
        durably.wait_until(count(n))
        durably.wait_until(breaks())
        return {"accepted": n}

    async with served(app, lifespan="on") as address, httpx.AsyncClient(base_url=address, timeout=SECONDS) as client:
        for n in (1, 2):
            assert (await client.post("/order", params={"n": n})).json() == {"accepted": n}
        assert asked == [] and errors == [], "nothing of it was waited for"
        answered.set()
    assert sorted(asked) == [1, 2] and reasons == ["stop"]
    assert [(event.error, event.run_id) for event in errors] == [("ConnectionError: the mail server is gone", None)] * 2
    assert all("background work" in str(event.context) and "breaks" in str(event.context) for event in errors)
    await durably.migrate()
    assert (await durably.stats()).by_status == {"pending": 2}
    await durably.stop()


async def test_what_outlasts_the_stop_is_cancelled_and_told(tmp_path: Path) -> None:
    durably = Durably(str(tmp_path / "after.db"), durability="relaxed")
    app = FastAPI(lifespan=lifespan(durably, work=False, stop_timeout=0.01))
    errors: list[Any] = []
    durably.on("worker:error", errors.append)

    async def endless() -> None:
        await asyncio.Event().wait()

    @app.post("/order")
    async def order() -> None:
        durably.wait_until(endless())

    async with served(app, lifespan="on") as address, httpx.AsyncClient(base_url=address, timeout=SECONDS) as client:
        assert (await client.post("/order")).status_code == 200
    [event] = errors
    assert event.context == "stopping" and "endless" in event.error and "is cancelled" in event.error
