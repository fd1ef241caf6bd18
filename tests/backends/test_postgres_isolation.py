"""Who writes at once on PostgreSQL keeps apart from the others in one way, whatever the defaults of their sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import psycopg
import pytest

from durably_web.backends.postgres import PostgresExecutor, locks
from durably_web.store.batch import Batch, Statement
from tests.support.postgres_scene import COUNT, WRITE, Scene
from tests.support.servers import PgBouncer, Postgres
from tests.support.world import bounded, until

ISOLATION = Statement("SELECT current_setting('transaction_isolation')")
DEFAULTS = ["read committed", "repeatable read", "serializable"]
WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"


@pytest.fixture(scope="module", params=DEFAULTS)
def database(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    url = postgres.create_database(f"default_transaction_isolation = '{request.param}'")
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["direct", "pooled"])
def way(request: pytest.FixtureRequest, database: str) -> str:
    """How the database is reached."""
    pooler: PgBouncer | None = request.getfixturevalue("pgbouncer") if request.param == "pooled" else None
    return database if pooler is None else pooler.url(database)


async def _isolations(url: str) -> list[str]:
    """Of a write, of a read of one statement, and of one of two."""
    executor = PostgresExecutor(url, "relaxed")
    await executor.open()
    found = []
    for mode, count in (("write", 1), ("read", 1), ("read", 2)):
        batch = Batch(mode, (ISOLATION,) * count)  # type: ignore[arg-type]
        # What comes again is prepared.
        [first, _, third] = [(await executor.run(batch))[0][0][0] for _ in range(3)]
        assert first == third
        found.append(str(first))
    await executor.close()
    return found


async def test_a_write_has_the_isolation_that_the_address_says(way: str) -> None:
    for more in ("", "?isolation=read-committed"):
        assert await _isolations(f"{way}{more}") == ["read committed", "read committed", "repeatable read"]
    assert (await _isolations(f"{way}?isolation=serializable"))[0] == "serializable"


async def test_a_write_waits_for_locks_unless_the_address_says_serializable(way: str, database: str) -> None:
    scene = Scene(way)
    scene.url = database
    await scene.begin()
    with psycopg.connect(database) as outsider:
        outsider.execute(f"SELECT {locks.alone(scene.schema)}")
        writing = asyncio.ensure_future(scene.executor.run(WRITE))
        await until(lambda: scene.sql(WAITING))
        free = PostgresExecutor(f"{way}?schema={scene.schema}&isolation=serializable", "relaxed")
        await free.open()
        assert await bounded(free.run(Batch("write", (COUNT,)))) == [[(0,)]]
        await free.close()
        assert not writing.done()
    assert await bounded(writing) == [[(1,)], [(1,)]]
    await scene.executor.close()


@pytest.mark.parametrize("default", DEFAULTS)
async def test_those_whose_sessions_begin_otherwise_wait_for_each_other(postgres: Postgres, default: str) -> None:
    url = postgres.create_database()
    options = quote("-c default_transaction_isolation=" + default.replace(" ", "\\ "))
    scene = Scene(url)
    await scene.begin()
    other = PostgresExecutor(f"{url}?schema={scene.schema}&options={options}", "relaxed")
    await other.open()
    with psycopg.connect(url) as outsider:
        outsider.execute(f"SELECT {locks.alone(scene.schema)}")
        both = [asyncio.ensure_future(executor.run(WRITE)) for executor in (scene.executor, other)]
        await until(lambda: len(scene.sql(WAITING)) == 2)
    assert sorted(str(found[0]) for found in await bounded(asyncio.gather(*both))) == ["[(1,)]", "[]"]
    for executor in (scene.executor, other):
        await executor.close()
    postgres.drop_database(url)
