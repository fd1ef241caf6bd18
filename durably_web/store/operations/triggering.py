"""Asking for runs, and which of them a concurrency key lets come into being."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, LiteralString, NamedTuple, cast

from durably_web.records import Disposition
from durably_web.store.batch import Operation, Row, Rows, Value
from durably_web.store.operations.building import ACTIVE, LAST_REQUEST, NEVER_USED, NEXT_NUMBER, operation

Coalesce = Literal["skip", "replace", "queue"]

# A limit that is none, as a number that the database can compare.
_NEVER = 2**53

INSERT_RUN: LiteralString = f"""
INSERT INTO durably_runs (id, job_name, status, input, labels, idempotency_key, priority, run_at, wake_at, created_at)
SELECT ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ? WHERE {NEVER_USED}
ON CONFLICT DO NOTHING
"""

INSERT_LABELS: LiteralString = """
INSERT INTO durably_labels (key, value, run_id)
SELECT label.key, label.value, r.id FROM durably_runs r, json_each(r.labels) AS label WHERE r.id = ?
ON CONFLICT DO NOTHING
"""

# Gives its seq on every send, and no row when there is no such run.
INSERT_TRIGGER_ENTRY: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at)
SELECT id, 1, 0, 'run:trigger', ?, created_at FROM durably_runs WHERE id = ?
ON CONFLICT (run_id, number) DO UPDATE SET number = excluded.number
RETURNING seq
"""

# The same, with the job and the labels of the run that has the id: it may be one that this request has not made.
INSERT_ASKED_ENTRY: LiteralString = f"""
{INSERT_TRIGGER_ENTRY}, (SELECT r.job_name FROM durably_runs r WHERE r.id = ?),
(SELECT r.labels FROM durably_runs r WHERE r.id = ?)
"""

SELECT_BY_IDEMPOTENCY_KEY: LiteralString = """
SELECT id FROM durably_runs WHERE job_name = ? AND idempotency_key = ?
"""

# The run of a key and job that is pending and has never begun; the next to begin, if there are several. Not a child:
# it belongs to its parent. A debounced trigger looks only for the run of its burst.
_PENDING: LiteralString = f"""
(SELECT id FROM durably_runs
 WHERE concurrency_key = ? AND job_name = ? AND debounced >= ? AND {ACTIVE} AND status = 'pending' AND generation = 0
   AND parent_run_id IS NULL
 ORDER BY blocked, priority DESC, run_at, id LIMIT 1)
"""

# Whether a new run of a key and job would stand behind others: those that have begun, or are to begin before it.
BLOCKED: LiteralString = f"""
(? IS NULL AND (SELECT count(*) FROM durably_runs
  WHERE concurrency_key = ? AND job_name = ? AND {ACTIVE} AND blocked = 0
    AND (holds_key = 1 OR (wake_at IS NULL AND paused = 0 AND (-priority, run_at) <= (?, ?)))) >= ?)
"""

# The request's id is that of the run it would have made: by it a second send finds this entry.
INSERT_COALESCED_ENTRY: LiteralString = f"""
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at, request_id)
SELECT id, {NEXT_NUMBER}, generation, 'run:coalesced', ?, ?, ? FROM durably_runs
WHERE id = {_PENDING} AND {NEVER_USED}
  AND NOT EXISTS (SELECT 1 FROM durably_journal WHERE request_id = ?)
  AND NOT EXISTS (SELECT 1 FROM durably_runs WHERE job_name = ? AND idempotency_key = ?)
"""

_COALESCED: LiteralString = "(SELECT run_id FROM durably_journal WHERE request_id = ? AND type = 'run:coalesced')"

REPLACE_INPUT: LiteralString = f"""
UPDATE durably_runs SET input = ?
WHERE id = {_COALESCED} AND status = 'pending' AND generation = 0 AND {LAST_REQUEST} = ?
"""

# Put off again, but not beyond what the first of the burst may wait.
PUT_OFF: LiteralString = f"""
UPDATE durably_runs SET input = ?, run_at = min(?, created_at + ?), wake_at = min(?, created_at + ?)
WHERE id = {_COALESCED} AND status = 'pending' AND generation = 0 AND {LAST_REQUEST} = ?
"""

