"""The backends that a server has, as the contract suites ask for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol, cast

from durably_web.backends.sqlite import SqliteExecutor
from durably_web.store.batch import Executor
from tests.contract import Backend, Capability
from tests.support.executors import Wrapper


class Paired(Protocol):
    """A backend that has `another`."""

    def another(self) -> Backend: ...


def another(backend: Backend) -> Backend:
    """A second database, empty and beside the one of this backend."""
    return cast(Paired, backend).another()


class SqliteFile:
    """A database file, and as many connections to it as asked for."""

    has: frozenset[Capability] = frozenset({"workers", "wakes", "threads", "busy", "processes", "another"})

    def __init__(self, folder: Path, name: str = "case") -> None:
        self.path = folder / f"{name}.db"

    def another(self) -> SqliteFile:
        return SqliteFile(self.path.parent, f"{self.path.stem}-2")

    def connect(self) -> Executor:
        # Nothing here survives a power cut anyway, and a flush costs milliseconds.
        return SqliteExecutor(str(self.path), "relaxed")

    async def hold(self) -> Callable[[], Awaitable[None]]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")

        async def release() -> None:
            connection.execute("ROLLBACK")
            connection.close()

        return release


class SqliteMemory:
    """A database in memory: one connection, which all executors of the case share, as in the browser."""

    has: frozenset[Capability] = frozenset({"threads"})

    def __init__(self) -> None:
        self._executor = SqliteExecutor(":memory:")

    def connect(self) -> Executor:
        return _Kept(self._executor)

    async def hold(self) -> Callable[[], Awaitable[None]]:
        raise NotImplementedError

    async def close(self) -> None:
        await self._executor.close()


class _Kept(Wrapper):
    """Closes for its own user only."""

    _open = False

    async def open(self) -> None:
        await self.inner.open()
        self._open = True

    async def close(self) -> None:
        self._open = False

    async def run(self, batch):  # type: ignore[no-untyped-def]
        return await (self.inner if self._open else _CLOSED).run(batch)

    def version(self) -> int | None:
        return self.inner.version() if self._open else None

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        return self.inner.gone(worker_ids)


_CLOSED = SqliteExecutor(":memory:")


class Through:
    """A backend whose connections go through a wrapper."""

    def __init__(self, backend: Backend, wrapper: Callable[[Executor], Executor]) -> None:
        self.has = backend.has
        self.hold = backend.hold
        self._backend = backend
        self._wrapper = wrapper

    def another(self) -> Through:
        return Through(another(self._backend), self._wrapper)

    def connect(self) -> Executor:
        return self._wrapper(self._backend.connect())
