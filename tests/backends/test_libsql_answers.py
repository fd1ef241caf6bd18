"""A libSQL server that says little in one answer: whatever is stored can be read, and no run holds up another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from durably_web.backends.libsql import LibsqlExecutor
from durably_web.engine import Durably
from durably_web.errors import ResponseTooLarge, StoreError
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store.batch import Batch, Statement
from scripts import databases
from tests.support import guarded, servers
from tests.support.servers import Sqld

TEXT = "x" * 15_000
STEPS = 12


@pytest.fixture(scope="module")
def brief() -> Iterator[Sqld]:
    """A server whose answers have a hundred kilobytes at most."""
    try:
        server = servers.sqld_server("--max-response-size", "100KB", where=guarded.memory())
    except databases.ServerMissing as missing:
        pytest.skip(str(missing))
    with closing(server):
        yield server


@job
async def small(step: Step, input: Any) -> str:
    return await step.run("one", lambda: "done")


@job
async def middling(step: Step, input: Any) -> int:
    """Ten of these are too large together."""
    first = await step.run("first", lambda: TEXT)
    return len(first) + len(await step.wait_for_signal("go"))


@pytest.fixture
def url(brief: Sqld) -> Iterator[str]:
    url = brief.namespace()
    yield url
    brief.drop_namespace(url)


async def test_a_run_with_more_than_an_answer_holds_up_no_other(url: str) -> None:
    failures = ["once"]
    called: list[int] = []

    def make(number: int) -> str:
        called.append(number)
        return TEXT

    @job
    async def large(step: Step, input: Any) -> int:
        found = [await step.run(f"step {number}", make, number) for number in range(STEPS)]
        if failures:
            raise RuntimeError(failures.pop())
        return sum(map(len, found))

    errors: list[Any] = []
    async with asyncio.timeout(60), Durably(url, jobs=[large, small], durability="relaxed") as durably:
        durably.on("worker:error", errors.append)
        run = await durably.trigger(large)
        await durably.wait_for_run(run.id)
        await durably.retry(run.id)
        innocent = await durably.trigger(small)
        assert await innocent.result() == "done" and await run.result() == STEPS * len(TEXT)
        assert called == list(range(STEPS)) and errors == []

        assert [len(step.output) for step in await durably.get_steps(run.id)] == [len(TEXT)] * STEPS
        events = [event async for event in durably.subscribe(run.id)]
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert (await durably.get_events(run.id)).events == events
        export = await durably.export_run(run.id)
        assert len(export["journal"]) == len(events)


async def test_runs_that_wait_together_all_go_on(url: str) -> None:
    async with asyncio.timeout(60):
        first = Durably(url, jobs=[middling], durability="relaxed")
        await first.migrate()
        handles = [await first.trigger(middling) for _ in range(10)]
        await first.process()
        for handle in handles:
            await first.signal(handle.id, "go", TEXT)
        await first.stop()
        async with Durably(url, jobs=[middling], durability="relaxed") as durably:
            assert [await durably.output_of(handle.id) for handle in handles] == [2 * len(TEXT)] * 10


async def test_a_list_of_runs_with_large_outputs(url: str) -> None:
    @job
    async def outputs(step: Step, input: Any) -> str:
        return TEXT

    async with asyncio.timeout(60), Durably(url, jobs=[outputs], durability="relaxed") as durably:
        handles = [await durably.trigger(outputs) for _ in range(10)]
        for handle in handles:
            await handle.result()
        newest_first = [handle.id for handle in reversed(handles)]
        assert [run.id for run in await durably.get_runs()] == newest_first
        assert [run.id for run in await durably.get_runs(limit=8, offset=1)] == newest_first[1:9]


async def test_a_server_as_it_comes_answers_with_every_value_that_it_stores(sqld: Sqld) -> None:
    """What a row may have is half of what an answer may have: with its defaults no value is too large to be read."""
    url = sqld.namespace()
    executor = LibsqlExecutor(url, "relaxed")
    await executor.open()
    await executor.run(Batch("write", (Statement("CREATE TABLE large (id INTEGER PRIMARY KEY, value TEXT)"),)))
    insert: Any = "INSERT OR REPLACE INTO large VALUES (1, ?)"
    stored, refused = 4_000_000, 12_000_000
    while refused - stored > 100_000:
        size = (stored + refused) // 2
        try:
            await executor.run(Batch("write", (Statement(insert, ("x" * size,)),)))
        except StoreError as error:
            assert not isinstance(error, ResponseTooLarge)
            refused = size
        else:
            stored = size
            [[[found]]] = await executor.run(Batch("read", (Statement("SELECT value FROM large"),)))
            assert found == "x" * size
    assert stored > 4_000_000, "it was stored, and read"
    await executor.close()
    sqld.drop_namespace(url)