# Sent before that, while it can be seen whether the run was due: then it lets the next of its key pass.
UNBLOCK_BEHIND_PUT_OFF: LiteralString = """
UPDATE durably_runs SET blocked = 0
WHERE id = (
    SELECT n.id FROM durably_runs n
    WHERE n.concurrency_key = ? AND n.job_name = ? AND n.blocked = 1
      AND n.status IN ('pending', 'leased', 'waiting') AND n.paused = 0
    ORDER BY n.priority DESC, n.run_at, n.id LIMIT 1
)
AND EXISTS (
    SELECT 1 FROM durably_runs r JOIN durably_journal j ON j.run_id = r.id AND j.request_id = ?
    WHERE r.status = 'pending' AND r.generation = 0 AND r.wake_at IS NULL AND j.type = 'run:coalesced'
      AND (SELECT l.request_id FROM durably_journal l WHERE l.run_id = r.id ORDER BY l.number DESC LIMIT 1) = ?
)
"""

# Breaks the schema's list of statuses, and with it the whole transaction, where a run of the key is pending.
REFUSE: LiteralString = f"""
INSERT INTO durably_runs (id, job_name, status, input, labels, created_at)
SELECT ?, ?, 'refused', '', '', 0
WHERE EXISTS {_PENDING} AND {NEVER_USED}
  AND NOT EXISTS (SELECT 1 FROM durably_runs WHERE job_name = ? AND idempotency_key = ?)
"""

INSERT_KEYED_RUN: LiteralString = f"""
INSERT INTO durably_runs (id, job_name, status, input, labels, idempotency_key, priority, run_at, wake_at, created_at,
                          concurrency_key, debounced, blocked)
SELECT ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, {BLOCKED}
WHERE (? = 'queue' OR NOT EXISTS {_PENDING}) AND {NEVER_USED}
  AND NOT EXISTS (SELECT 1 FROM durably_journal WHERE request_id = ?)
ON CONFLICT DO NOTHING
"""

# (the request's own run, the one it was coalesced into and the entry of that, the one with its idempotency key, the
# one in its way)
SELECT_KEYED_OUTCOME: LiteralString = f"""
SELECT (SELECT run_id FROM durably_journal WHERE run_id = ? LIMIT 1), {_COALESCED},
       (SELECT seq FROM durably_journal WHERE request_id = ? AND type = 'run:coalesced'),
       (SELECT id FROM durably_runs WHERE job_name = ? AND idempotency_key = ?), {_PENDING}
"""


SELECT_PENDING: LiteralString = f"SELECT {_PENDING}"


class Trigger(NamedTuple):
    """A run that is asked for. Instants and durations are milliseconds.

    `run_at` is set when it is not due at once. With `debounce`, a run that is found pending is put off to `run_at`,
    and at most by `longest_wait` from its own beginning. `origin` is kept with the run, for whoever gave it.
    """

    run_id: str
    job_name: str
    input: str
    labels: dict[str, str]
    now: int
    idempotency_key: str | None = None
    priority: int = 0
    run_at: int | None = None
    concurrency_key: str | None = None
    per_key: int = 1
    coalesce: Coalesce | None = None
    debounce: bool = False
    longest_wait: int | None = None
    origin: str | None = None


class Triggered(NamedTuple):
    """What became of a trigger: `disposition` is `None` when `run_id` is in its way, `taken` when it has its id.

    `seq` is that of the `run:trigger` or the `run:coalesced` entry; `None` for a run that was there before, or is
    deleted again.
    """

    run_id: str
    disposition: Disposition | None
    seq: int | None
    taken: bool = False


_Statements = list[tuple[LiteralString, tuple[Value, ...]]]


def trigger(asked: Trigger) -> Operation[Triggered]:
    """Store a run, unless its idempotency key or its concurrency key leads to another one."""
    statements = _statements(asked)
    return operation("trigger", "write", lambda results: _triggered(asked, results), *statements)


def trigger_many(asked: Sequence[Trigger]) -> Operation[list[Triggered]]:
    """Store runs, all or none. Raises `ConstraintViolated` when a pending run is in the way of one of them."""
    parts = [_statements(one, refuse=True) for one in asked]

    def decode(results: list[Rows]) -> list[Triggered]:
        triggered, position = [], 0
        for one, part in zip(asked, parts, strict=True):
            triggered.append(_triggered(one, results[position : position + len(part)]))
            position += len(part)
        return triggered

    return operation("trigger_many", "write", decode, *[statement for part in parts for statement in part])


def refused_item(asked: Sequence[Trigger], statement_index: int | None) -> int | None:
    """Which of the runs was refused by that statement of `trigger_many`; `None` when it was not for a pending run."""
    position = 0
    for number, one in enumerate(asked):
        statements = _statements(one, refuse=True)
        if statement_index is not None and position <= statement_index < position + len(statements):
            return number if statements[statement_index - position][0] == REFUSE else None
        position += len(statements)
    return None


