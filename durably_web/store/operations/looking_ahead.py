"""What there is to do now, and when there will be more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, LiteralString, NamedTuple, cast

from durably_web.store.batch import Operation, Rows
from durably_web.store.operations.building import READY, operation, texts

_OF_JOBS: LiteralString = """
job_name IN (SELECT value FROM json_each(?)) AND job_name NOT IN (SELECT job_name FROM durably_paused_jobs)
"""

# Each by an index that has only such runs in it.
SELECT_OUTLOOK: LiteralString = f"""
SELECT (SELECT count(*) FROM durably_runs WHERE {READY} AND {_OF_JOBS}),
       (SELECT count(*) FROM durably_runs WHERE wake_at <= ? AND paused = 0 AND {_OF_JOBS}),
       (SELECT count(*) FROM durably_runs WHERE wake_at > ? AND paused = 0 AND {_OF_JOBS}),
       (SELECT min(wake_at) FROM durably_runs WHERE wake_at > ? AND paused = 0 AND {_OF_JOBS}),
       (SELECT count(*) FROM durably_runs WHERE status = 'leased' AND {_OF_JOBS}),
       (SELECT min(lease_expires_at) FROM durably_runs WHERE status = 'leased' AND {_OF_JOBS}),
       (SELECT min(next_at) FROM durably_schedules WHERE paused = 0 AND next_at IS NOT NULL)
"""


class Outlook(NamedTuple):
    """How many runs could be claimed, are leased, and wait for a moment; and the moments when there may be more: the
    first of those, the end of the first lease, and the next tick of a schedule."""

    due: int
    leased: int
    later: int
    moments: tuple[int | None, int | None, int | None]


def outlook(jobs: Iterable[str], now: int) -> Operation[Outlook]:
    """Of the runs of these jobs, without those that are paused; and of all schedules."""
    names = texts(jobs)

    def decode(results: list[Rows]) -> Outlook:
        ready, awake, later, wakes, leased, ends, ticks = cast("tuple[Any, ...]", results[0][0])
        return Outlook(ready + awake, leased, later, (wakes, ends, ticks))

    params = (names, now, names, now, names, now, names, names, names)
    return operation("outlook", "read", decode, (SELECT_OUTLOOK, params))
