"""Calling a step's function elsewhere: in another process, or in a browser in another worker.

Where that is, is a `Pool`. In a browser it is made of what `durably_bridge` has:

    offload_size          how many workers there may be
    offload_start(id)     a promise: a new worker, called `id` from then on, waits for calls
    offload_run(id, call) a promise of its answer: both are arrays of Uint8Arrays, whose memory goes over to the reader
    offload_end(id)       ends it, whatever it does; its promises reject

What is in a call and in an answer, `offloaded` says.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, NamedTuple, Protocol

from durably_web import calls, failures
from durably_web.clock import Clock
from durably_web.context import current_run, current_step, given_key, key_of
from durably_web.errors import InvalidInput, NotSerializable, OffloadFailed
from durably_web.pickling import Buffer, Foreign, pack, unpack

_INTERACTIVE = "a function of an interactive session cannot be found by another process: put it into a module"
_ADVICE = ": write it with `def` or `async def` at the top level of a module, and pass what it needs as arguments"


class Worker(Protocol):
    """Makes one call at a time, somewhere else."""

    async def start(self) -> None: ...

    async def run(self, parts: Sequence[Any]) -> Sequence[bytes | Foreign]:
        """The answer to a call. Raises `OffloadFailed` when the worker dies."""
        ...

    def end(self) -> None:
        """End it, whatever it does. Safe to call again."""
        ...


class Pool(Protocol):
    """Makes workers."""

    @property
    def size(self) -> int:
        """How many there may be at once."""
        ...

    @property
    def idle_seconds(self) -> float | None:
        """After which one that nobody needs is ended."""
        ...

    def worker(self) -> Worker:
        """One that has not been started."""
        ...

    def part(self, data: Buffer) -> Any:
        """A part of a call, as `run` takes it; `data` is good only for the time of this call."""
        ...

    def close(self) -> None:
        """End all workers. Others can be made afterwards."""
        ...


class Place(NamedTuple):
    """Where a function is found."""

    module: str
    name: str
    file: str | None


def place_of(fn: Any, what: str) -> Place:
    """Where another interpreter finds `fn`. Raises `InvalidInput` where that is nowhere."""
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not callable(fn) or not isinstance(module, str) or not isinstance(name, str):
        raise InvalidInput(f"{what} with offload=True calls a function with a name, not {fn!r}{_ADVICE}")
    if "<" in name:
        kind = "a lambda" if name.endswith("<lambda>") else "a function inside of another one"
        raise InvalidInput(f"{what} with offload=True cannot call {name}, {kind}{_ADVICE}")
    loaded = sys.modules.get(module)
    found: Any = loaded
    for attribute in name.split("."):
        found = getattr(found, attribute, None)
    # A method of a class is made anew at every look.
    if found is not fn and not (isinstance(found, MethodType) and found == fn):
        raise InvalidInput(f"{what} with offload=True cannot call {name}: {module}.{name} is not it{_ADVICE}")
    file = getattr(loaded, "__file__", None)
    if module == "__main__" and file is None:
        raise InvalidInput(f"{what} with offload=True cannot call {name}: {_INTERACTIVE}")
    return Place(module, name, file)


class Offloader:
    """Calls functions in the workers of a pool. They are started when they are needed, and used again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._free = asyncio.Semaphore(pool.size)
        self._idle: dict[Worker, asyncio.TimerHandle | None] = {}

    async def call(
        self, fn: Callable[..., Any], args: tuple[Any, ...], clock: Clock, seconds: float | None, what: str
    ) -> Any:
        """The result of `fn(*args)`. Raises its exception; `OffloadFailed` when its worker died; and `TimeoutError`
        when it took longer than `seconds`, in which waiting for a free worker, and for its start, is not counted.

        Where this is cancelled, and where it raises what the function did not, the worker is ended.
        """
        place = place_of(fn, what)
        try:
            parts = [
                self._pool.part(
                    json.dumps([*place, given_key.get() or key_of(current_run.get(), current_step.get())]).encode()
                ),
                *pack(args, self._pool.part),
            ]
        except Exception as error:
            raise InvalidInput(f"the arguments of {what} cannot be pickled: {failures.describe(error)}") from error
        async with self._free:
            worker, is_new = self._take()
            try:
                if is_new:
                    await worker.start()
                if seconds is None:
                    answer = await worker.run(parts)
                else:
                    answer = await calls.call_within(seconds, clock, _NOBODY, worker.run, (parts,), what)
                kind, value = _read(answer)
                if kind == "ended":
                    # It may have begun to tidy up.
                    raise OffloadFailed(f"it raised {value}, which ends its worker")
            except OffloadFailed as error:
                worker.end()
                raise OffloadFailed(f"{what} failed: {error}") from None
            except BaseException:
                worker.end()
                raise
            self._give_back(worker)
        if kind == "result":
            return value
        raise _revive(value) if kind == "error" else value

    def close(self) -> None:
        """End all workers, and what they do."""
        for timer in self._idle.values():
            if timer is not None:
                timer.cancel()
        self._idle.clear()
        self._pool.close()

    def _take(self) -> tuple[Worker, bool]:
        if not self._idle:
            return self._pool.worker(), True
        # The one that was used last: the others may be ended.
        worker, timer = self._idle.popitem()
        if timer is not None:
            timer.cancel()
        return worker, False

    def _give_back(self, worker: Worker) -> None:
        seconds = self._pool.idle_seconds
        loop = asyncio.get_running_loop()
        self._idle[worker] = None if seconds is None else loop.call_later(seconds, self._retire, worker)

    def _retire(self, worker: Worker) -> None:
        del self._idle[worker]
        worker.end()


_NOBODY = calls.Caller()
"""`Worker.run` is a coroutine function, which needs no caller."""


def _read(answer: Sequence[bytes | Foreign]) -> tuple[str, Any]:
    try:
        kind, value = unpack(answer)
    except Exception as error:
        return "unreadable", NotSerializable(f"it cannot be read where the engine is: {failures.describe(error)}")
    return kind, value


def _revive(stored: dict[str, Any]) -> Exception:
    """The exception that a function raised elsewhere, with where that was as a note."""
    error: Any = None
    if stored["pickled"] is not None:
        try:
            error = pickle.loads(stored["pickled"])
        except Exception:
            # Such as that of a class whose constructor takes other arguments than it passes on.
            error = None
    if not isinstance(error, Exception):
        error = failures.revive(stored)
    assert isinstance(error, Exception)
    error.add_note(f"Where it was raised:\n{stored['traceback']}")
    return error


def offloader() -> Offloader:
    """The one for this platform."""
    if sys.platform == "emscripten":
        from durably_web.nested import Nested

        return Offloader(Nested())
    from durably_web.processes import Processes

    return Offloader(Processes())
