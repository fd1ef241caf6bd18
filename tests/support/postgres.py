"""A database on a PostgreSQL server, as the contract suites ask for one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from durably_web.backends.postgres import PostgresExecutor
from durably_web.store.batch import Executor
from tests.contract import Capability
from tests.support.executors import Remote


class Postgres:
    """One of the schemas of a server's database, and as many executors on it as asked for."""

    # Others are woken, but by a notice that takes its way through sockets, and no turn of a loop: the tests of failures
    # wait for one.
    has: frozenset[Capability] = frozenset({"workers", "threads", "processes", "another"})

    def __init__(self, url: str) -> None:
        """`url` ends with the name of a schema, which nobody else uses."""
        self.url = url

    def another(self) -> Postgres:
        return Postgres(f"{self.url}_2")

    def connect(self) -> Executor:
        return Listening(PostgresExecutor(self.url, "relaxed"))

    async def hold(self) -> Callable[[], Awaitable[None]]:
        raise NotImplementedError


class Listening(Remote):
    """Is not open before it hears of the others."""

    inner: PostgresExecutor

    async def open(self) -> None:
        await super().open()
        self.inner.version()
        assert self.inner._doorbell is not None
        await self.inner._doorbell.listening()
