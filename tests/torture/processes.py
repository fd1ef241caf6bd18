"""What the processes of the torture have in common: their files, their beginning and their end.

Each writes what it does to a file of its own: the moment on a clock that all processes share, a word, and what about.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

from durably_web.errors import StoreBusy, StoreUnavailable

# The database is away, or a connection was cut: asked again, it answers some day.
PASSING = (StoreUnavailable, StoreBusy)
PAUSE = 0.05


class Log:
    """What a process did, in the order in which it did it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *words: object) -> None:
        # The kernel has it then, whatever happens to the process.
        text = " ".join(map(str, words)).replace("\n", " ")
        os.write(self._file, f"{time.monotonic_ns()} {text}\n".encode())


def die_with_parent() -> None:
    """Whatever becomes of the program that began this process, this one does not outlive it. Also not while it is
    stopped, where the system can see to that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    def wait() -> None:
        # Nothing is ever written: this returns when the other end is closed.
        os.read(0, 1)
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def until_sigterm(log: Log) -> asyncio.Event:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    log.write("hears", os.getpid())
    return stopped


async def pause(stopped: asyncio.Event | None = None) -> None:
    """Before asking again."""
    if stopped is None:
        await asyncio.sleep(PAUSE)
    else:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), PAUSE)
