"""The databases: each executor one file, chosen by URL and imported on demand."""

from __future__ import annotations

import sys
from typing import Literal

from durably_web.errors import InvalidInput, RequirementFailed, StoreUnavailable
from durably_web.store.batch import Executor

Durability = Literal["full", "relaxed"]


def open_executor(database: str, durability: Durability) -> Executor:
    """The executor for a path or URL. Nothing is opened yet."""
    if durability not in ("full", "relaxed"):
        raise InvalidInput(f'durability is "full" or "relaxed", not {durability!r}')
    scheme, colon, rest = database.partition(":")
    if colon and scheme == "opfs":
        return _open_opfs(database)
    if colon and scheme == "sqlite":
        if not rest.startswith("///") or len(rest) == 3:
            raise InvalidInput(f"a SQLite URL looks like sqlite:///app.db or sqlite:////var/app.db, not {database!r}")
        database = rest[3:]
    elif colon and scheme in ("libsql", "https", "http"):
        from durably_web.backends.libsql import LibsqlExecutor

        return LibsqlExecutor(database, durability)
    elif rest.startswith("//") and scheme in ("postgresql", "postgres"):
        if sys.platform == "emscripten":
            raise StoreUnavailable("no browser reaches PostgreSQL: let the page ask a server, or use libsql://")
        try:
            from durably_web.backends.postgres import PostgresExecutor
        except ImportError as error:
            if error.name != "psycopg" and not str(error).startswith("no pq wrapper"):
                raise
            raise RequirementFailed('PostgreSQL needs psycopg: pip install "durably-web[postgres]"') from None
        return PostgresExecutor(database, durability)
    elif colon and scheme == "file":
        from durably_web.backends.libsql.address import file_of

        database = file_of(database)
    elif "://" in database:
        raise InvalidInput(
            f"{scheme}:// is not a database that durably_web knows; it knows a file's path, "
            "sqlite:///app.db, :memory:, postgresql://host/name, libsql://host, and opfs:name in the browser"
        )
    if not database:
        raise InvalidInput("the database has no name: pass a file's path, or :memory:")
    from durably_web.backends.sqlite import SqliteExecutor

    return SqliteExecutor(database, durability)


def _open_opfs(database: str) -> Executor:
    try:
        from durably_bridge import run_batch
    except ImportError:
        raise StoreUnavailable(f"{database} exists only in a browser, inside durably_web's worker") from None
    from durably_web.backends.opfs import OpfsExecutor

    return OpfsExecutor(run_batch)
