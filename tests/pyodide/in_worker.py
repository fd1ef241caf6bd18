"""What runs inside Pyodide: one contract case at a time, on the bridge."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable

from durably_bridge import run_batch

from durably_web.backends.opfs import OpfsExecutor
from durably_web.store.batch import Executor
from tests.contract import Capability, cases, run_case
from tests.support.executors import RepeatingExecutor

HABITS: dict[str, Callable[[Executor], Executor]] = {"plain": lambda executor: executor, "repeating": RepeatingExecutor}


class Opfs:
    """The database that the worker opened for this case; every executor reaches it."""

    has: frozenset[Capability] = frozenset()

    def __init__(self, habit: str) -> None:
        self._wrap = HABITS[habit]

    def connect(self) -> Executor:
        return self._wrap(OpfsExecutor(run_batch))

    async def hold(self) -> Callable[[], Awaitable[None]]:
        raise NotImplementedError


async def run(suite: str, name: str, habit: str) -> str:
    """Empty when the case passes, otherwise the traceback."""
    try:
        case = dict(cases(suite, Opfs.has))[name]
        await run_case(case, Opfs(habit))
    except BaseException:
        return traceback.format_exc()
    return ""
