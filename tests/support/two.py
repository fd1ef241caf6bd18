"""Two engines on two databases, and the way between them, on which messages are lost."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self, cast

from durably_web.engine import Durably
from durably_web.errors import Conflict
from durably_web.store.batch import Batch, Row, Statement
from tests.contract import Backend
from tests.support.world import World


class Two:
    """`here` and `there`: two databases under one clock."""

    def __init__(self, backend: Backend) -> None:
        self.here = World(backend)
        self.there = World(cast(Any, backend).another())
        self.there.clock = self.here.clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.here.__aexit__(kind, error, trace)
        await self.there.__aexit__(kind, error, trace)

    async def advance(self, seconds: float) -> None:
        await self.here.advance(seconds)


class Lost(Exception):
    """No answer came."""


class Way:
    """Asks an engine, over a way on which each message is a text.

    `loses` says of each message in turn what is lost of it: `"request"`, `"reply"` or nothing; after the last, nothing.
    `late` keeps what was lost on its way there, for whoever lets it arrive after all.
    """

    def __init__(self, durably: Durably, *loses: str) -> None:
        self._durably = durably
        self._loses = list(loses)
        self.sent = 0
        self.late: list[str] = []

    async def import_run(self, document: Any) -> Any:
        text = json.dumps(document)
        return await self._send(lambda: self._durably.import_run(text), text)

    async def decline_handover(self, run_id: str, handover_id: str) -> bool:
        return bool(await self._send(lambda: self._durably.decline_handover(run_id, handover_id)))

    async def _send(self, ask: Any, text: str | None = None) -> Any:
        lost = self._loses.pop(0) if self._loses else ""
        self.sent += 1
        if lost == "request":
            if text is not None:
                self.late.append(text)
            raise Lost("the request was lost")
        answer = await ask()
        if lost == "reply":
            raise Lost("the reply was lost")
        return answer


async def owners(two: Two, run_id: str) -> list[str]:
    """Where a run may be executed, or has been to its end."""
    found = []
    for name, world in (("here", two.here), ("there", two.there)):
        rows = await world.rows("SELECT status, awaits, error FROM durably_runs WHERE id = ?", run_id)
        for status, awaits, error in rows:
            is_offered = "handover:" in str(awaits)
            is_given = status == "cancelled" and str(error).startswith("handed over")
            if not is_offered and not is_given:
                found.append(name)
    return found


async def tables(world: World) -> list[list[Row]]:
    """Every row that there is of runs."""
    names = ("runs", "journal", "labels", "signals", "undos", "requests")
    executor = world.executor()
    await executor.open()
    try:
        statements = [Statement(cast(Any, f"SELECT * FROM durably_{name} ORDER BY 1, 2")) for name in names]
        return await executor.run(Batch("read", tuple(statements)))
    finally:
        await executor.close()


async def refused(awaitable: Any) -> str:
    """The message of the `Conflict` that it raises."""
    try:
        result = await awaitable
    except Conflict as error:
        return str(error)
    raise AssertionError(f"it was not refused: {result!r}")
