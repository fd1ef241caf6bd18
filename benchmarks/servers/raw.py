"""The limits of the drivers: loops that commit the engine's rows, each transaction in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import psycopg

from benchmarks import statements
from benchmarks.measure import Stopwatch

_SECONDS = 60


class Loop:
    """Commits transactions one after the other."""

    def __init__(self) -> None:
        self._ids = statements.Ids()

    async def commit(self, transactions: Sequence[statements.Transaction]) -> Stopwatch:
        raise NotImplementedError

    async def steps(self, count: int) -> float:
        (run_id,) = self._ids.take(1)
        return (await self.commit(statements.steps(run_id, count))).rate(count)

    async def triggers(self, count: int) -> float:
        return (await self.commit(statements.triggers(self._ids.take(count)))).rate(count)

    async def runs(self, count: int, at_once: int) -> float:
        ids = self._ids.take(count)
        await self.commit([[each for run in statements.triggers(ids) for each in run]])
        return (await self.commit(statements.runs(ids, at_once))).rate(count)

    async def triggers_and_runs(self, count: int, at_once: int) -> float:
        ids = self._ids.take(count)
        return (await self.commit([*statements.triggers(ids), *statements.runs(ids, at_once)])).rate(count)

    async def trigger_and_lease(self) -> float:
        ids = self._ids.take(1)
        return (await self.commit([*statements.triggers(ids), statements.lease(ids)])).milliseconds()


class PostgresLoop(Loop):
    """psycopg in pipeline mode, with everything prepared, on a database with the engine's tables and indexes."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__()
        self._connection = connection

    @classmethod
    async def connect(cls, url: str) -> PostgresLoop:
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=1)
        return cls(connection)

    async def commit(self, transactions: Sequence[statements.Transaction]) -> Stopwatch:
        connection = self._connection
        ready = [[(sql.replace("?", "%s"), values) for sql, values in transaction] for transaction in transactions]
        watch = Stopwatch()
        for transaction in ready:
            if len(transaction) == 1:
                await connection.execute(*transaction[0])
                continue
            async with connection.pipeline():
                await connection.execute("BEGIN")
                for statement in transaction:
                    await connection.execute(*statement)
                await connection.execute("COMMIT")
        return watch

    async def close(self) -> None:
        await self._connection.close()


class LibsqlLoop(Loop):
    """Hrana over HTTP by httpx, as one request for each transaction."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._client = httpx.AsyncClient(trust_env=False, timeout=_SECONDS)
        self._url = f"{url}/v2/pipeline"

    async def commit(self, transactions: Sequence[statements.Transaction]) -> Stopwatch:
        ready = [_requests(transaction) for transaction in transactions]
        watch = Stopwatch()
        for requests in ready:
            response = await self._client.post(self._url, json={"requests": [*requests, {"type": "close"}]})
            assert response.status_code == 200, response.text
            [result, _] = response.json()["results"]
            assert result["type"] == "ok", result
            assert not any(result["response"]["result"].get("step_errors") or ()), result
        return watch

    async def close(self) -> None:
        await self._client.aclose()


def _requests(transaction: statements.Transaction) -> list[dict[str, Any]]:
    if len(transaction) == 1:
        return [{"type": "execute", "stmt": _statement(*transaction[0])}]
    texts = [("BEGIN IMMEDIATE", ()), *transaction, ("COMMIT", ())]
    steps = [
        {"stmt": _statement(sql, values), "condition": None if number == 0 else {"type": "ok", "step": number - 1}}
        for number, (sql, values) in enumerate(texts)
    ]
    return [{"type": "batch", "batch": {"steps": steps}}]


def _statement(sql: str, values: Sequence[int | str | None]) -> dict[str, Any]:
    return {"sql": sql, "args": [_value(value) for value in values], "want_rows": False}


def _value(value: int | str | None) -> dict[str, str]:
    if value is None:
        return {"type": "null"}
    return {"type": "integer" if isinstance(value, int) else "text", "value": str(value)}
