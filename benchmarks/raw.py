"""The limit: a loop that commits the same rows to the same tables through the same driver, and does nothing else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from benchmarks import statements
from benchmarks.measure import Stopwatch
from durably_web.store import migrations

Durability = Literal["full", "relaxed"]

_STORED_STEPS = """
SELECT step_name, data FROM durably_journal WHERE run_id = ? AND type = 'step:complete' ORDER BY number
"""


class Limit(Protocol):
    """The raw limit of some driver: rates per second, and milliseconds."""

    async def steps(self, count: int) -> float: ...

    async def triggers(self, count: int) -> float: ...

    async def runs(self, count: int, at_once: int) -> float: ...

    async def triggers_and_runs(self, count: int, at_once: int) -> float: ...

    async def trigger_and_lease(self) -> float: ...


class RawDatabase:
    """A file of its own with the engine's schema and pragmas."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None, cached_statements=256)
        self._db.execute("PRAGMA journal_mode = wal")
        self._db.execute(f"PRAGMA synchronous = {'full' if durability == 'full' else 'normal'}")
        for version in range(1, migrations.LATEST + 1):
            for statement in migrations.statements(version):
                self._db.execute(statement)
        self._ids = statements.Ids()

    def close(self) -> None:
        self._db.close()

    def commit(self, transactions: Sequence[statements.Transaction]) -> Stopwatch:
        """Commit one after the other; a statement alone is a transaction already."""
        execute = self._db.execute
        watch = Stopwatch()
        for transaction in transactions:
            if len(transaction) == 1:
                execute(*transaction[0])
                continue
            execute("BEGIN IMMEDIATE")
            for statement in transaction:
                execute(*statement)
            execute("COMMIT")
        return watch

    async def steps(self, count: int) -> float:
        (run_id,) = self._ids.take(1)
        return self.commit(statements.steps(run_id, count)).rate(count)

    async def triggers(self, count: int) -> float:
        return self.commit(statements.triggers(self._ids.take(count))).rate(count)

    async def triggers_at_once(self, count: int) -> float:
        """All in one transaction."""
        ids = self._ids.take(count)
        return self.commit([[statement for run in statements.triggers(ids) for statement in run]]).rate(count)

    async def runs(self, count: int, at_once: int) -> float:
        ids = self._ids.take(count)
        self.commit(statements.triggers(ids))
        return self.commit(statements.runs(ids, at_once)).rate(count)

    async def triggers_and_runs(self, count: int, at_once: int) -> float:
        ids = self._ids.take(count)
        transactions = [*statements.triggers(ids), *statements.runs(ids, at_once)]
        return self.commit(transactions).rate(count)

    async def trigger_and_lease(self) -> float:
        """What has to be on disk before the first line of a job, in milliseconds."""
        ids = self._ids.take(1)
        return self.commit([*statements.triggers(ids), statements.lease(ids)]).milliseconds()

    def store_steps(self, count: int) -> str:
        """A run with so many steps; gives its id."""
        (run_id,) = self._ids.take(1)
        self.commit([[statement for step in statements.steps(run_id, count) for statement in step]])
        return run_id

    async def read_steps(self, run_id: str) -> float:
        """Reads and decodes what a replay needs, in milliseconds."""
        watch = Stopwatch()
        for _, data in self._db.execute(_STORED_STEPS, (run_id,)).fetchall():
            json.loads(data)
        return watch.milliseconds()
