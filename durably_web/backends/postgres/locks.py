"""Who writes at once with whom.

Every write takes a lock of its schema: shared, where each of its statements is in `TOUCHED`, which says what the
statement decides about; and alone otherwise, so that a statement nobody has thought about is right. Who shares also
takes, for himself, what his statements touch: runs, queues (a job's runs of one concurrency key), claims that may come
twice. All of it is asked for in one SELECT before the first statement, in one order; at READ COMMITTED each statement
sees what was committed before it began, and so everything that those did who had the lock before.

The line is one lock for all queues of a schema: whoever changes one shares it, as does a plain claim, and a claim by
limits has it alone, since it counts holders of keys, leases and starts before it takes a run.

A claim does not know the runs whose leases have expired. It takes each run's lock as it frees the lease (`edits`), and
leaves the run to a later claim if somebody writes for it at this moment.

A transaction waits for these before it has written anything. So the only circles are of rows and unique keys, and
PostgreSQL breaks those.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from durably_web.store.batch import Statement
from durably_web.store.operations import claiming, executing, queueing, schema, triggering, undoing

# More things than that, and a write has the schema to itself: the server's table of locks is for all of its clients.
_MOST = 256
# Not a statement for each number of things: the last one may be asked for again.
_SIZES = (0, 1, 2, 3, 4, 8, 16, 32, 64, 128, _MOST)

_TABLE = "to_regclass('durably_runs')"


class Line(IntEnum):
    NOT = 0
    SHARED = 1
    ALONE = 2


class Touched(NamedTuple):
    """What a statement touches. Numbers are positions among its parameters: `runs` of ids; `queue` of a concurrency
    key and its job, where the key may be `None`; `claim` of the token of a claim."""

    runs: tuple[int, ...] = ()
    queue: tuple[int, int] | None = None
    claim: int | None = None
    line: Line = Line.NOT


NOTHING = Touched()

TOUCHED: dict[str, Touched] = {
    # A new run is nobody else's; the unique keys of ids, idempotency keys and numbers make two of them wait.
    triggering.INSERT_RUN: NOTHING,
    triggering.INSERT_LABELS: NOTHING,
    triggering.INSERT_TRIGGER_ENTRY: NOTHING,
    triggering.INSERT_ASKED_ENTRY: NOTHING,
    triggering.SELECT_BY_IDEMPOTENCY_KEY: NOTHING,
    # In a queue: which run is pending there, and who stands behind whom. The id is the request's.
    triggering.INSERT_COALESCED_ENTRY: Touched((2,), (3, 4)),
    triggering.UNBLOCK_BEHIND_PUT_OFF: Touched((2,), (0, 1)),
    # Of the run into which the request was coalesced: it is in that queue.
    triggering.PUT_OFF: Touched((5,)),
    triggering.REPLACE_INPUT: Touched((1,)),
    triggering.REFUSE: Touched((5,), (2, 1)),
    triggering.INSERT_KEYED_RUN: Touched((0,), (9, 1)),
    triggering.SELECT_KEYED_OUTCOME: NOTHING,
    # Frees only what it can lock.
    claiming.FREE_EXPIRED: NOTHING,
    # Of runs that somebody else changes at this moment it leaves the waking to a later claim.
    claiming.WAKE_DUE: NOTHING,
    claiming.CLAIM: Touched(claim=1, line=Line.SHARED),
    claiming.DELETE_STARTS: Touched(line=Line.ALONE),
    claiming.WAKE_DUE_IN_LINE: Touched(line=Line.ALONE),
    claiming.CLAIM_ONE: Touched(line=Line.ALONE),
    claiming.INSERT_STARTS: Touched(line=Line.ALONE),
    claiming.INSERT_LEASED_ENTRIES: NOTHING,
    claiming.SELECT_CLAIMED: NOTHING,
    claiming.SELECT_CLAIMED_BARE: NOTHING,
    claiming.SELECT_CLAIMED_ENTRIES: NOTHING,
    claiming.SELECT_NEXT: NOTHING,
    claiming.SELECT_NEXT_START: NOTHING,
    # One row each, and the row's own values decide.
    claiming.RENEW_LEASES: NOTHING,
    claiming.SELECT_OWNERSHIP: NOTHING,
    # What the owner of a run writes.
    executing.INSERT_ENTRY: Touched((8,)),
    executing.UPDATE_PROGRESS: Touched((1,)),
    executing.FINISH_RUN: Touched((4,)),
    executing.UNBLOCK_NEXT: Touched((2,), (0, 1)),
    # The parent, which may be about to wait for this one.
    executing.WAKE_PARENT: Touched((0, 2)),
    executing.EMPTY_RESULTS: Touched((0,)),
    executing.SUSPEND_RUN: Touched((6,)),
    executing.RELEASE_RUN: Touched((0,)),
    executing.SELECT_ENTRIES: NOTHING,
    executing.TAKE_SIGNAL: Touched((1,)),
    executing.SET_CODE: Touched((1,)),
    executing.RESTART: Touched((1,)),
    executing.GIVE_SIGNALS_BACK: Touched((0,)),
    executing.FORGET_UNDOS: Touched((0,)),
    executing.INSERT_CHILD: Touched((16,), (9, 1)),
    undoing.INSERT_UNDO: Touched((0,)),
    undoing.DELETE_UNDO: Touched((0,)),
    undoing.BEGIN_UNDO: Touched((0,)),
    undoing.DROP_UNDOS: Touched((0,)),
    # A signal, and the run that may be about to wait for it.
    queueing.WAKE_FOR_SIGNAL: Touched((0,)),
    queueing.INSERT_SIGNAL: Touched((4,)),
    queueing.SELECT_SIGNAL_OUTCOME: NOTHING,
    schema.REFUSE_NEWER: NOTHING,
}


class Locks(NamedTuple):
    """What a write takes: the schema `alone`; or shared, with the line and these things."""

    alone: bool
    line: Line = Line.NOT
    things: tuple[str, ...] = ()


ALONE = Locks(True)


def of(statements: Iterable[Statement]) -> Locks:
    """The locks of a write with these statements."""
    line = Line.NOT
    things: set[str] = set()
    for sql, params in statements:
        touched = TOUCHED.get(sql)
        if touched is None:
            return ALONE
        runs, queue, claim, at_least = touched
        for position in runs:
            things.add(f"run {params[position]!s}")
        if queue is not None and params[queue[0]] is not None:
            things.add("queue " + json.dumps([params[position] for position in queue]))
            at_least = max(at_least, Line.SHARED)
        if claim is not None:
            things.add(f"claim {params[claim]!s}")
        line = max(line, at_least)
    return ALONE if len(things) > _MOST else Locks(False, line, tuple(sorted(things)))


def key(name: str) -> int:
    """A number of 32 bits with a sign, for an advisory lock that everybody finds under this name."""
    number = zlib.crc32(f"durably_web {name}".encode())
    return number - 2**32 if number >= 2**31 else number


def alone(schema: str) -> str:
    """The expression that waits until nobody else writes in this schema."""
    return f"pg_advisory_xact_lock{_all_of(schema)}"


def _all_of(schema: str) -> str:
    return f"({key(f'write {schema}')}, 0)"


def waits(schema: str, locks: Locks) -> tuple[str, tuple[str, ...]]:
    """The expressions that wait for these locks and keep them till the transaction ends, and their parameters."""
    if locks.alone:
        return alone(schema), ()
    parts = [f"pg_advisory_xact_lock_shared{_all_of(schema)}"]
    if locks.line is not Line.NOT:
        shared = "_shared" if locks.line is Line.SHARED else ""
        parts.append(f"pg_advisory_xact_lock{shared}({key(f'line {schema}')}, 0)")
    count = next(size for size in _SIZES if size >= len(locks.things))
    parts += [f"pg_advisory_xact_lock({_number(f'${place}', _TABLE)})" for place in range(1, count + 1)]
    return ", ".join(parts), locks.things + locks.things[-1:] * (count - len(locks.things))


def _number(name: str, table: str) -> str:
    """The number of the lock of what has this name. `table` has the oid of the schema's table of runs."""
    return f'hashtextextended(({name}) COLLATE "C", ({table})::oid::bigint)'


FREED = "pg_try_advisory_xact_lock(" + _number("'run ' || id", "durably_runs.tableoid") + ")"
"""In the statement that frees expired leases: nobody writes for this run, or will before this transaction ends."""
