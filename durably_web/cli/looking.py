"""A connection that only looks: whatever is asked of it, nothing is changed. This one is to a file of SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from durably_web.cli.database import path_of, require_existing
from durably_web.cli.mistakes import Mistake

# Seconds until another connection that holds the file is given up.
_PATIENCE = 10.0

_LOOKING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# What SQLite tells of itself and of a schema. No name that also sets something when it is given a value.
_PRAGMAS = {
    *("quick_check", "integrity_check", "table_info", "table_xinfo", "table_list", "index_list", "index_info"),
    *("index_xinfo", "compile_options", "data_version", "page_count", "freelist_count", "database_list"),
}


class Answer(Protocol):
    """The rows that were asked for. `description` has their names; it is `None` for what gives no rows."""

    @property
    def description(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def fetchmany(self, size: int, /) -> list[Any]: ...


class Look(Protocol):
    """A connection to whichever database, of which only this is used. A parameter is `?`."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Answer: ...


class NotTold(Exception):
    """What a database says instead of an answer. That of SQLite raises errors of its own."""


@contextlib.contextmanager
def look(database: str, patience: float = _PATIENCE) -> Iterator[sqlite3.Connection]:
    """Open an existing database of ours to read it. Raises `Mistake`.

    Not as `mode=ro`: what a process that was killed has left in the log could then not be read.
    """
    path = path_of(require_existing(database)).absolute()
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=patience, isolation_level=None)
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA query_only = 1")
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        # Made when they are used first, and not allowed to be made below.
        for table in ("json_each('[]')", "json_tree('[]')", "pragma_table_info('durably_runs')"):
            connection.execute(f"SELECT 1 FROM {table}").fetchone()
    except sqlite3.Error as error:
        raise Mistake(f"{database} cannot be read: {error}") from None
    # So that Ctrl-C comes through while SQLite works.
    connection.set_progress_handler(lambda: 0, 100_000)
    connection.set_authorizer(_authorize)
    try:
        yield connection
    finally:
        connection.close()


def _authorize(action: int, first: str | None, second: str | None, _database: str | None, _within: str | None) -> int:
    if action in _LOOKING or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS):
        return sqlite3.SQLITE_OK
    # Asked for, and not set.
    if action == sqlite3.SQLITE_PRAGMA and second is None and first in ("journal_mode", "user_version", "page_size"):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
