"""The way of an engine to its database, on which it may die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Literal

from durably_web.store.batch import Batch, Executor, Rows
from durably_web.testing.loop import PROCESS, Process

When = Literal["before", "after"]

CLAIM = "the claim"
OUTCOMES = ("step:complete", "step:fail", "step:retry")


class Trap:
    """Says at which write a process dies: before it is executed, or after it and before the reply."""

    def __init__(self, when: When, matches: Callable[[int, Batch], bool], what: str) -> None:
        self.when = when
        self.matches = matches
        self.what = what


class Link:
    """Passes everything on, until its process dies. What hangs in here then is never answered."""

    def __init__(self, inner: Executor, process: Process) -> None:
        self._inner = inner
        self._process = process
        self.traps: list[Trap] = []
        self.writes: list[Batch] = []
        self.on_death: Callable[[Trap], object] = lambda trap: None

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        """The database is in memory: it lives as long as the test."""

    async def run(self, batch: Batch) -> list[Rows]:
        if PROCESS.get() is not self._process:
            # The test itself.
            return await self._inner.run(batch)
        if self._process.dead:
            await _never()
        if batch.mode == "read":
            return await self._inner.run(batch)
        self.writes.append(batch)
        number = len(self.writes)
        trap = next((trap for trap in self.traps if trap.matches(number, batch)), None)
        if trap is None:
            return await self._inner.run(batch)
        if trap.when == "after":
            await self._inner.run(batch)
        self.on_death(trap)
        self._process.kill()
        return await _never()

    def version(self) -> int | None:
        return self._inner.version()

    def announce(self, worker_id: str) -> None:
        self._inner.announce(worker_id)

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        return self._inner.gone(worker_ids)


async def _never() -> list[Rows]:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("a dead process goes on")


def outcome_of(step: str) -> Callable[[int, Batch], bool]:
    """Matches the write that stores what a step came to."""
    return lambda number, batch: step in steps_of(batch)


def steps_of(batch: Batch) -> list[str]:
    """The steps whose outcomes a write stores."""
    return [
        str(statement.params[2])
        for statement in batch.statements
        if len(statement.params) > 2 and statement.params[1] in OUTCOMES
    ]


def says(batch: Batch) -> str:
    """What a write is about, for a person."""
    if steps := steps_of(batch):
        return "the outcome of step " + ", ".join(map(repr, steps))
    for statement in batch.statements:
        if len(statement.params) > 2 and isinstance(kind := statement.params[1], str) and ":" in kind:
            name = statement.params[2]
            return f"{kind} of {name!r}" if isinstance(name, str) else str(kind)
    if any("lease_token" in statement.sql for statement in batch.statements):
        return CLAIM
    return "a write"
