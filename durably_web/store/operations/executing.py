"""What the owner of a lease writes. The fence: the run is leased, and by the generation that writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, LiteralString, NamedTuple, cast

from durably_web.records import Kind, Status
from durably_web.store.batch import Operation, Rows, Value
from durably_web.store.operations.building import ACTIVE, AWAITS, NO_LEASE, nothing, operation, paging, texts
from durably_web.store.operations.triggering import (
    BLOCKED,
    INSERT_LABELS,
    INSERT_TRIGGER_ENTRY,
    Trigger,
    blocked_values,
    run_values,
)

# Returns its seq on every send, and no row when the fence does not hold. The entry before it must be there: when a
# write of the owner did not arrive, none that it sent behind it may leave a gap.
INSERT_ENTRY: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, step_name, data, started_at, created_at, calls, kind)
SELECT id, ?, generation, ?, ?, ?, ?, ?, ?, ? FROM durably_runs WHERE id = ? AND generation = ? AND status = 'leased'
AND EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND number = ?)
ON CONFLICT (run_id, number) DO UPDATE SET number = excluded.number
RETURNING seq
"""

_FENCE: LiteralString = """
id = ? AND generation = ? AND status = 'leased'
AND EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND number = ?)
"""

UPDATE_PROGRESS: LiteralString = f"UPDATE durably_runs SET progress = ? WHERE {_FENCE}"

FINISH_RUN: LiteralString = f"""
UPDATE durably_runs SET status = ?, output = ?, error = ?, completed_at = ?, holds_key = 0, undoing = NULL, {NO_LEASE}
WHERE {_FENCE}
"""

# Sent before the end itself, while the fence can still tell whether this is the first send.
UNBLOCK_NEXT: LiteralString = f"""
UPDATE durably_runs SET blocked = 0
WHERE id = (
    SELECT id FROM durably_runs
    WHERE concurrency_key = ? AND job_name = ? AND blocked = 1 AND {ACTIVE} AND paused = 0
    ORDER BY priority DESC, run_at, id LIMIT 1
)
AND EXISTS (SELECT 1 FROM durably_runs WHERE {_FENCE})
"""

WAKE_PARENT: LiteralString = f"""
UPDATE durably_runs SET status = 'pending', wake_at = NULL
WHERE id = ? AND status = 'waiting' AND {AWAITS} AND EXISTS (SELECT 1 FROM durably_runs WHERE {_FENCE})
"""

EMPTY_RESULTS: LiteralString = """
UPDATE durably_journal SET data = NULL
WHERE run_id = ? AND type = 'step:complete'
AND EXISTS (SELECT 1 FROM durably_runs WHERE id = ? AND generation = ? AND status = 'completed')
"""

# What is waited for may have come while this was on its way: then the run is due at once.
_HAS_COME: LiteralString = """
(EXISTS (SELECT 1 FROM durably_signals s JOIN json_each(?) ON s.name = json_extract(value, '$[0]')
         WHERE s.run_id = durably_runs.id AND s.step_name IS NULL
           AND s.created_at <= coalesce(json_extract(value, '$[1]'), 9e18))
 OR EXISTS (SELECT 1 FROM json_each(?) AS child LEFT JOIN durably_runs r ON r.id = child.value
            WHERE r.id IS NULL OR r.status IN ('completed', 'failed', 'cancelled')))
"""

# Workers that died before a step that has been stored are not in its row any more.
_CRASHES: LiteralString = """
crashes = CASE WHEN crashes > 0 AND EXISTS (
    SELECT 1 FROM durably_journal j
    WHERE j.run_id = durably_runs.id AND j.generation = durably_runs.generation AND j.type LIKE 'step:%'
) THEN 0 ELSE crashes END
"""

