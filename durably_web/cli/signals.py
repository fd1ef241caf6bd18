"""Being asked to stop, by Ctrl-C or by whoever manages the process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator


class StopRequest:
    """Set by the first SIGINT or SIGTERM, which is kept in `signal`. A second one ends the process at once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.signal: signal.Signals | None = None

    async def wait(self) -> signal.Signals:
        await self._event.wait()
        assert self.signal is not None
        return self.signal

    def make(self, number: signal.Signals) -> None:
        self.signal = number
        self._event.set()


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a `StopRequest` while the context lasts."""
    request = StopRequest()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def hear(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(request.make, signal.Signals(number))

    # Not loop.add_signal_handler, which Windows does not have.
    for number in before:
        signal.signal(number, hear)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
