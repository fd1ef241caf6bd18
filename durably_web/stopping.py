"""A stop that does not wait longer than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from durably_web.background import Background
from durably_web.clock import Clock
from durably_web.context import Shutdown, shutdown

if TYPE_CHECKING:
    from durably_web.emitter import Emitter
    from durably_web.worker import Worker

# What is cancelled may still tidy up, and the leases are given back: so many seconds.
GRACE = 1.0


async def stop_within(
    seconds: float,
    finish: Callable[[], Awaitable[None]],
    clock: Clock,
    emitter: Emitter,
    worker: Worker,
    background: Background | None,
    waiting: Collection[object],
) -> bool:
    """Await `finish()`, and after `seconds` abandon what it waits for, and say what that is.

    Not the tasks that are `waiting` for a stop themselves. Tells whether it was late.
    """
    finishing = asyncio.ensure_future(finish())
    try:
        if await _ends(finishing, clock, seconds):
            return False
        late = f"was not finished within the {seconds:g} s that the stop allows"
        for run_id, execution in worker.executions():
            steps = execution.abandon()
            named = ", ".join(map(repr, steps))
            what = f"step{'s' * (len(steps) > 1)} {named} of run {run_id}" if steps else f"run {run_id}"
            error = TimeoutError(f"{what} {late}; the run goes on from there when another worker takes it up")
            emitter.error(error, "stopping", run_id)
        for name, begun_by in background.abandon(waiting) if background is not None else ():
            emitter.error(TimeoutError(f"background work {name} {late}, and is cancelled"), "stopping", begun_by)
        emitter.abandon(waiting)
        if not await _ends(finishing, clock, GRACE):
            # Cancelled, they do not end: nobody waits any longer, and their leases run out.
            worker.forget()
        return True
    finally:
        if not finishing.done():
            finishing.cancel()
            await asyncio.wait([finishing], timeout=GRACE)


async def _ends(task: asyncio.Future[None], clock: Clock, seconds: float) -> bool:
    """Wait for a task, so long by the engine's clock. Raises its exception."""
    over = asyncio.get_running_loop().create_future()
    timer = clock.call_later(seconds, lambda: None if over.done() else over.set_result(None))
    try:
        await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    if not task.done():
        return False
    await task
    return True


def refuse_who_is_waited_for(engine: Shutdown, emitter: Emitter, background: Background | None) -> None:
    """Raise `RuntimeError` if the stop that is under way waits for the current task, which must not wait for it."""
    task = asyncio.current_task()
    if shutdown.get() is engine or emitter.has_begun(task) or (background is not None and background.has(task)):
        raise RuntimeError(
            "the engine is being stopped, and the stop waits for the run, listener or background work that wants to "
            "start it again: do that where `stop()` was awaited"
        )


def linger(worker: Worker) -> None:
    """Functions that were abandoned in their threads run on: their worker is not known as dead before its process is,
    and that ends without waiting for them."""
    if worker._caller.left_behind():
        worker._caller.abandon()
        worker._store.announce(worker.worker_id)