SUSPEND_RUN: LiteralString = f"""
UPDATE durably_runs
SET status = CASE WHEN {_HAS_COME} THEN 'pending' ELSE 'waiting' END,
    wake_at = CASE WHEN {_HAS_COME} THEN NULL ELSE ? END, awaits = ?, {_CRASHES}, {NO_LEASE}
WHERE {_FENCE}
"""

_NETWORK = "network"

# They all have a moment when they look for themselves, and the index of such runs.
WAKE_FOR_NETWORK: LiteralString = f"""
UPDATE durably_runs SET status = 'pending', wake_at = NULL
WHERE wake_at IS NOT NULL AND status = 'waiting' AND {AWAITS}
"""

RELEASE_RUN: LiteralString = f"""
UPDATE durably_runs SET status = 'pending', {_CRASHES}, {NO_LEASE} WHERE id = ? AND generation = ? AND status = 'leased'
"""

# The types tell its own entries from the one that another wrote in their place, such as a cancellation.
SELECT_ENTRIES: LiteralString = """
SELECT seq, type FROM durably_journal WHERE run_id = ? AND number BETWEEN ? AND ? AND generation = ? ORDER BY number
"""

# What comes with an entry, comes only with it.
WITH_ENTRY: LiteralString = """
EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND number = ? AND generation = ? AND step_name = ?)
"""

# A restart gives back what was taken before it.
TAKE_SIGNAL: LiteralString = f"""
UPDATE durably_signals SET step_name = ? WHERE run_id = ? AND number = ? AND {WITH_ENTRY}
AND (SELECT restarted FROM durably_runs WHERE id = ?) < ?
"""

SET_CODE: LiteralString = f"UPDATE durably_runs SET code = ? WHERE {_FENCE}"

RESTART: LiteralString = f"UPDATE durably_runs SET restarted = ? WHERE {_FENCE}"

GIVE_SIGNALS_BACK: LiteralString = f"""
UPDATE durably_signals SET step_name = NULL
WHERE run_id = ? AND step_name IS NOT NULL AND EXISTS (SELECT 1 FROM durably_runs WHERE {_FENCE})
AND NOT EXISTS (
    SELECT 1 FROM durably_journal j WHERE j.run_id = durably_signals.run_id AND j.number > ?
    AND j.type = 'step:complete' AND j.step_name = durably_signals.step_name
)
"""

FORGET_UNDOS: LiteralString = f"""
DELETE FROM durably_undos WHERE run_id = ? AND number < ? AND EXISTS (SELECT 1 FROM durably_runs WHERE {_FENCE})
"""

INSERT_CHILD: LiteralString = f"""
INSERT INTO durably_runs (id, job_name, status, input, labels, idempotency_key, priority, run_at, wake_at, created_at,
                          concurrency_key, blocked, parent_run_id)
SELECT ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, {BLOCKED}, ? WHERE {WITH_ENTRY}
ON CONFLICT DO NOTHING
"""

SELECT_OPEN_SIGNALS: LiteralString = """
SELECT number, name, payload, created_at FROM durably_signals
WHERE run_id = ? AND step_name IS NULL ORDER BY number
"""

COUNT_HOLDERS: LiteralString = """
WITH RECURSIVE line (id, parent_run_id, concurrency_key) AS (
    SELECT id, parent_run_id, concurrency_key FROM durably_runs WHERE id = ?
    UNION SELECT r.id, r.parent_run_id, r.concurrency_key FROM durably_runs r JOIN line ON r.id = line.parent_run_id
)
SELECT count(*) FROM line WHERE concurrency_key = ?
"""

SELECT_OUTCOME: LiteralString = "SELECT status, output, error FROM durably_runs WHERE id = ?"

_Statement = tuple[LiteralString, tuple[Value, ...]]


class Entry(NamedTuple):
    """A journal entry that a worker writes; `number` is its place in the run.

    `calls`, with the outcome of a step, is how many steps the job had called by then; `kind` is what the step is.
    `effects` are statements of the same transaction that hold only together with it.
    """

    number: int
    type: str
    step_name: str | None
    data: str | None
    started_at: int | None
    created_at: int
    effects: tuple[_Statement, ...] = ()
    calls: int | None = None
    kind: Kind | None = None


