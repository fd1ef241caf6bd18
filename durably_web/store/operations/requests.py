"""What a user asks of runs that exist. Each carries its `request_id`, by which a second send finds the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, LiteralString, NamedTuple, cast

from durably_web.records import Status
from durably_web.store.batch import Operation, Rows
from durably_web.store.operations.building import (
    ACTIVE,
    LAST_REQUEST,
    NEVER_USED,
    NEXT_NUMBER,
    NO_LEASE,
    NOT_GIVEN,
    NOT_OFFERED,
    TERMINAL,
    operation,
    texts,
)
from durably_web.store.operations.triggering import INSERT_LABELS, INSERT_TRIGGER_ENTRY

_ASKED: LiteralString = "(SELECT value FROM json_each(?))"

_NOT_YET: LiteralString = """
NOT EXISTS (SELECT 1 FROM durably_journal j WHERE j.request_id = ? AND j.run_id = durably_runs.id)
"""

# A family may have grown when the request comes again.
_FIRST_SEND: LiteralString = "NOT EXISTS (SELECT 1 FROM durably_journal WHERE request_id = ?)"

# The runs that are asked for, and all that they have started, and what those have.
_WITH_FAMILY: LiteralString = """
WITH RECURSIVE family (id) AS (
    SELECT value FROM json_each(?)
    UNION SELECT r.id FROM durably_runs r JOIN family ON r.parent_run_id = family.id
)
"""
_FAMILY: LiteralString = "(SELECT id FROM family)"

_NEXT_OF_KEY: LiteralString = """
SELECT n.id FROM durably_runs n
WHERE n.concurrency_key = c.concurrency_key AND n.job_name = c.job_name AND n.blocked = 1
  AND n.status IN ('pending', 'leased', 'waiting') AND n.paused = 0
"""

# Of a run `c` that is cancelled: nothing of it can be undone, or is being undone; otherwise it ends when that is done.
_ENDS_NOW: LiteralString = """
c.undoing IS NULL AND NOT EXISTS (SELECT 1 FROM durably_undos u WHERE u.run_id = c.id)
AND coalesce(c.awaits, '') NOT LIKE '["handover:%'
"""

# These two are sent first, while the runs are not yet cancelled.
UNBLOCK_BEHIND: LiteralString = f"""
{_WITH_FAMILY}
UPDATE durably_runs SET blocked = 0
WHERE id IN (
    SELECT ({_NEXT_OF_KEY} AND n.id NOT IN {_FAMILY} ORDER BY n.priority DESC, n.run_at, n.id LIMIT 1)
    FROM durably_runs c
    WHERE c.id IN {_FAMILY} AND c.concurrency_key IS NOT NULL AND c.blocked = 0 AND {_ENDS_NOW}
      AND c.status IN ('pending', 'leased', 'waiting')
)
AND {_FIRST_SEND}
"""

WAKE_PARENTS: LiteralString = f"""
{_WITH_FAMILY}
UPDATE durably_runs SET status = 'pending', wake_at = NULL
WHERE status = 'waiting' AND EXISTS (
    SELECT 1 FROM durably_runs c, json_each(durably_runs.awaits)
    WHERE c.parent_run_id = durably_runs.id AND c.id IN {_FAMILY}
      AND c.status IN ('pending', 'leased', 'waiting') AND value = 'run:' || c.id AND {_ENDS_NOW}
)
AND id IN (SELECT parent_run_id FROM durably_runs WHERE id IN {_FAMILY} AND parent_run_id IS NOT NULL)
AND {_FIRST_SEND}
"""

_HAS_UNDOS: LiteralString = "EXISTS (SELECT 1 FROM durably_undos u WHERE u.run_id = durably_runs.id)"

INSERT_CANCEL_ENTRIES: LiteralString = f"""
{_WITH_FAMILY}
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at, request_id)
SELECT id, {NEXT_NUMBER}, generation,
       CASE WHEN {_HAS_UNDOS} THEN 'run:undo' ELSE 'run:cancel' END,
       CASE WHEN {_HAS_UNDOS} THEN '{{"undoing":"cancelled"}}' END, ?, ?
