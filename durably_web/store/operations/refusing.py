"""Runs that were promised, and turned out to be impossible: they are stored as failed, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import LiteralString, NamedTuple, cast

from durably_web.store.batch import Operation, Rows, Value
from durably_web.store.operations.building import NEVER_USED, operation
from durably_web.store.operations.triggering import INSERT_LABELS, INSERT_TRIGGER_ENTRY

INSERT_REFUSED_RUN: LiteralString = f"""
INSERT INTO durably_runs (id, job_name, status, input, error, labels, created_at, completed_at)
SELECT ?, ?, 'failed', ?, ?, ?, ?, ? WHERE {NEVER_USED}
ON CONFLICT DO NOTHING
"""

# Not of a run that another send of the same trigger has made.
INSERT_FAILURE: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at)
SELECT id, 2, 0, 'run:fail', ?, completed_at FROM durably_runs WHERE id = ? AND status = 'failed' AND generation = 0
ON CONFLICT DO NOTHING
"""

SELECT_FIRST_ENTRIES: LiteralString = """
SELECT type, seq FROM durably_journal WHERE run_id = ? AND number <= 2 AND type IN ('run:trigger', 'run:fail')
"""


class Refusal(NamedTuple):
    """A run that cannot be. `data` is that of its last entry; `asked_at` is when it was promised, in milliseconds."""

    run_id: str
    job_name: str
    input: str
    labels: dict[str, str]
    error: str
    data: str
    asked_at: int


def store_refusals(refusals: Sequence[Refusal], now: int) -> Operation[list[dict[str, int]]]:
    """Store runs that have failed before they could begin. Gives the seqs of each one's entries, by their types.

    One that exists by now, or did, is left as it is.
    """
    statements: list[tuple[LiteralString, tuple[Value, ...]]] = []
    positions = []
    for one in refusals:
        run_id, name, text, labels, error, data, asked_at = one
        # A clock that was set back in between must not let it end before it was asked for.
        ended_at = max(now, asked_at)
        values = (run_id, name, text, error, json.dumps(labels), asked_at, ended_at, run_id)
        statements.append((INSERT_REFUSED_RUN, values))
        if labels:
            statements.append((INSERT_LABELS, (run_id,)))
        statements += [
            (INSERT_TRIGGER_ENTRY, (None, run_id)),
            (INSERT_FAILURE, (data, run_id)),
            (SELECT_FIRST_ENTRIES, (run_id,)),
        ]
        positions.append(len(statements) - 1)

    def decode(results: list[Rows]) -> list[dict[str, int]]:
        return [dict(cast("list[tuple[str, int]]", results[position])) for position in positions]

    return operation("store_refusals", "write", decode, *statements)