def take_signal(run_id: str, generation: int, number: int, step_name: str, signal: int) -> tuple[_Statement, ...]:
    """The effect by which the wait with the entry `number` takes a signal."""
    entry = (run_id, number, generation, step_name)
    return ((TAKE_SIGNAL, (step_name, run_id, signal, *entry, run_id, number)),)


def set_code(run_id: str, generation: int, number: int, code: str | None) -> tuple[_Statement, ...]:
    """The effect by which a run is, from the entry `number` on, executed with this code."""
    return ((SET_CODE, (code, run_id, generation, run_id, number)),)


def restart(run_id: str, generation: int, number: int) -> tuple[_Statement, ...]:
    """The effect by which nothing before the entry `number` counts any more. Signals that were taken are open again,
    and nothing that was done is undone."""
    fence = (run_id, generation, run_id, number)
    return (
        (RESTART, (number, *fence)),
        (GIVE_SIGNALS_BACK, (run_id, *fence, number)),
        (FORGET_UNDOS, (run_id, number, *fence)),
    )


def create_child(run_id: str, generation: int, number: int, step_name: str, child: Trigger) -> tuple[_Statement, ...]:
    """The effect by which the step with the entry `number` makes a run."""
    values = (*run_values(child), child.concurrency_key, *blocked_values(child), run_id)
    labels: tuple[_Statement, ...] = ((INSERT_LABELS, (child.run_id,)),) if child.labels else ()
    return (
        (INSERT_CHILD, (*values, run_id, number, generation, step_name)),
        *labels,
        (INSERT_TRIGGER_ENTRY, (child.origin, child.run_id)),
    )


def _writing(run_id: str, generation: int, entries: Sequence[Entry], progress: str | None) -> list[_Statement]:
    statements: list[_Statement] = [
        (INSERT_ENTRY, (*entry[:6], entry.calls, entry.kind, run_id, generation, run_id, entry[0] - 1))
        for entry in entries
    ]
    if progress is not None:
        statements.append((UPDATE_PROGRESS, (progress, *_fence(run_id, generation, entries))))
    for entry in entries:
        if entry.effects:
            statements += entry.effects
    return statements


def _fence(run_id: str, generation: int, entries: Sequence[Entry]) -> tuple[Value, ...]:
    return run_id, generation, run_id, entries[-1].number


def write_entries(
    run_id: str, generation: int, entries: Sequence[Entry], progress: str | None
) -> Operation[list[int] | None]:
    """Append to the journal of a leased run. Gives the seq of each entry, or `None` when the lease is lost."""

    def decode(results: list[Rows]) -> list[int] | None:
        seqs = [cast(int, result[0][0]) for result in results[: len(entries)] if result]
        return seqs if len(seqs) == len(entries) else None

    return operation("write_entries", "write", decode, *_writing(run_id, generation, entries, progress))


def finish_run(
    run_id: str,
    generation: int,
    status: Status,
    output: str | None,
    error: str | None,
    entries: Sequence[Entry],
    progress: str | None,
    now: int,
    *,
    queue: tuple[str, str] | None = None,
    parent: str | None = None,
    empty_results: bool = False,
) -> Operation[list[int] | None]:
    """Give a leased run its end, and append `entries`, of which the last tells of it.

    `queue` is its concurrency key and job, so that the next run of the key may begin; `parent` is woken. With
    `empty_results` the results of its steps are forgotten. Gives the seq of each entry, or `None` when the lease
    is lost.
    """
    statements = _writing(run_id, generation, entries, progress)
    fence = _fence(run_id, generation, entries)
    if queue is not None:
        statements.append((UNBLOCK_NEXT, (*queue, *fence)))
    if parent is not None:
        statements.append((WAKE_PARENT, (parent, f"run:{run_id}", *fence)))
    statements.append((FINISH_RUN, (status, output, error, now, *fence)))
    if empty_results:
        statements.append((EMPTY_RESULTS, (run_id, run_id, generation)))
    return operation("finish_run", "write", _if_all(entries), *statements, _own_entries(run_id, generation, entries))


