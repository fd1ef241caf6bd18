"""`durably-web sql`: ask a database in its own language, and change nothing."""

from __future__ import annotations

import datetime
import math
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from durably_web.cli.asking import Json
from durably_web.cli.database import DatabaseArgument, kind
from durably_web.cli.display import output_console, print_json
from durably_web.cli.looking import Answer, NotTold, look
from durably_web.cli.mistakes import Mistake


def sql(
    database: DatabaseArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT, in quotes.")],
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many rows; --json prints all.")] = 200,
    json: Json = False,
) -> None:
    """Print what one SELECT gives. Nothing can be changed.

    The tables are durably_runs, durably_journal, durably_labels, durably_signals, durably_schedules and others; they
    may change with each version. Moments are milliseconds: `datetime(created_at / 1000, 'unixepoch')`, and with
    PostgreSQL `to_timestamp(created_at / 1000.0)`.
    """
    names, rows = _ask(database, query, None if json else limit + 1)
    if json:
        if len(set(names)) < len(names):
            raise Mistake(f"two columns have one name ({', '.join(names)}): name them apart with AS")
        print_json([dict(zip(names, map(_plain, row), strict=True)) for row in rows])
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown = rows[:limit]
    for position, name in enumerate(names):
        numbers = bool(shown) and all(isinstance(row[position], (int, float, type(None))) for row in shown)
        table.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in shown:
        table.add_row(*(Text("·", style="dim") if value is None else Text(str(_plain(value))) for value in row))
    output_console().print(table)
    if len(rows) > limit:
        typer.echo(f"the first {limit:,} rows; --limit shows more, --json all", err=True)


def _ask(database: str, query: str, most: int | None) -> tuple[list[str], list[Any]]:
    """The names of the columns, and `most` rows at most. Raises `Mistake`."""

    def read(ask: Callable[[], Answer], engine: str) -> tuple[list[str], list[Any]]:
        try:
            answer = ask()
            rows = answer.fetchall() if most is None else answer.fetchmany(most)
        except (sqlite3.Error, sqlite3.Warning, NotTold) as error:
            raise Mistake(_explained(error, engine)) from None
        if answer.description is None:
            raise Mistake("this asks for nothing: give a SELECT")
        return [column[0] for column in answer.description], rows

    match kind(database):
        case "postgres":
            from durably_web.cli.looking_at_postgres import look_at_postgres

            with look_at_postgres(database) as there:
                return read(lambda: there.stream(query, None, most), "PostgreSQL")
        case "libsql":
            from durably_web.cli.looking_at_libsql import look_at_libsql

            with look_at_libsql(database) as server:
                return read(lambda: server.execute(query), "libSQL")
        case _:
            with look(database) as connection:
                return read(lambda: connection.execute(query), "SQLite")


def _plain(value: Any) -> Any:
    """As JSON can say it."""
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no number for it
    return value if value is None or isinstance(value, (bool, int, float, str, list, dict)) else str(value)


def _explained(error: Exception, engine: str) -> str:
    text = str(error)
    if any(word in text for word in ("not authorized", "authorization denied", "prohibited", "read-only transaction")):
        return f"only SELECT is allowed here, nothing that changes or opens anything ({text})"
    if "one statement at a time" in text or "multiple commands" in text:
        return "give one statement at a time"
    return f"{engine} says: {text}"
