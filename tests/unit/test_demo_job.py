"""The demo's job on the airports: its report is what the file says, however often it was interrupted."""

from __future__ import annotations

import csv
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from demo.jobs import ChunkStore, check, import_csv, read_table
from durably_web import Durably, InvalidInput, Run


@pytest.fixture(autouse=True)
def imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the job saves to."""
    monkeypatch.setenv("IMPORTS", str(tmp_path / "imports"))
    return tmp_path / "imports"


@pytest.fixture
def airports(root: Path) -> str:
    return (root / "demo" / "airports.csv").read_bytes().decode()


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "app.db")


def expected_groups(text: str) -> list[tuple[str, int]]:
    """States and their airports, counted without any of the job's code."""
    counted = Counter(row["state"] for row in csv.DictReader(text.splitlines()))
    return sorted(counted.items(), key=lambda group: (-group[1], group[0]))


def saved_chunks(imports: Path) -> list[Any]:
    """The contents of the only run's files, in the order of the chunks."""
    [folder] = imports.iterdir()
    files = sorted(folder.iterdir(), key=lambda file: int(file.stem))
    return [json.loads(file.read_text()) for file in files]


async def report_of(database: str, value: dict[str, Any]) -> dict[str, Any]:
    async with Durably(database, jobs=[import_csv]) as durably:
        return await durably.trigger_and_wait(import_csv, value, timeout=60)


async def ended(durably: Durably, run_id: str) -> Run:
    run = await durably.wait_for_run(run_id, timeout=60)
    assert run.error is None
    return run


async def test_the_report_is_what_the_file_says(database: str, airports: str) -> None:
    report = await report_of(database, {"text": airports, "file_name": "airports.csv"})

    rows = list(csv.DictReader(airports.splitlines()))
    assert report["file_name"] == "airports.csv"
    assert report["columns"] == ["iata", "name", "city", "state", "country", "latitude", "longitude"]
    assert report["row_count"] == report["saved"] == len(rows) == 3376
    assert report["rejected"] == []
    assert report["rejected_count"] == 0
    assert [chunk["rows"] for chunk in report["chunks"]] == [100] * 33 + [76]
    assert {chunk["times_saved"] for chunk in report["chunks"]} == {1}
    assert report["group_by"] == "state"
    assert [(group["name"], group["count"]) for group in report["groups"]] == expected_groups(airports)
    texas = next(group for group in report["groups"] if group["name"] == "TX")
    latitudes = [float(row["latitude"]) for row in rows if row["state"] == "TX"]
    assert texas["numbers"]["latitude"]["min"] == min(latitudes)
    assert texas["numbers"]["latitude"]["max"] == max(latitudes)
    assert texas["numbers"]["latitude"]["mean"] == pytest.approx(statistics.mean(latitudes), abs=1e-6)
    assert list(report["numbers"]) == ["latitude", "longitude"]


async def test_every_row_is_in_the_saved_chunks(database: str, airports: str, imports: Path) -> None:
    await report_of(database, {"text": airports, "chunk_size": 500})

    chunks = saved_chunks(imports)
    assert len(chunks) == 7
    assert [fields for _, _, rows in chunks for fields in rows] == list(csv.reader(airports.splitlines()))[1:]
    assert [(asked, saved) for asked, saved, _ in chunks] == [(1, 1)] * 7


async def test_one_stored_step_per_chunk_and_the_log_tells_of_each(database: str, airports: str) -> None:
    async with Durably(database, jobs=[import_csv]) as durably:
        handle = await durably.trigger(import_csv, {"text": airports, "chunk_size": 1000})
        run = await ended(durably, handle.id)
        steps = [step.name for step in await durably.get_steps(handle.id)]
        lines = [entry.message for entry in await durably.get_logs(handle.id)]

    assert steps == ["save", "save#2", "save#3", "save#4", "summarise"]
    assert lines[0] == "read the file: 3376 rows, 7 columns, 4 chunks"
    assert lines[1:5] == [f"saved chunk {number} of 4" for number in range(1, 5)]
    assert run.progress is not None
    assert (run.progress.current, run.progress.total) == (4, 4)


async def test_a_run_that_was_stopped_goes_on_with_the_next_chunk(database: str, airports: str) -> None:
    value = {"text": airports, "chunk_size": 300}
    undisturbed = await report_of(f"{database}-other", value)
    first = Durably(database, jobs=[import_csv])
    async with first:
        handle = await first.trigger(import_csv, value)
        async for event in first.subscribe(handle.id):
            if event.type == "step:complete" and event.step_name == "save#5":
                break
    async with Durably(database, jobs=[import_csv]) as second:
        before = len(await second.get_steps(handle.id))
        run = await ended(second, handle.id)
        lines = [entry.message for entry in await second.get_logs(handle.id)]

    assert before >= 5
    assert run.output == undisturbed
    assert len([line for line in lines if line.startswith("saved chunk")]) == 12
    assert len([line for line in lines if line.startswith("going on with chunk")]) <= 1


async def test_a_chunk_saved_just_before_a_kill_is_not_saved_twice(database: str, airports: str, imports: Path) -> None:
    """The moment between a step's effect and its stored result: the file is there, the result is not."""
    value = {"text": airports, "chunk_size": 1000}
    undisturbed = await report_of(f"{database}-other", value)
    table = read_table(airports)
    durably = Durably(database, jobs=[import_csv])
    await durably.migrate()
    handle = await durably.trigger(import_csv, value)
    await ChunkStore(handle.id).save(2, check(table, table.rows[1000:2000])[0])
    await durably.process_until_idle()
    run = await ended(durably, handle.id)
    lines = [entry.message for entry in await durably.get_logs(handle.id)]
    await durably.stop()

    assert run.output == undisturbed
    asked, saved, _ = json.loads((imports / handle.id / "2.json").read_text())
    assert (asked, saved) == (2, 1)
    assert "chunk 2 had been saved just before the interruption; it is not saved again" in lines


async def test_the_counts_are_real(imports: Path) -> None:
    store = ChunkStore("run")
    assert await store.save(1, [["a"]]) == 1
    assert await store.save(1, [["a"]]) == 2
    assert await store.read(1) == (2, 1, [["a"]])
    assert await store.save(1, [["b"]]) == 3
    assert await store.read(1) == (3, 2, [["b"]])
    with pytest.raises(LookupError, match="chunk 2 was saved and is not there any more"):
        await store.read(2)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({}, "lacks 'text'"),
        ({"text": 1}, "must be str"),
        ({"text": "a\n1", "chunk_size": "many"}, "must be int"),
        ({"text": "a\n1", "size": 1}, "'size', which is not known"),
        (None, "lacks 'text'"),
    ],
)
async def test_input_that_does_not_fit_makes_no_run(database: str, value: Any, complaint: str) -> None:
    async with Durably(database, jobs=[import_csv]) as durably:
        with pytest.raises(InvalidInput, match=complaint):
            await durably.trigger(import_csv, value)
        assert await durably.get_runs() == []
