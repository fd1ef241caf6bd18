"""Parts of pickled values in JavaScript's memory: in a browser, what goes to another worker cannot stay in Python's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from js import Array
from pyodide.ffi import to_js

from durably_web import fetches, files, offloaded
from durably_web.pickling import Buffer, Foreign


def to_part(data: Buffer) -> Any:
    """A copy as a Uint8Array, for `array_of`."""
    return to_js(memoryview(data).cast("B"))


def array_of(parts: Iterable[Any]) -> Any:
    """The parts as an array of JavaScript's."""
    array = Array.new()
    for part in parts:
        array.push(part)
    return array


def parts_of(array: Any) -> list[Foreign]:
    """The other way round."""
    return [Part(buffer) for buffer in array]


class Part:
    """A Uint8Array. It is freed with the last reference to it."""

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        self._length: int = buffer.byteLength

    def __len__(self) -> int:
        return self._length

    def assign_to(self, target: memoryview) -> None:
        self._buffer.assign_to(target)

    def to_bytes(self) -> bytes:
        data: bytes = self._buffer.to_bytes()
        return data


def prepare(settings: str) -> None:
    """Put the job files and the network where functions find them; they are imported by the first call."""
    given = json.loads(settings)
    fetches.patch_when_imported(given["http_wheel"])
    files.write_files(given["jobs"])


async def answer(call: Any) -> Any:
    """What the worker of an offloaded function calls: gives the answer to a call, both arrays of Uint8Arrays."""
    try:
        value = offloaded.call(parts_of(call))
        if hasattr(value, "__await__"):
            value = await value
    except Exception as error:
        return array_of(offloaded.failure(await fetches.explained(error), to_part))
    except BaseException as error:
        return array_of(offloaded.failure(error, to_part))
    return array_of(offloaded.result(value, to_part))
