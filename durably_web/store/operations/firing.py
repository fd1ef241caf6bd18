"""Runs of schedules: what is due, and the runs that its ticks get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, LiteralString, NamedTuple, cast

from durably_web import codec as details
from durably_web.records import Missed
from durably_web.store.batch import Operation, Rows, Value
from durably_web.store.operations.building import ACTIVE, NEVER_USED, nothing, operation, texts
from durably_web.store.operations.scheduling import Timing
from durably_web.store.operations.triggering import INSERT_TRIGGER_ENTRY

_UNPAUSED: LiteralString = "paused = 0 AND next_at IS NOT NULL"

# Without its input: nobody has to open what is sealed to know when something is due.
SELECT_NEXT_SCHEDULES: LiteralString = f"""
SELECT name, job_name, labels, cron, timezone, every, missed, catch_up_window, next_at, created_at, updated_at
FROM durably_schedules WHERE {_UNPAUSED} AND next_at > ? ORDER BY next_at LIMIT ?
"""

_KEY: LiteralString = "CASE overlap WHEN 'queue' THEN 'schedule:' || name END"

# As for any run with a key; of its own, so that nothing else is in the line.
BLOCKED: LiteralString = f"""
overlap = 'queue' AND EXISTS (
    SELECT 1 FROM durably_runs r
    WHERE r.concurrency_key = 'schedule:' || name AND r.job_name = durably_schedules.job_name AND r.{ACTIVE}
      AND r.blocked = 0 AND (r.holds_key = 1 OR (r.wake_at IS NULL AND r.paused = 0
                             AND (-r.priority, r.run_at) <= (-durably_schedules.priority, ?))))
"""

_ACTIVE_RUN: LiteralString = f"(SELECT id FROM durably_runs r WHERE r.schedule = ? AND r.{ACTIVE} LIMIT 1)"

_INSERT_RUN: LiteralString = f"""
INSERT INTO durably_runs (id, job_name, status, input, labels, priority, run_at, created_at, schedule, scheduled_at,
                          concurrency_key, blocked)
SELECT ?, job_name, 'pending', input, labels, priority, CASE overlap WHEN 'queue' THEN ? ELSE 0 END, ?, name, ?,
       {_KEY}, {BLOCKED}
FROM durably_schedules
WHERE name = ? AND (overlap <> 'skip' OR NOT EXISTS {_ACTIVE_RUN}) AND {NEVER_USED}
"""

# Nobody has moved the schedule on, or changed it, since it was looked at.
_UNMOVED: LiteralString = f"next_at = ? AND updated_at = ? AND {_UNPAUSED}"

# One after another, so that each sees those before it.
INSERT_TICK: LiteralString = f"{_INSERT_RUN} AND {_UNMOVED} ON CONFLICT DO NOTHING"
INSERT_BY_HAND: LiteralString = f"{_INSERT_RUN} ON CONFLICT DO NOTHING"

INSERT_TICK_LABELS: LiteralString = """
INSERT INTO durably_labels (key, value, run_id)
SELECT label.key, label.value, r.id FROM durably_runs r, json_each(r.labels) AS label
WHERE r.id IN (SELECT value FROM json_each(?))
ON CONFLICT DO NOTHING
"""

INSERT_TICK_ENTRIES: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, created_at)
SELECT r.id, 1, 0, 'run:trigger', r.created_at FROM json_each(?) AS given CROSS JOIN durably_runs r
WHERE r.id = given.value
ON CONFLICT DO NOTHING
"""

MOVE_ON: LiteralString = f"""
UPDATE durably_schedules
SET next_at = ?, fired_by = ?, last_at = coalesce(
    (SELECT max(scheduled_at) FROM durably_runs WHERE id IN (SELECT value FROM json_each(?))), last_at)
WHERE name = ? AND {_UNMOVED}
"""

SELECT_FIRED: LiteralString = "SELECT 1 FROM durably_schedules WHERE name = ? AND fired_by = ?"

# Also those that are deleted by now.
SELECT_MADE: LiteralString = """
SELECT DISTINCT run_id FROM durably_journal WHERE run_id IN (SELECT value FROM json_each(?))
"""
SELECT_TICKS: LiteralString = """
SELECT scheduled_at FROM durably_runs WHERE schedule = ? AND scheduled_at IN (SELECT value FROM json_each(?))
"""

CORRECT: LiteralString = f"UPDATE durably_schedules SET next_at = ? WHERE name = ? AND {_UNMOVED}"

