"""Asking the engine on an existing database, without executing anything there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from durably_web.cli.completing import run_ids
from durably_web.cli.database import require_schema
from durably_web.cli.mistakes import Mistake
from durably_web.engine import Durably
from durably_web.records import Run

T = TypeVar("T")

RunId = Annotated[str, typer.Argument(metavar="ID", help="The id of the run.", autocompletion=run_ids)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, with the names that the HTTP interface uses.")]


def ask(database: str, question: Callable[[Durably], Awaitable[T]]) -> T:
    """What the engine answers. Raises `Mistake` when there is no database."""

    async def answer() -> T:
        durably = Durably(await require_schema(database))
        try:
            await durably.migrate()
            found = await question(durably)
            if durably.read_only is not None:
                print(f"durably-web: {durably.read_only}", file=sys.stderr)
            return found
        finally:
            await durably.stop()

    return asyncio.run(answer())


async def run_of(durably: Durably, run_id: str) -> Run:
    """The run. Raises `Mistake`."""
    run = await durably.get_run(run_id)
    if run is None:
        raise Mistake(f"there is no run {run_id}")
    return run
