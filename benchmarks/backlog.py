"""The rate of runs when the table is full of others: a history of finished runs, and a backlog of pending ones."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from benchmarks.measure import Stopwatch, take_turns
from benchmarks.native import engine, run_all
from benchmarks.raw import Durability
from benchmarks.report import Figure, compared, share
from benchmarks.size import Size

# Ids sort before those that the engine will make: what is here is older. The pending ones are claimed first.
_RUNS = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?5)
INSERT INTO durably_runs
    (id, job_name, status, input, output, labels, attempt, created_at, started_at, completed_at, generation)
SELECT printf('00%s%023d', substr(?1, 1, 1), n), 'one_step', ?1, '{}', ?2, '{}', ?3, 1, ?4, ?4, ?3 FROM numbers
"""
_ENTRIES = """
INSERT INTO durably_journal (run_id, number, generation, type, step_name, data, started_at, created_at)
SELECT r.id, kind.number, min(kind.number - 1, 1), kind.type, kind.step_name, kind.data, r.started_at, r.created_at
FROM durably_runs r JOIN (
    SELECT 1 AS number, 'run:trigger' AS type, NULL AS step_name, NULL AS data
    UNION ALL SELECT 2, 'run:leased', NULL, '{"workerId":"benchmark","attempt":1}'
    UNION ALL SELECT 3, 'step:complete', 'save', ?1
    UNION ALL SELECT 4, 'run:complete', NULL, NULL
) AS kind ON kind.number = 1 OR r.status = 'completed'
ORDER BY r.id, kind.number
"""


def fill(path: Path, size: Size) -> float:
    """Add finished and pending runs with all their entries, in one transaction; gives the seconds it took."""
    watch = Stopwatch()
    db = sqlite3.connect(path, isolation_level=None)
    try:
        # Nobody else is here, and a crash would only cost the benchmark.
        db.execute("PRAGMA synchronous = off")
        db.execute("PRAGMA cache_size = -200000")
        db.execute("BEGIN IMMEDIATE")
        _insert(db, size.finished, "completed", '{"saved":true}', 1)
        _insert(db, size.pending, "pending", None, 0)
        db.execute(_ENTRIES, ('{"saved":true}',))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(truncate)")
    finally:
        db.close()
    return watch.seconds()


def _insert(db: sqlite3.Connection, count: int, status: str, output: str | None, attempt: int) -> None:
    completed_at = 1 if attempt else None
    db.execute(_RUNS, (status, output, attempt, completed_at, count))


async def measure(folder: Path, durability: Durability, size: Size) -> list[Figure]:
    full = folder / "full.db"
    async with engine(full, durability):
        pass
    seconds = fill(full, size)
    megabytes = full.stat().st_size / 1e6
    # As many runs come in as are executed, so the backlog stays as long as it is.
    async with engine(folder / "empty.db", durability) as empty, engine(full, durability) as crowded:

        async def ours() -> float:
            return await run_all(crowded, size.runs)

        async def alone() -> float:
            return await run_all(empty, size.runs)

        comparison = await take_turns(ours, alone, size.rounds)
    note = f"raw: the empty table; {megabytes:,.0f} MB, filled in {seconds:.0f} s"
    work = f"runs/s beside {size.finished:,} finished, {size.pending:,} pending"
    return [compared(f"SQLite {durability}", work, comparison, bar=share(0.9), note=note)]
