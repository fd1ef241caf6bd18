"""Engines on one database, under one clock that stands still unless it is moved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

from durably_web import threads
from durably_web.clock import ManualClock
from durably_web.engine import Durably
from durably_web.events import Event
from durably_web.jobs import Job
from durably_web.store.batch import Batch, Executor, Mode, Row, Statement, Value
from tests.contract import Backend
from tests.support.executors import UNDER_WAY, MortalExecutor
from tests.support.invariants import check_invariants

T = TypeVar("T")

SECONDS = 60
"""The longest that anything is waited for."""


class World:
    """Makes engines, and at the end stops them and checks the invariants of what they left."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.clock = ManualClock()
        self._engines: list[tuple[Durably, MortalExecutor]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for durably, executor in self._engines:
            if not executor.dead:
                await bounded(durably.stop())
        if error is None:
            await self.check()

    def executor(self) -> Executor:
        return self.backend.connect()

    async def engine(
        self, *jobs: Job[Any, Any], through: Callable[[Executor], Executor] = lambda inner: inner, **options: Any
    ) -> Durably:
        """An engine that is migrated and not started, on an executor of its own."""
        executor = MortalExecutor(through(self.backend.connect()))
        durably = Durably(executor, jobs=jobs, clock=self.clock, **options)
        self._engines.append((durably, executor))
        await durably.migrate()
        return durably

    async def started(self, *jobs: Job[Any, Any], **options: Any) -> Durably:
        durably = await self.engine(*jobs, **options)
        await durably.start()
        return durably

    async def crash(self, durably: Durably) -> None:
        """From now on nothing of this engine reaches the database; its leases stay as they are."""
        for engine, executor in self._engines:
            if engine is durably:
                executor.die()
        # A process that dies asks no step to finish.
        for _, task in list(durably._worker._executing.values()):
            task.cancel()
        await bounded(durably.stop())

    async def expire(self, seconds: float = 31) -> None:
        """Let every lease run out that nobody renews."""
        await self.advance(seconds)

    async def advance(self, seconds: float, step: float = 1.0) -> None:
        """Move the clock on little by little, and let the event loop turn in between."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            await turns()

    async def drive(self, awaitable: Awaitable[T], seconds: float = 5.0) -> T:
        """Wait for something that needs the clock to move, by `seconds` at most."""
        task = asyncio.ensure_future(awaitable)
        left = seconds
        async with asyncio.timeout(SECONDS):
            while not task.done():
                if left > 0 and not UNDER_WAY and not await _threads():
                    self.clock.advance(0.01)
                    left -= 0.01
                await asyncio.sleep(0)
            return await task

    async def rows(self, sql: Any, *params: Value) -> list[Row]:
        """Ask the database itself."""
        return await self._run("read", sql, params)

    async def write(self, sql: Any, *params: Value) -> None:
        """Change something behind everybody's back."""
        await self._run("write", sql, params)

    async def _run(self, mode: Mode, sql: Any, params: tuple[Value, ...]) -> list[Row]:
        executor = self.backend.connect()
        await executor.open()
        try:
            [rows] = await executor.run(Batch(mode, (Statement(sql, params),)))
        finally:
            await executor.close()
        return rows

    async def check(self) -> None:
        executor = self.backend.connect()
        await executor.open()
        try:
            await check_invariants(executor)
        finally:
            await executor.close()


class Heard:
    """The events that an engine told of."""

    def __init__(self, durably: Durably, event_type: str = "*") -> None:
        self.events: list[Event] = []
        durably.on(event_type, self.events.append)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def of(self, *types: str) -> list[Event]:
        return [event for event in self.events if event.type in types]


async def bounded(awaitable: Awaitable[T]) -> T:
    """Wait, and not for ever."""
    async with asyncio.timeout(SECONDS):
        return await awaitable


async def turns(count: int = 20) -> None:
    """Let everything happen that needs only the event loop, a thread, or a database across a network."""
    left = count
    async with asyncio.timeout(SECONDS):
        while left:
            if UNDER_WAY:
                await asyncio.wait(UNDER_WAY, return_when=asyncio.FIRST_COMPLETED)
                left = count
            elif await _threads():
                left = count
            else:
                await asyncio.sleep(0)
                left -= 1


_SLOW: WeakSet[Future[Any]] = WeakSet()
"""Calls in threads that wait for what the test does next, most likely."""


async def _threads() -> bool:
    """Give each call in a thread a second to end, once; whether there was one."""
    found = [call for call in list(threads._begun.values()) if call not in _SLOW]
    for call in found:
        end = monotonic() + 1
        while not call.done() and monotonic() < end:  # noqa: ASYNC110 — a thread sets no event of this loop
            await asyncio.sleep(0.0005)
        _SLOW.add(call)
    return bool(found)


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until something is true."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 — there is no event that everything sets
            await asyncio.sleep(0)


class Gate:
    """A step's function waits here; a test sees that it came, and lets it go on."""

    def __init__(self) -> None:
        self.arrived = 0
        self._open = asyncio.Event()
        self._changed = asyncio.Event()

    async def wait(self, value: T) -> T:
        self.arrived += 1
        self._changed.set()
        await self._open.wait()
        return value

    def open(self) -> None:
        self._open.set()

    async def reached(self, count: int = 1) -> None:
        async with asyncio.timeout(SECONDS):
            while self.arrived < count:
                self._changed.clear()
                await self._changed.wait()


async def raised(kind: type[BaseException], awaitable: Awaitable[object]) -> BaseException:
    """The exception of this class that an awaitable raises."""
    try:
        result = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised; there was a result: {result!r}")
