"""What a worker does again and again must not cost more the more runs are finished."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from durably_web.store import migrations, operations
from durably_web.store.batch import Operation
from durably_web.store.operations import Entry

ENTRY = Entry(2, "step:complete", "save", "null", 1, 1)
WORK: tuple[Operation[Any], ...] = (
    operations.claim(owner="w", token="t", job_names=["j"], limit=10, executing=["r"], now=1, expires_at=2),
    operations.write_entries("r", 1, [ENTRY], "{}"),
    operations.finish_run("r", 1, "completed", "null", None, [ENTRY], "{}", 1),
    operations.release_run("r", 1),
    operations.renew_leases([("r", 1)], 2),
    operations.other_owners("w"),
    operations.free_leases_of(["w"]),
)


@pytest.mark.parametrize("operation", WORK, ids=lambda operation: operation.name)
def test_no_plan_walks_through_finished_runs(operation: Operation[Any]) -> None:
    connection = sqlite3.connect(":memory:")
    for statement in migrations.statements(1):
        connection.execute(statement)
    for sql, params in operation.batch.statements:
        plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", params)]
        for line in plan:
            # Both indexes have only runs that are not finished; the virtual table is the list of arguments.
            harmless = ("durably_runs_pending", "durably_runs_leased", "json_each")
            assert not line.startswith("SCAN") or any(name in line for name in harmless), (line, sql)
    connection.close()
