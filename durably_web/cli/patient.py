"""A database that is looked over, whichever it is; what is found in it, and words for that."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from durably_web.cli.looking import Look, NotTold
from durably_web.cli.times import readable

Level = Literal["ok", "note", "warning", "problem"]


class Finding(NamedTuple):
    """One thing that was looked at. `advice` says what to do, where there is something; `data` is for programs."""

    name: str
    level: Level
    message: str
    advice: str = ""
    data: dict[str, Any] = {}  # noqa: RUF012 — never changed


class Patient(NamedTuple):
    """`name` is the path or the address, without a secret; `now` is milliseconds, `late` seconds."""

    look: Look
    name: str
    now: int
    late: float
    dead: Callable[[Iterable[str]], Iterable[str]] = lambda workers: ()
    """Those of some workers that are certainly not there any more."""
    awaited: str = "json_each(coalesce(w.awaits, '[]'))"
    """What the run `w` waits for, as SQL: rows with a `value`."""

    def ask(self, sql: str, *values: Any) -> list[Any]:
        return self.look.execute(sql, values).fetchall()

    def age(self, moment: int) -> str:
        return readable(max(0, self.now - moment) / 1000)


Check = Callable[[Patient], Iterator[Finding]]


def examined(patient: Patient, checks: Iterable[Check], restore: str) -> list[Finding]:
    """What the checks find, in their order. `restore` says what to do about a database that is damaged."""
    found: list[Finding] = []
    for check in checks:
        name = check.__name__.strip("_")
        try:
            found += check(patient)
        except (NotTold, sqlite3.OperationalError) as error:
            # A table or a column that this schema does not have, or what this database tells nobody.
            found.append(Finding(name, "note", f"cannot be told: {error}"))
        except sqlite3.DatabaseError as error:
            found.append(Finding(name, "problem", f"the database is damaged: {error}", restore))
    return found


def integrity(patient: Patient, restore: str) -> Iterator[Finding]:
    """Of SQLite, and of what answers like it."""
    lines = [line for (line,) in patient.ask("PRAGMA quick_check(20)")]
    if lines == ["ok"]:
        yield Finding("integrity", "ok", "quick_check finds nothing")
    else:
        yield Finding("integrity", "problem", f"the database is damaged: {lines[0]}", restore, {"lines": lines})


def many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def many_runs(count: int) -> str:
    return many(count, "run")


def amount(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TB"
