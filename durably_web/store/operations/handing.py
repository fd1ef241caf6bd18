"""Handing a run over to another database; `taking.py` is the other side.

An offered run waits for the answer to its handover: `awaits` is `["handover:<id>"]`, and nothing else wakes it. Its
journal tells of it by entries `run:handover`: `offered`, and then one of `withdrawn` and `given`, which share a request
id, so that one excludes the other. Where it is taken, `taken` has the number that `given` has here: a run that comes
back goes on behind it.
"""

from __future__ import annotations

import json
from typing import Any, LiteralString, NamedTuple, cast

from durably_web.records import Status
from durably_web.store.batch import Operation, Rows, Value
from durably_web.store.operations.building import (
    LAST_REQUEST,
    NEXT_NUMBER,
    NO_LEASE,
    NOT_OFFERED,
    operation,
    part_of,
)
from durably_web.store.operations.reading import Whole, whole_of

# The run `r` belongs to one that goes on here, and would end without telling it.
_PARENT: LiteralString = """
(SELECT p.id FROM durably_runs p WHERE p.id = r.parent_run_id AND p.status IN ('pending', 'leased', 'waiting'))
"""

# It has started one that goes on here.
_CHILD: LiteralString = """
(SELECT c.id FROM durably_runs c WHERE c.parent_run_id = r.id AND c.status IN ('pending', 'leased', 'waiting') LIMIT 1)
"""

# It has called one, and has not seen what that came to.
_CALL: LiteralString = """
(SELECT w.step_name FROM durably_journal w
 WHERE w.run_id = r.id AND w.type = 'step:wait' AND w.kind = 'call' AND w.number > r.restarted AND NOT EXISTS (
    SELECT 1 FROM durably_journal d
    WHERE d.run_id = w.run_id AND d.step_name = w.step_name AND d.number > w.number
      AND d.type IN ('step:complete', 'step:fail')) LIMIT 1)
"""

# What it was like before is kept with the entry. A pause that was only for the handover does not count.
INSERT_OFFER: LiteralString = f"""
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at, request_id)
SELECT id, (SELECT max(number) + 1 FROM durably_journal WHERE run_id = r.id), generation, 'run:handover', json_object(
        'state', 'offered', 'handover', ?, 'target', ?,
        'status', CASE WHEN status = 'waiting' THEN 'waiting' ELSE 'pending' END,
        'wakeAt', wake_at,
        'awaits', CASE WHEN status = 'waiting' THEN awaits END,
        'paused', CASE WHEN paused = 1 THEN 1 ELSE 0 END), ?, ?
FROM durably_runs r
WHERE id = ? AND (status IN ('pending', 'waiting') OR (status = 'leased' AND lease_expires_at <= ?)) AND {NOT_OFFERED}
  AND {_PARENT} IS NULL AND {_CHILD} IS NULL AND {_CALL} IS NULL
  AND NOT EXISTS (SELECT 1 FROM durably_journal WHERE request_id = ?)
"""

_NEXT_OF_KEY: LiteralString = """
(SELECT n.id FROM durably_runs n JOIN durably_runs c ON c.id = ?
 WHERE n.concurrency_key = c.concurrency_key AND n.job_name = c.job_name AND n.blocked = 1
   AND n.status IN ('pending', 'leased', 'waiting') AND n.paused = 0
 ORDER BY n.priority DESC, n.run_at, n.id LIMIT 1)
"""

# One that has not begun lets the next of its key pass, as a pause does. One that has begun keeps the key until it is
# given: it may go on here after all.
UNBLOCK_BEHIND_OFFERED: LiteralString = f"""
UPDATE durably_runs SET blocked = 0
WHERE id = {_NEXT_OF_KEY} AND EXISTS (
    SELECT 1 FROM durably_runs r JOIN durably_journal j ON j.run_id = r.id AND j.request_id = ?
    WHERE r.id = ? AND r.blocked = 0 AND r.paused = 0 AND r.holds_key = 0 AND r.status <> 'waiting'
      AND j.number = (SELECT max(number) FROM durably_journal WHERE run_id = r.id))
"""

OFFER_RUN: LiteralString = f"""
UPDATE durably_runs SET status = 'waiting', wake_at = NULL, awaits = ?, paused = 1, {NO_LEASE}
WHERE id = ? AND status IN ('pending', 'leased', 'waiting') AND {NOT_OFFERED} AND {LAST_REQUEST} = ?
"""

# The last entry of the kind, and whether it is the last of all.
_LAST_HANDOVER: LiteralString = """
(SELECT j.data FROM durably_journal j WHERE j.run_id = r.id AND j.type = 'run:handover'
  AND j.number = (SELECT max(number) FROM durably_journal WHERE run_id = r.id))
"""

SELECT_OFFERED: LiteralString = f"""
SELECT status, paused, {_LAST_HANDOVER}, {_PARENT}, {_CHILD}, {_CALL},
       (SELECT seq FROM durably_journal WHERE run_id = r.id ORDER BY number DESC LIMIT 1)
FROM durably_runs r WHERE id = ?
"""

INSERT_SETTLED: LiteralString = f"""
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at, request_id)
SELECT id, {NEXT_NUMBER}, generation, 'run:handover', json_object('state', ?, 'handover', ?, 'target', (
        SELECT json_extract(o.data, '$.target') FROM durably_journal o
        WHERE o.request_id = ? AND o.run_id = durably_runs.id AND o.type = 'run:handover')), ?, ?
FROM durably_runs
WHERE id = ? AND status = 'waiting' AND awaits = ? AND NOT EXISTS (
    SELECT 1 FROM durably_journal s WHERE s.request_id = ? AND s.run_id = durably_runs.id)
"""