def run_values(asked: Trigger) -> tuple[Value, ...]:
    """The first columns of each statement that inserts a run."""
    waits = asked.run_at is not None and asked.run_at > asked.now
    return (
        asked.run_id,
        asked.job_name,
        asked.input,
        json.dumps(asked.labels),
        asked.idempotency_key,
        asked.priority,
        asked.run_at or 0,
        asked.run_at if waits else None,
        asked.now,
    )


def blocked_values(asked: Trigger) -> tuple[Value, ...]:
    """The parameters of `BLOCKED`."""
    line = (-asked.priority, asked.run_at or 0)
    return run_values(asked)[7], asked.concurrency_key, asked.job_name, *line, asked.per_key


def _statements(asked: Trigger, refuse: bool = False) -> _Statements:
    run_id, key = asked.run_id, asked.idempotency_key
    if asked.concurrency_key is not None:
        inserting = _keyed(asked, refuse)
    else:
        inserting = [(INSERT_RUN, (*run_values(asked), run_id))]
    if asked.labels:
        inserting.append((INSERT_LABELS, (run_id,)))
    inserting.append((INSERT_ASKED_ENTRY, (asked.origin, run_id, run_id, run_id)))
    pending = (asked.concurrency_key, asked.job_name, int(asked.debounce))
    if asked.concurrency_key is not None:
        inserting.append((SELECT_KEYED_OUTCOME, (run_id, run_id, run_id, asked.job_name, key, *pending)))
    elif key is not None:
        inserting.append((SELECT_BY_IDEMPOTENCY_KEY, (asked.job_name, key)))
    return inserting


def _keyed(asked: Trigger, refuse: bool) -> _Statements:
    run_id, job_name, now = asked.run_id, asked.job_name, asked.now
    pending = (asked.concurrency_key, job_name, int(asked.debounce))
    found = (job_name, asked.idempotency_key)
    statements: _Statements = []
    if asked.coalesce in ("skip", "replace"):
        data = asked.input if asked.coalesce == "replace" else None
        statements.append((INSERT_COALESCED_ENTRY, (data, now, run_id, *pending, run_id, run_id, *found)))
    if asked.debounce:
        limit = _NEVER if asked.longest_wait is None else asked.longest_wait
        until = (asked.run_at, limit)
        statements.append((UNBLOCK_BEHIND_PUT_OFF, (asked.concurrency_key, job_name, run_id, run_id)))
        statements.append((PUT_OFF, (asked.input, *until, *until, run_id, run_id)))
    elif asked.coalesce == "replace":
        statements.append((REPLACE_INPUT, (asked.input, run_id, run_id)))
    elif asked.coalesce is None and refuse:
        statements.append((REFUSE, (f"refused-{run_id}", job_name, *pending, run_id, *found)))
    values = (*run_values(asked), asked.concurrency_key, int(asked.debounce), *blocked_values(asked))
    statements.append((INSERT_KEYED_RUN, (*values, asked.coalesce, *pending, run_id, run_id)))
    return statements


def _triggered(asked: Trigger, results: list[Rows]) -> Triggered:
    if asked.concurrency_key is None:
        entry = results[1 + bool(asked.labels)]
        if entry and not _is_of(asked, entry[0]):
            return Triggered(asked.run_id, None, None, taken=True)
        if entry:
            return Triggered(asked.run_id, "created", cast(int, entry[0][0]))
        if asked.idempotency_key is not None and results[-1]:
            return Triggered(cast(str, results[-1][0][0]), "idempotent", None)
        # It was made when this was first sent, and is deleted by now.
        return Triggered(asked.run_id, "created", None)
    own, coalesced, coalesced_seq, idempotent, pending = cast("tuple[Any, ...]", results[-1][0])
    if own is not None:
        entry = results[-2]
        if entry and not _is_of(asked, entry[0]):
            return Triggered(asked.run_id, None, None, taken=True)
        return Triggered(own, "created", cast(int, entry[0][0]) if entry else None)
    if coalesced is not None:
        return Triggered(coalesced, "coalesced", coalesced_seq)
    if idempotent is not None:
        return Triggered(idempotent, "idempotent", None)
    return Triggered(pending, None, None)


def _is_of(asked: Trigger, entry: Row) -> bool:
    """Whether the run that has the id may be the one that was made for this trigger: nothing of this changes."""
    _, job_name, labels = entry
    return job_name == asked.job_name and json.loads(cast(str, labels)) == asked.labels


def pending_of(job_name: str, concurrency_key: str) -> Operation[str | None]:
    """The run of a job and key that is pending and has never begun; the next to begin, if there are several."""
    return operation(
        "pending_of",
        "read",
        lambda results: cast("str | None", results[0][0][0]),
        (SELECT_PENDING, (concurrency_key, job_name, 0)),
    )
