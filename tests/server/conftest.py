"""Engines with a few jobs, and clients of the applications that they are served by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably_web import Durably, Step, job
from durably_web.server import create_app
from tests.support.serving import served


@job
async def echo(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    await step.run("first", lambda: 1)
    step.log.info("half way", n=1)
    await step.run("second", lambda: 2)
    return input


@job
async def ask(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("answer")


@job
async def fail(step: Step, input: dict[str, Any]) -> None:
    raise ValueError("no such thing")


@job
async def count(step: Step, input: dict[str, Any]) -> int:
    for number in range(input["to"]):
        step.progress(number + 1, total=input["to"])
        await asyncio.sleep(0)
    return int(input["to"])


@job
async def parent(step: Step, input: dict[str, Any]) -> Any:
    return await step.call(echo, input)


JOBS = (echo, ask, fail, count, parent)

Serve = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def durably(tmp_path: Path) -> AsyncIterator[Durably]:
    """An engine that executes what it is told to."""
    async with Durably(str(tmp_path / "server.db"), jobs=JOBS, durability="relaxed") as durably:
        yield durably


@pytest.fixture
async def serve(durably: Durably) -> AsyncIterator[Serve]:
    """Serve an engine with the options of `create_app`, behind a socket; a client of it."""
    async with AsyncExitStack() as stack:

        async def serve(engine: Durably = durably, **options: Any) -> httpx.AsyncClient:
            address = await stack.enter_async_context(served(create_app(engine, **options)))
            return await stack.enter_async_context(httpx.AsyncClient(base_url=address))

        yield serve


@pytest.fixture
async def direct(durably: Durably) -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """The same without a socket, for answers that are no streams."""
    async with AsyncExitStack() as stack:
        opened = []

        def direct(engine: Durably = durably, **options: Any) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(create_app(engine, **options))
            opened.append(httpx.AsyncClient(transport=transport, base_url="http://server"))
            stack.push_async_callback(opened[-1].aclose)
            return opened[-1]

        yield direct