FROM durably_runs WHERE id IN {_FAMILY} AND {ACTIVE} AND undoing IS NULL AND {NOT_OFFERED} AND {_FIRST_SEND}
"""

_REQUESTED: LiteralString = "(SELECT run_id FROM durably_journal WHERE request_id = ?)"

CANCEL_RUNS: LiteralString = f"""
UPDATE durably_runs
SET status = 'cancelled', completed_at = ?, wake_at = NULL, holds_key = 0, blocked = 0,
    paused = 0, {NO_LEASE}
WHERE id IN {_REQUESTED} AND {ACTIVE} AND {LAST_REQUEST} = ? AND undoing IS NULL AND NOT {_HAS_UNDOS}
"""

# Whatever they wait for: they can be claimed at once. Their keys they keep.
UNDO_RUNS: LiteralString = f"""
UPDATE durably_runs SET status = 'pending', undoing = 'cancelled', wake_at = NULL, paused = 0, crashes = 0, {NO_LEASE}
WHERE id IN {_REQUESTED} AND {ACTIVE} AND {LAST_REQUEST} = ? AND undoing IS NULL AND {_HAS_UNDOS}
"""

INSERT_RETRY_ENTRIES: LiteralString = f"""
INSERT INTO durably_journal (run_id, number, generation, type, created_at, request_id)
SELECT id, {NEXT_NUMBER}, generation, 'run:retry', ?, ? FROM durably_runs
WHERE id IN {_ASKED} AND status IN ('failed', 'cancelled') AND {NOT_GIVEN} AND {_NOT_YET}
"""

# A time-out of the run, and the count of dead workers, begin anew.
RETRY_RUNS: LiteralString = f"""
UPDATE durably_runs SET status = 'pending', error = NULL, started_at = NULL, completed_at = NULL, crashes = 0
WHERE id IN {_REQUESTED} AND status IN ('failed', 'cancelled') AND {LAST_REQUEST} = ?
"""

_DELETABLE: LiteralString = f"{TERMINAL} AND completed_at <= ?"

INSERT_DELETE_ENTRIES: LiteralString = f"""
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at, request_id)
SELECT id, {NEXT_NUMBER}, generation, 'run:delete', json_object('jobName', job_name, 'labels', json(labels)), ?, ?
FROM durably_runs WHERE id IN {_ASKED} AND {_DELETABLE}
"""

DELETE_LABELS: LiteralString = f"""
DELETE FROM durably_labels WHERE (key, value, run_id) IN (
    SELECT label.key, label.value, r.id FROM durably_runs r, json_each(r.labels) AS label
    WHERE r.id IN {_ASKED} AND r.{_DELETABLE}
)
"""

DELETE_RUNS: LiteralString = f"DELETE FROM durably_runs WHERE id IN {_ASKED} AND {_DELETABLE}"

DELETE_SIGNALS: LiteralString = f"""
DELETE FROM durably_signals
WHERE run_id IN {_ASKED} AND NOT EXISTS (SELECT 1 FROM durably_runs r WHERE r.id = run_id)
"""

DELETE_UNDOS: LiteralString = f"""
DELETE FROM durably_undos
WHERE run_id IN {_ASKED} AND NOT EXISTS (SELECT 1 FROM durably_runs r WHERE r.id = run_id)
"""

DELETE_JOURNALS: LiteralString = f"""
DELETE FROM durably_journal
WHERE run_id IN {_ASKED} AND type <> 'run:delete' AND NOT EXISTS (SELECT 1 FROM durably_runs r WHERE r.id = run_id)
"""

SELECT_CHANGED: LiteralString = "SELECT run_id, seq, generation FROM durably_journal WHERE request_id = ? ORDER BY seq"
SELECT_STATUSES: LiteralString = f"""
SELECT id, CASE WHEN NOT {NOT_OFFERED} THEN 'offered to another database'
                WHEN status = 'cancelled' AND NOT {NOT_GIVEN} THEN 'handed over'
                WHEN undoing IS NULL THEN status ELSE 'being undone' END
