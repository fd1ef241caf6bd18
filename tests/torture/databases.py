"""The databases that are tortured: where they are, how they are killed, and whether they are whole afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from durably_web import SystemClock
from durably_web.backends import open_executor
from durably_web.store.batch import Batch, Executor, Rows, Statement
from durably_web.store.store import Store
from tests.support import servers
from tests.torture.plan import Durability

# The invariants are asked for the whole journal in one answer.
SQLD = ("--max-response-size", "1GB")


class Server(Protocol):
    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Database:
    """`url` leads straight to it. One with a server has an `address`, which a proxy can stand in front of."""

    def __init__(self, name: str, url: str, server: Server | None = None) -> None:
        self.name = name
        self.url = url
        self.server = server
        parts = urlsplit(url)
        self.address = None if server is None else (parts.hostname or "", parts.port or 0)

    async def damages(self, executor: Executor) -> list[str]:
        """What is wrong with the database itself, apart from what is in it. Nobody else uses it meanwhile."""
        raise NotImplementedError


class LikeSqlite(Database):
    async def damages(self, executor: Executor) -> list[str]:
        integrity = await ask(executor, "PRAGMA integrity_check")
        found = [f"integrity_check: {row}" for row in integrity if row != ("ok",)]
        # The schema is that of a new database, and nothing else.
        sql = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
        async with migrated(":memory:") as fresh:
            return found + [f"schema: {row}" for row in {*await ask(fresh, sql)} ^ {*await ask(executor, sql)}]


class Postgres(Database):
    server: servers.Postgres

    async def damages(self, executor: Executor) -> list[str]:
        from tests.torture.postgres import damages, schema

        fresh = self.server.create_database()
        async with migrated(fresh):
            return damages(self.url) + [f"schema: {line}" for line in schema(fresh) ^ schema(self.url)]


@contextlib.asynccontextmanager
async def migrated(url: str) -> AsyncIterator[Executor]:
    """A database that nobody has used."""
    executor = open_executor(url, "relaxed")
    store = Store(executor, SystemClock())
    await store.open()
    yield executor
    await store.close()


async def ask(executor: Executor, sql: str, *params: str | int) -> Rows:
    [rows] = await executor.run(Batch("read", (Statement(sql, params),)))
    return rows


def through(url: str, port: int) -> str:
    """The same database, through a proxy on the loopback."""
    parts = urlsplit(url)
    who, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{who}{at}127.0.0.1:{port}").geturl()


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Database]:
    yield LikeSqlite("sqlite", str(folder / "app.db"))


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Database]:
    with contextlib.closing(servers.postgres_server()) as server:
        yield Postgres("postgres", server.create_database(), server)


@contextlib.contextmanager
def pgbouncer(folder: Path) -> Iterator[Database]:
    with (
        contextlib.closing(servers.postgres_server()) as server,
        contextlib.closing(servers.pgbouncer(server)) as before,
    ):
        yield Postgres("pgbouncer", before.url(server.create_database()), server)


@contextlib.contextmanager
def libsql(folder: Path) -> Iterator[Database]:
    with contextlib.closing(servers.sqld_server(*SQLD)) as server:
        yield LikeSqlite("libsql", server.url, server)


BACKENDS: dict[str, Callable[[Path], AbstractContextManager[Database]]] = {
    "sqlite": sqlite,
    "postgres": postgres,
    "pgbouncer": pgbouncer,
    "libsql": libsql,
}
"""Each begins what it needs, and ends it."""

DURABILITY: dict[str, Durability] = {"sqlite": "relaxed", "postgres": "full", "pgbouncer": "full", "libsql": "relaxed"}
"""With less, a PostgreSQL that is killed forgets what it has said. SQLite does not; a libSQL server decides itself."""
