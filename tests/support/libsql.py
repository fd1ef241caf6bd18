"""A database on a libSQL server, as the contract suites ask for one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from durably_web.backends.libsql import LibsqlExecutor
from durably_web.store.batch import Executor
from tests.contract import Capability
from tests.support.executors import Remote
from tests.support.servers import Sqld


class Libsql:
    """A namespace of a server, made for it, and as many executors on it as asked for."""

    has: frozenset[Capability] = frozenset({"workers", "threads", "processes", "another"})

    def __init__(self, server: Sqld) -> None:
        self.url = server.namespace()
        self._server = server
        self._others: list[Libsql] = []

    def another(self) -> Libsql:
        other = Libsql(self._server)
        self._others.append(other)
        return other

    def drop(self) -> None:
        """Remove what was made, the others too."""
        for other in self._others:
            other.drop()
        self._server.drop_namespace(self.url)

    def connect(self) -> Executor:
        return Remote(LibsqlExecutor(self.url, "relaxed"))

    async def hold(self) -> Callable[[], Awaitable[None]]:
        """A server takes the lock away from who holds it for five seconds; those who wait, wait in it."""
        raise NotImplementedError
