"""One connection, and what is sent through it: many statements, and one wait for all their answers.

psycopg connects. The statements go through its `pq`, in libpq's pipeline mode: everything is written before the first
answer is read, and that in one piece where it is small.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import pq

from durably_web.backends.forks import forsake
from durably_web.backends.postgres import nulls
from durably_web.store.batch import Rows, Value

# What is sent more than once is prepared, up to so many statements for each connection.
_MOST_PREPARED = 400

_INT8, _FLOAT8, _TEXT, _BYTEA = 20, 701, 25, 17
_int8, _float8 = struct.Struct("!q").pack, struct.Struct("!d").pack
_INTEGERS = range(-(2**63), 2**63)


class Unstorable(Exception):
    """A value that no column holds; nothing was sent."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class ServerError(Exception):
    """What the server says of one statement. `index` is its place among those that were sent; `before` is what those
    before it gave. One that is `fatal` ends the connection."""

    def __init__(self, message: str, code: str, index: int, *, fatal: bool = False, of_catalog: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal
        self.code = code
        self.index = index
        self.before: list[Rows] = []
        self.of_catalog = of_catalog


class Lost(Exception):
    """The connection is gone; what was sent last may have arrived or not."""


class Query(NamedTuple):
    """A statement with its parameters, encoded."""

    sql: bytes
    values: Sequence[bytes | None] = ()
    types: tuple[int, ...] = ()
    formats: Sequence[int] = ()


def encoded(sql: bytes, params: tuple[Value, ...]) -> Query:
    """Integers, floats and bytes are sent as they are, and texts as UTF-8. Raises `Unstorable`."""
    values: list[bytes | None] = []
    types: list[int] = []
    for value in params:
        if value is None:
            values.append(None)
            types.append(0)
        elif isinstance(value, str):
            value = nulls.marked(value)
            try:
                values.append(value.encode())
            except UnicodeEncodeError as error:
                raise Unstorable(f"a text cannot be stored: {error}", "UnicodeEncodeError") from None
            types.append(_TEXT)
        elif isinstance(value, int):
            if value not in _INTEGERS:
                raise Unstorable(f"{value} has more than 64 bits", "OverflowError")
            values.append(_int8(value))
            types.append(_INT8)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise Unstorable(f"{value} is not finite", "ValueError")
            values.append(_float8(value))
            types.append(_FLOAT8)
        elif isinstance(value, bytes):
            values.append(value)
            types.append(_BYTEA)
        else:
            raise Unstorable(f"a {type(value).__name__} cannot be stored", "TypeError")
    return Query(sql, values, tuple(types), [0 if kind in (0, _TEXT) else 1 for kind in types])


def _text(text: bytes) -> str:
    return nulls.unmarked(text.decode())


def _number(text: bytes) -> int | float:
    """A numeric: what a sum of integers is."""
    return float(text) if b"." in text or not text.lstrip(b"-").isdigit() else int(text)


def _truth(text: bytes) -> int:
    return int(text == b"t")


def _bytes(text: bytes) -> bytes:
    # "\x" and then the digits: bytea_output is set so.
    return bytes.fromhex(text[2:].decode())


_LOADERS: dict[int, Callable[[bytes], Value]] = {
    **dict.fromkeys((20, 21, 23, 26, 28, 5069), int),
    **dict.fromkeys((700, 701), float),
    16: _truth,
    17: _bytes,
    1700: _number,
}


def _rows(result: pq.abc.PGresult) -> Rows:
    columns = range(result.nfields)
    count = result.ntuples
    if not count:
        return []
    get = result.get_value
    loaders = [_LOADERS.get(result.ftype(column), _text) for column in columns]
    found: Rows = []
    for number in range(count):
        row: list[Value] = []
        for column, load in enumerate(loaders):
            value = get(number, column)
            row.append(None if value is None else load(value))
        found.append(tuple(row))
    return found


class Connection:
    """A connection in pipeline mode, for one exchange at a time.

    `prepares`: what is sent more than once is prepared, which is only for who has a backend to himself. `lost` is done
    when the connection has ended, be it in use or not.
    """

    def __init__(
        self, connection: psycopg.AsyncConnection[Any], on_notice: Callable[[str], None] = lambda payload: None
    ) -> None:
        # It closes what it has made when nobody holds it any more.
        self._connection = connection
        self._pg = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._on_notice = on_notice
        self._readable: asyncio.Future[None] | None = None
        self._seen: set[tuple[bytes, tuple[int, ...]]] = set()
        self._prepared: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self._names = 0
        self._why = ""
        self.prepares = False
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._pg.enter_pipeline_mode()
        self._socket = self._pg.socket
        self._loop.add_reader(self._socket, self._read)

    @property
    def is_lost(self) -> bool:
        return self.lost.done()

    @property
    def backend_pid(self) -> int:
        """As the server told when it was connected to; a pooler tells another one."""
        return self._pg.backend_pid

    def _read(self) -> None:
        try:
            self._pg.consume_input()
            while (notice := self._pg.notifies()) is not None:
                self._on_notice(notice.extra.decode(errors="replace"))
        except psycopg.OperationalError as error:
            self.close(str(error))
        if self._readable is not None:
            _wake(self._readable)

    async def exchange(self, queries: Sequence[Query]) -> list[Rows]:
        """Send all, and wait for their answers; the server forgoes what stands behind one that failed.

        Raises `ServerError` for that one, and `Lost`. Who is cancelled meanwhile closes the connection.
        """
        if self.is_lost:
            raise Lost("the connection was closed")
        try:
            new = [self._send(query) for query in queries]
            self._pg.pipeline_sync()
            await self._flush()
            return await self._answers(queries, new)
        except psycopg.OperationalError as error:
            self.close()
            raise Lost(str(error)) from None

    def _send(self, query: Query) -> bool:
        """Whether it was prepared with this."""
        name, new = None, False
        if self.prepares:
            key = query.sql, query.types
            name = self._prepared.get(key)
            if name is None:
                if key not in self._seen:
                    # Not for once.
                    self._seen.add(key)
                elif len(self._prepared) < _MOST_PREPARED:
                    new = True
                    self._names += 1
                    name = self._prepared[key] = b"durably_%d" % self._names
                    self._pg.send_prepare(name, query.sql, query.types)
        if name is None:
            self._pg.send_query_params(query.sql, query.values, query.types, query.formats)
        else:
            self._pg.send_query_prepared(name, query.values, query.formats)
        return new

    async def _flush(self) -> None:
        while self._pg.flush():
            future = self._readable = self._loop.create_future()
            self._loop.add_writer(self._socket, _wake, future)
            try:
                await future
            finally:
                self._readable = None
                if not self.is_lost:
                    self._loop.remove_writer(self._socket)
            if self.is_lost:
                raise Lost(self._why)

    async def _answers(self, queries: Sequence[Query], new: list[bool]) -> list[Rows]:
        found: list[Rows] = []
        failed: ServerError | None = None
        for index, query in enumerate(queries):
            for prepares in (True, False) if new[index] else (False,):
                result = await self._result()
                if result.status == pq.ExecStatus.TUPLES_OK:
                    found.append(_rows(result))
                elif result.status == pq.ExecStatus.COMMAND_OK:
                    if not prepares:
                        found.append([])
                    continue
                elif failed is None:
                    failed = _error(result, index)
                if prepares:
                    del self._prepared[query.sql, query.types]
        # What commits by itself, as the doorbell, does so here, and may fail here.
        while (result := await self._result()).status != pq.ExecStatus.PIPELINE_SYNC:
            if failed is None:
                failed = _error(result, len(queries) - 1)
        if failed is not None:
            failed.before = found
            raise failed
        return found

    async def _result(self) -> pq.abc.PGresult:
        """The next result that is one; between those of two statements there is one that is none."""
        pg = self._pg
        for _ in range(2):
            while pg.is_busy():
                if self.is_lost:
                    raise Lost(self._why)
                future = self._readable = self._loop.create_future()
                try:
                    await future
                finally:
                    self._readable = None
            if (result := pg.get_result()) is not None:
                return result
            if self.is_lost or pg.status == pq.ConnStatus.BAD:
                raise Lost(self._why)
        raise Lost("the server has answered less than it was asked")

    @property
    def is_failed(self) -> bool:
        """Whether a transaction is open that must be rolled back."""
        return self._pg.transaction_status in (pq.TransactionStatus.INERROR, pq.TransactionStatus.INTRANS)

    def close(self, why: str = "the connection was closed") -> None:
        """Safe to call again. Who waits for an answer gets `Lost`."""
        if not self.lost.done():
            self._why = why
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._pg.finish()
            self.lost.set_result(None)
            if self._readable is not None:
                _wake(self._readable)

    def forsake(self) -> None:
        """In the child of a fork: the connection is the parent's."""
        forsake(self)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _error(result: pq.abc.PGresult, index: int) -> ServerError:
    def field(which: pq.DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode(errors="replace")

    message = field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message.decode(errors="replace")
    code = field(pq.DiagnosticField.SQLSTATE)
    return ServerError(
        message,
        code,
        index,
        fatal=field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) in ("FATAL", "PANIC"),
        of_catalog=field(pq.DiagnosticField.SCHEMA_NAME) == "pg_catalog",
    )
