"""SQLite in this process, through the standard library."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

from durably_web.backends.checkpoints import Checkpoints, loses_commits
from durably_web.backends.forks import forsake, not_open, told_of_forks
from durably_web.backends.presence import Presence
from durably_web.errors import (
    ConstraintViolated,
    NotADatabase,
    StorageFull,
    StoreBusy,
    StoreError,
    StoreNotDurable,
    StoreUnavailable,
)
from durably_web.store.batch import Batch, Rows, Value

T = TypeVar("T")

# How long a batch waits for another connection before it gives up.
BUSY_SECONDS = 30.0
_FIRST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.02

# SQLite's numbers for PRAGMA synchronous.
_SYNCHRONOUS = {"full": 2, "relaxed": 1}


class SqliteExecutor:
    """One connection, used on the event loop's own thread.

    A batch costs microseconds and a flush, less than handing it to a thread and back. While another
    connection holds the database the loop goes on: the batch is tried again after pauses that grow.

    `durability="full"` flushes at each commit. `"relaxed"` leaves the flush to the checkpoint: a commit survives any
    crash of the process, and a power cut may take the last ones.
    """

    def __init__(self, path: str, durability: Literal["full", "relaxed"] = "full") -> None:
        self._path = path
        self._durability = durability
        self._connection: sqlite3.Connection | None = None
        self._in_memory = path == ":memory:"
        self._logs_ahead = False
        self._presence = None if self._in_memory else Presence(os.path.abspath(path))
        self._checkpoints: Checkpoints | None = None
        self._forked = False

    async def open(self) -> None:
        if self._connection is not None:
            return
        try:
            connection = sqlite3.connect(
                self._path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        except sqlite3.Error as error:
            reason = _why_not_opened(self._path) or error
            raise StoreUnavailable(f"{self._path} cannot be opened: {reason}", code=_code(error)) from None
        self._connection = connection
        self._forked = False
        _opened.add(self)
        try:
            await self._set_up(connection)
        except BaseException:
            connection.close()
            self._connection = None
            raise

    async def _set_up(self, connection: sqlite3.Connection) -> None:
        # Reading it finds out whether this is a database at all.
        self._logs_ahead = await self._ask("PRAGMA journal_mode") == "wal"
        wanted = _SYNCHRONOUS[self._durability]
        await self._patiently(lambda connection: connection.execute(f"PRAGMA synchronous = {wanted}"))
        given = await self._ask("PRAGMA synchronous")
        if given != wanted:
            raise StoreNotDurable(f"{self._path} answers synchronous = {given} where {wanted} was asked for")
        if not self._in_memory and loses_commits(sqlite3.sqlite_version_info):
            self._checkpoints = Checkpoints(self._path)
            self._checkpoints.take_over(connection)

    async def _log_ahead(self) -> None:
        """Set what the file itself keeps: only before a write, so that a database that is refused stays as it is."""
        mode = await self._ask("PRAGMA journal_mode = wal")
        if mode != "wal":
            raise StoreNotDurable(
                f"{self._path} stays in journal mode {mode}: write-ahead logging needs a local file system"
            )
        self._logs_ahead = True

    async def _ask(self, pragma: str) -> object:
        return await self._patiently(lambda connection: connection.execute(pragma).fetchone()[0])

    async def close(self) -> None:
        if self._presence is not None:
            self._presence.close()
        if self._checkpoints is not None:
            self._checkpoints.close()
        _opened.discard(self)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def run(self, batch: Batch) -> list[Rows]:
        connection = self._connection
        if connection is None:
            raise not_open(self._path, forked=self._forked)
        if batch.mode == "write" and not self._logs_ahead and not self._in_memory:
            await self._log_ahead()
        if self._checkpoints is not None and batch.mode == "write" and self._checkpoints.is_due():
            self._checkpoints.make(connection)
        try:
            return _execute(connection, batch)
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise self._translated(error) from error
        except (sqlite3.Error, OverflowError, ValueError) as error:
            raise self._translated(error) from error
        return await self._patiently(lambda connection: _execute(connection, batch))

    async def _patiently(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Do `action`, again and again while another connection holds the database."""
        deadline = time.monotonic() + BUSY_SECONDS
        pause = _FIRST_PAUSE
        while self._connection is not None:
            try:
                return action(self._connection)
            except (sqlite3.Error, OverflowError, ValueError) as error:
                if not _is_busy(error):
                    raise self._translated(error) from error
                if time.monotonic() > deadline:
                    raise StoreBusy(
                        f"another connection has held {self._path} for {BUSY_SECONDS:.0f} seconds", code=_code(error)
                    ) from error
            # Uneven pauses keep two waiting processes from meeting again and again.
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(pause * 2, _LONGEST_PAUSE)
        raise StoreUnavailable(f"{self._path} was closed")

    def _translated(self, error: BaseException) -> StoreError:
        code = _code(error)
        index = getattr(error, "statement_index", None)
        if code == "SQLITE_NOTADB":
            kind: type[StoreError] = NotADatabase
            message = f"{self._path} is not a SQLite database; it was left as it is. Name another file."
        elif code == "SQLITE_FULL":
            kind, message = (
                StorageFull,
                f"there is no room left for {self._path}: delete runs, or make room on the disk",
            )
        elif code.startswith("SQLITE_CONSTRAINT"):
            kind, message = ConstraintViolated, str(error)
        elif code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
            kind, message = StoreUnavailable, f"{self._path}: {error}"
        else:
            kind, message = StoreError, f"{self._path}: {error} ({code})"
        return kind(message, code=code, statement_index=index)

    def forsake(self) -> None:
        """In the child of a fork: let go of what is the parent's, and leave it as it is."""
        self._forked = True
        connection, self._connection = self._connection, None
        onlooker = None if self._checkpoints is None else self._checkpoints.forsake()
        for each in (connection, onlooker):
            if each is not None:
                forsake(each)
        if self._presence is not None:
            self._presence.forsake()

    def version(self) -> int | None:
        if self._connection is None or self._in_memory:
            return None
        try:
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            # Busy, so somebody is at it: no version of its own, and whoever waits looks for himself.
            return -1
        return version

    def announce(self, worker_id: str) -> None:
        if self._presence is None:
            return
        if self._connection is None:
            # It was closed, and what its worker has abandoned may still run.
            self._presence.linger(worker_id)
        else:
            self._presence.announce(worker_id)

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        # Nobody else can reach a database in memory.
        return list(worker_ids) if self._presence is None else self._presence.gone(worker_ids)


def _execute(connection: sqlite3.Connection, batch: Batch) -> list[Rows]:
    statements = batch.statements
    if len(statements) == 1:
        # A statement alone is a transaction already.
        return [_fetch(connection, 0, *statements[0])]
    if not statements:
        return []
    connection.execute("BEGIN IMMEDIATE" if batch.mode == "write" else "BEGIN")
    try:
        results = [_fetch(connection, index, sql, params) for index, (sql, params) in enumerate(statements)]
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def _fetch(connection: sqlite3.Connection, index: int, sql: str, params: tuple[Value, ...]) -> Rows:
    try:
        return connection.execute(sql, params).fetchall()
    except (sqlite3.Error, OverflowError, ValueError) as error:
        error.statement_index = index  # type: ignore[union-attr]
        raise


def _code(error: BaseException) -> str:
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def _why_not_opened(path: str) -> str:
    """What SQLite does not tell."""
    folder = os.path.dirname(os.path.abspath(path))
    return "" if os.path.isdir(folder) else f"there is no folder {folder}"


def _is_busy(error: BaseException) -> bool:
    return _code(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


# SQLite's connections and the locks on files do not survive a fork.
_opened: weakref.WeakSet[SqliteExecutor] = told_of_forks()
