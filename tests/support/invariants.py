"""What must hold of every database at every moment, whatever happened to those who wrote it.

The model is the journal: each run is folded from its entries, and its row must say the same.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast

from durably_web.store.batch import Batch, Executor, Row, Statement

_RUNS = """
SELECT id, status, output, error, labels, progress, attempt, generation, started_at, completed_at,
       lease_owner, lease_token, lease_expires_at
FROM durably_runs ORDER BY id
"""
_ENTRIES = "SELECT run_id, number, seq, generation, type, step_name, data FROM durably_journal ORDER BY run_id, number"
_LABELS = "SELECT run_id, key, value FROM durably_labels ORDER BY run_id, key"

_STATUS_AFTER = {
    "run:trigger": "pending",
    "run:leased": "leased",
    "run:complete": "completed",
    "run:fail": "failed",
    "run:cancel": "cancelled",
    "run:retry": "pending",
}


async def check_invariants(executor: Executor) -> None:
    """Raises `AssertionError` at the first thing that is wrong with the database behind an open executor."""
    integrity, runs, entries, labels = await executor.run(
        Batch("read", tuple(Statement(sql) for sql in ("PRAGMA integrity_check", _RUNS, _ENTRIES, _LABELS)))
    )
    assert integrity == [("ok",)], f"the database is damaged: {integrity}"
    journals: dict[str, list[Row]] = {}
    for row in entries:
        journals.setdefault(cast(str, row[0]), []).append(row)
    label_rows: dict[str, dict[str, str]] = {}
    for run_id, key, value in cast("list[tuple[str, str, str]]", labels):
        label_rows.setdefault(run_id, {})[key] = value
    for row in runs:
        run_id = cast(str, row[0])
        _check_run(row, journals.pop(run_id, []), label_rows.pop(run_id, {}))
    for run_id, journal in journals.items():
        types = [row[4] for row in journal]
        assert types == ["run:delete"], f"run {run_id} is gone, and left behind {types}"
    assert not label_rows, f"labels of no run: {label_rows}"


def _check_run(row: Row, journal: list[Row], labels: dict[str, str]) -> None:
    (id_, status, output, error, own_labels, progress, attempt, generation, started, completed, *lease) = cast(
        "tuple[Any, ...]", row
    )
    story = f"run {id_}: {[(number, type_, step) for _, number, _, _, type_, step, _ in journal]}"
    numbers = [entry[1] for entry in journal]
    assert numbers == list(range(1, len(journal) + 1)), f"numbers are not dense in {story}"
    seqs = [cast(int, entry[2]) for entry in journal]
    assert seqs == sorted(set(seqs)), f"seqs do not grow in {story}"

    expected, leases, last_progress = None, 0, None
    done: set[str] = set()
    for _, number, _, by, type_, step_name, data in cast("list[tuple[Any, ...]]", journal):
        if type_ == "run:leased":
            leases += 1
        assert by == leases, f"entry {number} was written by generation {by} under lease {leases} in {story}"
        if type_ in ("step:complete", "step:fail", "log:write", "run:progress", "run:complete", "run:fail"):
            assert expected == "leased", f"entry {number} was written without a lease in {story}"
        if type_ in ("step:complete", "step:fail"):
            assert step_name not in done, f"step {step_name} has two results in {story}"
        if type_ == "step:complete":
            done.add(step_name)
        if type_ == "run:progress":
            last_progress = json.loads(data)
        if type_ in _STATUS_AFTER:
            allowed = {
                "run:trigger": (None,),
                # A lease that was given back, or that ran out, leaves no entry.
                "run:leased": ("pending", "leased"),
                "run:complete": ("leased",),
                "run:fail": ("leased",),
                "run:cancel": ("pending", "leased"),
                "run:retry": ("failed", "cancelled"),
            }[type_]
            assert expected in allowed, f"entry {number} ({type_}) follows the status {expected} in {story}"
            expected = _STATUS_AFTER[type_]

    assert status == expected or (status == "pending" and expected == "leased"), f"{status}, not {expected}: {story}"
    assert attempt == generation == leases, f"attempt {attempt}, generation {generation}, {leases} leases in {story}"
    assert (output is not None) == (status == "completed"), f"output {output!r} while {status}: {story}"
    assert (error is not None) == (status == "failed"), f"error {error!r} while {status}: {story}"
    assert (completed is not None) == (status in ("completed", "failed", "cancelled")), f"ended at {completed}: {story}"
    assert (started is not None) == (leases > 0), f"started at {started} with {leases} leases: {story}"
    assert all((value is not None) == (status == "leased") for value in lease), f"lease {lease} while {status}: {story}"
    assert (None if progress is None else json.loads(progress)) == last_progress, f"progress {progress}: {story}"
    assert json.loads(own_labels) == labels, f"labels {own_labels}, and {labels} to search by: {story}"


async def results_of(executor: Executor, run_id: str) -> Counter[str]:
    """How often each step of a run has a stored result."""
    sql = "SELECT step_name FROM durably_journal WHERE run_id = ? AND type = 'step:complete'"
    [found] = await executor.run(Batch("read", (Statement(sql, (run_id,)),)))
    return Counter(cast(str, row[0]) for row in found)
