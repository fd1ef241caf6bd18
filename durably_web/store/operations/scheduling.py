"""Schedules: what is stored of them, and the runs that their ticks get."""

from __future__ import annotations

import json
from typing import Any, LiteralString, NamedTuple, cast

from durably_web import codec as details
from durably_web.codec import Codec
from durably_web.records import Missed, Overlap, Schedule, instant
from durably_web.store.batch import Operation, Row, Rows, Value
from durably_web.store.operations.building import operation, paging
from durably_web.store.operations.repeating import forget_old

_COLUMNS: LiteralString = """
name, job_name, cron, timezone, every, input, labels, priority, missed, overlap, catch_up_window, paused, next_at,
last_at, created_at, updated_at
"""

SELECT_SCHEDULES: LiteralString = f"SELECT {_COLUMNS} FROM durably_schedules ORDER BY name"
SELECT_SCHEDULE: LiteralString = f"SELECT {_COLUMNS} FROM durably_schedules WHERE name = ?"

# A request leaves two marks: that its turn has come, before it changes anything, and that it is done. One that comes
# again finds both, and changes nothing, whatever others have done since.
_BEGUN: LiteralString = "EXISTS (SELECT 1 FROM durably_requests WHERE request_id = ? AND subject = ?)"
_NOT_DONE: LiteralString = "NOT EXISTS (SELECT 1 FROM durably_requests WHERE request_id = ? AND subject = ?)"
_NOW: LiteralString = f"{_BEGUN} AND {_NOT_DONE}"

BEGIN_NEW: LiteralString = f"""
INSERT INTO durably_requests (request_id, subject)
SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM durably_schedules WHERE name = ?) AND {_NOT_DONE}
ON CONFLICT DO NOTHING
"""
BEGIN_CHANGE: LiteralString = f"""
INSERT INTO durably_requests (request_id, subject)
SELECT ?, ? FROM durably_schedules WHERE name = ? AND updated_at = ? AND {_NOT_DONE}
ON CONFLICT DO NOTHING
"""
BEGIN: LiteralString = f"""
INSERT INTO durably_requests (request_id, subject)
SELECT ?, ? FROM durably_schedules WHERE name = ? AND {_NOT_DONE}
ON CONFLICT DO NOTHING
"""
END: LiteralString = f"""
INSERT INTO durably_requests (request_id, subject) SELECT ?, ? WHERE {_BEGUN} ON CONFLICT DO NOTHING
"""
SELECT_BEGUN: LiteralString = f"SELECT {_BEGUN}"

INSERT_SCHEDULE: LiteralString = f"""
INSERT INTO durably_schedules (name, job_name, cron, timezone, every, input, labels, priority, missed, overlap,
                               catch_up_window, next_at, created_at, updated_at)
SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE {_NOW}
ON CONFLICT DO NOTHING
"""

# When the schedule ticks stays as it is unless that is what is changed.
UPDATE_SCHEDULE: LiteralString = f"""
UPDATE durably_schedules
SET job_name = ?, cron = ?, timezone = ?, every = ?, input = ?, labels = ?, priority = ?, missed = ?, overlap = ?,
    catch_up_window = ?, next_at = CASE WHEN ? THEN ? ELSE next_at END, updated_at = ?
WHERE name = ? AND {_NOW}
"""

PAUSE_SCHEDULE: LiteralString = f"""
UPDATE durably_schedules SET paused = 1, updated_at = max(?, updated_at + 1) WHERE name = ? AND paused = 0 AND {_NOW}
"""
RESUME_SCHEDULE: LiteralString = f"""
UPDATE durably_schedules SET paused = 0, next_at = ?, updated_at = ? WHERE name = ? AND paused = 1 AND {_NOW}
"""
DELETE_SCHEDULE: LiteralString = f"DELETE FROM durably_schedules WHERE name = ? AND {_NOW}"


class Timing(NamedTuple):
    """When a schedule ticks. `every` is in milliseconds."""

    cron: str | None
    timezone: str | None
    every: int | None


class Definition(NamedTuple):
    """What a user says of a schedule. `input` is its text; durations are milliseconds."""

    job_name: str
    timing: Timing
    input: str
    labels: dict[str, str]
    priority: int
    missed: Missed
    overlap: Overlap
    catch_up_window: int | None


