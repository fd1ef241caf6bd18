"""What operations are put together from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, LiteralString, TypeVar

from durably_web.store.batch import Batch, Mode, Operation, Rows, Statement, Value

T = TypeVar("T")

ACTIVE: LiteralString = "status IN ('pending', 'leased', 'waiting')"
TERMINAL: LiteralString = "status IN ('completed', 'failed', 'cancelled')"

# May be claimed. In these words, so that SQLite finds the index of such runs.
READY: LiteralString = "status = 'pending' AND wake_at IS NULL AND paused = 0 AND blocked = 0"

# What `paused` is while a handover waits for the current steps of a run, and nobody else has paused it.
HELD: LiteralString = "2"

# What a run has no more once it is not leased.
NO_LEASE: LiteralString = "lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL"

# Its handover to another database is not open: what is offered is nobody's to change, until it is settled.
NOT_OFFERED: LiteralString = """coalesce(awaits, '') NOT LIKE '["handover:%'"""

# It has not been given to another database.
NOT_GIVEN: LiteralString = """
coalesce((SELECT type FROM durably_journal WHERE run_id = durably_runs.id ORDER BY number DESC LIMIT 1), '')
<> 'run:handover'
"""

# A waiting run is to be woken by that.
AWAITS: LiteralString = "EXISTS (SELECT 1 FROM json_each(awaits) WHERE value = ?)"

# The highest number of a run's journal, and one more; the run's id is to be given.
NEXT_NUMBER: LiteralString = "(SELECT max(number) + 1 FROM durably_journal WHERE run_id = durably_runs.id)"

# A request that comes a second time, however late, finds its own entry and makes no other; and what follows in the
# batch is done only while that entry is the run's last.
LAST_REQUEST: LiteralString = """
(SELECT request_id FROM durably_journal WHERE run_id = durably_runs.id ORDER BY number DESC LIMIT 1)
"""


# No run has this id, and none had it: one that was deleted left an entry behind.
NEVER_USED: LiteralString = "NOT EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ?)"


def operation(
    name: str, mode: Mode, decode: Callable[[list[Rows]], T], *statements: tuple[LiteralString, tuple[Value, ...]]
) -> Operation[T]:
    return Operation(name, Batch(mode, tuple([Statement(*statement) for statement in statements])), decode)


def paging() -> Any:
    """How an operation is read in pages. Few databases limit their answers, and in a browser each module costs a
    millisecond at the start."""
    from durably_web.store import paging

    return paging


def part_of(request_id: str, name: str) -> str:
    """The id of a part of a request that is sent in several operations."""
    return f"{request_id}.{name}"


def parts_of(request_id: str) -> tuple[str, str]:
    """What stands before and behind the ids of all its parts, and of nothing else."""
    return f"{request_id}.", f"{request_id}/"


def nothing(_results: list[Rows]) -> None:
    return None


def texts(values: Iterable[str]) -> str:
    """Texts as one parameter, for `json_each`."""
    return json.dumps(list(values))
