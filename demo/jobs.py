"""The demo's job: import a CSV file in chunks. A browser tab and a server run this same file.

A run may be killed at any moment: the next execution goes on with the first chunk that has no stored result.
"""

import asyncio
import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from durably_web import Step, job

CHUNK_SIZE = 100
MOST_CHUNKS = 500
MOST_REJECTED = 100
MOST_WARNINGS = 5
MOST_GROUPS = 500
FEW_VALUES = 50


class CsvImport(TypedDict):
    """What `import_csv` is asked to do."""

    text: str
    file_name: NotRequired[str]
    chunk_size: NotRequired[int]
    pause: NotRequired[float]  # seconds that each chunk takes longer, so that a person can watch


@job
async def import_csv(step: Step, input: CsvImport) -> dict[str, Any]:
    """Save the good rows of a CSV file chunk by chunk, name the broken ones, and count rows by group."""
    name = input.get("file_name", "the file")
    # Reading the text is not a step: it gives the same rows at each execution, and as a step's result the
    # whole file would be stored twice. The thread keeps a large file from holding up the event loop.
    table = await asyncio.to_thread(read_table, input["text"])
    size = input.get("chunk_size", max(CHUNK_SIZE, math.ceil(len(table.rows) / MOST_CHUNKS)))
    if size < 1:
        raise ValueError(f"chunk_size must be 1 or more, not {size}")
    total = math.ceil(len(table.rows) / size)
    store = ChunkStore(step.run_id)

    executed: list[int] = []

    async def save(number: int) -> dict[str, Any]:
        if number > 1 and not executed:
            step.log.info(f"going on with chunk {number}: what came before is stored")
        executed.append(number)
        good, rejected = check(table, table.rows[(number - 1) * size : number * size])
        await asyncio.sleep(input.get("pause", 0))
        asked = await store.save(number, good)
        if asked > 1:
            step.log.warning(f"chunk {number} had been saved just before the interruption; it is not saved again")
        for broken in rejected[:MOST_WARNINGS]:
            step.log.warning(f"row {broken['row']} is left out: {broken['reason']}")
        if len(rejected) > MOST_WARNINGS:
            step.log.warning(f"chunk {number} has {len(rejected) - MOST_WARNINGS} more broken rows")
        step.log.info(f"saved chunk {number} of {total}", rows=len(good))
        return {"rejected": rejected[:MOST_REJECTED], "rejected_count": len(rejected)}

    async def summarise() -> dict[str, Any]:
        step.log.info("computing the figures from what was saved")
        chunks = await asyncio.gather(*(store.read(number) for number in range(1, total + 1)))
        return figures(table, chunks)

    # A line that an earlier execution has stored is not stored again.
    step.log.info(f"read {name}: {len(table.rows)} rows, {len(table.columns)} columns, {total} chunks")
    if not table.rows:
        step.log.warning(f"{name} has a header and no rows")
    rejected: list[dict[str, Any]] = []
    rejected_count = 0
    for number in range(1, total + 1):
        outcome = await step.run("save", save, number)
        rejected += outcome["rejected"][: MOST_REJECTED - len(rejected)]
        rejected_count += outcome["rejected_count"]
        step.progress(number, total=total, message=f"chunk {number} of {total}")
    summary = await step.run("summarise", summarise)
    return {
        "file_name": name,
        "columns": table.columns,
        "row_count": len(table.rows),
        "rejected_count": rejected_count,
        "rejected": rejected,
        **summary,
    }


# Reading


class Row(NamedTuple):
    """One row of the file: the line where it begins (the header's is usually 1), and its fields or what broke it."""

    line: int
    fields: list[str]
    broken: str | None = None


class Table(NamedTuple):
    """A CSV file that was read: `numbers` are the columns whose values are numbers, by position."""

    columns: list[str]
    rows: list[Row]
    numbers: frozenset[int]
    group_by: int | None


NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LEADING_ZERO = re.compile(r"[+-]?0\d+", re.ASCII)
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "-"))
LIMITS = {"latitude": 90.0, "lat": 90.0, "longitude": 180.0, "lon": 180.0, "lng": 180.0}


def read_table(text: str) -> Table:
    """Read any CSV text: commas, semicolons, tabs or bars; quotes; any line ends; with or without a mark at the start.

    Raises `ValueError` for text that is empty or not text at all. Rows that cannot be used stay in `rows`, marked.
    """
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise ValueError("the file is empty")
    if "\0" in text:
        raise ValueError("this is not a text file: it contains NUL characters")
    lines = list(io.StringIO(text, newline=""))
    records = read_records(lines, guess_delimiter(lines))
    header = next(records)
    if header.broken:
        raise ValueError(f"the first row cannot be used: {header.broken}")
    columns = unique_names(header.fields)
    rows = [mark_length(row, len(columns)) for row in records]
    whole = [row.fields for row in rows if row.broken is None]
    numbers = frozenset(
        at for at, column in enumerate(columns) if mostly_numbers(column, [fields[at] for fields in whole])
    )
    return Table(columns, rows, numbers, choose_group(columns, whole))


