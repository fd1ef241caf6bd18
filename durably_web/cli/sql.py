"""`durably-web sql`: ask a database in its own language, and change nothing."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from durably_web.cli.asking import Json
from durably_web.cli.display import output_console, print_json
from durably_web.cli.looking import look
from durably_web.cli.mistakes import Mistake

Database = Annotated[str, typer.Argument(metavar="DATABASE", help="The SQLite database that keeps the runs.")]


def sql(
    database: Database,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT, in quotes.")],
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many rows; --json prints all.")] = 200,
    json: Json = False,
) -> None:
    """Print what one SELECT gives. Nothing can be changed.

    The tables are durably_runs, durably_journal, durably_labels, durably_signals, durably_schedules and others; they
    may change with each version. Moments are milliseconds: `datetime(created_at / 1000, 'unixepoch')`.
    """
    with look(database) as connection:
        try:
            cursor = connection.execute(query)
            rows = cursor.fetchall() if json else cursor.fetchmany(limit + 1)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise Mistake(_explained(error)) from None
        if cursor.description is None:
            raise Mistake("this asks for nothing: give a SELECT")
        names = [column[0] for column in cursor.description]
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


def _plain(value: Any) -> Any:
    return f"x'{value.hex()}'" if isinstance(value, bytes) else value


def _explained(error: Exception) -> str:
    text = str(error)
    if any(word in text for word in ("not authorized", "authorization denied", "prohibited")):
        return f"only SELECT is allowed here, nothing that changes or opens anything ({text})"
    if "one statement at a time" in text:
        return "give one statement at a time"
    return f"SQLite says: {text}"
