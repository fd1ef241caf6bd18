"""`durably-web migrate`: bring a database up to date, before the processes come that need it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from durably_web.cli.asking import Json
from durably_web.cli.database import (
    DatabaseArgument,
    kind,
    path_of,
    require_existing,
    require_schema,
    schema_version,
    shown,
)
from durably_web.cli.display import print_json
from durably_web.cli.looking import look
from durably_web.engine import Durably
from durably_web.errors import SchemaTooNew
from durably_web.store import migrations


def migrate(
    database: DatabaseArgument,
    create: Annotated[
        bool,
        typer.Option("--create", help="Make the file, or the tables in an empty database, when there is none yet."),
    ] = False,
    json: Json = False,
) -> None:
    """Bring the schema of a database up to date. Safe to repeat, and beside processes that use it.

    Every engine does so when it starts. Done before, no web server has to wait for it.
    """
    before = _version(database, create)

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
        print_json({"database": shown(database), "from": before, "to": migrations.LATEST})
    elif before == migrations.LATEST:
        print(f"{shown(database)} has schema version {before}, the newest")
    else:
        print(f"{shown(database)} has schema version {migrations.LATEST}, and had {before}")


def _version(database: str, create: bool) -> int:
    """The version before; 0 where nothing of ours is there yet, and may be made."""
    if kind(database) != "sqlite":

        async def ask() -> int:
            if create:
                return await schema_version(database) or 0
            await require_schema(database)
            return await schema_version(database) or 0

        return asyncio.run(ask())
    if create and not path_of(database).exists():
        return 0
    with look(require_existing(database)) as connection:
        [(version,)] = connection.execute("SELECT coalesce(max(version), 0) FROM durably_schema").fetchall()
    return int(version)
