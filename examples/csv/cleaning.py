"""What makes a row clean: pure functions of text, without files and without the engine."""

import csv
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

ENCODINGS = ("utf-8", "cp1252")
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "-"))
NUMBER = re.compile(r"[+-]?(\d{1,15}([.,]\d*)?|[.,]\d+)", re.ASCII)
CODE = re.compile(r"[+-]?0\d", re.ASCII)  # 0123 is a code: as a number it would lose its zero
YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d\d?)[-/.](\d\d?)(?:[T ](\d\d?):(\d\d)(?::(\d\d))?)?", re.ASCII)
DAY_FIRST = re.compile(r"(\d\d?)\.(\d\d?)\.(\d{4})(?: (\d\d?):(\d\d)(?::(\d\d))?)?", re.ASCII)


class Layout(NamedTuple):
    """How a file is to be read, as its beginning told."""

    encoding: str
    delimiter: str
    columns: list[str]
    types: list[str]  # "number", "date" or "text", for each column
    group: int | None  # the column that the chart is by


class Broken(ValueError):
    """A row that cannot be used; the message says why."""


def recognise(data: bytes, whole: bool) -> tuple[Layout, int]:
    """The layout of a file that begins with `data`, and how many bytes its header takes.

    Raises `ValueError` for what is not a CSV file. `whole` tells that there is nothing behind `data`.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("the file is UTF-16: save it as “CSV UTF-8”, and try again")
    if b"\0" in data:
        raise ValueError("this is not a text file: it contains NUL bytes")
    if not data.removeprefix(b"\xef\xbb\xbf").strip():
        raise ValueError("the file is empty")
    lines = data.splitlines(keepends=True)
    if not whole and len(lines) > 1:
        lines.pop()  # it is cut off somewhere
    encoding = ENCODINGS[0] if decodes(b"".join(lines)) else ENCODINGS[1]
    delimiter = max(",;\t|", key=lambda one: evenness(lines[:30], encoding, one))
    sample = list(records(lines, encoding, delimiter))
    first = next(row for row in sample if row.fields or row.broken)
    if first.broken:
        raise ValueError(f"the first row cannot be used: {first.broken}")
    columns = unique(first.fields)
    rows = [row.fields for row in sample if len(row.fields) == len(columns) and row is not first]
    values = [[row[at].strip() for row in rows if not missing(row[at])] for at in range(len(columns))]
    types = [kind_of(column) for column in values]
    return Layout(encoding, delimiter, columns, types, group_of(types, values)), first.end


def decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def evenness(lines: list[bytes], encoding: str, delimiter: str) -> tuple[float, int]:
    """How evenly a delimiter cuts these lines into more than one field."""
    widths = [len(row.fields) for row in records(lines, encoding, delimiter) if row.fields]
    if not widths or widths[0] < 2:
        return 0, 0
    return widths.count(widths[0]) / len(widths), widths[0]


def unique(header: list[str]) -> list[str]:
    """Column names without blanks and repetitions."""
    names: list[str] = []
    for position, field in enumerate(header, 1):
        name = wanted = field.strip() or f"column {position}"
        number = 1
        while name in names:
            number += 1
            name = f"{wanted} ({number})"
        names.append(name)
    return names


def kind_of(values: list[str]) -> str:
    """What nine values of ten are."""
    for kind, convert in (("number", number), ("date", instant)):
        if values and sum(convert(value) is not None for value in values) >= 0.9 * len(values):
            return kind
    return "text"


def group_of(types: list[str], values: list[list[str]]) -> int | None:
    """The first date, or else the first text of which there are few different ones."""
    if "date" in types:
        return types.index("date")
    for at, kind in enumerate(types):
        if kind == "text" and 2 <= len(set(values[at])) <= max(2, min(100, len(values[at]) // 2)):
            return at
    return None


# Rows


class Row(NamedTuple):
    """One record: the line where it begins, counted from 0, its fields or what broke it, and where its bytes end."""

    line: int
    end: int
    fields: list[str]
    broken: str = ""
    cut: bool = False  # broken perhaps only because its rest is not here


def records(lines: list[bytes], encoding: str, delimiter: str) -> Iterator[Row]:
    """Every record; one without fields for a blank line. After a broken quote the next line is read by itself."""
    ends = [0]
    for line in lines:
        ends.append(ends[-1] + len(line))
    at = 0
    while at < len(lines):
        begin, taken = at, 0
        texts = (lines[number].decode(encoding, "replace") for number in range(begin, len(lines)))
        if begin == 0:
            texts = (text.removeprefix("\ufeff") for text in texts)
        # Strict: otherwise one quote that nobody closes would swallow the rest of the file in silence.
        reader = csv.reader(texts, delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            for fields in reader:
                first, taken = begin + taken, reader.line_num
                at = begin + taken
                blank = not fields or fields == [""]
                yield Row(first, ends[at], [] if blank else fields)
        except csv.Error:
            cut = begin + reader.line_num >= len(lines)
            at += 1
            text = lines[at - 1].decode(encoding, "replace").strip()
            yield Row(at - 1, ends[at], [text], "its quotes do not match, or a field is longer than 128 kB", cut)


def clean(fields: list[str], layout: Layout) -> list[str]:
    """The same row with numbers as 1234.5, instants as ISO 8601, and nothing for what is missing. Raises `Broken`."""
    if len(fields) != len(layout.columns):
        raise Broken(f"it has {len(fields)} fields instead of {len(layout.columns)}")
    found = []
    for value, kind, column in zip(fields, layout.types, layout.columns, strict=True):
        value = " ".join(value.split())
        if "\ufffd" in value:
            raise Broken(f"{column} has bytes that are not {layout.encoding}")
        if missing(value):
            found.append("")
        elif kind == "text":
            found.append(value)
        else:
            converted = number(value) if kind == "number" else instant(value)
            if converted is None:
                raise Broken(f"{column} is not a {kind}: {value[:40]!r}")
            found.append(converted)
    if not any(found):
        raise Broken("nothing is in it")
    return found


def missing(value: str) -> bool:
    return value.strip().lower() in MISSING


def number(value: str) -> str | None:
    """`47,8` and `47.8` are `47.8`; thousands separators are not guessed."""
    if not NUMBER.fullmatch(value) or CODE.match(value):
        return None
    return value.replace(",", ".").removeprefix("+")


def instant(value: str) -> str | None:
    """`2010/1/31`, `2010-01-31 14:00` or `31.1.2010` in ISO 8601. What has the month first is not guessed."""
    if found := YEAR_FIRST.fullmatch(value):
        year, month, day, *clock = found.groups()
    elif found := DAY_FIRST.fullmatch(value):
        day, month, year, *clock = found.groups()
    else:
        return None
    try:
        hour, minute, second = (int(part or 0) for part in clock)
        when = datetime(int(year), int(month), int(day), hour, minute, second)
    except ValueError:
        return None
    return when.isoformat(timespec="seconds") if clock[0] else when.date().isoformat()


# Figures

MOST_GROUPS = 400

Figures = dict[str, list[float]]  # column → how many, sum, least, greatest


def add(figures: Figures, column: str, value: float) -> None:
    merge(figures, {column: [1, value, value, value]})


def merge(into: Figures, more: Figures) -> None:
    for column, (count, total, least, greatest) in more.items():
        if column in into:
            known = into[column]
            known[0] += count
            known[1] += total
            known[2] = min(known[2], least)
            known[3] = max(known[3], greatest)
        else:
            into[column] = [count, total, least, greatest]


def merge_groups(parts: list[dict[str, Any]], is_date: bool) -> dict[str, Figures]:
    """The figures by group of several parts. Days become months, and months years, until there are few enough.

    Of other groups the largest stay, and the rest is one group, `…`.
    """
    length = min((len(key) for part in parts for key in part if key), default=10) if is_date else None
    while True:
        merged: dict[str, Figures] = {}
        for part in parts:
            for key, figures in part.items():
                merge(merged.setdefault(key[:length], {}), figures)
        if len(merged) <= MOST_GROUPS:
            return dict(sorted(merged.items()))
        if length is None or length <= 4:
            break
        length -= 3
    by_size = sorted(merged, key=lambda key: (key == "…", -merged[key][""][0], key))
    kept = {key: merged[key] for key in sorted(by_size[: MOST_GROUPS - 1])}
    for key in by_size[MOST_GROUPS - 1 :]:
        merge(kept.setdefault("…", {}), merged[key])
    return kept