FROM durably_runs WHERE id IN {_ASKED}
"""

INSERT_RUN_LIKE: LiteralString = f"""
INSERT INTO durably_runs (id, job_name, status, input, labels, concurrency_key, priority, created_at)
SELECT ?, job_name, 'pending', input, labels, concurrency_key, priority, ?
FROM durably_runs WHERE id = ? AND {TERMINAL} AND {NEVER_USED}
ON CONFLICT DO NOTHING
"""

INSERT_FORK: LiteralString = f"""
INSERT INTO durably_runs (id, job_name, status, input, labels, concurrency_key, priority, created_at, forked_from,
                          code)
SELECT ?, job_name, 'pending', input, labels, concurrency_key, priority, ?, id, code
FROM durably_runs WHERE id = ? AND (? IS NULL OR EXISTS (
    SELECT 1 FROM durably_journal j
    WHERE j.run_id = durably_runs.id AND j.step_name = ? AND j.type LIKE 'step:%' AND j.step_name NOT LIKE '%#undo'))
  AND {NEVER_USED}
ON CONFLICT DO NOTHING
"""

# Once, while the new run has nothing but its trigger. Of what has been undone there is no result.
COPY_RESULTS: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, step_name, data, started_at, created_at, calls, kind)
SELECT ?, 1 + row_number() OVER (ORDER BY number), 0, type, step_name, data, started_at, created_at, calls, kind
FROM durably_journal
WHERE run_id = ? AND type IN ('step:complete', 'run:patched') AND data IS NOT NULL
  AND coalesce(step_name, '') NOT LIKE '%#undo' AND number > (SELECT restarted FROM durably_runs WHERE id = ?)
  AND (NOT EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND type = 'run:undo') OR NOT EXISTS (
    SELECT 1 FROM durably_journal u
    WHERE u.run_id = durably_journal.run_id AND u.number > durably_journal.number AND u.type = 'step:complete'
      AND u.step_name = durably_journal.step_name || '#undo'))
  AND number < coalesce((SELECT min(j.number) FROM durably_journal j
                         WHERE j.run_id = ? AND j.step_name = ? AND j.type LIKE 'step:%'), 9e18)
  AND (SELECT max(j.number) FROM durably_journal j WHERE j.run_id = ?) = 1
  AND EXISTS (SELECT 1 FROM durably_runs r WHERE r.id = ? AND r.forked_from = ?)
ON CONFLICT DO NOTHING
"""

# Whether the id that the request brings is that of a run that it has not made.
SELECT_FORK_TAKEN: LiteralString = "SELECT 1 FROM durably_runs WHERE id = ? AND forked_from IS NOT ?"
SELECT_LIKE_TAKEN: LiteralString = """
SELECT 1 FROM durably_runs r JOIN durably_runs s ON s.id = ?
WHERE r.id = ? AND (r.job_name <> s.job_name OR r.labels <> s.labels OR r.forked_from IS NOT NULL
                    OR r.parent_run_id IS NOT NULL OR r.idempotency_key IS NOT NULL OR r.id = s.id)
"""
SELECT_KNOWN: LiteralString = "SELECT 1 FROM durably_journal WHERE run_id = ? LIMIT 1"
SELECT_STATUS: LiteralString = "SELECT status FROM durably_runs WHERE id = ?"


class Outcome(NamedTuple):
    """What a request came to, now or when it came first: the runs it changed, each with the seq of its entry and the
    generation that was then; and the status of each that was asked for and exists, or that it is `being undone`, is
    `offered to another database` or was `handed over`."""

    changed: dict[str, int]
    statuses: dict[str, Status | Literal["being undone", "offered to another database", "handed over"]]
    generations: dict[str, int]


def _outcome(results: list[Rows]) -> Outcome:
    entries, statuses = cast("list[list[tuple[Any, ...]]]", results[-2:])
    return Outcome(
        {run_id: seq for run_id, seq, _ in entries},
        dict(cast("list[tuple[str, Any]]", statuses)),
        {run_id: generation for run_id, _, generation in entries},
    )


