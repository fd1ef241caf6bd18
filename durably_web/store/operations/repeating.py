"""What is kept of requests, in case they come again, where the journal of their runs does not tell."""

from __future__ import annotations

from typing import LiteralString, NamedTuple, cast

from durably_web.ids import first_id
from durably_web.store.batch import Operation, Rows, Value
from durably_web.store.operations.building import nothing, operation, parts_of

# Nobody repeats a request that is older than this.
_KEPT_MS = 7 * 24 * 3600 * 1000

FORGET: LiteralString = "DELETE FROM durably_requests WHERE request_id < ?"

SELECT_ANSWER: LiteralString = "SELECT count FROM durably_requests WHERE request_id = ? AND subject = ''"

COUNT_ENTRIES: LiteralString = "SELECT count(*) FROM durably_journal WHERE request_id > ? AND request_id < ?"
COUNT_SUBJECTS: LiteralString = "SELECT count(*) FROM durably_requests WHERE request_id > ? AND request_id < ?"

INSERT_ANSWER: LiteralString = """
INSERT INTO durably_requests (request_id, subject, count) VALUES (?, '', ?) ON CONFLICT DO NOTHING
"""


def forget_old(now: int) -> tuple[LiteralString, tuple[Value, ...]]:
    """The statement that keeps the table small."""
    return FORGET, (first_id(now - _KEPT_MS),)


class Answered(NamedTuple):
    """What is known of a request about many runs: its `answer`, `None` when it was not brought to its end; and how
    many runs it has changed so far, as far as they are still known."""

    answer: int | None
    so_far: int


def find_answer(request_id: str) -> Operation[Answered]:
    def decode(results: list[Rows]) -> Answered:
        answer, entries, subjects = results
        counts = cast(int, entries[0][0]), cast(int, subjects[0][0])
        return Answered(cast(int, answer[0][0]) if answer else None, sum(counts))

    parts = parts_of(request_id)
    return operation(
        "find_answer",
        "read",
        decode,
        (SELECT_ANSWER, (request_id,)),
        (COUNT_ENTRIES, parts),
        (COUNT_SUBJECTS, parts),
    )


def store_answer(request_id: str, count: int, now: int) -> Operation[None]:
    """A request about many runs has come to its end: it is not to be done again."""
    stored = operation("store_answer", "write", nothing, forget_old(now), (INSERT_ANSWER, (request_id, count)))
    # Also of a request that has made room.
    return stored.freeing()
