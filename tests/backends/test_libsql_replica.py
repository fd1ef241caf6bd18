"""A primary and a replica of libSQL: what was written or read is never missing from what is read next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from durably_web.backends.libsql import LibsqlExecutor
from durably_web.store.batch import Batch, Statement
from scripts import databases
from tests.support.servers import Sqld, sqld_server

CREATE = Batch("write", (Statement("CREATE TABLE IF NOT EXISTS durably_test (id INTEGER PRIMARY KEY)"),))
COUNT = Batch("read", (Statement("SELECT count(*) FROM durably_test"),) * 2)


@pytest.fixture(scope="module")
def primary() -> Iterator[Sqld]:
    """Of one's own: a namespace that both have is one that everybody shares."""
    try:
        server = sqld_server()
    except databases.ServerMissing as missing:
        pytest.skip(str(missing))
    with closing(server):
        yield server


@pytest.fixture(scope="module")
def replica(primary: Sqld) -> Iterator[Sqld]:
    with closing(primary.replica()) as server:
        yield server


def _insert(number: int) -> Batch:
    statement = Statement("INSERT INTO durably_test VALUES (?) ON CONFLICT DO NOTHING", (number,))
    return Batch("write", (statement, statement))


async def test_reads_at_a_replica_are_as_new_as_what_is_known(primary: Sqld, replica: Sqld) -> None:
    here, there = LibsqlExecutor(replica.url, "relaxed"), LibsqlExecutor(primary.url, "relaxed")
    async with asyncio.timeout(100):
        await here.open()
        await there.open()
        await here.run(CREATE)
        for number in range(1, 61):
            await here.run(_insert(number))
            assert (await here.run(COUNT))[0] == [(number,)]
        # What another process was told counts for it, whichever server it asks.
        assert (await there.run(COUNT))[0] == [(60,)]
        await here.close()
        await there.close()


async def test_a_primary_that_was_killed_counts_anew_and_nothing_is_lost(primary: Sqld, replica: Sqld) -> None:
    here = LibsqlExecutor(replica.url, "relaxed")
    async with asyncio.timeout(100):
        await here.open()
        await here.run(CREATE)
        before = (await here.run(COUNT))[0][0][0]
        assert isinstance(before, int)
        primary.kill()
        writing = asyncio.ensure_future(here.run(_insert(1000)))
        await asyncio.to_thread(primary.start)
        await writing
        for number in range(1001, 1011):
            await here.run(_insert(number))
        assert await _count(primary.url) == before + 11
        await here.close()


async def _count(url: str) -> int:
    """What the primary itself has."""
    executor = LibsqlExecutor(url, "relaxed")
    await executor.open()
    try:
        found = (await executor.run(COUNT))[0][0][0]
        assert isinstance(found, int)
        return found
    finally:
        await executor.close()
