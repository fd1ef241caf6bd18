"""Engines that are broken on purpose: each of them must be found.

Most are broken in their SQL, on its way to the database: whatever module it comes from. A pattern that nothing fits
any more is an error, not a pass.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from durably_web.history import History
from durably_web.journal import Draft, RunJournal
from durably_web.store.batch import Batch, Rows, Statement
from durably_web.store.changes import RUNNABLE, Changes
from tests.simulation.faults import Network
from tests.simulation.loop import Process

_IN_SQL: dict[str, tuple[str, str]] = {
    "a former owner writes": (r"generation = \? AND status = 'leased'", "? IS NOT NULL"),
    "leases of the living are taken": (r"lease_expires_at <= \?", "lease_expires_at <= ? + 60000"),
    "numbers with a gap": (r"max\(number\) \+ 1", "max(number) + 2"),
    "a key for two": (r"\bper_key > \(", "per_key + 1 > ("),
    "a signal for two": (r"(durably_signals SET step_name) = \?", r"\1 = CASE WHEN ? THEN NULL END"),
    "one run too many": (r"\bruns > \(", "runs + 1 > ("),
    "one start too many": (r"\brate > \(", "rate + 1 > ("),
    "the lowest priority first": (r"priority DESC", "priority ASC"),
    "paused runs are claimed": (r"AND paused = 0", "AND paused >= 0"),
    "a reader leaves out": (r"j\.seq > \?", "j.seq > ? + 1"),
    "the oldest is undone first": (r"u\.number DESC", "u.number ASC"),
    "a cancelled run is not undone": (r"(durably_undos u WHERE u\.run_id) =", r"\1 <"),
    "undone again": (r"(DELETE FROM durably_undos WHERE run_id = \?) AND number = \?", r"\1 AND number < ?"),
    "a tick beside an active run": (r"overlap <> 'skip' OR", "overlap IS NOT NULL OR"),
    "a tick without a run": (r"WHERE name = \? AND \(overlap", "WHERE name = ? AND overlap <> 'allow' AND (overlap"),
    "children outlive a cancellation": (r"parent_run_id = ", "parent_run_id <> "),
}


@contextmanager
def _in_sql(pattern: str, replacement: str) -> Iterator[None]:
    execute, changed = Network.execute, []

    @cache
    def rewritten(sql: str) -> Any:
        text, count = re.subn(pattern, replacement, sql)
        changed.extend([sql] * count)
        return text

    def broken(self: Network, process: Process, batch: Batch, note: str = "") -> list[Rows]:
        statements = tuple(Statement(rewritten(sql), params) for sql, params in batch.statements)
        return execute(self, process, batch._replace(statements=statements), note)

    with mock.patch.object(Network, "execute", broken):
        yield
    if not changed:
        raise LookupError(f"no statement has {pattern}")


@contextmanager
def _results_are_forgotten() -> Iterator[None]:
    """A replay does not know what is stored."""
    remember = History.__init__

    def broken(self: History, entries: list[Any]) -> None:
        remember(self, [entry for entry in entries if entry.type != "step:complete"])

    with mock.patch.object(History, "__init__", broken):
        yield


@contextmanager
def _told_before_the_commit() -> Iterator[None]:
    append = RunJournal.append

    async def broken(self: RunJournal, draft: Draft) -> None:
        async def later() -> None:
            await append(self, draft)

        asyncio.get_running_loop().create_task(later())

    with mock.patch.object(RunJournal, "append", broken):
        yield


@contextmanager
def _nobody_is_woken() -> Iterator[None]:
    notify = Changes.notify

    def broken(self: Changes, topic: str) -> None:
        if topic != RUNNABLE:
            notify(self, topic)

    with mock.patch.object(Changes, "notify", broken):
        yield


@contextmanager
def _undone_results_stay() -> Iterator[None]:
    """A run that is retried takes what was undone for done."""
    with mock.patch.object(History, "_leave_out_undone", lambda self, entries: None):
        yield


_IN_PYTHON: dict[str, Callable[[], Any]] = {
    "results are forgotten": _results_are_forgotten,
    "told before the commit": _told_before_the_commit,
    "nobody is woken": _nobody_is_woken,
    "what was undone stays done": _undone_results_stay,
}
BROKEN = (*_IN_SQL, *_IN_PYTHON)


@contextmanager
def break_engine(name: str) -> Iterator[None]:
    """Break it in one of these ways for a while."""
    with _in_sql(*_IN_SQL[name]) if name in _IN_SQL else _IN_PYTHON[name]():
        yield
