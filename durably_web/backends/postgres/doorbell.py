"""Being told that another process has written, without asking."""

from __future__ import annotations

import asyncio
import random
import secrets

from durably_web.backends.postgres.connections import Connections
from durably_web.backends.postgres.failures import Again
from durably_web.backends.postgres.locks import key
from durably_web.backends.postgres.wire import Lost, Query, ServerError
from durably_web.errors import StoreError

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
            f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{channel(schema)}', '{self.id}') "
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
                connection, facts = await self._connections.connect(self._hear)
                if facts.pooled or not facts.schema:
                    # What a pooler listens to, it hears for everybody and for nobody.
                    self._deaf = True
                    self._listens.set()
                    connection.close()
                    return
                await connection.exchange([Query(f"LISTEN {channel(facts.schema)}".encode())])
            except (Again, Lost, ServerError, StoreError):
                await asyncio.sleep(pause * (0.5 + random.random()))
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            # Nobody told of what was written before.
            self.count += 1
            self._listens.set()
            # No task waits for that: a process without work can be frozen.
            connection.lost.add_done_callback(self._cut_off)
            return

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
