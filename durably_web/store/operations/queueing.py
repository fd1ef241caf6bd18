"""What decides when a run goes on, but for time: pauses and signals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString, NamedTuple, cast

from durably_web.records import Status
from durably_web.store.batch import Operation, Rows
from durably_web.store.operations.building import ACTIVE, AWAITS, HELD, NOT_OFFERED, nothing, operation, texts
from durably_web.store.operations.repeating import forget_old

_ASKED: LiteralString = "(SELECT value FROM json_each(?))"

# A request that comes again, when others have changed the run since, changes nothing.
_NOT_YET: LiteralString = """
NOT EXISTS (SELECT 1 FROM durably_requests q WHERE q.request_id = ? AND q.subject = durably_runs.id)
"""

# A paused run that has not begun lets the next of its key pass.
UNBLOCK_BEHIND_PAUSED: LiteralString = f"""
UPDATE durably_runs SET blocked = 0
WHERE id IN (
    SELECT (SELECT n.id FROM durably_runs n
            WHERE n.concurrency_key = c.concurrency_key AND n.job_name = c.job_name AND n.blocked = 1
              AND n.status IN ('pending', 'leased', 'waiting') AND n.paused = 0 AND n.id NOT IN {_ASKED}
            ORDER BY n.priority DESC, n.run_at, n.id LIMIT 1)
    FROM durably_runs c
    WHERE c.id IN {_ASKED} AND c.concurrency_key IS NOT NULL AND c.blocked = 0 AND c.paused = 0
      AND c.status = 'pending' AND c.holds_key = 0
      AND NOT EXISTS (SELECT 1 FROM durably_requests q WHERE q.request_id = ? AND q.subject = c.id)
)
"""

PAUSE_RUNS: LiteralString = f"""
UPDATE durably_runs SET paused = 1 WHERE id IN {_ASKED} AND {ACTIVE} AND {NOT_OFFERED} AND {_NOT_YET}
"""

# For a handover: a pause that somebody has asked for, before or meanwhile, is another one, and outlasts it.
HOLD_RUNS: LiteralString = f"""
UPDATE durably_runs SET paused = {HELD}
WHERE id IN {_ASKED} AND {ACTIVE} AND paused = 0 AND {NOT_OFFERED} AND {_NOT_YET}
"""

# It may have lost its place behind others of its key: whether one of them holds the key, its claim will see.
RESUME_RUNS: LiteralString = f"""
UPDATE durably_runs SET paused = 0, blocked = 0
WHERE id IN {_ASKED} AND {ACTIVE} AND paused > 0 AND {NOT_OFFERED} AND {_NOT_YET}
"""

LET_GO_RUNS: LiteralString = f"""
UPDATE durably_runs SET paused = 0, blocked = 0
WHERE id IN {_ASKED} AND {ACTIVE} AND paused = {HELD} AND {NOT_OFFERED} AND {_NOT_YET}
"""

MARK_RUNS: LiteralString = f"""
INSERT INTO durably_requests (request_id, subject)
SELECT ?, id FROM durably_runs WHERE id IN {_ASKED} AND {ACTIVE} AND {NOT_OFFERED}
ON CONFLICT DO NOTHING
"""

SELECT_MARKED: LiteralString = "SELECT subject FROM durably_requests WHERE request_id = ?"

SELECT_STATUSES: LiteralString = f"""
SELECT id, CASE WHEN {NOT_OFFERED} THEN status ELSE 'offered to another database' END
FROM durably_runs WHERE id IN {_ASKED}
"""

_JOB_NOT_YET: LiteralString = "NOT EXISTS (SELECT 1 FROM durably_requests WHERE request_id = ? AND subject = ?)"

PAUSE_JOB: LiteralString = f"""
INSERT INTO durably_paused_jobs (job_name) SELECT ? WHERE {_JOB_NOT_YET} ON CONFLICT DO NOTHING
"""
RESUME_JOB: LiteralString = f"DELETE FROM durably_paused_jobs WHERE job_name = ? AND {_JOB_NOT_YET}"

MARK_JOB: LiteralString = "INSERT INTO durably_requests (request_id, subject) VALUES (?, ?) ON CONFLICT DO NOTHING"

INSERT_SIGNAL: LiteralString = f"""
INSERT INTO durably_signals (run_id, number, name, payload, created_at, request_id)
SELECT id, (SELECT coalesce(max(s.number), 0) + 1 FROM durably_signals s WHERE s.run_id = durably_runs.id), ?, ?, ?, ?
FROM durably_runs
WHERE id = ? AND {ACTIVE} AND {NOT_OFFERED}
  AND NOT EXISTS (SELECT 1 FROM durably_signals s WHERE s.run_id = durably_runs.id AND s.request_id = ?)
