"""Reads in pages what a database does not say in one answer.

Only where an answer was too large: everything else is read at once. A page is half as large after each
`ResponseTooLarge`, down to one row; where even that is too large, the error is raised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from durably_web.codec import Codec
from durably_web.errors import ResponseTooLarge
from durably_web.events import Event
from durably_web.records import LogEntry, Run, StepRecord
from durably_web.store import operations, rows
from durably_web.store.batch import Operation, Read, Row, Rows, Value
from durably_web.store.operations import EventPage, Filter, OpenSignal, Whole

if TYPE_CHECKING:
    from durably_web.store.operations.scheduling import Stored
    from durably_web.store.operations.undoing import StoredUndo

T = TypeVar("T")
A = TypeVar("A")

_ABOUT_STEPS = ("step:complete", "step:fail", "step:retry", "step:wait")

AT_ONCE = 500

# So many pages that fit, and a larger one is tried: where one value was large, those behind it may be small.
_FITS = 8


class Pages:
    """Finds out how much may be asked for at once."""

    def __init__(self, most: int = AT_ONCE) -> None:
        self._most = most
        self._size = most
        self._fits = 0
        self.asked = most
        """How many the last answer could have had."""

    async def read(self, ask: Callable[[A, int], Awaitable[T]], after: A, most: int | None = None) -> T:
        """What `ask` gives behind `after`, for as many as may be asked for, and `most` at most. Raises
        `ResponseTooLarge` when that is one."""
        while True:
            size = self._size if most is None else min(self._size, most)
            try:
                found = await ask(after, size)
            except ResponseTooLarge:
                if size <= 1:
                    raise
                self._size, self._fits = size // 2, 0
                continue
            self.asked = size
            self._fits += 1
            if self._fits >= _FITS:
                self._size, self._fits = min(self._size * 2, self._most), 0
            return found


async def in_pages(ask: Callable[[T | None, int], Awaitable[list[T]]], most: int | None = None) -> list[T]:
    """All that there is, and `most` at most. `ask` gives up to so many of those behind the last one."""
    pages, found = Pages(), list[T]()
    while most is None or len(found) < most:
        left = None if most is None else most - len(found)
        page = await pages.read(ask, found[-1] if found else None, left)
        found += page
        if len(page) < pages.asked:
            break
    return found


async def read_runs(
    read: Read, which: Filter, codec: Codec, limit: int | None = None, offset: int | None = None
) -> list[Run]:
    """As `get_runs`. A run that comes or goes meanwhile moves no other out of its page."""

    def page(last: Run | None, size: int) -> Awaitable[list[Run]]:
        if last is None:
            return _at_once(read, operations.get_runs(which, codec, size, offset))
        return _at_once(read, operations.get_runs(which._replace(after=last.id), codec, size))

    return await in_pages(page, limit)


async def read_events(read: Read, run_id: str | None, after: int, limit: int, codec: Codec) -> EventPage:
    """As `read_events`: as many as were asked for, or all that there are."""

    def ask(after: int, size: int) -> Awaitable[EventPage]:
        return _at_once(read, operations.read_events(run_id, after, size, codec))

    pages, first = Pages(limit), after
    found: list[Event] = []
    while True:
        page = await pages.read(ask, after, limit - len(found))
        found += page.events
        if len(page.events) < pages.asked or len(found) >= limit:
            return page._replace(events=found, known=page.known or first < after)
        after = found[-1].seq or after


async def read_journal(read: Read, run_id: str) -> Rows:
    """All entries of a run, as `Whole` has them."""
    return await _numbered(lambda after, size: read(operations.journal_page(run_id, after, size)))


async def read_steps(read: Read, run_id: str, codec: Codec) -> list[StepRecord]:
    """As `get_steps`."""
    found: Rows = []
    for _, _, type_, step_name, _, data, started_at, created_at, *_ in await read_journal(read, run_id):
        if type_ == "run:restart":
            found.clear()
        elif type_ in _ABOUT_STEPS:
            found.append((type_, step_name, data, started_at, created_at))
    return rows.steps(found, codec)


async def read_logs(read: Read, run_id: str) -> list[LogEntry]:
    """As `get_logs`."""
    return [rows.log((row[5], row[3], row[7])) for row in await read_journal(read, run_id) if row[2] == "log:write"]


async def read_whole(read: Read, run_id: str) -> Whole | None:
    """As `get_whole`, of one moment."""
    while (head := await read(operations.get_head(run_id))) is not None:
        journal = [row for row in await read_journal(read, run_id) if cast(int, row[0]) <= head.last]
        payloads = await _payloads(read, run_id)
        after = await read(operations.get_head(run_id))
        # An entry never changes, nor does a payload. But when a run ends the results of its steps may be emptied, and
        # it may be deleted.
        is_same = after is not None and after.is_terminal == head.is_terminal and len(journal) == head.length
        if is_same and all(row[0] in payloads for row in head.signals):
            signals: Rows = [(*row[:2], payloads[row[0]], *row[3:]) for row in head.signals]
            return Whole(head.run, journal, signals, head.undos)
    return None


async def read_open_signals(read: Read, run_id: str) -> list[OpenSignal]:
    """As `open_signals`."""
    head = await read(operations.get_head(run_id))
    payloads = await _payloads(read, run_id)
    found = cast("list[tuple[Any, ...]]", [] if head is None else head.signals)
    return [
        OpenSignal(number, name, payloads[number], created_at)
        for number, name, _, created_at, _, step_name in found
        if step_name is None and number in payloads
    ]


async def read_undos(read: Read, run_id: str) -> list[StoredUndo]:
    """As `undos_of`."""
    # Not at the top: few jobs have steps that can be undone.
    from durably_web.store.operations.undoing import StoredUndo

    head = await read(operations.get_head(run_id))
    data: dict[Value, Any] = {row[0]: row[5] for row in await read_journal(read, run_id)}
    found = cast("list[tuple[Any, ...]]", [] if head is None else head.undos)
    return [StoredUndo(number, name, data[number]) for number, name in reversed(found) if number in data]


async def read_schedules(read: Read) -> list[Stored]:
    """As `get_schedules`: all of them, one by one."""
    found: list[Stored] = []
    for name in await read(operations.schedule_names()):
        one = await read(operations.get_schedules(name))
        found += one
    return found


async def _payloads(read: Read, run_id: str) -> dict[Value, Any]:
    found = await _numbered(lambda after, size: read(operations.payloads_page(run_id, after, size)))
    return {row[0]: row[1] for row in found}


async def _numbered(ask: Callable[[int, int], Awaitable[Rows]]) -> Rows:
    """All rows, which begin with their numbers; `ask` gives those behind a number."""

    def page(last: Row | None, size: int) -> Awaitable[Rows]:
        return ask(0 if last is None else cast(int, last[0]), size)

    return await in_pages(page)


def _at_once(read: Read, operation: Operation[T]) -> Awaitable[T]:
    return read(operation._replace(in_pages=None))
