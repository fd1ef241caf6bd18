"""Reading in pieces what is too much for one answer."""

from __future__ import annotations

from typing import LiteralString, NamedTuple, cast

from durably_web.records import TERMINAL
from durably_web.store.batch import Operation, Row, Rows
from durably_web.store.operations.building import operation
from durably_web.store.operations.reading import SELECT_WHOLE_RUN, SELECT_WHOLE_UNDOS

SELECT_INPUT: LiteralString = "SELECT input FROM durably_runs WHERE id = ?"

# The columns of `SELECT_WHOLE_JOURNAL`.
SELECT_JOURNAL_PAGE: LiteralString = """
SELECT number, generation, type, step_name, kind, data, started_at, created_at, calls, request_id
FROM durably_journal WHERE run_id = ? AND number > ? ORDER BY number LIMIT ?
"""

# The columns of `SELECT_WHOLE_SIGNALS`, without what may be large.
SELECT_SIGNALS: LiteralString = """
SELECT number, name, NULL, created_at, request_id, step_name FROM durably_signals WHERE run_id = ? ORDER BY number
"""

SELECT_PAYLOADS_PAGE: LiteralString = """
SELECT number, payload FROM durably_signals WHERE run_id = ? AND number > ? ORDER BY number LIMIT ?
"""

SELECT_SCHEDULE_NAMES: LiteralString = "SELECT name FROM durably_schedules ORDER BY name"

SELECT_LENGTH: LiteralString = "SELECT count(*), max(number) FROM durably_journal WHERE run_id = ?"


def get_input(run_id: str) -> Operation[str | None]:
    """What a run was given, as the store keeps it; `None` when there is no such run."""
    return operation(
        "get_input",
        "read",
        lambda results: cast(str, results[0][0][0]) if results[0] else None,
        (SELECT_INPUT, (run_id,)),
    )


def journal_page(run_id: str, after: int, limit: int) -> Operation[Rows]:
    """The entries of a run behind the one with the number `after`, as `Whole` has them: `limit` at most."""
    return operation("journal_page", "read", lambda results: results[0], (SELECT_JOURNAL_PAGE, (run_id, after, limit)))


def payloads_page(run_id: str, after: int, limit: int) -> Operation[Rows]:
    """The number and the payload of the signals of a run behind the one with the number `after`."""
    return operation(
        "payloads_page", "read", lambda results: results[0], (SELECT_PAYLOADS_PAGE, (run_id, after, limit))
    )


def schedule_names() -> Operation[list[str]]:
    """The names of all schedules, in their order."""
    return operation(
        "schedule_names", "read", lambda results: [cast(str, row[0]) for row in results[0]], (SELECT_SCHEDULE_NAMES, ())
    )


class Head(NamedTuple):
    """What `Whole` has, as far as it is small and changes. Of the journal there is the `length`, and the number of the
    last entry; the signals are without their payloads."""

    run: Row
    signals: Rows
    undos: Rows
    length: int
    last: int

    @property
    def is_terminal(self) -> bool:
        return self.run[2] in TERMINAL


def get_head(run_id: str) -> Operation[Head | None]:
    """What changes of a run, of one moment; `None` for an unknown id."""

    def decode(results: list[Rows]) -> Head | None:
        if not results[0]:
            return None
        length, last = cast("tuple[int, int]", results[3][0])
        return Head(results[0][0], results[1], results[2], length, last)

    return operation(
        "get_head",
        "read",
        decode,
        (SELECT_WHOLE_RUN, (run_id,)),
        (SELECT_SIGNALS, (run_id,)),
        (SELECT_WHOLE_UNDOS, (run_id,)),
        (SELECT_LENGTH, (run_id,)),
    )
