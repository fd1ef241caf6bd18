"""What was measured, beside the bar it should reach: for people as a table, for machines as JSON."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from benchmarks.measure import Comparison


class Bar(NamedTuple):
    """What a figure should reach: `of` says whether it is the value itself or its ratio to the raw limit."""

    of: Literal["value", "ratio"]
    limit: float
    unit: str
    at_most: bool = False

    def __str__(self) -> str:
        number = f"{self.limit:,.0f}" if self.limit >= 10 else f"{self.limit:g}"
        return f"{'≤' if self.at_most else '≥'} {number}{' of raw' if self.of == 'ratio' else self.unit}"


def at_least(limit: float, unit: str = "/s") -> Bar:
    return Bar("value", limit, unit)


def at_most(limit: float, unit: str = " ms") -> Bar:
    return Bar("value", limit, unit, at_most=True)


def share(limit: float) -> Bar:
    """At least this share of the raw limit."""
    return Bar("ratio", limit, "")


def within(limit: float) -> Bar:
    """At most this share of what it is compared with: durations."""
    return Bar("ratio", limit, "", at_most=True)


class Figure(NamedTuple):
    """One line of the report. `raw` is the limit measured beside it; `note` says what else is worth knowing."""

    place: str
    work: str
    value: float
    unit: str
    raw: float | None = None
    ratio: float | None = None
    bar: Bar | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; `None` where there is no bar."""
        reached = self.ratio if self.bar is not None and self.bar.of == "ratio" else self.value
        if self.bar is None or reached is None:
            return None
        return reached <= self.bar.limit if self.bar.at_most else reached >= self.bar.limit


def compared(
    place: str, work: str, comparison: Comparison, unit: str = "/s", bar: Bar | None = None, note: str = ""
) -> Figure:
    return Figure(place, work, comparison.ours, unit, comparison.raw, comparison.ratio, bar, note)


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1) if sys.platform != "win32" else None,
    }


def as_json(figures: Iterable[Figure], facts: dict[str, Any]) -> str:
    lines = [
        {**figure._asdict(), "bar": str(figure.bar) if figure.bar else None, "met": figure.met} for figure in figures
    ]
    return json.dumps({"machine": facts, "figures": lines}, indent=2, ensure_ascii=False)


# A figure means little without these.
_FACTS = "Python {python}, SQLite {sqlite}, {system}, {cores} cores, load {load_before} before; {seconds} s in all"
_HEAD = ("where", "what", "durably_web", "raw limit", "ratio", "bar", "", "")


def as_table(figures: Iterable[Figure], facts: dict[str, Any]) -> str:
    rows = [_HEAD, *map(_cells, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    right = {2, 3, 4}
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join([*lines, "", _FACTS.format(**facts)])


def _cells(figure: Figure) -> tuple[str, ...]:
    return (
        figure.place,
        figure.work,
        _number(figure.value, figure.unit),
        "" if figure.raw is None else _number(figure.raw, figure.unit),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        str(figure.bar or ""),
        {True: "met", False: "MISSED", None: ""}[figure.met],
        figure.note,
    )


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}{unit}" if unit == "/s" else f"{value:,.2f}{unit}"
