"""The connections of one executor: opened when they are needed, kept, and replaced when they are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from durably_web.backends.postgres.address import Address
from durably_web.backends.postgres.failures import Again, of_connecting, of_server
from durably_web.backends.postgres.wire import Connection, Lost, Query, ServerError
from durably_web.errors import InvalidInput, StoreNotDurable, StoreUnavailable

MOST = 4
OLDEST = 130000
# How long the server lets one statement take; how long it lets it wait for one lock, and a transaction for its next
# statement, which was sent with the first.
STATEMENT_SECONDS = 25.0
LOCK_SECONDS = 10.0
IDLE_SECONDS = 10.0
# How long one answer is waited for: longer than the server lets a statement take.
REPLY_SECONDS = 28.0

# How long each of several hosts is waited for: one that says nothing holds up the next ones.
_EACH_SECONDS = "2"
# Of what libpq takes, where the URL does not say otherwise. A server that is gone without a word is noticed within half
# a minute.
_DEFAULTS = {
    "application_name": "durably_web",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    "target_session_attrs": "primary",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

_FACTS = b"""
SELECT pg_backend_pid(), current_schema(), current_setting('server_version_num')::int, pg_is_in_recovery(),
       current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes'),
       current_setting('server_encoding')
"""


class Facts(NamedTuple):
    """What one server told of itself. `pooled`: whoever answers the next transaction may be another backend."""

    pooled: bool
    schema: str
    settings: str
    """The expressions that set, for one transaction, what is to be set."""


class Connections:
    """At most `MOST` at once; who needs one more waits."""

    def __init__(self, address: Address, durability: str) -> None:
        self._address = address
        self._durability = durability
        self._where = address.shown
        self._schema = address.schema
        self._conninfo, self.connecting_seconds = _conninfo(address)
        self._room = asyncio.Semaphore(MOST)
        self._idle: list[tuple[Connection, Facts]] = []
        self._all: set[Connection] = set()
        # Those in use, and those that are not to be used again.
        self._lent: set[Connection] = set()
        self._left: set[Connection] = set()
        self._closed = False

    @asynccontextmanager
    async def one(self) -> AsyncIterator[tuple[Connection, Facts]]:
        """A connection to use; it is kept if the use ends well or with a `ServerError`. Raises `Again` and
        `StoreError`."""
        async with self._room:
            connection, facts = self._kept() or await self.connect()
            self._lent.add(connection)
            try:
                yield connection, facts
            except ServerError:
                self._give_back(connection, facts)
                raise
            except BaseException:
                connection.close()
                raise
            else:
                self._give_back(connection, facts)
            finally:
                self._lent.discard(connection)

    def _kept(self) -> tuple[Connection, Facts] | None:
        while self._idle:
            connection, facts = self._idle.pop()
            if not connection.is_lost:
                return connection, facts
        return None

    def _give_back(self, connection: Connection, facts: Facts) -> None:
        if connection.is_lost or connection.is_failed or connection in self._left or self._closed:
            connection.close()
        else:
            self._idle.append((connection, facts))

    async def connect(self, on_notice: Callable[[str], None] = lambda payload: None) -> tuple[Connection, Facts]:
        """A new connection, and what its server says of itself. It ends with the others."""
        try:
            made = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            raise of_connecting(str(error), self._address) from None
        connection = Connection(made, on_notice)
        if self._closed:
            connection.close()
            raise Again("it was closed")
        self._all.add(connection)
        connection.lost.add_done_callback(lambda lost: self._forget(connection))
        try:
            return connection, await self._met(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, Lost):
                raise Again(self._address.hide(str(error))) from None
            if isinstance(error, ServerError):
                raise of_server(error, self._where, None, prepares=False) from None
            raise

    async def _met(self, connection: Connection) -> Facts:
        """Look whom we have met. Raises `StoreError` where that is not good enough."""
        [[row]] = await connection.exchange([Query(_FACTS)])
        pid, found, version, standby, commits, fsync, pages, encoding = row
        assert isinstance(version, int) and isinstance(encoding, str)
        if version < OLDEST:
            raise StoreUnavailable(f"{self._where} is PostgreSQL {version // 10000}: {OLDEST // 10000} is the oldest")
        if encoding != "UTF8":
            raise StoreUnavailable(
                f"{self._where} keeps text as {encoding}, which has not every character: "
                "make a database for it by CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )
        if standby:
            raise Again("it is a standby, which can only be read", code="25006")
        if self._durability == "full":
            for name, value in (("fsync", fsync), ("full_page_writes", pages)):
                if value == "off":
                    raise StoreNotDurable(
                        f"{self._where} runs with {name} = off: a crash of its machine may take everything. "
                        'Turn it on, or say durability="relaxed"'
                    )
        # What was found first is what the locks are named after: later, another one may begin the `search_path`.
        self._schema = schema = self._schema or str(found or "")
        pooled = pid != connection.backend_pid
        settings = [
            ("statement_timeout", f"{STATEMENT_SECONDS * 1000:.0f}"),
            ("lock_timeout", f"{LOCK_SECONDS * 1000:.0f}"),
            ("idle_in_transaction_session_timeout", f"{IDLE_SECONDS * 1000:.0f}"),
            ("jit", "off"),
            # Everything the store asks for is found by an index. The planner would believe otherwise of tables that are
            # small, or that nobody has counted yet, and keep its plans when they have grown.
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("bytea_output", "hex"),
        ]
        if schema:
            settings.append(("search_path", '"' + schema.replace('"', '""') + '"'))
        if self._durability == "relaxed":
            settings.append(("synchronous_commit", "off"))
        else:
            # Also where somebody turns it off for all, later.
            settings.append(("synchronous_commit", "on" if commits == "off" else str(commits)))
        if not pooled:
            # Of a statement that is a transaction by itself.
            settings.append(("default_transaction_isolation", "read committed"))
            await connection.exchange([Query(b"SELECT " + _set(settings, "false").encode())])
            connection.prepares = True
        return Facts(pooled, schema, _set(settings, "true") if pooled else "")

    def _forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        self._left.discard(connection)

    def leave(self) -> None:
        """Whoever is connected to now is not the one to write to any more: the listener and those who come connect
        again, and those who are being answered are let go then."""
        self._idle.clear()
        self._left |= self._lent
        for connection in self._all - self._lent:
            connection.close()

    def close(self) -> None:
        """Who waits for an answer gets none."""
        self._closed = True
        for connection in list(self._all):
            connection.close()
        self._idle.clear()

    def forsake(self) -> None:
        """In the child of a fork: leave the parent's connections as they are."""
        self._closed = True
        for connection in self._all:
            connection.forsake()
        self._all.clear()
        self._idle.clear()


def _set(settings: list[tuple[str, str]], local: str) -> str:
    return ", ".join(
        "set_config('{}', '{}', {})".format(name, value.replace("'", "''"), local) for name, value in settings
    )


def _conninfo(address: Address) -> tuple[str, float]:
    """What to connect to, and how long all of its hosts may take to say nothing."""
    try:
        given: dict[str, Any] = dict(conninfo_to_dict(address.conninfo))
    except psycopg.Error as error:
        raise InvalidInput(f"{address.shown}: {address.hide(str(error))}") from None
    hosts = max(str(given.get(name, "")).count(",") for name in ("host", "hostaddr")) + 1
    several = {"connect_timeout": _EACH_SECONDS} if hosts > 1 else {}
    # What is sent is UTF-8.
    made = {**_DEFAULTS, **several, **given, "client_encoding": "UTF8"}
    each = str(made["connect_timeout"])
    return make_conninfo(**made), hosts * float(each) if each.isdigit() else 0.0
