"""Clean a CSV file of any size, piece by piece. A browser tab and a server run this same file.

Each piece is a stored step: killed in the middle, the run goes on with the first piece that has no result.
"""

import asyncio
import csv
import hashlib
import io
from typing import Any, NamedTuple, NotRequired, TypedDict

from cleaning import Broken, Layout, Row, add, clean, merge, merge_groups, recognise, records
from files import here

from durably_web import Retry, Step, job

LOOK = 256 * 1024  # bytes that tell what kind of file it is
SMALLEST, LARGEST = 16 * 1024, 512 * 1024  # bytes of a piece: never more are in memory at once
PIECES = 100  # about as many for a file between those sizes
SAME = "an earlier row is the same"

# Right after a crash the browser may hold on to the file that the dead tab was writing, for a moment.
AGAIN = Retry(max_attempts=5, initial_delay=0.5)
MOST_SHOWN = 100  # rejected rows in the output; all of them are in files of their own


class CsvFile(TypedDict):
    """What `clean_csv` is asked to do. `file` is a name as `files.py` knows it."""

    file: str
    name: NotRequired[str]  # as the visitor knows it
    size: NotRequired[int]  # in bytes, to know whether it is whole
    pause: NotRequired[float]  # seconds that each piece takes longer, so that a person can watch


class Place(NamedTuple):
    """Where a piece begins."""

    offset: int  # in bytes
    line: int  # counted from 1, as an editor does