def suspend_run(
    run_id: str,
    generation: int,
    entries: Sequence[Entry],
    progress: str | None,
    wake_at: int | None,
    signals: Sequence[tuple[str, int | None]] = (),
    children: Sequence[str] = (),
    network: bool = False,
) -> Operation[list[int] | None]:
    """Give a lease back until `wake_at`, or until one of these signals comes, one of these runs ends, or, with
    `network`, some engine hears that there is a network again.

    A signal is a name, and the instant until which it must have been sent.

    Appends `entries`, of which the last tells of it. Gives the seq of each, or `None` when the lease is lost.
    """
    awaited = (json.dumps(signals), texts(children))
    awaits = [*(f"signal:{name}" for name, _ in signals), *(f"run:{child}" for child in children)]
    if network:
        awaits.append(_NETWORK)
    return operation(
        "suspend_run",
        "write",
        _if_all(entries),
        *_writing(run_id, generation, entries, progress),
        (SUSPEND_RUN, (*awaited, *awaited, wake_at, texts(awaits), *_fence(run_id, generation, entries))),
        _own_entries(run_id, generation, entries),
    )


def _own_entries(run_id: str, generation: int, entries: Sequence[Entry]) -> _Statement:
    return SELECT_ENTRIES, (run_id, entries[0].number, entries[-1].number, generation)


def _if_all(entries: Sequence[Entry]) -> Any:
    def decode(results: list[Rows]) -> list[int] | None:
        if [row[1] for row in results[-1]] != [entry.type for entry in entries]:
            return None
        return [cast(int, row[0]) for row in results[-1]]

    return decode


def wake_for_network() -> Operation[None]:
    """The network is back: let every run go on that waits for it."""
    return operation("wake_for_network", "write", nothing, (WAKE_FOR_NETWORK, (_NETWORK,)))


def release_run(run_id: str, generation: int) -> Operation[None]:
    """Give a lease back, so that any worker can go on with the run at once."""
    return operation("release_run", "write", nothing, (RELEASE_RUN, (run_id, generation)))


class OpenSignal(NamedTuple):
    """A signal that no wait has taken yet. `payload` is as the store keeps it."""

    number: int
    name: str
    payload: str
    created_at: int


def open_signals(run_id: str) -> Operation[list[OpenSignal]]:
    """The signals of a run that no wait has taken yet, oldest first."""
    return operation(
        "open_signals",
        "read",
        lambda results: [OpenSignal(*cast("tuple[Any, ...]", row)) for row in results[0]],
        (SELECT_OPEN_SIGNALS, (run_id,)),
    ).or_pages(lambda read: paging().read_open_signals(read, run_id))


class ChildOutcome(NamedTuple):
    """How a child stands. `output` is as the store keeps it."""

    status: Status
    output: str | None
    error: str | None


def child_outcome(run_id: str) -> Operation[ChildOutcome | None]:
    """How a run stands; `None` when it is gone."""
    return operation(
        "child_outcome",
        "read",
        lambda results: ChildOutcome(*cast("tuple[Any, ...]", results[0][0])) if results[0] else None,
        (SELECT_OUTCOME, (run_id,)),
    )


def holders_among_ancestors(run_id: str, key: str) -> Operation[int]:
    """How many of a run, its parent, and so on, have this concurrency key."""
    return operation(
        "holders_among_ancestors", "read", lambda results: cast(int, results[0][0][0]), (COUNT_HOLDERS, (run_id, key))
    )
