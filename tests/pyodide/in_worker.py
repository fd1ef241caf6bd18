"""What runs inside Pyodide: one contract case at a time, on the bridge, or on a libSQL server through `fetch`."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable

from durably_bridge import run_batch, run_other_batch

from durably_web.backends.libsql import LibsqlExecutor
from durably_web.backends.opfs import OpfsExecutor
from durably_web.engine import Durably
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Capability, cases, run_case
from tests.support.executors import Remote, RepeatingExecutor

HABITS: dict[str, Callable[[Executor], Executor]] = {"plain": lambda executor: executor, "repeating": RepeatingExecutor}


class Opfs:
    """The database that the worker opened for this case; every executor reaches it."""

    has: frozenset[Capability] = frozenset({"another"})

    def __init__(self, habit: str, run: Callable[[str], str] = run_batch) -> None:
        self._habit = habit
        self._run = run

    def another(self) -> Opfs:
        return Opfs(self._habit, run_other_batch)

    def connect(self) -> Executor:
        return HABITS[self._habit](OpfsExecutor(self._run))

    async def hold(self) -> Callable[[], Awaitable[None]]:
        raise NotImplementedError


class Server:
    """A database of a libSQL server."""

    has: frozenset[Capability] = frozenset()

    def __init__(self, url: str) -> None:
        self._url = url

    def connect(self) -> Executor:
        return Remote(LibsqlExecutor(self._url, "relaxed"))

    async def hold(self) -> Callable[[], Awaitable[None]]:
        raise NotImplementedError


async def run(suite: str, name: str, habit: str) -> str:
    """Empty when the case passes, otherwise the traceback. The habit may be the URL of a server."""
    try:
        backend = Server(habit) if "://" in habit else Opfs(habit)
        case = dict(cases(suite, Opfs.has))[name]
        await run_case(case, backend)
    except BaseException:
        return traceback.format_exc()
    return ""


async def ask(url: str, text: str) -> str:
    """Trigger a job whose worker is elsewhere, and follow it to its end: its output and events, as JSON."""

    @job
    async def shout(step: Step, input: dict[str, str]) -> str:
        raise AssertionError("nothing is executed here")

    durably = Durably(url, jobs=[shout], polling_interval=0.05)
    await durably.migrate()
    try:
        async with asyncio.timeout(60):
            handle = await durably.trigger(shout, {"text": text})
            events = [event.type async for event in durably.subscribe(handle.id)]
            return json.dumps({"output": await handle.result(), "events": events})
    finally:
        await durably.stop()
