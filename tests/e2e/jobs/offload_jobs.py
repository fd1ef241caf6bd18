"""Jobs with functions that run in another worker."""

from __future__ import annotations

import asyncio
import os
import sys
import zlib
from dataclasses import dataclass
from typing import Any

from durably_web import OffloadFailed, Retry, Step, job


@dataclass
class Point:
    x: int
    y: int


class Strange(Exception):
    """Its constructor takes something else than it passes on."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def swap(point: Point) -> Point:
    return Point(point.y, point.x)


async def turned_around(data: bytes) -> bytes:
    await asyncio.sleep(0)
    return data[::-1]


def checked(data: bytes, more: dict[str, Any]) -> list[Any]:
    view = more["views"][0]
    kinds = [type(data).__name__, type(more["array"]).__name__]
    return [*kinds, view.tolist(), more["array"][0], len(data), zlib.crc32(data)]


def raises(kind: str) -> None:
    if kind == "strange":
        raise Strange(1, 2)
    if kind == "exit":
        sys.exit(3)
    if kind == "os exit":
        os._exit(3)
    raise ValueError(kind)


async def raises_later(kind: str) -> None:
    await asyncio.sleep(0.001)
    raises(kind)


async def closes(kind: str) -> None:
    import js

    js.close()
    await asyncio.Event().wait()


def spin(channel: str) -> None:
    """Says that it is there, and never ends."""
    from js import BroadcastChannel

    BroadcastChannel.new(channel).postMessage("spins")
    while True:
        pass


async def meet(channel: str, name: str) -> str:
    """Ends when another one is there at the same time."""
    from js import BroadcastChannel
    from pyodide.ffi import create_proxy

    line = BroadcastChannel.new(channel)
    met: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hear(event: Any) -> None:
        if not met.done():
            # Told again: who came later has not heard the first time.
            line.postMessage(name)
            met.set_result(event.data)

    listener = create_proxy(hear)
    line.onmessage = listener
    line.postMessage(name)
    other = await met
    line.onmessage = None
    line.close()
    listener.destroy()
    return f"{name} met {other}"


def generates() -> Any:
    return (n for n in "ab")


def nonce() -> str:
    """What nobody can make twice."""
    return os.urandom(16).hex()


def shared(number: int) -> int:
    """Remembers in its worker how often it was called there."""
    COUNTS.append(number)
    return len(COUNTS)


COUNTS: list[int] = []


@job
async def values(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    data = bytes(range(256)) * 4096 * input["megabytes"]
    some = data[: 2 << 20]
    turned = await step.run("turn", turned_around, some, offload=True)
    more = {"array": bytearray(b"\x07" * 100_000), "views": [memoryview(b"abcd").cast("H")]}
    return {
        "turned": turned == some[::-1],
        "sent": zlib.crc32(data),
        "checked": await step.run("check", checked, data, more, offload=True),
        "swapped": (await step.run("swap", swap, Point(1, 2), offload=True)).x,
        "mapped": await step.map("abs", abs, [-1, 2, -3], offload=True),
        "counts": [await step.run("count", shared, n, offload=True) for n in range(3)],
    }


@job
async def failures(step: Step, input: dict[str, Any]) -> list[str]:
    """What each kind of failure is like; each time a result comes behind it."""
    seen = []
    for kind in input["kinds"]:
        for fn in (raises, raises_later) if kind != "close" else (closes,):
            try:
                await step.run("fail", fn, kind, offload=True)
            except Exception as error:
                seen.append(f"{type(error).__name__}: {error}")
            assert await step.run("works", swap, Point(1, 2), offload=True) == Point(2, 1)
    return seen


@job
async def refused(step: Step, input: dict[str, Any]) -> list[str]:
    def local() -> None: ...

    seen = []
    for fn, args in (
        (lambda: 1, ()),
        (local, ()),
        (swap, ((n for n in "ab"),)),
        (generates, ()),
    ):
        try:
            await step.run("refused", fn, *args, offload=True)
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}")
    return seen


@job
async def meeting(step: Step, input: dict[str, Any]) -> list[str]:
    return list(
        await asyncio.gather(*[step.run("meet", meet, input["channel"], name, offload=True) for name in ("one", "two")])
    )


@job
async def hangs(step: Step, input: dict[str, Any]) -> str:
    """Takes too long at one of its steps, and says what became of it."""
    before = await step.run("before", nonce, offload=True)
    try:
        await step.run("spin", spin, input["channel"], timeout=input.get("timeout"), offload=True)
    except TimeoutError as error:
        assert await step.run("again", swap, Point(1, 2), offload=True) == Point(2, 1)
        return f"{error}"
    return before


@job
async def tries(step: Step, input: dict[str, Any]) -> None:
    await step.run("try", raises, "os exit", retry=Retry(initial_delay=0, retry_on=(OffloadFailed,)), offload=True)


@job
async def beside(step: Step, input: dict[str, Any]) -> str:
    return await step.run("beside", nonce)
