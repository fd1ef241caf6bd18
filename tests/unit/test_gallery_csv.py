"""The job of examples/csv here: the same file as in a browser, on files of every kind."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from durably_web import Durably, RunFailed
from tests.support.examples import imported


@pytest.fixture
def jobs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("CSV_FILES", str(tmp_path))
    with imported(root / "examples" / "csv") as jobs:
        yield jobs


@pytest.fixture
def clean(jobs: ModuleType, tmp_path: Path) -> Callable[[bytes], Any]:
    """Clean a file: its output, the clean rows, and the rows left out."""

    async def clean(content: bytes) -> tuple[dict[str, Any], list[list[str]], list[list[str]]]:
        (tmp_path / "file.csv").write_bytes(content)
        async with Durably(":memory:", jobs=[jobs.clean_csv]) as durably:
            output = await durably.trigger_and_wait(jobs.clean_csv, {"file": "file.csv"}, timeout=60)
        return output, rows_of(tmp_path, output, "clean"), rows_of(tmp_path, output, "rejected")

    return clean


def rows_of(folder: Path, output: dict[str, Any], kind: str) -> list[list[str]]:
    text = b"".join(path.read_bytes() for path in sorted((folder / output["folder"]).glob(f"{kind}-*.csv"))).decode()
    return list(csv.reader(io.StringIO(text, newline="")))


MESSY = """\
\ufeffwhen;place;level;note
31.1.2010 06:00;North;47,8;"first line
second line; the same field"
31.1.2010 07:00;South;48,1;
31.1.2010 07:00;South;48.1;

1.2.2010;North;n/a;ok
30.2.2010;North;1,5;
3.2.2010;North;high;
4.2.2010;South
5.2.2010;North;47,2;"never closed
6.2.2010;0123;47,2;
7.2.2010;  North  end ;1e5;
;;;
"""


async def test_each_row_is_clean_or_listed_with_its_line(clean: Callable[[bytes], Any]) -> None:
    # A column is what nine of ten values are.
    more = "".join(f"{day}.3.2010;North;{day};\n" for day in range(1, 29))
    for text in (MESSY + more, (MESSY + more).replace("\n", "\r\n"), (MESSY + more).replace("\n", "\r")):
        output, good, rejected = await clean(text.encode())
        assert output["layout"]["types"] == ["date", "text", "number", "text"]
        assert good[:5] == [
            ["when", "place", "level", "note"],
            ["2010-01-31T06:00:00", "North", "47.8", "first line second line; the same field"],
            ["2010-01-31T07:00:00", "South", "48.1", ""],
            ["2010-02-01", "North", "", "ok"],
            ["2010-02-06", "0123", "47.2", ""],
        ]
        assert len(good) == 5 + 28
        assert [row[:2] for row in rejected[1:]] == [
            ["5", "an earlier row is the same"],
            ["8", "when is not a date: '30.2.2010'"],
            ["9", "level is not a number: 'high'"],
            ["10", "it has 2 fields instead of 4"],
            ["11", "its quotes do not match, or a field is longer than 128 kB"],
            ["13", "level is not a number: '1e5'"],
            ["14", "nothing is in it"],
        ]
        assert output["good"] == 4 + 28 and output["rejected_count"] == 7 and output["duplicates"] == 1
        assert output["missing"] == {"when": 0, "place": 0, "level": 1, "note": 3 + 28 - 1}
        assert output["groups"]["2010-01-31"] == {"": [2, 0, 0, 0], "level": [2, 47.8 + 48.1, 47.8, 48.1]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf \n", "the file is empty"),
        (b"PK\x03\x04\0\0", "this is not a text file"),
        ("a,b\n1,2\n".encode("utf-16"), "the file is UTF-16"),
        (b'"a,b\n1,2\n', "the first row cannot be used: its quotes do not match"),
    ],
)
async def test_what_is_no_csv_file_is_refused(clean: Callable[[bytes], Any], content: bytes, told: str) -> None:
    with pytest.raises(RunFailed, match=told):
        await clean(content)


async def test_a_file_that_is_not_whole_or_not_there_is_refused(jobs: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_bytes(b"a,b\n1,2\n")
    async with Durably(":memory:", jobs=[jobs.clean_csv]) as durably:
        with pytest.raises(RunFailed, match="it has 8 bytes instead of 9"):
            await durably.trigger_and_wait(jobs.clean_csv, {"file": "file.csv", "size": 9}, timeout=30)
        with pytest.raises(RunFailed, match="FileNotFoundError"):
            await durably.trigger_and_wait(jobs.clean_csv, {"file": "absent.csv", "size": 9}, timeout=30)
        assert (await durably.trigger_and_wait(jobs.clean_csv, {"file": "file.csv", "size": 8}, timeout=30))[
            "good"
        ] == 1


async def test_bytes_of_another_encoding_are_one_row_or_the_whole_file(clean: Callable[[bytes], Any]) -> None:
    output, good, _ = await clean("name,n\nJosé,1\n".encode("cp1252"))
    assert output["layout"]["encoding"] == "cp1252" and good[1] == ["José", "1"]
    # Behind what was looked at first it is a fault of a row.
    start = "name,n\n" + "".join(f"naïve {n},{n}\n" for n in range(30_000))
    output, good, rejected = await clean(start.encode() + "José,1\n".encode("cp1252") + "Zoë,2\n".encode())
    assert output["layout"]["encoding"] == "utf-8"
    assert rejected[1:] == [["30002", "name has bytes that are not utf-8", "Jos\ufffd", "1"]]
    assert good[-1] == ["Zoë", "2"]


async def test_a_file_that_cannot_be_written_at_once_is_written_later(
    jobs: ModuleType, clean: Callable[[bytes], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the rows of the attempt that failed are not taken for earlier ones."""
    write, failed = type(jobs.here())._write, []

    def busy(self: Any, path: Path, text: str) -> None:
        if path.name not in failed and path.name.endswith("1.csv"):
            failed.append(path.name)
            raise OSError("it is held by somebody")
        write(self, path, text)

    monkeypatch.setattr(type(jobs.here()), "_write", busy)
    output, good, rejected = await clean(b"a,b\n1,2\n1,2\n3,4\n")
    assert failed == ["clean-00001.csv", "rejected-00001.csv"]
    assert good[1:] == [["1", "2"], ["3", "4"]]
    assert [row[:2] for row in rejected[1:]] == [["3", "an earlier row is the same"]] and output["duplicates"] == 1


