"""What every database must do, and what the engine must do on every database.

Each module of `SUITES` holds cases: public `async def` functions of one argument, a
`Backend`. They import neither pytest nor sqlite3, use no files and no threads of their own, and wait for nothing
without a limit, so that the same functions run on a server and inside Pyodide. A binding of a few lines gives each
case a backend with a fresh, empty database:

    for name, case in cases(suite, has):
        await run_case(case, backend)

`run_case` limits the time, and fails the case when an error was lost on the way (an exception in a callback or in a
task that nobody awaited). `backend.has` says what a database has beside the necessary; a case that `needs` more is
left out by `cases`. Values are carried in the assert messages where pytest does not rewrite them.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypeVar

from durably_web.store.batch import Executor

Capability = Literal["workers", "wakes", "threads", "busy", "processes", "another"]
"""What a backend may have.

workers   several live workers at once, which can tell that another one is alive
wakes     a write of one connection wakes those who wait on another, without polling
threads   sync steps run in threads
busy      `hold()` works: the database can be held by somebody else
processes offloaded functions run in processes
another   `another()` gives a backend with a second database, beside this one
"""

SUITES = (
    "executor",
    "store",
    "migrations",
    "upgrades",
    "engine",
    "steps",
    "values",
    "control",
    "events",
    "leases",
    "retries",
    "offline",
    "timeouts",
    "durable_time",
    "signals",
    "children",
    "parallel",
    "replay_order",
    "exported",
    "handover",
    "handover_documents",
    "handover_faults",
    "changed_code",
    "flow",
    "schedules",
    "requests",
    "repeated",
    "inbox",
    "shutdown",
    "lifecycle",
    "processing",
    "answers",
    "faults",
    "wait_faults",
    "undo",
    "full_storage",
    "offload",
)
"""The modules with cases, in the order in which they build on each other."""

BARE = ("executor", "faults", "wait_faults", "handover_faults", "full_storage", "offload")
"""Those of them that are not bound behind a wrapper: it would undo what they do to batches, or is nothing to them."""

SECONDS_PER_CASE = 240


class Backend(Protocol):
    """One kind of database, and in it one database that is fresh for each case."""

    has: frozenset[Capability]

    def connect(self) -> Executor:
        """A new executor for the case's database, not yet open. May be called several times in a case: all of
        them reach the same data. Closing one leaves the data, and the other executors, as they are."""
        ...

    async def hold(self) -> Callable[[], Awaitable[None]]:
        """Let somebody else hold the write lock, until the result is called. Only with `busy`."""
        ...


Case = Callable[[Backend], Awaitable[None]]
C = TypeVar("C", bound=Case)


def needs(*capabilities: Capability) -> Callable[[C], C]:
    """Marks a case that asks more of a backend than the necessary."""

    def mark(case: C) -> C:
        case.needs = frozenset(capabilities)  # type: ignore[attr-defined]
        return case

    return mark


def cases(suite: str, has: frozenset[Capability]) -> list[tuple[str, Case]]:
    """The name and the function of each case of a suite that a backend with these capabilities can run."""
    module = importlib.import_module(f"{__name__}.{suite}")
    return [
        (name, case)
        for name, case in vars(module).items()
        if inspect.iscoroutinefunction(case)
        and not name.startswith("_")
        and case.__module__ == module.__name__
        and getattr(case, "needs", frozenset()) <= has
    ]


async def run_case(case: Case, backend: Backend, seconds: float = SECONDS_PER_CASE) -> None:
    """Run a case within its time, and miss no error that it left behind."""
    lost: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: lost.append(context))
    try:
        async with asyncio.timeout(seconds):
            await case(backend)
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)
    # Pyodide's loop, and it alone without a message, tells of every failed task that nobody awaits at that moment.
    lost = [one for one in lost if "message" in one]
    assert not lost, f"errors that nobody saw: {[(one['message'], one.get('exception')) for one in lost]}"