"""

# Sent before the signal: a second send wakes nobody in vain.
WAKE_FOR_SIGNAL: LiteralString = f"""
UPDATE durably_runs SET status = 'pending', wake_at = NULL
WHERE id = ? AND status = 'waiting' AND {AWAITS}
  AND NOT EXISTS (SELECT 1 FROM durably_signals WHERE run_id = ? AND request_id = ?)
"""

SELECT_SIGNAL_OUTCOME: LiteralString = f"""
SELECT (SELECT CASE WHEN {NOT_OFFERED} THEN status ELSE 'offered to another database' END
        FROM durably_runs WHERE id = ?),
       (SELECT number FROM durably_signals WHERE run_id = ? AND request_id = ?)
"""


class Switched(NamedTuple):
    """The runs that a request has paused or resumed, now or when it came first, and the status of each that was
    asked for and exists."""

    runs: frozenset[str]
    statuses: dict[str, Status]


def _switched(results: list[Rows]) -> Switched:
    marked, statuses = results[-2:]
    return Switched(frozenset(str(row[0]) for row in marked), dict(cast("list[tuple[str, Status]]", statuses)))


def pause(run_ids: Sequence[str], request_id: str, now: int, *, held: bool = False) -> Operation[Switched]:
    """Let nobody claim those of these runs that are not terminal; where they are `held`, until they are let go."""
    asked = texts(run_ids)
    return operation(
        "pause",
        "write",
        _switched,
        forget_old(now),
        (UNBLOCK_BEHIND_PAUSED, (asked, asked, request_id)),
        (HOLD_RUNS if held else PAUSE_RUNS, (asked, request_id)),
        (MARK_RUNS, (request_id, asked)),
        (SELECT_MARKED, (request_id,)),
        (SELECT_STATUSES, (asked,)),
    )


def resume(run_ids: Sequence[str], request_id: str, now: int, *, held: bool = False) -> Operation[Switched]:
    """Let those of these runs that are not terminal be claimed again; or only those that are no more than `held`."""
    asked = texts(run_ids)
    return operation(
        "resume",
        "write",
        _switched,
        forget_old(now),
        (LET_GO_RUNS if held else RESUME_RUNS, (asked, request_id)),
        (MARK_RUNS, (request_id, asked)),
        (SELECT_MARKED, (request_id,)),
        (SELECT_STATUSES, (asked,)),
    )


def pause_job(job_name: str, request_id: str, now: int) -> Operation[None]:
    """Let nobody claim a run of this job."""
    return _switch_job("pause_job", PAUSE_JOB, job_name, request_id, now)


def resume_job(job_name: str, request_id: str, now: int) -> Operation[None]:
    return _switch_job("resume_job", RESUME_JOB, job_name, request_id, now)


def _switch_job(name: str, switch: LiteralString, job_name: str, request_id: str, now: int) -> Operation[None]:
    mark = (request_id, f"job:{job_name}")
    return operation(name, "write", nothing, forget_old(now), (switch, (job_name, *mark)), (MARK_JOB, mark))


class Signalled(NamedTuple):
    """The run's status (`None`: no such run), and whether the signal is stored."""

    status: Status | None
    stored: bool


def signal(run_id: str, name: str, payload: str, request_id: str, now: int) -> Operation[Signalled]:
    """Store a signal for a run that is not terminal, and wake it if it waits."""

    def decode(results: list[Rows]) -> Signalled:
        status, number = cast("tuple[Any, Any]", results[-1][0])
        return Signalled(status, number is not None)

    return operation(
        "signal",
        "write",
        decode,
        (WAKE_FOR_SIGNAL, (run_id, f"signal:{name}", run_id, request_id)),
        (INSERT_SIGNAL, (name, payload, now, request_id, run_id, request_id)),
        (SELECT_SIGNAL_OUTCOME, (run_id, run_id, request_id)),
    )