@pytest.mark.parametrize("seed", [7])
async def test_a_large_file_is_read_in_bounded_pieces(
    seed: int, jobs: ModuleType, clean: Callable[[bytes], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records longer than a piece too; what is longer than the largest piece is left out, and the rest goes on."""
    chance = random.Random(seed)
    largest, reads = jobs.LARGEST, []
    read = jobs.here()._read

    def watched(self: Any, name: str, start: int, end: int) -> bytes:
        reads.append(end - start)
        return bytes(read(name, start, end))

    monkeypatch.setattr(type(jobs.here()), "_read", watched)
    texts = [f"{'line ' * chance.randrange(4000)}{number}" for number in range(400)]
    rows = "".join(f'{number},"{text}"\n' for number, text in enumerate(texts))
    output, good, rejected = await clean(f"n,text\n{rows}x,{'y' * 2 * largest}\n".encode() + b"1000,last\n")
    assert good[1:] == [*([str(number), text] for number, text in enumerate(texts)), ["1000", "last"]]
    assert {line for line, *_ in rejected[1:]} == {"402"}
    assert output["parts"] > 20
    assert max(reads[1:]) <= largest


async def test_days_become_months_and_years(jobs: ModuleType, clean: Callable[[bytes], Any]) -> None:
    days = [f"{1000 + at // 336}-{1 + at // 28 % 12:02}-{1 + at % 28:02},{at}" for at in range(3 * 336 + 7)]
    output, _, _ = await clean(("day,n\n" + "\n".join(days)).encode())
    assert len(output["groups"]) == 3 * 12 + 1 and output["groups"]["1000-02"]["n"] == [28, sum(range(28, 56)), 28, 55]
    words = [f"w{at % 1000},{at}" for at in range(3000)]
    merged = jobs.merge_groups([{word.split(",")[0]: {"": [1, 0, 0, 0]}} for word in words], False)
    assert len(merged) == 400 and merged["…"][""][0] == (1000 - 399) * 3
