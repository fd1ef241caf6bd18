"""Offloaded functions on CPython: processes that wait for calls, one call at a time, and can be killed."""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from durably_web import offloaded
from durably_web.errors import OffloadFailed
from durably_web.pickling import Buffer

T = TypeVar("T")

_SECONDS_TO_DIE = 5.0


class Processes:
    """Starts processes, and ends all that it started when it is closed, or when this process ends."""

    idle_seconds = None

    def __init__(self) -> None:
        self.size = os.cpu_count() or 1
        self._context = multiprocessing.get_context("spawn")
        self._started: set[Process] = set()
        self._owner = os.getpid()
        # Later handlers are called first: multiprocessing's own would wait for the processes.
        atexit.register(self.close)

    def worker(self) -> Process:
        process = Process(self._context, self._started.discard)
        self._started.add(process)
        return process

    @staticmethod
    def part(data: Buffer) -> bytes:
        return data if type(data) is bytes else bytes(data)

    def close(self) -> None:
        atexit.unregister(self.close)
        if self._owner != os.getpid():
            # A fork of ours ends; the processes are not its own.
            return
        ended = list(self._started)
        self._started.clear()
        for process in ended:
            process.kill()
        for process in ended:
            process.join()


class Process:
    """A process that makes one call after another, in a group of its own: what it starts ends with it."""

    def __init__(self, context: SpawnContext, forget: Callable[[Process], None]) -> None:
        self._context = context
        self._forget = forget
        self._lock = threading.Lock()
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._ended = False

    async def start(self) -> None:
        """Return when it waits for calls. Raises `OffloadFailed`."""
        await _in_thread(self._start)

    async def run(self, parts: Sequence[bytes]) -> list[bytes]:
        """Make a call and give its answer. Raises `OffloadFailed` when the process dies."""
        return await _in_thread(lambda: self._exchange(parts))

    def end(self) -> None:
        """Kill it, whatever it does. Safe to call again."""
        self.kill()
        self._forget(self)
        # It takes its time to give much memory back.
        threading.Thread(target=self.join, name="durably-offload", daemon=True).start()

    def kill(self) -> None:
        with self._lock:
            self._ended = True
            process = self._process
        if process is not None:
            _kill(process)

    def join(self) -> None:
        """Return when it is gone, which is soon after it was killed."""
        if self._process is not None:
            self._process.join(_SECONDS_TO_DIE)

    # -- in a thread -------------------------------------------------------------------------------------

    def _start(self) -> None:
        pipe, other_end = self._context.Pipe()
        process = self._context.Process(target=serve, args=(other_end,), name="durably-offload")
        with self._lock:
            if self._ended:
                raise OffloadFailed("the engine was closed")
            try:
                process.start()
            except OSError as error:
                raise OffloadFailed(f"the system starts no process: {error}") from error
            self._process, self._pipe = process, pipe
        # Otherwise its death would not be the end of what can be read.
        other_end.close()
        try:
            self._receive()
        except OffloadFailed as error:
            raise OffloadFailed(
                f"a process for offloaded functions could not be started: {error}; what it printed says why. It "
                "imports the main script again: what that does besides defining belongs under "
                '`if __name__ == "__main__":`'
            ) from None

    def _exchange(self, parts: Sequence[bytes]) -> list[bytes]:
        assert self._pipe is not None, "it was started"
        try:
            _send(self._pipe, parts)
        except OSError:
            # It is dead; what it wrote before it died does not matter.
            raise self._death() from None
        return self._receive()

    def _receive(self) -> list[bytes]:
        assert self._process is not None and self._pipe is not None, "it was started"
        # Its end alone, where a process that it started holds the pipe.
        if self._pipe in wait([self._pipe, self._process.sentinel]):
            try:
                return _receive(self._pipe)
            except (EOFError, OSError):
                pass
        raise self._death()

    def _death(self) -> OffloadFailed:
        assert self._process is not None, "it was started"
        self._process.join(_SECONDS_TO_DIE)
        code = self._process.exitcode
        if code is None:
            return OffloadFailed("its process is gone")
        if code < 0:
            return OffloadFailed(f"its process was killed by {_name_of_signal(-code)}")
        return OffloadFailed(f"its process ended with exit code {code}")


def _kill(process: SpawnProcess) -> None:
    pid = process.pid
    if process.exitcode is not None or pid is None:
        return
    if sys.platform != "win32":
        try:
            os.killpg(pid, signal.SIGKILL)
            return
        except (ProcessLookupError, PermissionError):
            # It has not come to making a group of its own.
            pass
    process.kill()


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def _in_thread(fn: Callable[[], T]) -> T:
    """What `fn` comes to, in a thread of its own. When nobody waits any more, it ends by itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result, failed = None, None
        try:
            result = fn()
        except BaseException as error:
            failed = error
        try:
            loop.call_soon_threadsafe(settle, result, failed)
        except RuntimeError:
            # The loop is closed: nobody waits.
            pass

    # A daemon, so that the end of the interpreter does not wait for a function that runs.
    threading.Thread(target=work, name="durably-offload", daemon=True).start()
    return await future


# -- in the process ----------------------------------------------------------------------------------------


def serve(pipe: Connection[Any, Any]) -> None:
    """Answer calls until the other end is closed, or whoever holds it is dead."""
    # Ctrl-C is for the engine, which finishes its steps.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        os.setsid()
    os.set_inheritable(pipe.fileno(), False)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _send(pipe, [])
    while True:
        try:
            parts = _receive(pipe)
        except EOFError:
            return
        _send(pipe, _answer(parts))


def _answer(parts: list[bytes]) -> list[bytes]:
    try:
        value = offloaded.call(parts)
        if hasattr(value, "__await__"):
            value = asyncio.run(_awaited(value))
    except BaseException as error:
        return offloaded.failure(error, Processes.part)
    return offloaded.result(value, Processes.part)


async def _awaited(value: Any) -> Any:
    return await value


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is no main process"
    parent.join()
    if sys.platform != "win32":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _send(pipe: Connection[Any, Any], parts: Sequence[bytes]) -> None:
    pipe.send_bytes(str(len(parts)).encode())
    for part in parts:
        pipe.send_bytes(part)


def _receive(pipe: Connection[Any, Any]) -> list[bytes]:
    return [pipe.recv_bytes() for _ in range(int(pipe.recv_bytes()))]
