"""Reading runs, and what is stored of them. Values of users are decoded by the `codec` they were stored with."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, LiteralString, NamedTuple, cast

from durably_web.codec import Codec
from durably_web.events import Event
from durably_web.records import LogEntry, Run, Stats, StepRecord
from durably_web.store import rows
from durably_web.store.batch import Operation, Read, Row, Rows, Value
from durably_web.store.operations.building import operation, paging, parts_of, texts

SELECT_RUNS: LiteralString = """
SELECT r.id, r.job_name, r.status, r.input, r.output, r.error, r.labels, r.progress, r.attempt, r.idempotency_key,
       r.concurrency_key, r.priority, r.created_at, r.run_at, r.started_at, r.completed_at, r.wake_at, r.paused,
       r.parent_run_id, r.forked_from, r.undoing, r.schedule, r.scheduled_at,
       (SELECT count(DISTINCT step_name) FROM durably_journal WHERE run_id = r.id AND type = 'step:complete'
        AND number > r.restarted)
FROM durably_runs r
"""

# In the order in which `export` reads them.
SELECT_WHOLE_RUN: LiteralString = """
SELECT id, job_name, status, input, output, error, labels, progress, attempt, idempotency_key, concurrency_key,
       priority, run_at, created_at, started_at, completed_at, wake_at, generation, crashes, paused, awaits,
       parent_run_id, forked_from, code, restarted, undoing, schedule, scheduled_at
FROM durably_runs WHERE id = ?
"""

SELECT_WHOLE_JOURNAL: LiteralString = """
SELECT number, generation, type, step_name, kind, data, started_at, created_at, calls, request_id
FROM durably_journal WHERE run_id = ? ORDER BY number
"""

SELECT_WHOLE_SIGNALS: LiteralString = """
SELECT number, name, payload, created_at, request_id, step_name FROM durably_signals WHERE run_id = ? ORDER BY number
"""

SELECT_WHOLE_UNDOS: LiteralString = "SELECT number, step_name FROM durably_undos WHERE run_id = ? ORDER BY number"

SELECT_STATUS: LiteralString = "SELECT status FROM durably_runs WHERE id = ?"

SELECT_STEPS: LiteralString = """
SELECT type, step_name, data, started_at, created_at FROM durably_journal
WHERE run_id = ? AND type IN ('step:complete', 'step:fail', 'step:retry', 'step:wait')
  AND number > (SELECT restarted FROM durably_runs WHERE id = ?) ORDER BY number
"""

SELECT_LOGS: LiteralString = """
SELECT data, step_name, created_at FROM durably_journal WHERE run_id = ? AND type = 'log:write' ORDER BY number
"""

_EVENT_COLUMNS: LiteralString = """
SELECT j.seq, j.number, j.run_id, j.type, j.step_name, j.data, j.started_at, j.created_at, r.job_name, r.labels,
       CASE j.type WHEN 'run:trigger' THEN r.input WHEN 'run:complete' THEN r.output END
FROM durably_journal j LEFT JOIN durably_runs r ON r.id = j.run_id
"""

SELECT_EVENTS: LiteralString = _EVENT_COLUMNS + "WHERE j.seq > ? ORDER BY j.seq LIMIT ?"

# An `after` that is one of the run's own events leads to its number, and the scan starts there.
SELECT_EVENTS_OF_RUN: LiteralString = (
    _EVENT_COLUMNS
    + """
WHERE j.run_id = ? AND j.seq > ?
  AND j.number > coalesce((SELECT number FROM durably_journal WHERE seq = ? AND run_id = ?), 0)
