"""The databases that are tortured: where they are, how they are killed, and whether they are whole afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from durably_web.backends import open_executor
from durably_web.store.batch import Batch, Executor, Rows, Statement


class Database(Protocol):
    """`url` leads straight to it. One with a server has an `address` that a proxy can stand in front of."""

    name: str
    url: str
    address: tuple[str, int] | None

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...

    async def damages(self, executor: Executor) -> list[str]:
        """What is wrong with what the database keeps, apart from what is in it."""
        ...


class SqliteFile:
    name = "sqlite"
    address = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = str(folder / "app.db")

    def stop(self) -> None:
        raise NotImplementedError("a file has no server")

    kill = start = stop

    async def damages(self, executor: Executor) -> list[str]:
        found = [f"integrity_check: {row[0]}" for row in await ask(executor, "PRAGMA integrity_check") if row != ("ok",)]
        return found + await _schema_damages(executor)


async def ask(executor: Executor, sql: str, *params: str | int) -> Rows:
    [rows] = await executor.run(Batch("read", (Statement(sql, params),)))  # type: ignore[arg-type]
    return rows


async def _schema_damages(executor: Executor) -> list[str]:
    """The schema is that of a new database, and nothing else."""
    fresh = open_executor(":memory:", "relaxed")
    from durably_web import SystemClock
    from durably_web.store.store import Store

    store = Store(fresh, SystemClock())
    await store.open()
    sql = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    wanted, found = await ask(fresh, sql), await ask(executor, sql)
    await store.close()
    return [f"schema: {row}" for row in {*wanted} ^ {*found}]


def replaced(url: str, port: int) -> str:
    """The same URL, through a proxy on the loopback."""
    parts = urlsplit(url)
    at = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{at}@127.0.0.1:{port}" if at else f"127.0.0.1:{port}").geturl()


@contextlib.contextmanager
def _sqlite(folder: Path) -> Iterator[Database]:
    yield SqliteFile(folder)


BACKENDS: dict[str, Callable[[Path], AbstractContextManager[Database]]] = {"sqlite": _sqlite}
