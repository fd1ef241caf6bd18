"""How stored steps are undone is in the code: a replay that executes nothing asks it.

It goes through what was stored up to a step, so that the job comes by that step as it did then, and ends there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from durably_web.context import current_step
from durably_web.errors import LeaseLost
from durably_web.execution import Execution
from durably_web.journal import Draft, RunJournal
from durably_web.records import Progress
from durably_web.steps import Step
from durably_web.store.batch import Operation
from durably_web.waits import QUIET_TURNS, Wait

if TYPE_CHECKING:
    from durably_web.undoing import Undo

# A job that awaits something else than steps is given so long for it.
PATIENCE_SECONDS = 10.0

# Jobs that go on behind their cancellation; nobody else keeps them.
_astray: set[asyncio.Task[Any]] = set()


async def find(execution: Execution, missing: list[str], known: dict[str, Undo]) -> None:
    """Add to `known` how these steps are undone; one that is not found is left out. The newest comes first."""
    entries = execution.lease.entries
    while missing:
        newest, *missing = missing
        places = [n for n, one in enumerate(entries) if one.type == "step:complete" and one.step_name == newest]
        if places:
            finding = Finding(execution, places[-1] + 1, {newest, *missing})
            await finding.search()
            known.update({key: undo for key, undo in finding.undos.items() if key not in known})
        missing = [key for key in missing if key not in known]


class _Muted:
    """Takes nothing that the job says; but what an undo says that was found here, and has the job's `step`."""

    def __init__(self, journal: RunJournal) -> None:
        self._journal = journal

    def note(self, draft: Draft) -> None: ...

    def log(self, step_name: str | None, data: str) -> None:
        if step_name is not None:
            self._journal.log(step_name, data)

    def progress(self, progress: Progress) -> None:
        if current_step.get() is not None:
            self._journal.progress(progress)


class Finding(Execution):
    """Replays a run with its first so many entries, until it has come by all the `wanted` steps or nothing is left to
    replay. A branch that asks for more is left where it is."""

    def __init__(self, execution: Execution, count: int, wanted: set[str]) -> None:
        lease = execution.lease._replace(entries=execution.lease.entries[:count])
        super().__init__(
            execution.environment,
            execution.caller,
            execution.job,
            lease,
            expires_at=execution.expires_at,
            renew=execution._renew,
        )
        self.journal: Any = _Muted(execution.journal)
        self._wanted = wanted
        self._parked: set[asyncio.Future[None]] = set()
        self._calls = 0
        self._news = asyncio.Event()

    async def search(self) -> None:
        task = asyncio.get_running_loop().create_task(self._ask())
        task.add_done_callback(self._has_returned)
        try:
            await self._until_found(task)
        finally:
            self._ending = LeaseLost()
            task.cancel()
            for future in (*self._parked, *self.order._parked.values()):
                future.cancel()
            for _ in range(QUIET_TURNS):
                if task.done():
                    break
                await asyncio.sleep(0)
            if not task.done():
                _astray.add(task)
                task.add_done_callback(_astray.discard)

    async def _ask(self) -> None:
        try:
            await self.job.execute(Step(self), self._decode(self.lease.input))
        except (Exception, LeaseLost):
            # How the run ends is known.
            return

    def _has_returned(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()
        self._news.set()

    async def _until_found(self, task: asyncio.Task[None]) -> None:
        quiet = 0
        while not self._wanted <= self.undos.keys():
            before = self._mark()
            if quiet >= QUIET_TURNS and (task.done() or self._stays(task)):
                return
            if (self._parked or task.done()) and quiet < QUIET_TURNS:
                await asyncio.sleep(0)
            elif not await self._hear():
                # A branch may await something else than steps, beside others that are where they are left.
                return
            quiet = 0 if self._mark() != before else quiet + 1

    def _stays(self, waiting: Any) -> bool:
        """Whether a task, or what gathers several, waits for nothing but what it was left at."""
        if isinstance(waiting, asyncio.Task):
            waiting = getattr(waiting, "_fut_waiter", None)
        if waiting is None or waiting in self._parked:
            return waiting is not None
        if isinstance(waiting, asyncio.Task):
            return self._stays(waiting)
        children = getattr(waiting, "_children", None)
        return bool(children) and all(one.done() or self._stays(one) for one in children or ())

    def _mark(self) -> tuple[int, int, int]:
        return self._calls, self.order._next, len(self._parked)

    async def _hear(self) -> bool:
        """Wait for the job to do anything; false when it takes too long."""
        self._news.clear()
        late = False

        def end() -> None:
            nonlocal late
            late = True
            self._news.set()

        timer = self._clock.call_later(PATIENCE_SECONDS, end)
        try:
            await self._news.wait()
        finally:
            timer.cancel()
        return not late

    # -- what a job asks for -----------------------------------------------------------------------------

    def key(self, name: str) -> str:
        self._calls += 1
        self._news.set()
        return super().key(name)

    def begin_at_once(self) -> int | None:
        return None

    async def begin(self, key: str | None = None) -> int:
        await self._stay()

    async def until(self, moment: int) -> None:
        await self._stay()

    async def park(self, wait: Wait) -> None:
        await self._stay()

    async def append(self, draft: Draft) -> None:
        await self._stay()

    async def read(self, operation: Operation[Any]) -> Any:
        await self._stay()

    async def _stay(self) -> NoReturn:
        self.check()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parked.add(future)
        self._news.set()
        await future
        raise LeaseLost
