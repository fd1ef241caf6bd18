"""A libSQL server (Turso, sqld): each batch is one request, sent again until it is answered or the time is up."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal
from urllib.parse import urljoin

from durably_web.backends.forks import forsake, not_open, told_of_forks
from durably_web.backends.libsql import hrana
from durably_web.backends.libsql.address import host_and_port, may_follow, parse
from durably_web.backends.libsql.failures import UNREADABLE, Again, of_server, of_status
from durably_web.backends.libsql.hrana import Garbled, ServerError
from durably_web.backends.libsql.transport import NoReply, Reply, Transport
from durably_web.errors import RequirementFailed, StoreError, StoreUnavailable
from durably_web.store.batch import Batch, Rows, Statement

# How long an operation is sent again before it is given up; and the first, which finds out whether the URL is right.
PATIENCE_SECONDS = 30.0
OPEN_SECONDS = 6.0
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 2.0
# After a time-out: the request may still be waiting in the server, and would wait there twice.
_PAUSE_OF_LATE = 1.0
# How long it may take until an answer begins: longer than a server lets one transaction wait for another, which is five
# seconds; and where a replica may hold it back until it has caught up.
_REPLY_SECONDS = 12.0
_REPLICA_SECONDS = 5.0
# And as long on top as it takes to send the request: a slow network carries as many bytes in a second.
_BYTES_PER_SECOND = 32_000
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 307, 308})

_SYNCHRONOUS = Batch("read", (Statement("PRAGMA synchronous"),))
_FULL = 2


class LibsqlExecutor:
    """One database on a libSQL server.

    A request may get lost, or its answer; then it is sent again, after pauses that grow, for `PATIENCE_SECONDS`
    altogether. A large one may take longer: each second of sending is granted that a slow network needs for its bytes.
    Every operation of the engine is safe to send twice. What is read is never older than what this executor has read or
    written before, also where a replica answers.

    `durability` changes nothing on a server: it flushes as it was set up to. Where `"full"` is asked for, and the
    server says that it answers before it flushes, a warning in the log says so.
    """

    def __init__(
        self,
        database: str,
        durability: Literal["full", "relaxed"] = "full",
        *,
        connect: Callable[[str], Transport] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._token = parse(database, os.environ)
        self._durability = durability
        self._connect = connect or _connect
        self._sleep = sleep
        self._now = now
        self._transport: Transport | None = None
        self._versions = ["v3", "v2"]
        self._met = False
        self._turn = asyncio.Lock()
        # How far the primary had come, as far as an answer has told.
        self._reached: int | None = None
        self._forked = False

    def __repr__(self) -> str:
        return f"LibsqlExecutor({self._url!r})"

    async def open(self) -> None:
        if self._transport is not None:
            return
        self._transport = self._connect(self._url)
        self._forked = self._met = False
        self._turn = asyncio.Lock()
        _opened.add(self)
        try:
            try:
                [rows] = await self._patiently(_SYNCHRONOUS, OPEN_SECONDS)
            except StoreError as error:
                if isinstance(error, StoreUnavailable) or str(error.code).startswith("HTTP"):
                    raise
                # It does not say. It is there, and that is what was asked.
                rows = []
        except BaseException:
            await self.close()
            raise
        if self._durability == "full" and rows and rows[0][0] in range(_FULL) and not _is_turso(self._url):
            self._tell_of_flushes()

    def _tell_of_flushes(self) -> None:
        import logging

        logging.getLogger("durably_web").warning(
            "%s answers before its disk has flushed: a crash of the server loses nothing, and a power cut of its "
            'machine may take the last commits. durability="relaxed" says that this is known.',
            self._url,
        )

    async def close(self) -> None:
        _opened.discard(self)
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def run(self, batch: Batch) -> list[Rows]:
        if self._transport is None:
            raise not_open(self._url, forked=self._forked)
        if not batch.statements:
            return []
        if batch.mode == "read":
            return await self._patiently(batch, PATIENCE_SECONDS)
        # Those that write wait here for each other, and not in the server: there each takes a connection and a thread.
        async with self._turn:
            return await self._patiently(batch, PATIENCE_SECONDS)

    async def _patiently(self, batch: Batch, seconds: float) -> list[Rows]:
        deadline = self._now() + seconds
        pause = _FIRST_PAUSE
        locked = False
        while True:
            index = self._reached if batch.mode == "read" and not locked else None
            left = max(1.0, deadline - self._now())
            try:
                return await self._once(
                    batch, index, locked, min(left, _REPLY_SECONDS if index is None else _REPLICA_SECONDS)
                )
            except Again as again:
                # Uneven pauses keep processes that were cut off together from coming back together.
                pause = max(pause, _PAUSE_OF_LATE) if again.late else pause
                wait = max(again.pause, pause * (0.5 + random.random()))
                if self._transport is None:
                    raise not_open(self._url, forked=self._forked) from again
                if self._now() + wait > deadline:
                    message = f"{self._url} could not be reached for {seconds:.0f} seconds; at last {again}"
                    raise again.kind(message, code=again.code) from again
                # Where a replica cannot catch up, the primary is asked; perhaps that one cannot be reached.
                locked = again.late and index is not None
                await self._sleep(wait)
                if self._transport is None:
                    raise not_open(self._url, forked=self._forked) from again
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _learn(self, known: int | None, told: int | None) -> None:
        """Remember how far the primary has come.

        A server that is asked with `known` in mind answers no lower number, unless it counts anew, as after a crash.
        """
        if told is None:
            return
        if (
            self._reached is None
            or told > self._reached
            or (known is not None and told < known and self._reached == known)
        ):
            self._reached = told

    async def _once(self, batch: Batch, index: int | None, locked: bool, seconds: float) -> list[Rows]:
        """Send a batch once. Raises `Again`, or a `StoreError` that no second time would change."""
        known = self._reached
        reply = await self._post(hrana.request(batch, index=index, locked=locked), seconds)
        try:
            found = hrana.answer(reply.body, batch, locked=locked)
            self._learn(known, found.reached)
            return found.rows
        except Garbled as error:
            raise Again(str(error)) from None
        except ServerError as error:
            self._learn(known, error.reached)
            if error.code in UNREADABLE and error.index is None:
                error.index = await self._first_unreadable(batch, seconds)
            raise of_server(error, self._url) from None

    async def _first_unreadable(self, batch: Batch, seconds: float) -> int | None:
        try:
            reply = await self._post(hrana.check(batch), seconds)
            return hrana.first_unreadable(reply.body, batch)
        except (Garbled, Again, StoreError):
            return None

    async def _post(self, body: bytes, seconds: float) -> Reply:
        """The reply with an answer in it. Raises `Again` or `StoreError`."""
        seconds += len(body) / _BYTES_PER_SECOND
        while True:
            reply = await self._follow(f"{self._url}/{self._versions[0]}/pipeline", body, seconds)
            if reply.status == 200:
                self._met = True
                return reply
            outcome = of_status(reply, self._url, has_token=self._token is not None)
            if reply.status == 404 and not self._met and isinstance(outcome, Again):
                # An older server knows only the version before.
                self._versions.append(self._versions.pop(0))
                if self._versions[0] == "v2":
                    continue
                raise StoreUnavailable(f"{self._url} is not the URL of a libSQL server: {outcome}", code="HTTP_404")
            raise outcome

    async def _follow(self, url: str, body: bytes, seconds: float) -> Reply:
        """The first reply that is no redirect. A token goes to the host that it is for, and to no other."""
        deadline = self._now() + seconds
        for _ in range(_MOST_REDIRECTS + 1):
            transport = self._transport
            if transport is None:
                raise not_open(self._url, forked=self._forked)
            headers = {} if self._token is None else {"authorization": f"Bearer {self._token}"}
            try:
                reply = await transport.post(url, body, headers, max(1.0, deadline - self._now()))
            except NoReply as error:
                again = Again(str(error))
                again.late = error.late
                raise again from error
            location = reply.headers.get("location")
            if reply.status not in _REDIRECTS or not location:
                return reply
            try:
                target = urljoin(url, location)
                host_and_port(target)
            except ValueError as error:
                raise StoreUnavailable(f"{self._url} redirects to what is no URL: {error}") from None
            if not target.startswith(("https://", "http://")) or (
                target.startswith("http://") and url.startswith("https://")
            ):
                raise StoreUnavailable(f"{self._url} redirects to {_short(target)}, which is less safe: not followed")
            if self._token is not None and not may_follow(url, target):
                raise StoreUnavailable(
                    f"{self._url} redirects to {_short(target)}, and its auth token is for no other host: "
                    "if the database has moved there, use that URL"
                )
            url = target
        raise StoreUnavailable(f"{self._url} redirects in a circle")

    def forsake(self) -> None:
        """In the child of a fork: let go of the parent's connections, and leave them as they are."""
        self._forked = True
        transport, self._transport = self._transport, None
        if transport is not None:
            forsake(transport)

    def version(self) -> int | None:
        """Nothing cheap tells that somebody wrote: whoever waits looks every `polling_interval`."""
        return None

    def announce(self, worker_id: str) -> None:
        """Nobody could look from another machine."""

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        """None is known to be: leases end by time."""
        return []


def _connect(url: str) -> Transport:
    if sys.platform == "emscripten":
        from durably_web.backends.libsql.over_fetch import FetchTransport

        return FetchTransport()
    try:
        from durably_web.backends.libsql.over_httpx import HttpxTransport
    except ImportError:
        raise RequirementFailed(f'{url} needs httpx: pip install "durably-web[libsql]"') from None
    return HttpxTransport(url)


def _is_turso(url: str) -> bool:
    """Its disks are not those of the process that answers."""
    return url.endswith(".turso.io")


def _short(url: str) -> str:
    return url.partition("?")[0]


# Two processes cannot share one connection.
_opened: weakref.WeakSet[LibsqlExecutor] = told_of_forks()
