"""An executor around another one, through which values of users go into the database sealed and come out of it open.

Sealed is what `USER_DATA` names. Everything that the database itself looks at stays readable: names of jobs, steps and
signals, labels, keys, instants, statuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, cast

from durably_web.errors import StoreError
from durably_web.store.batch import Batch, Executor, Rows, Statement, Value
from durably_web.store.operations.private import USER_DATA

# No JSON begins like this, so sealed values and those from before can stand side by side.
PREFIX = "sealed:"

_NEWEST_INPUT = Batch("read", (Statement("SELECT input FROM durably_runs ORDER BY id DESC LIMIT 1"),))


class Sealer(Protocol):
    """The half of a codec that needs time. What `unseal` is given, `seal` has made."""

    async def seal(self, texts: list[str], /) -> list[str]: ...

    async def unseal(self, texts: list[str], /) -> list[str]: ...


def sealing(executor: Executor, codec: object) -> Executor:
    """`executor`, and around it the sealing that `codec` asks for, if it does."""
    seals, unseals = (callable(getattr(codec, name, None)) for name in ("seal", "unseal"))
    if seals != unseals:
        raise TypeError(f"{type(codec).__name__} has one of seal() and unseal(), and not the other")
    return SealingExecutor(executor, cast(Sealer, codec)) if seals else executor


class SealingExecutor:
    """An executor whose database holds the values of users sealed."""

    def __init__(self, inner: Executor, sealer: Sealer) -> None:
        self._inner = inner
        self._sealer = sealer

    async def open(self) -> None:
        """Connects, and finds out whether the values that are there can be read. Raises `DecryptionFailed`."""
        await self._inner.open()
        try:
            newest = await self._inner.run(_NEWEST_INPUT)
        except StoreError:
            # No table yet; or whatever it is, the next batch will tell.
            return
        await self._opened(newest)

    async def close(self) -> None:
        await self._inner.close()

    async def run(self, batch: Batch) -> list[Rows]:
        return await self._opened(await self._inner.run(await self._sealed(batch)))

    def version(self) -> int | None:
        return self._inner.version()

    def announce(self, worker_id: str) -> None:
        self._inner.announce(worker_id)

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        return self._inner.gone(worker_ids)

    async def _sealed(self, batch: Batch) -> Batch:
        texts: list[str] = []
        for index, (sql, params) in enumerate(batch.statements):
            private = USER_DATA.get(sql, ())
            for position, value in enumerate(params):
                if isinstance(value, str):
                    if position in private:
                        texts.append(value)
                    elif value.startswith(PREFIX):
                        # Coming back, it could not be told from a sealed value.
                        raise StoreError(f"no name begins with {PREFIX!r} beside sealed values", statement_index=index)
        if not texts:
            return batch
        sealed = iter(await self._sealer.seal(texts))
        statements = []
        for sql, params in batch.statements:
            private = USER_DATA.get(sql, ())
            if private:
                params = tuple(
                    PREFIX + next(sealed) if position in private and isinstance(value, str) else value
                    for position, value in enumerate(params)
                )
            statements.append(Statement(sql, params))
        return batch._replace(statements=tuple(statements))

    async def _opened(self, results: list[Rows]) -> list[Rows]:
        sealed = [
            value.removeprefix(PREFIX)
            for rows in results
            for row in rows
            for value in row
            if isinstance(value, str) and value.startswith(PREFIX)
        ]
        if not sealed:
            return results
        opened = iter(await self._sealer.unseal(sealed))

        def open_one(value: Value) -> Value:
            return next(opened) if isinstance(value, str) and value.startswith(PREFIX) else value

        return [[tuple([open_one(value) for value in row]) for row in rows] for rows in results]
