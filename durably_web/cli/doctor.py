"""`durably-web doctor`: look a database over, and say what to do about what is wrong."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from durably_web.cli.asking import Json
from durably_web.cli.display import output_console, print_json
from durably_web.cli.findings import Finding, examine
from durably_web.cli.looking import look
from durably_web.cli.times import parse_duration

PROBLEM = 1
WARNING = 3

_MARKS = {"ok": ("✓", "green"), "note": ("·", "blue"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


def doctor(
    database: Annotated[str, typer.Argument(metavar="DATABASE", help="The SQLite database that keeps the runs.")],
    late: Annotated[
        str, typer.Option("--late", metavar="DURATION", help="What is due for longer than this is a warning.")
    ] = "1h",
    integrity: Annotated[
        bool, typer.Option("--integrity/--no-integrity", help="Read the whole file to see whether it is damaged.")
    ] = True,
    json: Json = False,
) -> None:
    """Look a database over: schema, SQLite, durability, clock, leases, runs that nobody takes up, room, damage.

    Changes nothing, and may be used beside running processes. Exits with 0 when all is well, with 1 when there is a
    problem, with 3 when there are only warnings.
    """
    seconds = parse_duration(late, "--late")
    with look(database) as connection:
        findings = examine(connection, database.removeprefix("sqlite:///"), seconds, integrity=integrity)
    levels = {finding.level for finding in findings}
    if json:
        print_json(
            {"database": database, "ok": not levels & {"warning", "problem"}, "findings": [_wire(f) for f in findings]}
        )
    else:
        _show(findings)
    raise typer.Exit(PROBLEM if "problem" in levels else WARNING if "warning" in levels else 0)


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