def read_records(lines: list[str], delimiter: str) -> Iterator[Row]:
    """Every record, blank lines left out. A record with a broken quote is one line: the next line is read by itself."""
    at = 0
    unclosed = 0
    skip_space = any(f'{delimiter} "' in line for line in lines[:20])
    while at < len(lines):
        # Strict, because otherwise one quote that nobody closes would swallow the rest of the file in silence.
        rest = (lines[number] for number in range(at, len(lines)))
        reader = csv.reader(rest, delimiter=delimiter, strict=True, skipinitialspace=skip_space)
        begin = at
        consumed = 0
        try:
            for fields in reader:
                line = begin + consumed + 1
                consumed = reader.line_num
                at = begin + consumed
                if len(fields) > 1 or (fields and lines[line - 1].strip()):
                    yield Row(line, fields)
        except csv.Error:
            unclosed += 1
            if unclosed > 1000:
                raise ValueError("this is not a CSV file: its quotes do not match") from None
            yield Row(at + 1, [lines[at].strip()], "it cannot be read as CSV: its quotes do not match")
            at += 1


def guess_delimiter(lines: list[str]) -> str:
    """The delimiter that cuts the first lines most evenly into more than one field."""

    def evenness(delimiter: str) -> tuple[float, int]:
        records = [row.fields for row in read_records(lines[:30], delimiter) if row.broken is None]
        width = len(records[0]) if records else 0
        if width < 2:
            return (0.0, 0)
        return (sum(len(fields) == width for fields in records) / len(records), width)

    return max(",;\t|", key=evenness)


def unique_names(header: list[str]) -> list[str]:
    """Column names without blanks and repetitions."""
    names: list[str] = []
    for position, field in enumerate(header, 1):
        name = wanted = field.strip() or f"column {position}"
        repetition = 1
        while name in names:
            repetition += 1
            name = f"{wanted} ({repetition})"
        names.append(name)
    return names


def mark_length(row: Row, width: int) -> Row:
    if row.broken or len(row.fields) == width:
        return row
    return row._replace(broken=f"it has {len(row.fields)} fields instead of {width}")


def parse_number(value: str) -> float | None:
    """The finite number that `value` is, or `None`. Digits with a leading zero are a code, not a number."""
    value = value.strip()
    if not NUMBER.fullmatch(value) or LEADING_ZERO.fullmatch(value):
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def missing(value: str) -> bool:
    return value.strip().lower() in MISSING


def mostly_numbers(column: str, values: list[str]) -> bool:
    """Whether so many are numbers that the others must be mistakes: one, or a tenth; half where the name says it."""
    present = [value for value in values if not missing(value)]
    numbers = sum(parse_number(value) is not None for value in present)
    mistakes = len(present) - numbers
    most = len(present) / 2 if column.lower() in LIMITS else max(1, len(present) / 10)
    return mistakes < numbers and mistakes <= most


