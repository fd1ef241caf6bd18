"""An executor on a PostgreSQL server on a bad day, and what a test asks the server itself."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import psycopg
import pytest

from durably_web.backends.postgres import PostgresExecutor
from durably_web.errors import StoreError, StoreUnavailable
from durably_web.store.batch import Batch, Rows, Statement
from tests.support.world import bounded

CREATE = Batch("write", (Statement("CREATE TABLE durably_test (id INTEGER PRIMARY KEY, value TEXT)"),))
INSERT = Statement("INSERT INTO durably_test (id) VALUES (?) ON CONFLICT DO NOTHING RETURNING id", (1,))
COUNT = Statement("SELECT count(*) FROM durably_test")
WRITE = Batch("write", (INSERT, COUNT))
READ = Batch("read", (COUNT, COUNT))

# Fails by a given code as often as asked for, whatever is rolled back.
FAILING = """
CREATE SEQUENCE {schema}.failures;
CREATE FUNCTION {schema}.fail(code text, times bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('{schema}.failures') <= times THEN RAISE 'no luck' USING ERRCODE = code; END IF;
    RETURN 1;
END $$
"""


class Scene:
    """An executor, and its time, which passes when it waits."""

    def __init__(self, url: str, durability: Any = "relaxed") -> None:
        self.time = 0.0
        self.pauses: list[float] = []
        self.url = url
        self.schema = f"case_{secrets.token_hex(6)}"
        self.executor = PostgresExecutor(
            f"{url or 'postgresql://'}?schema={self.schema}", durability, sleep=self._sleep, now=lambda: self.time
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)

    async def begin(self) -> None:
        await self.executor.open()
        await self.executor.run(CREATE)
        # Its schema was not there at first.
        self.pauses.clear()
        self.time = 0.0

    def another(self) -> PostgresExecutor:
        return PostgresExecutor(f"{self.url}?schema={self.schema}", "relaxed")

    async def fails(self, batch: Batch = WRITE, kind: type[StoreError] = StoreUnavailable) -> StoreError:
        with pytest.raises(kind) as caught:
            await bounded(self.executor.run(batch))
        assert type(caught.value) is kind
        return caught.value

    async def count(self) -> Rows:
        return (await self.executor.run(READ))[0]

    def sql(self, statement: Any, *params: Any) -> list[Any]:
        """Ask the server itself."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"SET search_path = {self.schema}")
            cursor = connection.execute(statement, params or None)
            return cursor.fetchall() if cursor.description else []

    def failing(self, code: str, times: int) -> Batch:
        """A batch that fails so often."""
        self.sql(FAILING.format(schema=self.schema))
        return Batch("write", (INSERT, Statement("SELECT fail(?, ?)", (code, times)), COUNT))


def through(url: str, port: int) -> str:
    """The address of the same database at another port, where a test stands between."""
    head, _, name = url.rpartition("/")
    return f"{head.rpartition(':')[0]}:{port}/{name}"


def terminate(scene: Scene, which: str = "true") -> int:
    """End the connections of the scene's database, but for the one that asks; how many there were."""
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    return len(scene.sql(sql + f"AND pid <> pg_backend_pid() AND ({which})"))
