"""How PostgreSQL does what is repeated: by an index, whether it knows anything of the tables or not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from durably_web.backends.postgres import PostgresExecutor
from durably_web.backends.postgres.dialect import translate
from durably_web.clock import ManualClock
from durably_web.store.batch import Batch, Statement
from durably_web.store.operations import claiming, reading
from durably_web.store.store import Store
from tests.contract.store import REPEATED
from tests.support.servers import Postgres
from tests.support.store_registry import REGISTRY
from tests.support.store_scene import set_scene

# A backlog of ten thousand, and as long a history.
_MANY = (
    """
    INSERT INTO durably_runs (id, job_name, status, input, output, labels, created_at, completed_at)
    SELECT 'm' || n, 'job', CASE WHEN n % 2 = 1 THEN 'pending' ELSE 'completed' END, '{}',
           CASE WHEN n % 2 = 0 THEN '1' END, '{}', n, CASE WHEN n % 2 = 0 THEN n END
    FROM generate_series(1, 20000) AS n
    """,
    """
    INSERT INTO durably_journal (run_id, number, generation, type, created_at)
    SELECT id, 1, 0, 'run:trigger', 1 FROM durably_runs WHERE id LIKE 'm%'
    """,
    "INSERT INTO durably_labels (key, value, run_id) SELECT 'tenant', id, id FROM durably_runs WHERE id LIKE 'm%'",
)

# Of what is executed, holds a key, or waits for a moment: nothing of the backlog, and nothing of the history.
_FEW = ("durably_runs_leased", "durably_runs_key_holders", "durably_runs_waking", "durably_runs_scheduled")
_LARGE = tuple(f"durably_{name}" for name in ("runs", "journal", "labels", "signals", "requests", "undos", "starts"))
# Whether there is one at all.
_ONE = {claiming.SELECT_NEXT: "durably_runs_keys"}


@pytest.fixture
async def executor(postgres: Postgres) -> AsyncIterator[PostgresExecutor]:
    url = postgres.create_database()
    executor = PostgresExecutor(url, "relaxed")
    await executor.open()
    await Store(executor, ManualClock()).migrate()
    await set_scene(executor)
    await executor.run(Batch("write", tuple(Statement(sql) for sql in _MANY)))
    yield executor
    await executor.close()
    postgres.drop_database(url)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


async def _plan(executor: PostgresExecutor, sql: str, params: Any) -> list[dict[str, Any]]:
    explain: Any = f"EXPLAIN (FORMAT JSON) {translate(sql)}"
    [[[told]]] = await executor.run(Batch("read", (Statement(explain, params),)))
    return list(_nodes(json.loads(str(told))[0]["Plan"]))


@pytest.mark.parametrize("analyzed", [False, True], ids=["unknown tables", "known tables"])
async def test_what_is_repeated_walks_through_no_table(executor: PostgresExecutor, analyzed: bool) -> None:
    if analyzed:
        for table in ("durably_runs", "durably_journal", "durably_labels", "durably_signals"):
            analyze: Any = f"ANALYZE {table}"
            await executor.run(Batch("write", (Statement(analyze),)))
    asked = {
        statement.sql: statement.params for name in REPEATED for way in REGISTRY[name] for statement in way().batch[1]
    }
    wrong = []
    for sql, params in asked.items():
        for node in await _plan(executor, sql, params):
            kind, index, table = (str(node.get(name)) for name in ("Node Type", "Index Name", "Relation Name"))
            # An index is walked through from its beginning where there is no condition on it.
            walks = table in _LARGE and "Index Cond" not in node and index not in (*_FEW, _ONE.get(sql))
            if walks and kind != "ModifyTable":
                wrong.append(f"{kind} {table} {index}: {sql}")
    assert not wrong, "\n".join(wrong)


async def test_a_claim_finds_the_first_of_each_job(executor: PostgresExecutor) -> None:
    statements = {statement.sql: statement.params for way in REGISTRY["claim"] for statement in way().batch.statements}
    for sql in (claiming.CLAIM, claiming.CLAIM_ONE):
        nodes = await _plan(executor, sql, statements[sql])
        found = [node for node in nodes if node.get("Index Name") in ("durably_runs_ready", "durably_runs_ready_begun")]
        assert found and all("job_name" in node["Index Cond"] for node in found), nodes
        # Sorted is what is found of all jobs, at most as many of each as are asked for; not what a job has.
        assert all(node["Plans"][0]["Node Type"] == "Nested Loop" for node in nodes if node["Node Type"] == "Sort")
        assert any(node["Node Type"] == "LockRows" for node in nodes)


async def test_who_reads_events_on_begins_where_he_was(executor: PostgresExecutor) -> None:
    nodes = await _plan(executor, reading.SELECT_EVENTS, (100, 50))
    [scan] = [node for node in nodes if node.get("Index Name") == "durably_journal_pkey"]
    assert "seq > " in scan["Index Cond"] and not any(node["Node Type"] == "Sort" for node in nodes)
