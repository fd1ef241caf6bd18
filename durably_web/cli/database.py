"""The database that a command is given."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Annotated

import typer

from durably_web.cli.mistakes import Mistake

DatabaseOption = Annotated[
    str, typer.Option("--database", "-d", metavar="FILE", help="The SQLite database that keeps the runs.")
]
DEFAULT = "durably.db"


def require_existing(database: str) -> str:
    """`database`, if it keeps runs already. Raises `Mistake` otherwise; nothing is created or changed."""
    if "://" in database and not database.startswith("sqlite:///"):
        return database  # the engine knows which URLs there are
    path = Path(database.removeprefix("sqlite:///"))
    if database == ":memory:" or not path.exists():
        raise Mistake(f"there is no database {database}")
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
