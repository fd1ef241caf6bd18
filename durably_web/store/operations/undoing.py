"""The steps that have a result and can be undone. What a worker changes about them comes with an entry of its own."""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple, cast

from durably_web.store.batch import Operation, Value
from durably_web.store.operations.building import operation, paging
from durably_web.store.operations.executing import WITH_ENTRY

# A copy that comes late must not bring back what has been undone since, or does not count any more.
INSERT_UNDO: LiteralString = f"""
INSERT INTO durably_undos (run_id, number, step_name)
SELECT ?, ?, ? WHERE {WITH_ENTRY}
AND EXISTS (
    SELECT 1 FROM durably_runs
    WHERE id = ? AND generation = ? AND status = 'leased' AND undoing IS NULL AND restarted < ?
)
ON CONFLICT DO NOTHING
"""

DELETE_UNDO: LiteralString = f"DELETE FROM durably_undos WHERE run_id = ? AND number = ? AND {WITH_ENTRY}"

# The count of dead workers begins anew.
BEGIN_UNDO: LiteralString = """
UPDATE durably_runs SET undoing = 'failed', crashes = 0 WHERE id = ? AND generation = ? AND status = 'leased'
AND EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND number = ? AND generation = ? AND type = 'run:undo')
"""

# While it is leased it is not yet known to end: this is sent before its end.
DROP_UNDOS: LiteralString = """
DELETE FROM durably_undos WHERE run_id = ? AND EXISTS (
    SELECT 1 FROM durably_runs r JOIN durably_journal j ON j.run_id = r.id AND j.number = ?
    WHERE r.id = ? AND r.generation = ? AND r.status = 'leased' AND j.generation = ? AND j.type = 'run:complete'
)
"""

SELECT_UNDOS: LiteralString = """
SELECT u.number, u.step_name, j.data FROM durably_undos u JOIN durably_journal j USING (run_id, number)
WHERE u.run_id = ? ORDER BY u.number DESC
"""

_Statements = tuple[tuple[LiteralString, tuple[Value, ...]], ...]


def keep_undo(run_id: str, generation: int, number: int, step_name: str) -> _Statements:
    """The effect by which the step with the result `number` can be undone."""
    fence = (run_id, number, generation, step_name, run_id, generation, number)
    return ((INSERT_UNDO, (run_id, number, step_name, *fence)),)


def drop_undo(run_id: str, generation: int, number: int, step_name: str, undone: int) -> _Statements:
    """The effect by which the step with the result `undone` has been undone by the one with the result `number`."""
    return ((DELETE_UNDO, (run_id, undone, run_id, number, generation, step_name)),)


def begin_undo(run_id: str, generation: int, number: int) -> _Statements:
    """The effect of the entry `number`, a `run:undo`: the run has failed, and does not end before it is undone."""
    return ((BEGIN_UNDO, (run_id, generation, run_id, number, generation)),)


def drop_undos(run_id: str, generation: int, number: int) -> _Statements:
    """The effect of the entry `number`, a `run:complete`: nothing is to be undone any more."""
    return ((DROP_UNDOS, (run_id, number, run_id, generation, generation)),)


class StoredUndo(NamedTuple):
    """A step that can be undone: the number of its result, its name, and the result as the store keeps it."""

    number: int
    step_name: str
    data: str | None


def undos_of(run_id: str) -> Operation[list[StoredUndo]]:
    """The steps of a run that can be undone, newest first."""
    return operation(
        "undos_of",
        "read",
        lambda results: [StoredUndo(*cast("tuple[Any, ...]", row)) for row in results[0]],
        (SELECT_UNDOS, (run_id,)),
    ).or_pages(lambda read: paging().read_undos(read, run_id))