ORDER BY j.number LIMIT ?
"""
)

SELECT_LAST_SEQ: LiteralString = "SELECT coalesce(max(seq), 0) FROM durably_journal"

COUNT_RUNS: LiteralString = "SELECT r.job_name, r.status, count(*) FROM durably_runs r "
SELECT_PAUSED_JOBS: LiteralString = "SELECT job_name FROM durably_paused_jobs ORDER BY job_name"


_UNREQUESTED: LiteralString = (
    "NOT EXISTS (SELECT 1 FROM durably_journal j WHERE j.run_id = r.id AND j.request_id > ? AND j.request_id < ?)"
)


class Filter(NamedTuple):
    """Which runs are meant: those that meet all conditions. Instants are milliseconds."""

    statuses: Sequence[str] = ()
    job_names: Sequence[str] = ()
    labels: dict[str, str] | None = None
    created_before: int | None = None
    ended_before: int | None = None
    paused: bool | None = None
    after: str | None = None
    """The id of the last run of the page before."""
    schedule: str | None = None
    unrequested: str | None = None
    """Without those that this request, in all its parts, has an entry for."""


ALL_RUNS = Filter()


def get_run(run_id: str, codec: Codec) -> Operation[Run | None]:
    return operation(
        "get_run",
        "read",
        lambda results: rows.run(results[0][0], codec) if results[0] else None,
        (SELECT_RUNS + "WHERE r.id = ?", (run_id,)),
    )


def get_runs(which: Filter, codec: Codec, limit: int | None = None, offset: int | None = None) -> Operation[list[Run]]:
    """Runs, newest first."""
    where, params = _where(which)
    page = (-1 if limit is None else limit, offset or 0)
    return operation(
        "get_runs",
        "read",
        lambda results: [rows.run(row, codec) for row in results[0]],
        (SELECT_RUNS + where + " ORDER BY r.id DESC LIMIT ? OFFSET ?", (*params, *page)),
    ).or_pages(lambda read: paging().read_runs(read, which, codec, limit, offset))


def find_runs(which: Filter, limit: int) -> Operation[list[str]]:
    """The ids of runs, oldest first, so that what a filter leaves over can be walked through behind the last one."""
    where, params = _where(which, newest_first=False)
    return operation(
        "find_runs",
        "read",
        lambda results: [cast(str, row[0]) for row in results[0]],
        ("SELECT r.id FROM durably_runs r " + where + " ORDER BY r.id LIMIT ?", (*params, limit)),
    )


def _where(which: Filter, newest_first: bool = True) -> tuple[LiteralString, list[Value]]:
    conditions: list[LiteralString] = []
    params: list[Value] = []
    if which.statuses:
        conditions.append("r.status IN (SELECT value FROM json_each(?))")
        params.append(texts(which.statuses))
    if len(which.job_names) == 1:
        conditions.append("r.job_name = ?")
        params += which.job_names
    elif which.job_names:
        conditions.append("r.job_name IN (SELECT value FROM json_each(?))")
        params.append(texts(which.job_names))
    for key, value in (which.labels or {}).items():
        conditions.append("r.id IN (SELECT run_id FROM durably_labels WHERE key = ? AND value = ?)")
        params += [key, value]
    if which.created_before is not None:
        conditions.append("r.created_at < ?")
        params.append(which.created_before)
    if which.ended_before is not None:
        # A run was made before it ended.
        conditions.append("r.created_at <= ? AND r.completed_at <= ?")
        params += [which.ended_before, which.ended_before]
    if which.paused is not None:
        # One that is only held can be paused, and can be resumed.
        conditions.append("r.paused <> ?")
        params.append(0 if which.paused else 1)
    if which.schedule is not None:
        conditions.append("r.schedule = ?")
        params.append(which.schedule)
    if which.after is not None:
        conditions.append("r.id < ?" if newest_first else "r.id > ?")
        params.append(which.after)
    if which.unrequested is not None:
        conditions.append(_UNREQUESTED)
        params += parts_of(which.unrequested)
    return ("WHERE " + " AND ".join(conditions) if conditions else ""), params


def get_steps(run_id: str, codec: Codec) -> Operation[list[StepRecord]]:
    """The steps of a run, as they stand, in the order of their first entries."""
    return operation(
        "get_steps", "read", lambda results: rows.steps(results[0], codec), (SELECT_STEPS, (run_id, run_id))
    ).or_pages(lambda read: paging().read_steps(read, run_id, codec))


def get_logs(run_id: str) -> Operation[list[LogEntry]]:
    return operation(
        "get_logs", "read", lambda results: [rows.log(row) for row in results[0]], (SELECT_LOGS, (run_id,))
    ).or_pages(lambda read: paging().read_logs(read, run_id))


class Whole(NamedTuple):
    """Everything that is stored of a run, as it stands in the tables."""

    run: Row
    journal: Rows
    signals: Rows
    undos: Rows


def get_whole(run_id: str) -> Operation[Whole | None]:
    """Everything that is stored of a run, of one moment; `None` for an unknown id."""
    return operation(
        "get_whole",
        "read",
        lambda results: Whole(results[0][0], *results[1:]) if results[0] else None,
        *whole_of(run_id),
    ).or_pages(lambda read: paging().read_whole(read, run_id))


def whole_of(run_id: str) -> tuple[tuple[LiteralString, tuple[Value, ...]], ...]:
    """The statements that read a `Whole`."""
    return (
        (SELECT_WHOLE_RUN, (run_id,)),
        (SELECT_WHOLE_JOURNAL, (run_id,)),
        (SELECT_WHOLE_SIGNALS, (run_id,)),
        (SELECT_WHOLE_UNDOS, (run_id,)),
    )


def stats(which: Filter = ALL_RUNS) -> Operation[Stats]:
    """Counts of the runs that the filter finds."""
    where, params = _where(which)

    def decode(results: list[Rows]) -> Stats:
        by_status: dict[str, int] = {}
        by_job: dict[str, dict[str, int]] = {}
        for job_name, status, count in cast("list[tuple[Any, ...]]", results[0]):
            by_status[status] = by_status.get(status, 0) + count
            by_job.setdefault(job_name, {})[status] = count
        paused = [cast(str, row[0]) for row in results[1]]
        return Stats(sum(by_status.values()), by_status, by_job, paused)

    count = COUNT_RUNS + where + " GROUP BY r.job_name, r.status"
    return operation("stats", "read", decode, (count, tuple(params)), (SELECT_PAUSED_JOBS, ()))


def last_seq() -> Operation[int]:
    """The seq of the newest journal entry; 0 when there is none."""
    return operation("last_seq", "read", lambda results: cast(int, results[0][0][0]), (SELECT_LAST_SEQ, ()))


class EventPage(NamedTuple):
    """Events in order; `ended` is true when no more can follow: the run is terminal or gone."""

    events: list[Event]
    ended: bool
    known: bool


def read_events(run_id: str | None, after: int, limit: int, codec: Codec) -> Operation[EventPage]:
    """The stored events after the seq `after`: of a run, or of all."""

    def in_pages(read: Read) -> Awaitable[EventPage]:
        return cast("Awaitable[EventPage]", paging().read_events(read, run_id, after, limit, codec))

    if run_id is None:
        return operation(
            "read_events",
            "read",
            lambda results: EventPage([rows.event(row, codec) for row in results[0]], False, True),
            (SELECT_EVENTS, (after, limit)),
        ).or_pages(in_pages)

    def decode(results: list[Rows]) -> EventPage:
        status = results[1][0][0] if results[1] else None
        events = [rows.event(row, codec) for row in results[0]]
        ended = rows.is_terminal(status) and len(events) < limit
        return EventPage(events, ended, status is not None or bool(events) or after > 0)

    return operation(
        "read_events",
        "read",
        decode,
        (SELECT_EVENTS_OF_RUN, (run_id, after, after, run_id, limit)),
        (SELECT_STATUS, (run_id,)),
    ).or_pages(in_pages)
