"""A PostgreSQL server: each batch is one round trip, sent again until it is answered or the time is up."""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Literal

from durably_web.backends.forks import not_open, told_of_forks
from durably_web.backends.postgres import locks, order
from durably_web.backends.postgres.address import parse
from durably_web.backends.postgres.connections import REPLY_SECONDS, Connections, Facts
from durably_web.backends.postgres.dialect import translate
from durably_web.backends.postgres.doorbell import WROTE, Doorbell
from durably_web.backends.postgres.failures import Again, of_server
from durably_web.backends.postgres.wire import Connection, Lost, Query, ServerError, Unstorable, encoded
from durably_web.errors import StoreError, StoreUnavailable
from durably_web.store.batch import Batch, Rows

# How long an operation is sent again before it is given up; and the first, which finds out whether the URL is right.
PATIENCE_SECONDS = 30.0
OPEN_SECONDS = 6.0
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0

_HORIZON = order.HORIZON_NAME.encode()
_COMMIT = Query(b"COMMIT")
_ROLLBACK = Query(b"ROLLBACK")


class PostgresExecutor:
    """One schema of one database on a PostgreSQL server.

    A request may get lost, or its answer; or the server takes it back, as it may. Then it is sent again, after pauses
    that grow, for `PATIENCE_SECONDS` altogether. Every operation of the engine is safe to send twice.

    `durability="full"` waits until the server has flushed each commit, and refuses one that does not flush.
    `"relaxed"` does not wait: a crash of this process loses nothing, and one of the server's the last moments.
    """

    def __init__(
        self,
        database: str,
        durability: Literal["full", "relaxed"] = "full",
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = parse(database)
        self._where = self._address.shown
        self._durability = durability
        self._sleep = sleep
        self._now = now
        # So that what is wrong with the URL is told at once.
        Connections(self._address, durability)
        self._connections: Connections | None = None
        self._doorbell: Doorbell | None = None
        self._framed: dict[tuple[Facts, str], tuple[Query, bytes, list[Query]]] = {}
        self._forked = False

    def __repr__(self) -> str:
        return f"PostgresExecutor({self._where!r})"

    async def open(self) -> None:
        if self._connections is not None:
            return
        self._connections = Connections(self._address, self._durability)
        self._doorbell = Doorbell(self._connections)
        self._framed.clear()
        self._forked = False
        _opened.add(self)
        try:
            # Each host gets its turn.
            seconds = max(OPEN_SECONDS, self._connections.connecting_seconds + 1)
            await self._patiently(Batch("read", ()), seconds)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        _opened.discard(self)
        connections, self._connections = self._connections, None
        doorbell, self._doorbell = self._doorbell, None
        if connections is not None:
            connections.close()
        if doorbell is not None:
            await doorbell.close()

    async def run(self, batch: Batch) -> list[Rows]:
        if self._connections is None:
            raise not_open(self._where, forked=self._forked)
        if not batch.statements:
            return []
        return await self._patiently(batch, PATIENCE_SECONDS)

    async def _patiently(self, batch: Batch, seconds: float) -> list[Rows]:
        queries = _encoded(batch)
        migrates = _migrates(batch)
        deadline = self._now() + seconds
        pause = _FIRST_PAUSE
        while True:
            connections = self._connections
            if connections is None:
                raise not_open(self._where, forked=self._forked)
            try:
                left = min(max(1.0, deadline - self._now()), REPLY_SECONDS)
                async with asyncio.timeout(None if migrates else left):
                    return await self._once(connections, batch, queries)
            except TimeoutError:
                again = Again("there was no answer")
            except Again as error:
                again = error
            if self._connections is None:
                raise not_open(self._where, forked=self._forked) from again
            # Uneven pauses keep processes that were cut off together from coming back together.
            wait = pause * (0.5 + random.random())
            if self._now() + wait > deadline:
                message = f"{self._where} could not be reached for {seconds:.0f} seconds; at last: {again}"
                if again.kind is not StoreUnavailable:
                    message = f"{self._where} was busy for {seconds:.0f} seconds; at last: {again}"
                raise again.kind(message, code=again.code) from again
            await self._sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _once(self, connections: Connections, batch: Batch, queries: list[Query]) -> list[Rows]:
        """Send a batch once. Raises `Again`, or a `StoreError` that no second time would change."""
        prepares, before = False, 0
        try:
            async with connections.one() as (connection, facts):
                prepares = connection.prepares
                head, tail = self._frame(batch, queries, facts)
                before = len(head)
                try:
                    found = await connection.exchange([*head, *queries, *tail])
                except ServerError as error:
                    if error.index == before + len(queries) + len(tail) - 1 and batch.mode == "write":
                        # It is committed; others find it by looking.
                        return error.before[before : before + len(queries)]
                    await self._undo(connections, connection, error)
                    raise
                return found[before : before + len(queries)]
        except Lost as lost:
            raise Again(self._address.hide(str(lost))) from None
        except ServerError as error:
            index = error.index - before
            own = index if 0 <= index < len(queries) else None
            raise of_server(error, self._where, own, prepares=prepares) from None

    async def _undo(self, connections: Connections, connection: Connection, error: ServerError) -> None:
        """Make the connection fit for more, and the next attempt more likely."""
        if connection.is_failed:
            await connection.exchange([_ROLLBACK])
        if error.code == "3F000" and self._address.schema is not None:
            name = '"' + self._address.schema.replace('"', '""') + '"'
            await connection.exchange([Query(f"CREATE SCHEMA IF NOT EXISTS {name}".encode())])
            raise Again("its schema was not there")
        if error.code == "25006":
            # A primary no more, or made to be read only: another of its hosts may be one.
            connections.leave()
        if error.code in ("0A000", "26000", "42P05"):
            # What was prepared is of no use any more.
            connection.close()

    def _frame(self, batch: Batch, queries: list[Query], facts: Facts) -> tuple[list[Query], list[Query]]:
        """What is sent before and behind the statements of a batch: all that makes them one transaction."""
        if batch.mode == "write":
            return self._frame_of_writes(batch, facts)
        events = any(_HORIZON in query.sql for query in queries)
        if len(queries) < 2 and not events and not facts.pooled:
            # A statement alone is a transaction already.
            return [], []
        # Who reads events needs a snapshot that is younger than his look at the writers.
        isolation = "REPEATABLE READ" if len(queries) > 1 and not events else "READ COMMITTED"
        head = [f"BEGIN ISOLATION LEVEL {isolation} READ ONLY"]
        if facts.pooled:
            head.append(f"SELECT {facts.settings}")
        if events:
            head += order.look(facts.schema)
        return [Query(sql.encode()) for sql in head], [_COMMIT]

    def _frame_of_writes(self, batch: Batch, facts: Facts) -> tuple[list[Query], list[Query]]:
        waits = ""
        params: tuple[str, ...] = ()
        if not self._address.serializable:
            waits, params = locks.waits(facts.schema, locks.of(batch.statements))
        if _migrates(batch):
            waits = ", ".join(filter(None, (waits, "set_config('statement_timeout', '0', true)")))
        framed = self._framed.get((facts, waits))
        if framed is None:
            isolation = "SERIALIZABLE" if self._address.serializable else "READ COMMITTED"
            parts = [part for part in (facts.settings, waits, order.registration(facts.schema)) if part]
            assert self._doorbell is not None
            ring = Query(self._doorbell.ring(facts.schema).encode())
            begin = Query(f"BEGIN ISOLATION LEVEL {isolation}".encode())
            framed = begin, f"SELECT {', '.join(parts)}".encode(), [Query(WROTE), _COMMIT, ring]
            self._framed[facts, waits] = framed
        begin, select, tail = framed
        return [begin, encoded(select, params)], tail

    def forsake(self) -> None:
        """In the child of a fork: let go of the parent's connections, and leave them as they are."""
        self._forked = True
        connections, self._connections = self._connections, None
        self._doorbell = None
        if connections is not None:
            connections.forsake()

    def version(self) -> int | None:
        """Changes when another executor has written; `None` behind a pooler, through which nobody hears of it."""
        return None if self._doorbell is None else self._doorbell.version()

    def announce(self, worker_id: str) -> None:
        """Nobody could look from another machine."""

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        """None is known to be: leases end by time."""
        return []


def _encoded(batch: Batch) -> list[Query]:
    found = []
    for index, (sql, params) in enumerate(batch.statements):
        try:
            found.append(encoded(_translated(sql), params))
        except Unstorable as error:
            raise StoreError(str(error), code=error.code, statement_index=index) from None
    return found


def _migrates(batch: Batch) -> bool:
    """Whether it may take as long as it takes: an index on a journal of years."""
    return batch.mode == "write" and any(_defines(statement.sql) for statement in batch.statements)


@lru_cache(maxsize=2048)
def _defines(sql: str) -> bool:
    return sql.split(None, 1)[0].upper() in ("CREATE", "ALTER") if sql.strip() else False


@lru_cache(maxsize=2048)
def _translated(sql: str) -> bytes:
    return translate(sql).encode()


# Two processes cannot share one connection.
_opened: weakref.WeakSet[PostgresExecutor] = told_of_forks()
