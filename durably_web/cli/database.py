"""The database that a command is given."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Annotated, Literal

import typer

from durably_web.backends import open_executor
from durably_web.cli.mistakes import Mistake
from durably_web.store import operations

_WHICH = "A file of SQLite, or the URL of a database: postgresql://… or libsql://…"

DatabaseOption = Annotated[str, typer.Option("--database", "-d", metavar="DATABASE", help=_WHICH)]
DatabaseArgument = Annotated[str, typer.Argument(metavar="DATABASE", help=_WHICH)]
DEFAULT = "durably.db"

_SECRETS = re.compile(r"(?i)\b((?:auth_?token|password|sslpassword|passfile)=)[^&\s]*")
_PASSWORD = re.compile(r"(?<=://)([^:@/?#]*):[^@/?#]*@")
# With something odd in it, so that it is not clear where it ends.
_UNCLEAR = re.compile(r"(?<=://)[^/]*:.*@")


def kind(database: str) -> Literal["sqlite", "postgres", "libsql"]:
    """Which kind of database it is, by its name. What is unknown is the engine's to refuse."""
    scheme, colon, rest = database.partition(":")
    if rest.startswith("//") and scheme in ("postgresql", "postgres"):
        return "postgres"
    return "libsql" if colon and scheme in ("libsql", "https", "http") else "sqlite"


def shown(database: str) -> str:
    """Its name for a terminal or a log: without a password or a token."""
    database = _SECRETS.sub(r"\1***", database)
    database, hidden = _PASSWORD.subn(r"\1:***@", database)
    return database if hidden else _UNCLEAR.sub("***@", database)


def path_of(database: str) -> Path:
    """Of a database that is a file."""
    if database.startswith("file:"):
        from durably_web.backends.libsql.address import file_of

        return Path(file_of(database))
    return Path(database.removeprefix("sqlite:///"))


async def schema_version(database: str) -> int | None:
    """The version of the schema of ours in a database that has a URL; `None` where nothing of ours is in it."""
    # Nothing is written, and whoever looks at durability tells of it.
    executor = open_executor(database, "relaxed")
    await executor.open()
    try:
        found = operations.has_schema()
        if not found.decode(await executor.run(found.batch)):
            return None
        version = operations.schema_version()
        return version.decode(await executor.run(version.batch))
    finally:
        await executor.close()


async def require_schema(database: str) -> str:
    """`database`, if it keeps runs already. Raises `Mistake` otherwise; nothing is created or changed."""
    is_url = "://" in database or kind(database) != "sqlite"
    if not is_url or database.startswith(("sqlite:///", "file:")):
        return require_existing(database)
    if await schema_version(database) is None:
        raise Mistake(
            f"{shown(database)} is not a database of durably_web: no run was ever stored in it "
            "(durably-web migrate --create makes the tables)"
        )
    return database


def require_existing(database: str) -> str:
    """The same for a file."""
    path = path_of(database)
    if database == ":memory:":
        raise Mistake("there is no database :memory: for several commands: each process has a memory of its own")
    if not path.exists():
        raise Mistake(f"there is no database {database} (durably-web migrate --create makes one)")
    if not path.is_file():
        raise Mistake(f"{database} is not a file")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'durably_schema'").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return database  # held, or not readable without writing: the engine says it better
    except sqlite3.DatabaseError:
        raise Mistake(f"{database} is not a SQLite database") from None
    if found is None:
        raise Mistake(f"{database} is not a database of durably_web: no run was ever stored in it")
    return database
