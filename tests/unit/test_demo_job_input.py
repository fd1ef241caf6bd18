"""The demo's job on files that people have: odd, broken, or not CSV at all."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.jobs import MOST_REJECTED, check, figures, import_csv, read_table
from demo.jobs import Chunk as SavedChunk
from durably_web import Durably, Run


@pytest.fixture(autouse=True)
def imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPORTS", str(tmp_path / "imports"))


async def run_of(tmp_path: Path, text: str, **more: Any) -> tuple[Run, list[tuple[str, str]]]:
    """The run on `text` after its end, and its log."""
    async with Durably(str(tmp_path / "app.db"), jobs=[import_csv]) as durably:
        handle = await durably.trigger(import_csv, {"text": text, **more})
        run = await durably.wait_for_run(handle.id, timeout=60)
        return run, [(entry.level, entry.message) for entry in await durably.get_logs(handle.id)]


def fields_of(text: str) -> tuple[list[str], list[list[str]]]:
    table = read_table(text)
    good, rejected = check(table, table.rows)
    assert rejected == []
    return table.columns, good


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the file is empty"),
        (" \r\n\t\n", "the file is empty"),
        ("\ufeff", "the file is empty"),
        ("a,b\n1,\0\n", "this is not a text file: it contains NUL characters"),
        ('"a,b\n1,2\n', "the first row cannot be used: it cannot be read as CSV: its quotes do not match"),
    ],
)
async def test_a_file_that_is_no_csv_gives_one_clear_error(tmp_path: Path, text: str, complaint: str) -> None:
    run, _ = await run_of(tmp_path, text)
    assert run.status == "failed"
    assert run.error == f"ValueError: {complaint}"


async def test_a_chunk_size_that_is_no_size_gives_one_clear_error(tmp_path: Path) -> None:
    run, _ = await run_of(tmp_path, "a,b\n1,2\n", chunk_size=0)
    assert run.error == "ValueError: chunk_size must be 1 or more, not 0"


async def test_a_header_without_rows_is_a_report_without_rows(tmp_path: Path) -> None:
    run, log = await run_of(tmp_path, "state,count\n")
    assert run.status == "completed"
    assert run.output["columns"] == ["state", "count"]
    assert (run.output["row_count"], run.output["chunks"], run.output["groups"]) == (0, [], [])
    assert ("warning", "the file has a header and no rows") in log


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_byte_order_marks(delimiter: str, end: str, mark: str) -> None:
    rows = [
        ["name", "note", "size"],
        ["a", f"one{delimiter}two", "1"],
        ["ü", 'a "quote"', "2"],
        ["c", f"two{end}lines", "3"],
    ]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    assert fields_of(mark + text.getvalue()) == (rows[0], rows[1:])


def test_blank_lines_and_spaces_before_quotes() -> None:
    assert fields_of('\n\na,b\n\n"1", "x, y"\n\n') == (["a", "b"], [["1", "x, y"]])


def test_one_column() -> None:
    assert fields_of('name\nAnna\n\n""\nBert\n') == (["name"], [["Anna"], [""], ["Bert"]])


def test_names_of_columns_are_unique_and_not_empty() -> None:
    assert read_table("a,,a, b ,\n1,2,3,4,5\n").columns == ["a", "column 2", "a (2)", "b", "column 5"]


BROKEN = """iata,name,latitude,longitude
A,Alpha,10.5,20
B,Beta,91,20
C,Gamma,10.5,-180.1
D,Delta,north,20
E,Epsilon,1
F,Zeta,1,2,3
G,"Eta,1,2
H,Theta,,2
I,Iota,-90,180
J,Kappa,1e400,1
"""


async def test_broken_rows_are_named_by_line_and_the_run_goes_on(tmp_path: Path) -> None:
    run, log = await run_of(tmp_path, BROKEN, chunk_size=4)
    report = run.output
    assert report["rejected"] == [
        {"row": 3, "reason": "latitude 91 is not between -90 and 90"},
        {"row": 4, "reason": "longitude -180.1 is not between -180 and 180"},
        {"row": 5, "reason": "latitude is not a number: 'north'"},
        {"row": 6, "reason": "it has 3 fields instead of 4"},
        {"row": 7, "reason": "it has 5 fields instead of 4"},
        {"row": 8, "reason": "it cannot be read as CSV: its quotes do not match"},
        {"row": 11, "reason": "latitude is not a number: '1e400'"},
    ]
    assert (report["row_count"], report["saved"], report["rejected_count"]) == (10, 3, 7)
    assert [chunk["rows"] for chunk in report["chunks"]] == [1, 1, 1]
    assert report["numbers"]["latitude"] == {"min": -90.0, "mean": -39.75, "max": 10.5}
    assert ("warning", "row 3 is left out: latitude 91 is not between -90 and 90") in log


async def test_many_broken_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    text = "a,b\n" + "1,2\n" * 300 + "only one\n" * 250
    run, log = await run_of(tmp_path, text)
    assert (run.output["saved"], run.output["rejected_count"]) == (300, 250)
    assert [broken["row"] for broken in run.output["rejected"]] == list(range(302, 302 + MOST_REJECTED))
    assert len([message for level, message in log if level == "warning"]) == 18
    assert ("warning", "chunk 4 has 95 more broken rows") in log


async def test_a_large_file_has_a_bounded_number_of_chunks(tmp_path: Path) -> None:
    run, _ = await run_of(tmp_path, "a,b\n" + "1,2\n" * 60_000)
    assert run.output["saved"] == 60_000
    assert len(run.output["chunks"]) == 500


@pytest.mark.parametrize(
    ("text", "group_by"),
    [
        ("x,State\n1,NY\n2,NY\n3,TX\n", "State"),
        ("id,kind\n" + "".join(f"{at},{'ab'[at % 2]}\n" for at in range(10)), "kind"),
        ("id,word\n" + "".join(f"{at},word {at}\n" for at in range(200)), None),
        ("constant\n" + "x\n" * 10, None),
    ],
)
def test_rows_are_counted_by_state_or_by_a_column_with_few_values(text: str, group_by: str | None) -> None:
    table = read_table(text)
    found = figures(table, [SavedChunk(1, 1, [row.fields for row in table.rows])])
    assert found["group_by"] == group_by
    assert bool(found["groups"]) == (group_by is not None)


@pytest.mark.parametrize(
    ("values", "is_number"),
    [
        (["1", "2.5", "-3e2", "+.5"], True),
        (["1", "NA", "", "n/a", "null"], True),
        (["1", "2", "oops"], True),
        (["1", "a"], False),
        (["00501", "10001"], False),
        (["nan", "NaN"], False),
        (["a", "b"], False),
        (["1_000", "2_000"], False),
        (["\u0661", "\u0662"], False),
    ],
)
def test_a_column_is_numbers_when_nearly_all_its_values_are(values: list[str], is_number: bool) -> None:
    table = read_table("a,b\n" + "".join(f"{value},x\n" for value in values))
    assert (0 in table.numbers) == is_number


@given(st.text(alphabet=st.sampled_from('ab1.,;\t|"\n\r -\ufeff\x0b\u2028é'), max_size=200))
def test_any_text_is_read_or_refused_and_every_row_is_accounted_for(text: str) -> None:
    try:
        table = read_table(text)
    except ValueError as error:
        assert str(error)
        return
    good, rejected = check(table, table.rows)
    assert len(good) + len(rejected) == len(table.rows)
    assert all(len(fields) == len(table.columns) for fields in good)
    lines = [row.line for row in table.rows]
    assert lines == sorted(set(lines))
