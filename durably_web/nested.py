"""Offloaded functions in a browser: further workers, each with a Python of its own, as `offloading` describes them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from itertools import count
from typing import Any

from durably_bridge import offload_end, offload_run, offload_size, offload_start
from pyodide.ffi import JsException

from durably_web.errors import OffloadFailed
from durably_web.outside import array_of, parts_of, to_part
from durably_web.pickling import Buffer, Foreign


class Nested:
    """Makes workers. The engine's own worker starts and ends them."""

    size: int = offload_size
    idle_seconds = 60.0

    def __init__(self) -> None:
        self._made: list[NestedWorker] = []

    def worker(self) -> NestedWorker:
        self._made = [worker for worker in self._made if not worker.ended]
        worker = NestedWorker()
        self._made.append(worker)
        return worker

    @staticmethod
    def part(data: Buffer) -> Any:
        return to_part(data)

    def close(self) -> None:
        for worker in self._made:
            worker.end()
        self._made.clear()


class NestedWorker:
    _ids = count(1)

    def __init__(self) -> None:
        self._id = next(self._ids)
        self.ended = False

    async def start(self) -> None:
        """Return when it waits for calls. Raises `OffloadFailed`."""
        await self._answer(offload_start(self._id))

    async def run(self, parts: Sequence[Any]) -> list[Foreign]:
        """Make a call and give its answer. Raises `OffloadFailed` when the worker dies."""
        return parts_of(await self._answer(offload_run(self._id, array_of(parts))))

    def end(self) -> None:
        """End it, whatever it does. Safe to call again."""
        if not self.ended:
            self.ended = True
            offload_end(self._id)

    async def _answer(self, promise: Awaitable[Any]) -> Any:
        try:
            return await promise
        except JsException as error:
            raise OffloadFailed(error.message) from None
