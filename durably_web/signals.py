"""Being asked to stop, by Ctrl-C or by whoever manages the process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
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
    """Turn the first SIGINT or SIGTERM into a `StopRequest` while the context lasts; on Windows Ctrl-Break too.

    The handlers of before are there again afterwards. Python gives signals to the main thread alone: in another one,
    and in a browser, where there are none, the request never comes.
    """
    request = StopRequest()
    if sys.platform == "emscripten" or threading.current_thread() is not threading.main_thread():
        yield request
        return
    loop = asyncio.get_running_loop()
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def hear(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        loop.call_soon_threadsafe(request.make, signal.Signals(number))

    # Not loop.add_signal_handler, which Windows does not have.
    for number in numbers:
        signal.signal(number, hear)
    try:
        yield request
    finally:
        for number, handler in before.items():
            # `None` is one that Python did not set, and cannot set.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
