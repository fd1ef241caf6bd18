"""What there is to do, counted for gauges. Each of these looks at no more rows than it is told, so that asking again
and again harms nobody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, LiteralString, NamedTuple, cast

from durably_web.store.batch import Operation, Rows
from durably_web.store.operations.building import READY, operation, texts

# Of runs that have begun before, nothing tells since when they are due.
COUNT_DUE: LiteralString = f"""
SELECT job_name, count(*), min(due) FROM (
    SELECT job_name, CASE WHEN generation > 0 THEN NULL WHEN run_at > created_at THEN run_at ELSE created_at END AS due
    FROM durably_runs WHERE {READY} LIMIT ?
) AS ready GROUP BY job_name
"""

COUNT_LEASED: LiteralString = "SELECT job_name, count(*) FROM durably_runs WHERE status = 'leased' GROUP BY job_name"

# (those that begin later, those that wait with a limit)
COUNT_BY_TIME: LiteralString = """
SELECT job_name, sum(CASE WHEN status = 'pending' THEN 1 ELSE 0 END),
       sum(CASE WHEN status = 'waiting' THEN 1 ELSE 0 END)
FROM (SELECT job_name, status FROM durably_runs WHERE wake_at IS NOT NULL LIMIT ?) AS timed GROUP BY job_name
"""

# There is no index of runs that wait without a limit: they are found by walking along, page by page.
COUNT_WITHOUT_LIMIT: LiteralString = """
SELECT job_name, sum(CASE WHEN status = 'waiting' AND wake_at IS NULL THEN 1 ELSE 0 END), count(*), max(id)
FROM (SELECT id, job_name, status, wake_at FROM durably_runs WHERE id > ? ORDER BY id LIMIT ?) AS page
GROUP BY job_name
"""

SELECT_DUE: LiteralString = """
SELECT id, job_name, CASE WHEN run_at > created_at THEN run_at ELSE created_at END FROM durably_runs
WHERE id IN (SELECT value FROM json_each(?))
"""


class QueueState(NamedTuple):
    """Counts by job. `oldest` is the moment, in milliseconds, since when the first run is due that was never begun."""

    due: dict[str, int]
    oldest: dict[str, int]
    leased: dict[str, int]
    delayed: dict[str, int]
    timed: dict[str, int]
    """Those that wait, and go on by time if nothing else comes."""


class WaitingPage(NamedTuple):
    """Counts by job of runs that wait without a limit, among some runs; `after` is the last of these, or `None` where
    there are no more."""

    counts: dict[str, int]
    after: str | None


def queue_state(most: int) -> Operation[QueueState]:
    """What is due, delayed, executed, or waits with a limit. Of each kind no more than `most` runs are looked at."""

    def decode(results: list[Rows]) -> QueueState:
        ready, leased, timed = cast("list[list[tuple[Any, ...]]]", results)
        return QueueState(
            {job: int(count) for job, count, _ in ready},
            {job: int(oldest) for job, _, oldest in ready if oldest is not None},
            {job: int(count) for job, count in leased},
            {job: int(count) for job, count, _ in timed if count},
            {job: int(count) for job, _, count in timed if count},
        )

    return operation("queue_state", "read", decode, (COUNT_DUE, (most,)), (COUNT_LEASED, ()), (COUNT_BY_TIME, (most,)))


def waiting_page(after: str, size: int) -> Operation[WaitingPage]:
    """Of the `size` runs behind the one with the id `after`, in the order of their ids: those that wait, and for whom
    no time is set."""

    def decode(results: list[Rows]) -> WaitingPage:
        rows = cast("list[tuple[Any, ...]]", results[0])
        is_last = sum(int(seen) for _, _, seen, _ in rows) < size
        last = None if is_last else max(run_id for _, _, _, run_id in rows)
        return WaitingPage({job: int(count) for job, count, _, _ in rows if count}, last)

    return operation("waiting_page", "read", decode, (COUNT_WITHOUT_LIMIT, (after, size)))


def due_since(run_ids: Iterable[str]) -> Operation[dict[str, tuple[str, int]]]:
    """By run: its job, and since when it could begin, in milliseconds. Nothing of runs that are gone."""
    return operation(
        "due_since",
        "read",
        lambda results: {run_id: (job, int(due)) for run_id, job, due in cast("list[tuple[Any, ...]]", results[0])},
        (SELECT_DUE, (texts(run_ids),)),
    )
