"""A database on a libSQL server, as the contract suites ask for one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from durably_web.backends.libsql import LibsqlExecutor
from durably_web.store.batch import Executor
from tests.contract import Capability
from tests.support.executors import Remote


class Libsql:
    """A namespace of a server, and as many executors on it as asked for."""

    has: frozenset[Capability] = frozenset({"workers", "threads", "processes"})

    def __init__(self, url: str) -> None:
        self.url = url

    def connect(self) -> Executor:
        return Remote(LibsqlExecutor(self.url, "relaxed"))

    async def hold(self) -> Callable[[], Awaitable[None]]:
        """A server takes the lock away from who holds it for five seconds; those who wait, wait in it."""
        raise NotImplementedError
