"""Taking in a run that another database hands over, as `handing.py` says.

All that is stored of it comes in one batch, once for each handover, however often that is sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, LiteralString, NamedTuple, cast

from durably_web.records import Status
from durably_web.store.batch import Operation, Rows
from durably_web.store.operations.building import NEVER_USED, operation
from durably_web.store.operations.handing import settled
from durably_web.store.operations.triggering import INSERT_LABELS

_NOT_DECLINED: LiteralString = "NOT EXISTS (SELECT 1 FROM durably_requests q WHERE q.request_id = ?)"

# While the run is taken in, this names it; the last statement takes it away, and a second send finds nobody.
_BEING_TAKEN: LiteralString = "EXISTS (SELECT 1 FROM durably_runs t WHERE t.id = ? AND t.lease_token = ?)"

# It holds its key as it did, unless others do.
HOLDS_KEY: LiteralString = """
(? IS NOT NULL AND ? > 0 AND ? > (
    SELECT count(*) FROM durably_runs h WHERE h.concurrency_key = ? AND h.holds_key = 1))
"""

INSERT_TAKEN_RUN: LiteralString = f"""
INSERT INTO durably_runs (id, job_name, status, input, labels, progress, idempotency_key, concurrency_key, priority,
    run_at, created_at, started_at, wake_at, awaits, generation, attempt, crashes, paused, forked_from, code, restarted,
    undoing, schedule, scheduled_at, lease_token, holds_key)
SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {HOLDS_KEY}
WHERE {NEVER_USED} AND {_NOT_DECLINED}
ON CONFLICT DO NOTHING
"""

# One that was given away comes back, and its journal goes on where it was given.
REVIVE_RUN: LiteralString = f"""
UPDATE durably_runs SET status = ?, input = ?, progress = ?, started_at = ?, wake_at = ?, awaits = ?, generation = ?,
    attempt = ?, crashes = ?, paused = ?, code = ?, restarted = ?, undoing = ?, lease_token = ?, completed_at = NULL,
    error = NULL, holds_key = {HOLDS_KEY}
WHERE id = ? AND job_name = ? AND status = 'cancelled' AND generation <= ? AND EXISTS (
    SELECT 1 FROM durably_journal j JOIN json_each(?) AS was
      ON json_extract(was.value, '$[0]') = j.number AND json_extract(was.value, '$[1]') = j.request_id
    WHERE j.run_id = durably_runs.id AND j.type = 'run:handover'
      AND j.number = (SELECT max(number) FROM durably_journal WHERE run_id = durably_runs.id))
  AND {_NOT_DECLINED}
"""

INSERT_TAKEN_ENTRY: LiteralString = f"""
INSERT INTO durably_journal (run_id, number, generation, type, step_name, data, started_at, created_at, calls, kind)
SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE {_BEING_TAKEN}
ON CONFLICT (run_id, number) DO NOTHING
"""

DROP_SIGNALS: LiteralString = f"DELETE FROM durably_signals WHERE run_id = ? AND {_BEING_TAKEN}"

INSERT_TAKEN_SIGNAL: LiteralString = f"""
INSERT INTO durably_signals (run_id, number, name, payload, created_at, request_id, step_name)
SELECT ?, ?, ?, ?, ?, ?, ? WHERE {_BEING_TAKEN}
"""

INSERT_TAKEN_UNDO: LiteralString = f"""
INSERT INTO durably_undos (run_id, number, step_name) SELECT ?, ?, ? WHERE {_BEING_TAKEN}
"""

INSERT_TAKEN: LiteralString = f"""
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at, request_id)
SELECT ?, ?, ?, 'run:handover', json_object('state', 'taken', 'handover', ?, 'target', ?), ?, ? WHERE {_BEING_TAKEN}
"""

TAKEN: LiteralString = "UPDATE durably_runs SET lease_token = NULL WHERE id = ? AND lease_token = ?"

# (seq of the entry by which it was taken, whether it was declined, the job and the status of the run of that id,
# whether there ever was one, who has its idempotency key, who has its tick)
SELECT_TAKEN: LiteralString = """
SELECT (SELECT seq FROM durably_journal WHERE request_id = ? AND run_id = ? AND type = 'run:handover'),
       (SELECT count(*) FROM durably_requests WHERE request_id = ?),
       (SELECT job_name FROM durably_runs WHERE id = ?), (SELECT status FROM durably_runs WHERE id = ?),
       (SELECT max(number) FROM durably_journal WHERE run_id = ?),
       (SELECT id FROM durably_runs WHERE job_name = ? AND idempotency_key = ?),
       (SELECT id FROM durably_runs WHERE schedule = ? AND scheduled_at = ?)
