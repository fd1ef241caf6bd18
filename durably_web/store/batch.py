"""The waist: what an operation is made of, and what a database must be able to do.

An executor implements `run(batch)`. Everything the engine means is written once above it, in
`operations.py`; everything a database is lies below it, in `durably_web/backends/`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Literal, LiteralString, NamedTuple, Protocol, TypeVar

T = TypeVar("T")
U = TypeVar("U")

Value = None | int | float | str | bytes
"""What can cross the waist: SQLite's five storage classes. Integers have 64 bits; floats are finite."""

Row = tuple[Value, ...]
Rows = list[Row]
Mode = Literal["read", "write"]


class Statement(NamedTuple):
    """One SQL statement with `?` parameters."""

    sql: LiteralString
    params: tuple[Value, ...] = ()


class Batch(NamedTuple):
    """Statements that one transaction executes in order, in one crossing.

    `mode` is `"write"` (takes the write lock first, so that it never has to upgrade) or `"read"` (one snapshot).
    `frees` marks a write that is a way out of a full disk: a database that keeps room in reserve keeps it for these.
    """

    mode: Mode
    statements: tuple[Statement, ...]
    frees: bool = False


class Operation(NamedTuple, Generic[T]):
    """A batch with a name, and the function that reads its outcome from the rows of each statement.

    An operation is a value: it can be sent, sent again, counted or delayed. Sending it twice has the effect
    of sending it once, and gives the same outcome.

    `in_pages` reads the same in several operations, through the function that it is given: for databases that limit an
    answer. Only one that reads has it, and not each of them.
    """

    name: str
    batch: Batch
    decode: Callable[[list[Rows]], T]
    in_pages: Callable[[Read], Awaitable[T]] | None = None

    def then(self, use: Callable[[T], U]) -> Operation[U]:
        """The same operation, whose outcome is passed on through `use` as soon as it is known."""
        decode = self.decode
        return Operation(self.name, self.batch, lambda results: use(decode(results)))

    def or_pages(self, read: Callable[[Read], Awaitable[T]]) -> Operation[T]:
        return self._replace(in_pages=read)

    def freeing(self) -> Operation[T]:
        """The same operation, which may use what is kept in reserve for a full disk."""
        return self._replace(batch=self.batch._replace(frees=True))


class Read(Protocol):
    """Sends an operation that reads; `Store.read` is one."""

    async def __call__(self, operation: Operation[T], /) -> T: ...


class Executor(Protocol):
    """A database. Everything but `run`, `open` and `close` has an answer that is always allowed."""

    async def open(self) -> None:
        """Connect, and verify the promised durability. Raises `StoreError`, never falls back to less."""
        ...

    async def close(self) -> None:
        """Release everything; safe to call twice."""
        ...

    async def run(self, batch: Batch) -> list[Rows]:
        """Execute all statements in one transaction and return the rows of each, in order.

        Atomic: when it raises, nothing was written, unless the reply was lost on the way. Never blocks the
        event loop while another connection holds the database. Raises `StoreError`.
        """
        ...

    def version(self) -> int | None:
        """A cheap number that changes when *another* connection wrote; `None` where nothing cheap can tell."""
        ...

    def announce(self, worker_id: str) -> None:
        """Make this worker's life visible to others, for as long as its process lives."""
        ...

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        """Those of `worker_ids` that are certainly dead. An empty list is always a correct answer."""
        ...