@job
async def clean_csv(step: Step, input: CsvFile) -> dict[str, Any]:
    """Good rows go to `cleaned/<run>/clean-….csv`, piece by piece, the others with the reason to `rejected-….csv`."""
    name, files = input["file"], here()
    size = await step.run("size", measure, name, input.get("size"))
    found = await step.run("recognise", look, name, size)
    layout = Layout(**found["layout"])
    step.log.info(f"{size} bytes, {layout.encoding}, {layout.delimiter!r}", types=layout.types)

    folder = f"cleaned/{step.run_id}"
    piece = min(LARGEST, max(SMALLEST, size // PIECES))
    seen = Seen(folder)

    # The same names and the same text when a step is repeated: it does not matter how often that happens.
    async def save(number: int, good: list[list[str]], rejected: list[list[Any]]) -> None:
        await files.write(f"{folder}/clean-{number:05}.csv", to_csv(good))
        await files.write(f"{folder}/rejected-{number:05}.csv", to_csv(rejected))

    async def clean_piece(number: int, at: Place) -> dict[str, Any]:
        await asyncio.sleep(input.get("pause", 0))
        known = await seen.before(number)
        data = await files.read(name, at.offset, at.offset + piece)
        outcome = clean_lines(data, at, layout, known, last=at.offset + len(data) >= size)
        if outcome.next == at:  # the first record is longer than the piece
            data = await files.read(name, at.offset, at.offset + LARGEST)
            outcome = clean_lines(data, at, layout, known, last=at.offset + len(data) >= size, largest=True)
        await save(number, outcome.good, outcome.rejected)
        seen.after(number, outcome.marks)
        return outcome.told()

    await step.run("header", save, 0, [layout.columns], [["line", "reason", *layout.columns]], retry=AGAIN)
    parts: list[dict[str, Any]] = []
    at = Place(found["offset"], found["line"])
    while at.offset < size:
        part = await step.run("clean", clean_piece, len(parts) + 1, at, retry=AGAIN)
        parts.append(part)
        at = Place(*part["next"])
        step.progress(at.offset, total=size, message=f"{sum(part['good'] for part in parts):,} rows")

    figures: dict[str, list[float]] = {}
    for part in parts:
        merge(figures, part["figures"])
    shown = [row for part in parts for row in part["rejected"]]
    return {
        "name": input.get("name", name),
        "layout": layout._asdict(),
        "good": sum(part["good"] for part in parts),
        "rejected_count": sum(part["rejected_count"] for part in parts),
        "duplicates": sum(part["duplicates"] for part in parts),
        "missing": {column: sum(part["missing"][column] for part in parts) for column in layout.columns},
        "rejected": shown[:MOST_SHOWN],
        "figures": figures,
        "groups": merge_groups([part["groups"] for part in parts], is_date="date" in layout.types),
        "parts": len(parts),
        "folder": folder,
    }


async def measure(name: str, expected: int | None) -> int:
    """How many bytes there are. A run is stored more safely than a file: after a power cut that may not be whole."""
    size = await here().size(name)
    if expected not in (None, size):
        raise ValueError(f"the file was not stored as a whole: it has {size} bytes instead of {expected}")
    return size


async def look(name: str, size: int) -> dict[str, Any]:
    """The layout, and where the rows begin."""
    data = await here().read(name, 0, LOOK)
    layout, offset = recognise(data, whole=len(data) >= size)
    return {"layout": layout._asdict(), "offset": offset, "line": 1 + len(data[:offset].splitlines())}


class Outcome(NamedTuple):
    """What became of a piece."""

    good: list[list[str]]
    marks: set[bytes]  # of the good ones
    rejected: list[list[Any]]  # line, reason, and the fields as they were
    missing: dict[str, int]
    figures: dict[str, list[float]]
    groups: dict[str, dict[str, list[float]]]
    next: Place

    def told(self) -> dict[str, Any]:
        """What is stored of it: as much for a piece of the largest size as for a small one."""
        return {
            "good": len(self.good),
            "rejected_count": len(self.rejected),
            "rejected": [[line, reason] for line, reason, *_ in self.rejected[:MOST_SHOWN]],
            "duplicates": sum(row[1] == SAME for row in self.rejected),
            "missing": self.missing,
            "figures": self.figures,
            "groups": self.groups,
            "next": list(self.next),
        }


def clean_lines(
    data: bytes, at: Place, layout: Layout, known: set[bytes], *, last: bool = False, largest: bool = False
) -> Outcome:
    """Clean the whole records in `data`, and leave what may be cut off to the next piece.

    `known` are the marks of earlier rows. `last`: the file ends here. `largest`: there is no larger piece, so at least
    one line is dealt with.
    """
    lines = data.splitlines(keepends=True)
    if not last:
        lines.pop()
    found = Outcome([], set(), [], dict.fromkeys(layout.columns, 0), {}, {}, at)
    end = 0
    for row in records(lines, layout.encoding, layout.delimiter):
        if row.cut and not last and not (largest and end == 0):
            break
        end = row.end
        if row.fields:
            sort_out(row, at.line + row.line, layout, known, found)
    if largest and not lines:
        end = len(data)
        text = data[:80].decode("utf-8", "replace")
        found.rejected.append([at.line, f"it is longer than {LARGEST // 1024} kB", text])
    line = at.line + sum(line.endswith((b"\n", b"\r")) for line in data[:end].splitlines(keepends=True))
    groups = merge_groups([found.groups], is_date="date" in layout.types)
    return found._replace(groups=groups, next=Place(at.offset + end, line))


def sort_out(row: Row, line: int, layout: Layout, known: set[bytes], found: Outcome) -> None:
    """Clean one row, and put it where it belongs."""
    try:
        if row.broken:
            raise Broken(row.broken)
        fields = clean(row.fields, layout)
        mark = mark_of(fields)
        if mark in known or mark in found.marks:
            raise Broken(SAME)
    except Broken as reason:
        found.rejected.append([line, str(reason), *row.fields])
        return
    found.marks.add(mark)
    found.good.append(fields)
    key = "" if layout.group is None else fields[layout.group][: 10 if "date" in layout.types else 80]
    group = found.groups.setdefault(key, {})
    add(group, "", 0)
    for column, kind, value in zip(layout.columns, layout.types, fields, strict=True):
        if not value:
            found.missing[column] += 1
        elif kind == "number":
            add(found.figures, column, float(value))
            add(group, column, float(value))


class Seen:
    """Marks of the good rows before a piece, to know a row that comes again.

    Variables do not survive a crash, files do: what is missing here is read from the pieces that were cleaned.
    """

    def __init__(self, folder: str) -> None:
        self.rows: set[bytes] = set()
        self._folder = folder
        self._pieces = 0

    async def before(self, number: int) -> set[bytes]:
        """The marks of all pieces before this one."""
        while self._pieces < number - 1:
            self._pieces += 1
            name = f"{self._folder}/clean-{self._pieces:05}.csv"
            data = await here().read(name, 0, await here().size(name))
            self.rows.update(map(mark_of, csv.reader(io.StringIO(data.decode(), newline=""))))
        return self.rows

    def after(self, number: int, marks: set[bytes]) -> None:
        """Add those of a piece that is saved, so that nobody has to read them again."""
        self.rows |= marks
        self._pieces = number


def mark_of(fields: list[str]) -> bytes:
    """Eight bytes that no other row has: within a billion rows by chance one in forty."""
    return hashlib.blake2b("\x1f".join(fields).encode(), digest_size=8).digest()


def to_csv(rows: list[list[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()
