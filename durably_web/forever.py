"""An engine for as long as its process is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from signal import Signals
from typing import TYPE_CHECKING

from durably_web.arguments import Duration
from durably_web.errors import SchemaTooNew
from durably_web.events import Event
from durably_web.signals import stop_request

if TYPE_CHECKING:
    from durably_web.engine import Durably


async def run_forever(
    durably: Durably,
    stop_timeout: Duration | None,
    begun: Callable[[], None] | None = None,
    asked: Callable[[Signals], None] | None = None,
) -> None:
    """`Durably.run_forever`; calls `begun` when the engine has started, and `asked` with the signal that ends it."""
    enough = asyncio.Event()

    def hear(event: Event) -> None:
        # It has met a database of a newer version.
        if durably.read_only is not None:
            enough.set()

    with stop_request() as stop:
        leave = durably.on("worker:error", hear)
        # Also when somebody else stops it.
        durably._stop_hooks.append(enough.set)
        requested, ended = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(enough.wait())
        try:
            await durably.init()
            if durably.read_only is None:
                if begun is not None:
                    begun()
                await asyncio.wait({requested, ended}, return_when=asyncio.FIRST_COMPLETED)
                if asked is not None and stop.signal is not None:
                    asked(stop.signal)
        finally:
            leave()
            durably._stop_hooks.remove(enough.set)
            requested.cancel()
            ended.cancel()
            await durably.stop(timeout=stop_timeout)
    if durably.read_only is not None:
        raise SchemaTooNew(durably.read_only)
