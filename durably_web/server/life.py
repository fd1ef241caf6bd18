"""Opening and closing the engine with the application that it is mounted in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from durably_web.arguments import Duration

if TYPE_CHECKING:
    from durably_web.engine import Durably

Lifespan = Callable[..., AbstractAsyncContextManager[None]]


def lifespan(durably: Durably, *, work: bool = True, stop_timeout: Duration | None = None) -> Lifespan:
    """The life of an engine, as `lifespan=` of Starlette and FastAPI takes it, and Litestar in a list.

    The database is opened, and brought up to date, before the first request; at the end the engine finishes the current
    step of each run, gives the runs back, and closes it. With `work=False` nothing is executed here: runs are triggered
    and followed, and workers elsewhere execute them. A stop takes `stop_timeout` (seconds or `timedelta`) at most, see
    `Durably.stop`.
    """

    @asynccontextmanager
    async def life(app: object = None) -> AsyncIterator[None]:
        await durably.migrate()
        try:
            if work:
                await durably.start()
            yield
        finally:
            await durably.stop(stop_timeout)

    return life