class Stored(NamedTuple):
    """A schedule as the database has it. Instants are milliseconds."""

    name: str
    definition: Definition
    paused: bool
    next_at: int | None
    last_at: int | None
    created_at: int
    updated_at: int

    def record(self, codec: Codec) -> Schedule:
        job_name, timing, input_, labels, priority, missed, overlap, window = self.definition
        ticks = not self.paused and self.next_at is not None
        return Schedule(
            name=self.name,
            job_name=job_name,
            cron=timing.cron,
            every=None if timing.every is None else timing.every / 1000,
            timezone=timing.timezone,
            input=codec.decode(input_),
            labels=labels,
            priority=priority,
            missed=missed,
            overlap=overlap,
            catch_up_window=None if window is None else window / 1000,
            paused=self.paused,
            next_at=instant(cast(int, self.next_at)) if ticks else None,
            last_at=None if self.last_at is None else instant(self.last_at),
            created_at=instant(self.created_at),
            updated_at=instant(self.updated_at),
        )


def _stored(row: Row) -> Stored:
    name, job_name, cron, timezone, every, input_, labels, priority, missed, overlap, window, paused, *moments = cast(
        "tuple[Any, ...]", row
    )
    definition = Definition(
        job_name,
        Timing(cron, timezone, every),
        input_,
        details.decode(labels),
        priority,
        missed,
        overlap,
        window,
    )
    return Stored(name, definition, bool(paused), *moments)


def get_schedules(name: str | None = None) -> Operation[list[Stored]]:
    """All schedules by their names, or the one of that name."""
    found = operation(
        "get_schedules",
        "read",
        lambda results: [_stored(row) for row in results[0]],
        (SELECT_SCHEDULES, ()) if name is None else (SELECT_SCHEDULE, (name,)),
    )
    return found if name is not None else found.or_pages(lambda read: paging().read_schedules(read))


# -- what users ask for ------------------------------------------------------------------------------------


class Changed(NamedTuple):
    """Whether the request has had its turn, now or when it came first, and the schedule as it is now."""

    done: bool
    stored: Stored | None


_Statement = tuple[LiteralString, tuple[Value, ...]]


def _marks(name: str, request_id: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (request_id, f"schedule:{name}"), (request_id, f"schedule:{name}/done")


def _change(
    kind: str, name: str, request_id: str, now: int, begin: _Statement, change: _Statement
) -> Operation[Changed]:
    begun, done = _marks(name, request_id)

    def decode(results: list[Rows]) -> Changed:
        return Changed(bool(results[-2][0][0]), _stored(results[-1][0]) if results[-1] else None)

    return operation(
        kind,
        "write",
        decode,
        forget_old(now),
        begin,
        change,
        (END, (*done, *begun)),
        (SELECT_BEGUN, begun),
        (SELECT_SCHEDULE, (name,)),
    )


def put_schedule(
    name: str, definition: Definition, next_at: int | None, expected: Stored | None, request_id: str, now: int
) -> Operation[Changed]:
    """Store a schedule in the place of what was `expected` there; where there is something else, nothing is done."""
    begun, done = _marks(name, request_id)
    job_name, timing, *rest = definition
    rest[1] = json.dumps(definition.labels)
    values = (job_name, *timing, *cast("list[Value]", rest))
    if expected is None:
        begin: _Statement = (BEGIN_NEW, (*begun, name, *done))
        change: _Statement = (INSERT_SCHEDULE, (name, *values, next_at, now, now, *begun, *done))
    else:
        moment = max(now, expected.updated_at + 1)
        retimed = int(timing != expected.definition.timing)
        begin = (BEGIN_CHANGE, (*begun, name, expected.updated_at, *done))
        change = (UPDATE_SCHEDULE, (*values, retimed, next_at, moment, name, *begun, *done))
    return _change("put_schedule", name, request_id, now, begin, change)


def pause_schedule(name: str, request_id: str, now: int) -> Operation[Changed]:
    """Let a schedule tick no more. Nothing is done where there is none of that name."""
    begun, done = _marks(name, request_id)
    begin = (BEGIN, (*begun, name, *done))
    return _change("pause_schedule", name, request_id, now, begin, (PAUSE_SCHEDULE, (now, name, *begun, *done)))


def resume_schedule(name: str, next_at: int | None, expected: Stored, request_id: str, now: int) -> Operation[Changed]:
    """Let a schedule tick again, if it is as was `expected`."""
    begun, done = _marks(name, request_id)
    moment = max(now, expected.updated_at + 1)
    begin = (BEGIN_CHANGE, (*begun, name, expected.updated_at, *done))
    change = (RESUME_SCHEDULE, (next_at, moment, name, *begun, *done))
    return _change("resume_schedule", name, request_id, now, begin, change)


def remove_schedule(name: str, request_id: str, now: int) -> Operation[Changed]:
    """Delete a schedule, and none of its runs."""
    begun, done = _marks(name, request_id)
    begin = (BEGIN, (*begun, name, *done))
    return _change("remove_schedule", name, request_id, now, begin, (DELETE_SCHEDULE, (name, *begun, *done)))
