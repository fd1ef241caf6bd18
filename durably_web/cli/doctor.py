"""`durably-web doctor`: look a database over, and say what to do about what is wrong."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.text import Text

from durably_web.cli.asking import Json
from durably_web.cli.database import DatabaseArgument, kind, path_of, require_schema, shown
from durably_web.cli.display import output_console, print_json
from durably_web.cli.looking import look
from durably_web.cli.patient import Finding
from durably_web.cli.times import parse_duration

PROBLEM = 1
WARNING = 3

_MARKS = {"ok": ("✓", "green"), "note": ("·", "blue"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


def doctor(
    database: DatabaseArgument,
    late: Annotated[
        str, typer.Option("--late", metavar="DURATION", help="What is due for longer than this is a warning.")
    ] = "1h",
    integrity: Annotated[
        bool, typer.Option("--integrity/--no-integrity", help="Read a whole file to see whether it is damaged.")
    ] = True,
    json: Json = False,
) -> None:
    """Look a database over: schema, durability, clock, leases, runs that nobody takes up, room, damage.

    Of a PostgreSQL also its connections, old transactions, the sizes of tables, and what autovacuum has left.

    Changes nothing, and may be used beside running processes. Exits with 0 when all is well, with 1 when there is a
    problem, with 3 when there are only warnings.
    """
    seconds = parse_duration(late, "--late")
    findings = _findings(database, seconds, integrity)
    levels = {finding.level for finding in findings}
    if json:
        print_json(
            {
                "database": shown(database),
                "ok": not levels & {"warning", "problem"},
                "findings": [_wire(f) for f in findings],
            }
        )
    else:
        _show(findings)
    raise typer.Exit(PROBLEM if "problem" in levels else WARNING if "warning" in levels else 0)


def _findings(database: str, late: float, integrity: bool) -> list[Finding]:
    match kind(database):
        case "postgres":
            from durably_web.cli import findings_of_postgres
            from durably_web.cli.looking_at_postgres import look_at_postgres

            asyncio.run(require_schema(database))
            with look_at_postgres(database) as looking:
                return findings_of_postgres.examine(looking, shown(database), late)
        case "libsql":
            from durably_web.cli import findings_of_libsql
            from durably_web.cli.looking_at_libsql import look_at_libsql

            asyncio.run(require_schema(database))
            with look_at_libsql(database) as looking_there:
                return findings_of_libsql.examine(looking_there, looking_there.url, late, integrity=integrity)
        case _:
            from durably_web.cli.findings import examine

            with look(database) as connection:
                return examine(connection, str(path_of(database)), late, integrity=integrity)


def _wire(finding: Finding) -> dict[str, object]:
    return {
        "name": finding.name,
        "level": finding.level,
        "message": finding.message,
        "advice": finding.advice or None,
        "data": finding.data,
    }


def _show(findings: list[Finding]) -> None:
    console = output_console()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark, style = _MARKS[finding.level]
        console.print(
            Text.assemble((mark, style), " ", (finding.name.ljust(width), "bold"), "  ", finding.message),
            soft_wrap=True,
        )
        if finding.advice:
            console.print(Text(" " * (width + 4) + finding.advice, style="dim"), soft_wrap=True)