"""

INSERT_DECLINED: LiteralString = """
INSERT INTO durably_requests (request_id, subject) SELECT ?, ?
WHERE NOT EXISTS (SELECT 1 FROM durably_journal WHERE request_id = ? AND run_id = ? AND type = 'run:handover')
ON CONFLICT DO NOTHING
"""

SELECT_DECLINED: LiteralString = "SELECT count(*) FROM durably_requests WHERE request_id = ?"


def _declined(handover_id: str) -> str:
    # Behind every ULID: this is kept for ever, however late a copy of the run may come.
    return f"handover:{handover_id}"


class TakenEntry(NamedTuple):
    """A journal entry as it comes; `data` is as the store keeps it."""

    number: int
    generation: int
    type: str
    step_name: str | None
    data: str | None
    started_at: int | None
    created_at: int
    calls: int | None
    kind: str | None


class TakenSignal(NamedTuple):
    number: int
    name: str
    payload: str
    created_at: int
    request_id: str
    step_name: str | None


class TakenRun(NamedTuple):
    """A run that comes, as its last entry, an offer, says that it was before. Instants are milliseconds.

    `given` has the number and the handover of each entry by which it went from one database to another before.
    """

    run_id: str
    handover_id: str
    target: str
    job_name: str
    status: Status
    input: str
    labels: dict[str, str]
    progress: str | None
    idempotency_key: str | None
    concurrency_key: str | None
    priority: int
    run_at: int
    created_at: int
    started_at: int | None
    wake_at: int | None
    awaits: str | None
    generation: int
    crashes: int
    paused: bool
    forked_from: str | None
    code: str | None
    restarted: int
    undoing: str | None
    schedule: str | None
    scheduled_at: int | None
    journal: Sequence[TakenEntry]
    signals: Sequence[TakenSignal]
    undos: Sequence[tuple[int, str]]
    given: Sequence[tuple[int, str]]


class Taken(NamedTuple):
    """`seq` is that of the entry by which the run was taken, `None` when it was not. Then the rest says why: it was
    `declined`; there is a run of that id, of this job and in this status, or there was one (`known`); or another run
    has its idempotency key, or its tick."""

    seq: int | None
    declined: bool
    job_name: str | None
    status: Status | None
    known: bool
    same_key: str | None
    same_tick: str | None


def import_run(run: TakenRun, per_key: int, now: int) -> Operation[Taken]:
    """Take a run in, with all that is stored of it; once for each handover, and nothing of it when it is refused."""

    def decode(results: list[Rows]) -> Taken:
        seq, declined, job_name, status, known, *others = cast("tuple[Any, ...]", results[-1][0])
        return Taken(seq, bool(declined), job_name, status, known is not None, *others)

    run_id, asked, declined = run.run_id, settled(run.handover_id), _declined(run.handover_id)
    being_taken = (run_id, f"handover:{run.handover_id}")
    key = run.concurrency_key
    holds_key = (key, run.generation, per_key, key)
    inserted = (
        *(run_id, run.job_name, run.status, run.input, json.dumps(run.labels), run.progress, run.idempotency_key, key),
        *(run.priority, run.run_at, run.created_at, run.started_at, run.wake_at, run.awaits, run.generation),
        *(run.generation, run.crashes, int(run.paused), run.forked_from, run.code, run.restarted, run.undoing),
        *(run.schedule, run.scheduled_at, being_taken[1]),
    )
    revived = (
        *(run.status, run.input, run.progress, run.started_at, run.wake_at, run.awaits, run.generation),
        *(run.generation, run.crashes, int(run.paused), run.code, run.restarted, run.undoing, being_taken[1]),
    )
    given = json.dumps([(number, settled(handover)) for number, handover in run.given])
    last = len(run.journal) + 1
    taken = (run_id, last, run.generation, run.handover_id, run.target, now, asked)
    return operation(
        "import_run",
        "write",
        decode,
        (INSERT_TAKEN_RUN, (*inserted, *holds_key, run_id, declined)),
        (REVIVE_RUN, (*revived, *holds_key, run_id, run.job_name, run.generation, given, declined)),
        (INSERT_LABELS, (run_id,)),
        *[(INSERT_TAKEN_ENTRY, (run_id, *entry, *being_taken)) for entry in run.journal],
        (DROP_SIGNALS, (run_id, *being_taken)),
        *[(INSERT_TAKEN_SIGNAL, (run_id, *signal, *being_taken)) for signal in run.signals],
        *[(INSERT_TAKEN_UNDO, (run_id, *undo, *being_taken)) for undo in run.undos],
        (INSERT_TAKEN, (*taken, *being_taken)),
        (TAKEN, being_taken),
        (
            SELECT_TAKEN,
            (
                *(asked, run_id, declined, run_id, run_id, run_id),
                *(run.job_name, run.idempotency_key, run.schedule, run.scheduled_at),
            ),
        ),
    )


def decline_handover(run_id: str, handover_id: str) -> Operation[bool]:
    """See to it that a handover is never taken here, however late it comes. `False` when it was taken before."""
    declined = _declined(handover_id)
    return operation(
        "decline_handover",
        "write",
        lambda results: bool(results[-1][0][0]),
        (INSERT_DECLINED, (declined, run_id, settled(handover_id), run_id)),
        (SELECT_DECLINED, (declined,)),
    )