# (the run that was asked for, the one that is in its way, whether there is such a schedule)
SELECT_BY_HAND: LiteralString = f"""
SELECT (SELECT run_id FROM durably_journal WHERE run_id = ? LIMIT 1), {_ACTIVE_RUN},
       (SELECT job_name FROM durably_schedules WHERE name = ?)
"""


class Next(NamedTuple):
    """What is needed to know what is due of a schedule. Instants and durations are milliseconds."""

    name: str
    job_name: str
    labels: dict[str, str]
    timing: Timing
    missed: Missed
    catch_up_window: int | None
    next_at: int
    created_at: int
    updated_at: int


def next_schedules(limit: int, after: int) -> Operation[list[Next]]:
    """The schedules that tick next, and later than `after`: those that are due already come first."""

    def decode(results: list[Rows]) -> list[Next]:
        return [
            Next(name, job_name, details.decode(labels), Timing(cron, timezone, every), *rest)
            for name, job_name, labels, cron, timezone, every, *rest in cast("list[tuple[Any, ...]]", results[0])
        ]

    return operation("next_schedules", "read", decode, (SELECT_NEXT_SCHEDULES, (after, limit)))


class ByHand(NamedTuple):
    """What became of a run that was asked for: `made`, now or before; the seq of its entry; the run in its way; the
    job of the schedule, `None` where there is no such schedule."""

    made: bool
    seq: int | None
    active: str | None
    job_name: str | None


def trigger_schedule(name: str, run_id: str, now: int, origin: str | None = None) -> Operation[ByHand]:
    """Store a run of a schedule that is no tick of it, unless one is active and none may begin beside it."""

    def decode(results: list[Rows]) -> ByHand:
        made, active, job_name = cast("tuple[Any, ...]", results[-1][0])
        entry = results[-2]
        return ByHand(made is not None, cast(int, entry[0][0]) if entry else None, active, job_name)

    return operation(
        "trigger_schedule",
        "write",
        decode,
        (INSERT_BY_HAND, (run_id, now, now, None, now, name, name, run_id)),
        (INSERT_TICK_LABELS, (texts([run_id]),)),
        (INSERT_TRIGGER_ENTRY, (origin, run_id)),
        (SELECT_BY_HAND, (run_id, name, name)),
    )


# -- ticks -------------------------------------------------------------------------------------------------


class Fired(NamedTuple):
    """`won` is whether it was this send, or an earlier one of the same, that moved the schedule on. `made` are the runs
    that it made; `skipped` the ticks for which there was no run before, and is none now."""

    won: bool
    made: list[str]
    skipped: list[int]


def fire_schedule(
    schedule: Next, ticks: Sequence[tuple[int, str]], next_at: int | None, token: str, now: int
) -> Operation[Fired]:
    """Move a schedule on to `next_at`, and make runs of `ticks`, each with the run's id.

    Nothing is done when it has been moved on or was changed; and no run is made of a tick that has one already, or
    while one is active beside which none may begin.
    """
    name = schedule.name
    unmoved = (schedule.next_at, schedule.updated_at)
    run_ids = texts(run_id for _, run_id in ticks)
    statements: list[tuple[LiteralString, tuple[Value, ...]]] = [
        (INSERT_TICK, (run_id, tick, now, tick, tick, name, name, run_id, *unmoved)) for tick, run_id in ticks
    ]
    if schedule.labels:
        statements.append((INSERT_TICK_LABELS, (run_ids,)))
    statements += [
        (INSERT_TICK_ENTRIES, (run_ids,)),
        (MOVE_ON, (next_at, token, run_ids, name, *unmoved)),
        (SELECT_FIRED, (name, token)),
        (SELECT_MADE, (run_ids,)),
        (SELECT_TICKS, (name, json.dumps([tick for tick, _ in ticks]))),
    ]

    def decode(results: list[Rows]) -> Fired:
        won, made, existing = (cast("list[tuple[Any, ...]]", rows) for rows in results[-3:])
        ours = {row[0] for row in made}
        there = {row[0] for row in existing}
        return Fired(
            bool(won),
            [run_id for _, run_id in ticks if run_id in ours],
            [tick for tick, run_id in ticks if run_id not in ours and tick not in there],
        )

    return operation("fire_schedule", "write", decode, *statements)


def correct_schedule(schedule: Next, next_at: int | None) -> Operation[None]:
    """Let a schedule tick at another moment than it would, unless it has been moved on or changed."""
    return operation(
        "correct_schedule",
        "write",
        nothing,
        (CORRECT, (next_at, schedule.name, schedule.next_at, schedule.updated_at)),
    )