_SETTLING: LiteralString = f"id = ? AND status = 'waiting' AND awaits = ? AND {LAST_REQUEST} = ?"

UNBLOCK_BEHIND_GIVEN: LiteralString = f"""
UPDATE durably_runs SET blocked = 0
WHERE id = {_NEXT_OF_KEY} AND EXISTS (SELECT 1 FROM durably_runs WHERE {_SETTLING} AND holds_key = 1)
"""

DROP_GIVEN_UNDOS: LiteralString = f"""
DELETE FROM durably_undos WHERE run_id = ? AND EXISTS (SELECT 1 FROM durably_runs WHERE {_SETTLING})
"""

GIVE_RUN: LiteralString = f"""
UPDATE durably_runs SET status = 'cancelled', completed_at = ?, awaits = NULL, paused = 0, holds_key = 0, blocked = 0,
    undoing = NULL, error = 'handed over to ' || (
        SELECT json_extract(o.data, '$.target') FROM durably_journal o
        WHERE o.request_id = ? AND o.run_id = durably_runs.id AND o.type = 'run:handover')
WHERE {_SETTLING}
"""

# As the offer found it. It may have lost its place behind others of its key.
WITHDRAW_RUN: LiteralString = f"""
UPDATE durably_runs SET
    (status, wake_at, awaits, paused) = (
        SELECT json_extract(o.data, '$.status'), json_extract(o.data, '$.wakeAt'), json_extract(o.data, '$.awaits'),
               json_extract(o.data, '$.paused')
        FROM durably_journal o
        WHERE o.request_id = ? AND o.run_id = durably_runs.id AND o.type = 'run:handover'), blocked = 0
WHERE {_SETTLING}
"""

SELECT_SETTLED: LiteralString = f"""
SELECT status, {_LAST_HANDOVER}, (
    SELECT s.data FROM durably_journal s WHERE s.request_id = ? AND s.run_id = r.id AND s.type = 'run:handover'), (
    SELECT s.seq FROM durably_journal s WHERE s.request_id = ? AND s.run_id = r.id AND s.type = 'run:handover')
FROM durably_runs r WHERE id = ?
"""


def settled(handover_id: str) -> str:
    """The request id of the entry that ends a handover, on either side."""
    return part_of(handover_id, "settled")


def _awaits(handover_id: str) -> str:
    return json.dumps([f"handover:{handover_id}"])


def _detail(text: Value) -> dict[str, Any]:
    return {} if text is None else cast("dict[str, Any]", json.loads(cast(str, text)))


class Offered(NamedTuple):
    """How a run stands that is to be offered. `handover` is its last entry, if that is about one. `parent`, `child` and
    `call` are what is in the way: ids of runs, and the name of a step. `seq` is that of the last entry."""

    status: Status
    paused: bool
    handover: dict[str, Any]
    parent: str | None
    child: str | None
    call: str | None
    seq: int
    whole: Whole | None


def offer_run(run_id: str, handover_id: str, target: str, now: int, *, bare: bool = False) -> Operation[Offered | None]:
    """Hold back a run that nobody executes, until its handover is settled. `None` when there is none.

    When it is `bare`, what is stored of the run is not read: that may be too much at once.
    """

    def decode(results: list[Rows]) -> Offered | None:
        if not results[3]:
            return None
        status, paused, handover, parent, child, call, seq = cast("tuple[Any, ...]", results[3][0])
        whole = None if bare else Whole(results[4][0], *results[5:])
        return Offered(status, bool(paused), _detail(handover), parent, child, call, seq, whole)

    return operation(
        "offer_run",
        "write",
        decode,
        (INSERT_OFFER, (handover_id, target, now, handover_id, run_id, now, handover_id)),
        (UNBLOCK_BEHIND_OFFERED, (run_id, handover_id, run_id)),
        (OFFER_RUN, (_awaits(handover_id), run_id, handover_id)),
        (SELECT_OFFERED, (run_id,)),
        *(() if bare else whole_of(run_id)),
    )


class Settled(NamedTuple):
    """The run's status; how this handover ended (`"given"`, `"withdrawn"`, or `None`: it is open, or unknown); and the
    seq of the entry that says so. `open` is the id of a handover that has not ended."""

    status: Status
    ended: str | None
    seq: int | None
    open: str | None


def settle_handover(run_id: str, handover_id: str, given: bool, now: int) -> Operation[Settled | None]:
    """End an offer, once: the run is somebody else's, or goes on here. `None` when there is no such run."""

    def decode(results: list[Rows]) -> Settled | None:
        if not results[-1]:
            return None
        status, last, own, seq = cast("tuple[Any, ...]", results[-1][0])
        handover = _detail(last)
        is_open = handover.get("state") == "offered"
        return Settled(status, _detail(own).get("state"), seq, handover["handover"] if is_open else None)

    asked, awaits = settled(handover_id), _awaits(handover_id)
    fence = (run_id, awaits, asked)
    entry = ("given" if given else "withdrawn", handover_id, handover_id, now, asked, run_id, awaits, asked)
    ending: list[tuple[LiteralString, tuple[Value, ...]]] = [(WITHDRAW_RUN, (handover_id, *fence))]
    if given:
        ending = [
            (UNBLOCK_BEHIND_GIVEN, (run_id, *fence)),
            (DROP_GIVEN_UNDOS, (run_id, *fence)),
            (GIVE_RUN, (now, handover_id, *fence)),
        ]
    return operation(
        "settle_handover",
        "write",
        decode,
        (INSERT_SETTLED, entry),
        *ending,
        (SELECT_SETTLED, (asked, asked, run_id)),
    )
