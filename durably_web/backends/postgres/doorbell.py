"""Being told that another process has written, without asking."""

from __future__ import annotations

import asyncio
import random
import secrets

from durably_web.backends.postgres.connections import REPLY_SECONDS, Connections
from durably_web.backends.postgres.failures import Again, of_server
from durably_web.backends.postgres.locks import key
from durably_web.backends.postgres.wire import Connection, Lost, Query, ServerError
from durably_web.errors import StoreError

# How long the ring waits for its turn: what it is about is committed, and will be found without it.
_RING_SECONDS = 1.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


def channel(schema: str) -> str:
    """Those who keep runs in the same schema of a database ring and hear each other."""
    return f"durably_web_{key(f'doorbell {schema}') & 0xFFFFFFFF:08x}"


class Doorbell:
    """A connection that listens. `count` changes when another executor has written, and when one may have."""

    def __init__(self, connections: Connections) -> None:
        self.id = secrets.token_hex(8)
        self.count = 0
        self._connections = connections
        self._listens = asyncio.Event()
        self._deaf = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def ring(self, schema: str) -> str:
        """The statement of others' doorbells. It is a transaction of its own, behind one that has set `wrote`."""
        # Whoever notifies commits alone, the whole server through: not with what was written, and without its flush.
        return (
            "SELECT set_config('synchronous_commit', 'off', true), "
            f"set_config('lock_timeout', '{_RING_SECONDS * 1000:.0f}', true), "
            f"pg_notify('{channel(schema)}', '{self.id}') "
            "WHERE current_setting('durably_web.wrote') <> ''"
        )

    def version(self) -> int | None:
        """Listens from now on. `None` where nobody can."""
        if self._task is None:
            self._begin()
        return None if self._deaf else self.count

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def listening(self) -> None:
        """Until it does, or knows that it cannot."""
        await self._listens.wait()

    def _hear(self, payload: str) -> None:
        if payload != self.id:
            self.count += 1

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while not self._deaf:
            try:
                async with asyncio.timeout(REPLY_SECONDS):
                    connection = await self._connected()
            except (Again, Lost, StoreError, TimeoutError):
                await asyncio.sleep(pause * (0.5 + random.random()))
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if connection is None:
                self._deaf = True
            else:
                # Nobody told of what was written before.
                self.count += 1
                # No task waits for that: a process without work can be frozen.
                connection.lost.add_done_callback(self._cut_off)
            self._listens.set()
            return

    async def _connected(self) -> Connection | None:
        """A connection that listens. `None`: none of this address ever would."""
        connection, facts = await self._connections.connect(self._hear)
        try:
            # What a pooler listens to, it hears for everybody and for nobody.
            if not facts.pooled and facts.schema:
                await connection.exchange([Query(f"LISTEN {channel(facts.schema)}".encode())])
                return connection
        except ServerError as error:
            connection.close()
            refused = of_server(error, "", None, prepares=False)
            if isinstance(refused, Again):
                raise refused from None
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    def _cut_off(self, lost: object) -> None:
        if not self._closed:
            self._listens.clear()
            self.count += 1
            self._begin()

    async def close(self) -> None:
        self._closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


WROTE = b"SELECT set_config('durably_web.wrote', coalesce(pg_current_xact_id_if_assigned()::text, ''), false)"
"""The last statement of a transaction that rings: whether it has written."""
