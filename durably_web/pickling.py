"""Values on their way from one interpreter to another: pickled, in parts, each large buffer a part of its own.

Only between two interpreters of one site or one process, which run the same code; nothing pickled is ever stored.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

Buffer: TypeAlias = "bytes | bytearray | memoryview"


class Foreign(Protocol):
    """A part that is in nobody's memory but JavaScript's."""

    def __len__(self) -> int: ...

    def assign_to(self, target: memoryview) -> None:
        """Copy all of it to a place of its length."""
        ...

    def to_bytes(self) -> bytes: ...


def pack(value: object, part: Callable[[Buffer], Any]) -> list[Any]:
    """The parts of a value, each as `part` makes it of a buffer, which is good only for the time of the call.

    bytes, bytearrays, and what gives its memory away (`pickle.PickleBuffer`, as NumPy's arrays do), at any depth,
    are not copied on the way when they are large. Raises whatever a value raises that cannot be pickled.
    """
    parts: list[Any] = []
    # The pickler hands large buffers over as they are, and collects the rest.
    _Pickler(_Writer(lambda data: parts.append(part(data))), protocol=5).dump(value)
    return parts


def unpack(parts: Iterable[bytes | Foreign]) -> Any:
    """The value of which these are the parts. A large buffer is copied once, to where it stays."""
    return pickle.Unpickler(_Reader(parts)).load()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        if type(value) is not memoryview:
            return NotImplemented
        if not value.c_contiguous or not value.nbytes:
            return memoryview, (value.tobytes(),)
        return _view, (pickle.PickleBuffer(value), value.format, value.shape)


def _view(data: bytes | bytearray, format: Any, shape: list[int]) -> memoryview:
    return memoryview(data).cast(format, shape)


class _Writer:
    def __init__(self, write: Callable[[Buffer], None]) -> None:
        self.write = write


class _Reader:
    """The parts, one behind another, as a file."""

    def __init__(self, parts: Iterable[bytes | Foreign]) -> None:
        self._parts = iter(parts)
        # Of the part that is being read.
        self._rest = memoryview(b"")

    def readinto(self, target: Any) -> int:
        room = memoryview(target).cast("B")
        length = len(room)
        while room:
            if not self._rest:
                part = next(self._parts, None)
                if part is None:
                    raise EOFError("a part is missing")
                if isinstance(part, bytes):
                    self._rest = memoryview(part)
                elif len(part) == len(room):
                    part.assign_to(room)
                    break
                else:
                    self._rest = memoryview(part.to_bytes())
            count = min(len(room), len(self._rest))
            room[:count] = self._rest[:count]
            room, self._rest = room[count:], self._rest[count:]
        return length

    def read(self, count: int) -> bytes:
        target = bytearray(count)
        self.readinto(target)
        return bytes(target)

    def readline(self) -> bytes:
        # Only older protocols have lines.
        raise pickle.UnpicklingError("not of protocol 5")