def cancel(run_ids: Sequence[str], request_id: str, now: int) -> Operation[Outcome]:
    """End those of these runs that are not terminal, and all that they have started.

    Those with steps that can be undone become pending, and end when that is done. Their owners' next writes find the
    lease lost.
    """
    asked = texts(run_ids)
    return operation(
        "cancel",
        "write",
        _outcome,
        (UNBLOCK_BEHIND, (asked, request_id)),
        (WAKE_PARENTS, (asked, request_id)),
        (INSERT_CANCEL_ENTRIES, (asked, now, request_id, request_id)),
        (CANCEL_RUNS, (now, request_id, request_id)),
        (UNDO_RUNS, (request_id, request_id)),
        (SELECT_CHANGED, (request_id,)),
        (SELECT_STATUSES, (asked,)),
    ).freeing()


def retry(run_ids: Sequence[str], request_id: str, now: int) -> Operation[Outcome]:
    """Make those of these runs pending again that failed or were cancelled; their stored results stay."""
    asked = texts(run_ids)
    return operation(
        "retry",
        "write",
        _outcome,
        (INSERT_RETRY_ENTRIES, (now, request_id, asked, request_id)),
        (RETRY_RUNS, (request_id, request_id)),
        (SELECT_CHANGED, (request_id,)),
        (SELECT_STATUSES, (asked,)),
    )


def delete_runs(
    run_ids: Sequence[str], request_id: str, now: int, ended_before: int | None = None
) -> Operation[Outcome]:
    """Delete those of these runs that are terminal, with all that is stored of them but one entry that tells of it."""
    asked, limit = texts(run_ids), 2**53 if ended_before is None else ended_before
    return operation(
        "delete_runs",
        "write",
        _outcome,
        (INSERT_DELETE_ENTRIES, (now, request_id, asked, limit)),
        (DELETE_LABELS, (asked, limit)),
        (DELETE_RUNS, (asked, limit)),
        (DELETE_SIGNALS, (asked,)),
        (DELETE_UNDOS, (asked,)),
        (DELETE_JOURNALS, (asked,)),
        (SELECT_CHANGED, (request_id,)),
        (SELECT_STATUSES, (asked,)),
    ).freeing()


class Copied(NamedTuple):
    """`made` tells whether there is a new run, or was, and `seq` is that of its first entry; `status` is that of the
    run it was to be like, `None` when that does not exist. `taken`: another run has the id already."""

    made: bool
    seq: int | None
    status: Status | None
    taken: bool = False


def _copied(results: list[Rows]) -> Copied:
    entry, taken, known, status = results[2], *results[-3:]
    return Copied(
        bool(known) and not taken,
        cast(int, entry[0][0]) if entry and not taken else None,
        cast("Status | None", status[0][0]) if status else None,
        bool(taken),
    )


def retrigger(run_id: str, source_id: str, now: int, origin: str | None = None) -> Operation[Copied]:
    """Store a new run with the input, labels, key and priority of a terminal one."""
    return operation(
        "retrigger",
        "write",
        _copied,
        (INSERT_RUN_LIKE, (run_id, now, source_id, run_id)),
        (INSERT_LABELS, (run_id,)),
        (INSERT_TRIGGER_ENTRY, (origin, run_id)),
        (SELECT_LIKE_TAKEN, (source_id, run_id)),
        (SELECT_KNOWN, (run_id,)),
        (SELECT_STATUS, (source_id,)),
    )


def fork(run_id: str, source_id: str, from_step: str | None, now: int, origin: str | None = None) -> Operation[Copied]:
    """Store a new run like another, with the results that it had before the first entry of `from_step`."""
    return operation(
        "fork",
        "write",
        _copied,
        (INSERT_FORK, (run_id, now, source_id, from_step, from_step, run_id)),
        (INSERT_LABELS, (run_id,)),
        (INSERT_TRIGGER_ENTRY, (origin, run_id)),
        (COPY_RESULTS, (run_id, *[source_id] * 4, from_step, run_id, run_id, source_id)),
        (SELECT_FORK_TAKEN, (run_id, source_id)),
        (SELECT_KNOWN, (run_id,)),
        (SELECT_STATUS, (source_id,)),
    )
