"""What the raw limits commit: the rows that the engine writes, as transactions of plain statements."""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.jobs import RESULT

Transaction = list[tuple[str, tuple[int | str | None, ...]]]

ENTRY = """
INSERT INTO durably_journal (run_id, number, generation, type, step_name, data, started_at, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
RUN = """
INSERT INTO durably_runs (id, job_name, status, input, labels, created_at)
VALUES (?, 'one_step', 'pending', '{}', '{}', ?)
"""
LEASE = """
UPDATE durably_runs SET status = 'leased', generation = 1, attempt = 1, lease_owner = ?, lease_token = ?,
    lease_expires_at = ?, started_at = ? WHERE id = ?
"""
FINISH = """
UPDATE durably_runs SET status = 'completed', output = ?, completed_at = ?,
    lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL WHERE id = ?
"""

_NOW = 1_763_800_000_000
_OWNER = "benchmark-4711-01JD5XK2M9F8ZC3V7Q6N1T0R2B"
_DATA = json.dumps(RESULT, separators=(",", ":"))
_LEASED = json.dumps({"workerId": _OWNER, "attempt": 1})


class Ids:
    """Run ids as long as the engine's, and growing like them."""

    def __init__(self) -> None:
        self._count = 0

    def take(self, count: int) -> list[str]:
        self._count += count
        return [f"01JD5XK2M9{number:016d}" for number in range(self._count - count, self._count)]


def steps(run_id: str, count: int) -> list[Transaction]:
    """A run's steps, a commit each."""
    return [
        [(ENTRY, (run_id, number, 1, "step:complete", f"save#{number}", _DATA, _NOW, _NOW))] for number in range(count)
    ]


def triggers(ids: Sequence[str]) -> list[Transaction]:
    """New runs, a commit each."""
    return [[(RUN, (run_id, _NOW)), (ENTRY, (run_id, 1, 0, "run:trigger", None, None, None, _NOW))] for run_id in ids]


def lease(group: Sequence[str]) -> Transaction:
    transaction: Transaction = []
    for run_id in group:
        transaction.append((LEASE, (_OWNER, group[0], _NOW, _NOW, run_id)))
        transaction.append((ENTRY, (run_id, 2, 1, "run:leased", None, _LEASED, None, _NOW)))
    return transaction


def runs(ids: Sequence[str], at_once: int) -> list[Transaction]:
    """Runs of one step, `at_once` at a time: three commits for their leases, their steps and their ends."""
    transactions: list[Transaction] = []
    for begin in range(0, len(ids), at_once):
        group = ids[begin : begin + at_once]
        step: Transaction = [(ENTRY, (id_, 3, 1, "step:complete", "save", _DATA, _NOW, _NOW)) for id_ in group]
        end: Transaction = []
        for run_id in group:
            end.append((ENTRY, (run_id, 4, 1, "run:complete", None, None, _NOW, _NOW)))
            end.append((FINISH, (_DATA, _NOW, run_id)))
        transactions += [lease(group), step, end]
    return transactions