def choose_group(columns: list[str], rows: list[list[str]]) -> int | None:
    """The column to count by: `state`, or the first one with few different values, or none."""
    for at, column in enumerate(columns):
        if column.lower() == "state":
            return at
    for at in range(len(columns)):
        different = len({fields[at] for fields in rows})
        if 2 <= different <= min(FEW_VALUES, len(rows) // 2):
            return at
    return None


# Checking and counting


def check(table: Table, rows: list[Row]) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """The rows that are good, and `{row, reason}` for each that is not."""
    good: list[list[str]] = []
    rejected: list[dict[str, Any]] = []
    for row in rows:
        reason = row.broken or wrong_number(table, row.fields)
        if reason:
            rejected.append({"row": row.line, "reason": reason})
        else:
            good.append(row.fields)
    return good, rejected


def wrong_number(table: Table, fields: list[str]) -> str | None:
    for at in sorted(table.numbers):
        column, value = table.columns[at], fields[at]
        if missing(value):
            continue
        found = parse_number(value)
        if found is None:
            return f"{column} is not a number: {value[:40]!r}"
        limit = LIMITS.get(column.lower())
        if limit is not None and abs(found) > limit:
            return f"{column} {value.strip()} is not between {-limit:g} and {limit:g}"
    return None


def figures(table: Table, chunks: list["Chunk"]) -> dict[str, Any]:
    """How many rows were saved, how often each chunk was, and the numbers as a whole and by group."""
    rows = [fields for chunk in chunks for fields in chunk.rows]
    groups: dict[str, list[list[str]]] = {}
    if table.group_by is not None:
        for fields in rows:
            groups.setdefault(fields[table.group_by].strip(), []).append(fields)
    largest_first = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return {
        "saved": len(rows),
        "chunks": [
            {"chunk": at, "rows": len(chunk.rows), "times_saved": chunk.times_saved}
            for at, chunk in enumerate(chunks, 1)
        ],
        "numbers": spread(table, rows),
        "group_by": None if table.group_by is None else table.columns[table.group_by],
        "group_count": len(groups),
        "groups": [
            {"name": name, "count": len(members), "numbers": spread(table, members)}
            for name, members in largest_first[:MOST_GROUPS]
        ],
    }


def spread(table: Table, rows: list[list[str]]) -> dict[str, dict[str, float]]:
    """Least, mean and greatest value of each column of numbers."""
    found: dict[str, dict[str, float]] = {}
    for at in sorted(table.numbers - {table.group_by}):
        values = [value for fields in rows if (value := parse_number(fields[at])) is not None]
        if values:
            # fsum is exact, so that every Python computes the same mean; the built-in sum changed in 3.12.
            mean = round(math.fsum(values) / len(values), 6)
            found[table.columns[at]] = {"min": min(values), "mean": mean, "max": max(values)}
    return found


# Saving


class Chunk(NamedTuple):
    """A chunk as it was saved: `times_asked` counts the calls of `save`, `times_saved` those that wrote rows."""

    times_asked: int
    times_saved: int
    rows: list[list[str]]


class ChunkStore:
    """Where the rows go: one file per chunk, outside of the engine's database, with its own counts.

    The engine never repeats a step whose result is stored. But between the effect of a step (here: the file) and its
    stored result there is a moment, and a run killed right then repeats that one step. So `save` is made to be
    asked twice: a chunk that is there already keeps its rows, and `times_asked` tells that it happened.
    """

    def __init__(self, run_id: str) -> None:
        self._folder = BrowserFolder(run_id) if sys.platform == "emscripten" else DiskFolder(run_id)

    async def save(self, number: int, rows: list[list[str]]) -> int:
        """Save a chunk once, and return how often it was asked for. Safe to repeat; a file is whole or absent."""
        text = await self._folder.read(f"{number}.json")
        before = Chunk(0, 0, []) if text is None else Chunk(*json.loads(text))
        saved = before.times_saved + (text is None or before.rows != rows)
        await self._folder.write(f"{number}.json", json.dumps(Chunk(before.times_asked + 1, saved, rows)))
        return before.times_asked + 1

    async def read(self, number: int) -> Chunk:
        """A chunk that was saved. Raises `LookupError` when somebody took it away."""
        text = await self._folder.read(f"{number}.json")
        if text is None:
            raise LookupError(f"chunk {number} was saved and is not there any more")
        return Chunk(*json.loads(text))


class DiskFolder:
    """`imports/<run>/` in the working directory, or below `$IMPORTS`."""

    def __init__(self, run_id: str) -> None:
        self._path = Path(os.environ.get("IMPORTS", "imports"), run_id)

    async def read(self, name: str) -> str | None:
        """The file's text, or `None` where there is no such file."""
        path = self._path / name
        return path.read_text("utf-8") if path.exists() else None

    async def write(self, name: str, text: str) -> None:
        """Replace the file as a whole: whoever is killed in the middle leaves the old one."""
        await asyncio.to_thread(self._replace, self._path / name, text)

    def _replace(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)


class BrowserFolder:
    """`imports/<run>/` in the origin's private file system, which a reload and a crash leave alone."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._folder: Any = None

    async def read(self, name: str) -> str | None:
        from pyodide.ffi import JsException

        folder = await self._open()
        try:
            handle = await folder.getFileHandle(name)
        except JsException as error:
            if error.name == "NotFoundError":
                return None
            raise
        text = await (await handle.getFile()).text()
        return str(text) or None  # a file that was made and never written is empty

    async def write(self, name: str, text: str) -> None:
        handle = await (await self._open()).getFileHandle(name, create=True)
        stream = await handle.createWritable()  # writes beside the file; close() puts it in its place
        await stream.write(text)
        await stream.close()

    async def _open(self) -> Any:
        if self._folder is None:
            from js import navigator

            root = await navigator.storage.getDirectory()
            imports = await root.getDirectoryHandle("imports", create=True)
            self._folder = await imports.getDirectoryHandle(self._run_id, create=True)
        return self._folder
