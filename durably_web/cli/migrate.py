"""`durably-web migrate`: bring a database up to date, before the processes come that need it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from durably_web.cli.asking import Json
from durably_web.cli.database import require_existing
from durably_web.cli.display import print_json
from durably_web.cli.looking import look
from durably_web.engine import Durably
from durably_web.errors import SchemaTooNew
from durably_web.store import migrations


def migrate(
    database: Annotated[str, typer.Argument(metavar="DATABASE", help="The SQLite database that keeps the runs.")],
    create: Annotated[bool, typer.Option("--create", help="Make the database when there is none yet.")] = False,
    json: Json = False,
) -> None:
    """Bring the schema of a database up to date. Safe to repeat, and beside processes that use it.

    Every engine does so when it starts. Done before, no web server has to wait for it.
    """
    before = 0 if create and not _exists(database) else _version(require_existing(database))

    async def bring_up_to_date() -> None:
        durably = Durably(database)
        try:
            await durably.migrate()
            if durably.read_only is not None:
                raise SchemaTooNew(durably.read_only)
        finally:
            await durably.stop()

    asyncio.run(bring_up_to_date())
    if json:
        print_json({"database": database, "from": before, "to": migrations.LATEST})
    elif before == migrations.LATEST:
        print(f"{database} has schema version {before}, the newest")
    else:
        print(f"{database} has schema version {migrations.LATEST}, and had {before}")


def _exists(database: str) -> bool:
    from pathlib import Path

    return Path(database.removeprefix("sqlite:///")).exists()


def _version(database: str) -> int:
    with look(database) as connection:
        [(version,)] = connection.execute("SELECT coalesce(max(version), 0) FROM durably_schema").fetchall()
    return int(version)
