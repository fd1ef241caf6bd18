"""What offloaded functions travel through, and how many workers there are for how long, with workers made for it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from durably_web import ManualClock, OffloadFailed
from durably_web.clock import SystemClock
from durably_web.offloaded import call, failure, result
from durably_web.offloading import Offloader
from durably_web.pickling import Buffer, pack, unpack
from durably_web.processes import Processes

CLOCK = SystemClock()
LARGE = bytes(range(256)) * 4096 * 32


def both_ways(value: Any) -> tuple[Any, list[bytes]]:
    parts = pack(value, bytes)
    return unpack(parts), parts


# -- pickling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        bytearray(b"x" * 100_000),
        {"deep": [b"y" * 70_000, {"deeper": (b"z" * 200_000, "text" * 50_000)}]},
        list(range(100_000)),
        [b"small"] * 10_000,
    ],
)
def test_values_come_back_equal(value: Any) -> None:
    assert both_ways(value)[0] == value


def test_a_large_buffer_is_a_part_of_its_own_and_is_not_copied() -> None:
    seen: list[Buffer] = []
    pack({"data": LARGE, "more": 1}, seen.append)
    assert any(part is LARGE for part in seen)


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b"abcd"),
        memoryview(b"abcd").cast("H"),
        memoryview(bytearray(range(12))).cast("B", (3, 4)),
        memoryview(b"abcdef")[::2],
        memoryview(b""),
        memoryview(LARGE),
    ],
)
def test_views_come_back_as_views(view: memoryview) -> None:
    came = both_ways(view)[0]
    assert type(came) is memoryview and came == view and came.tolist() == view.tolist()


class Outside:
    """A part as it is in a browser."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.assigned = 0

    def __len__(self) -> int:
        return len(self.data)

    def assign_to(self, target: memoryview) -> None:
        self.assigned += 1
        target[:] = self.data

    def to_bytes(self) -> bytes:
        return self.data


def test_a_large_part_from_outside_goes_to_its_place_at_once() -> None:
    parts = [Outside(part) for part in pack([LARGE, bytearray(LARGE)], bytes)]
    assert unpack(parts) == [LARGE, bytearray(LARGE)]
    assert [part.assigned for part in parts if len(part) == len(LARGE)] == [1, 1]


def test_a_missing_part_is_noticed() -> None:
    with pytest.raises(EOFError):
        unpack(pack(LARGE, bytes)[:-1])


# -- workers -----------------------------------------------------------------------------------------------


class Here:
    """A worker that makes its calls in this process, when it is let."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.ended = 0
        self.started = 0

    async def start(self) -> None:
        self.started += 1
        await self.pool.starting()

    async def run(self, parts: Sequence[Any]) -> list[bytes]:
        self.pool.running += 1
        await self.pool.gate.wait()
        try:
            return result(call(parts), bytes)
        except BaseException as error:
            return failure(error, bytes)

    def end(self) -> None:
        self.ended += 1


class Pool:
    def __init__(self, size: int = 1, idle_seconds: float | None = None) -> None:
        self.size = size
        self.idle_seconds = idle_seconds
        self.made: list[Here] = []
        self.running = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.starting: Callable[[], Any] = lambda: asyncio.sleep(0)

    def worker(self) -> Here:
        self.made.append(Here(self))
        return self.made[-1]

    def part(self, data: Buffer) -> bytes:
        return bytes(data)

    def close(self) -> None:
        for worker in self.made:
            worker.end()


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_there_are_no_more_workers_than_the_pool_has() -> None:
    pool = Pool(size=2)
    offloader = Offloader(pool)
    pool.gate.clear()
    calls = [asyncio.ensure_future(offloader.call(abs, (-n,), CLOCK, None, "step")) for n in range(5)]
    await turns()
    assert pool.running == len(pool.made) == 2
    pool.gate.set()
    assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]
    assert [(one.started, one.ended) for one in pool.made] == [(1, 0), (1, 0)]
    offloader.close()
    assert [one.ended for one in pool.made] == [1, 1]


async def test_waiting_for_a_worker_and_for_its_start_is_not_counted() -> None:
    pool, clock = Pool(), ManualClock()
    offloader = Offloader(pool)
    begins = asyncio.Event()
    pool.starting = begins.wait
    pool.gate.clear()
    calls = [asyncio.ensure_future(offloader.call(abs, (-n,), clock, 2.0, "step")) for n in range(2)]
    await turns()
    clock.advance(10)
    begins.set()
    await turns()
    assert pool.running == 1
    clock.advance(2)
    await turns()
    assert str(calls[0].exception()) == "step took longer than 2 s" and not calls[1].done()
    assert [one.ended for one in pool.made] == [1, 0], "the one that hangs is ended, and the next call has another"
    pool.gate.set()
    assert await calls[1] == 1


@pytest.mark.parametrize("seconds", [None, 60.0])
async def test_a_worker_is_ended_with_the_call_that_was_cancelled(seconds: float | None) -> None:
    pool = Pool()
    offloader = Offloader(pool)
    pool.gate.clear()
    task = asyncio.ensure_future(offloader.call(abs, (1,), CLOCK, seconds, "step"))
    await turns()
    task.cancel()
    await turns()
    assert task.cancelled() and pool.made[0].ended == 1
    pool.gate.set()
    assert await offloader.call(abs, (-1,), CLOCK, seconds, "step") == 1


async def test_a_worker_that_nobody_needs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr(
        asyncio.get_running_loop(), "call_later", lambda s, fn, *args: clock.call_later(s, lambda: fn(*args))
    )
    pool = Pool(size=2, idle_seconds=60)
    offloader = Offloader(pool)
    for _ in range(2):
        await offloader.call(abs, (1,), CLOCK, None, "step")
        clock.advance(59)
    assert pool.made[0].ended == 0 and len(pool.made) == 1
    clock.advance(1)
    assert pool.made[0].ended == 1
    await offloader.call(abs, (1,), CLOCK, None, "step")
    assert len(pool.made) == 2
    offloader.close()
    clock.advance(100)
    assert pool.made[1].ended == 1


class OnlyOnce(Exception):
    """Can be pickled, and cannot be read."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("text")


def raises_only_once() -> None:
    raise OnlyOnce(1, 2)


def raises_exit() -> None:
    sys.exit(1)


class Unreadable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


async def test_failures_and_what_they_do_to_the_worker() -> None:
    pool = Pool()
    offloader = Offloader(pool)
    with pytest.raises(OnlyOnce, match="text") as raised:
        await offloader.call(raises_only_once, (), CLOCK, None, "step")
    assert "in raises_only_once" in raised.value.__notes__[0]
    with pytest.raises(TypeError, match="it cannot be read where the engine is: ValueError"):
        await offloader.call(Unreadable, (), CLOCK, None, "step")
    assert pool.made[0].ended == 0
    with pytest.raises(OffloadFailed, match="step failed: it raised SystemExit: 1, which ends"):
        await offloader.call(raises_exit, (), CLOCK, None, "step")
    assert pool.made[0].ended == 1


# -- processes ---------------------------------------------------------------------------------------------


def turned_around(data: bytes) -> list[Any]:
    return [data[::-1], type(data).__name__]


async def test_large_values_through_a_process() -> None:
    offloader = Offloader(Processes())
    try:
        turned, kind = await offloader.call(turned_around, (LARGE,), CLOCK, 60, "step")
    finally:
        offloader.close()
    assert kind == "bytes" and zlib.crc32(turned) == zlib.crc32(LARGE[::-1])


SCRIPT = """
import asyncio, os
from durably_web import Durably, job

def spin():
    print(os.getpid(), flush=True)
    while True:
        pass

@job
async def spins(step, input):
    await step.run("spin", spin, offload=True)

async def main():
    async with Durably("app.db", jobs=[spins]) as durably:
        await (await durably.trigger(spins)).result()

{start}
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Nobody may have looked after it yet.
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while is_alive(pid):  # noqa: ASYNC110 — nothing tells of the end of somebody else's child
            await asyncio.sleep(0)


def start_script(folder: Path, start: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(start=start))
    return subprocess.Popen(
        [sys.executable, str(script)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_process_dies_with_the_one_that_started_it(tmp_path: Path, end: signal.Signals) -> None:
    """And its functions may be those of the script itself."""
    pid = None
    with start_script(tmp_path, 'if __name__ == "__main__":\n    asyncio.run(main())') as process:
        try:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            assert is_alive(pid)
            process.send_signal(end)
            await gone(pid)
        finally:
            process.kill()
            if pid is not None and is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_script_that_begins_when_it_is_imported_says_what_to_do(tmp_path: Path) -> None:
    with start_script(tmp_path, "asyncio.run(main())") as process:
        try:
            errors = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert "RuntimeError: a process that was started by another one imports the main script again" in errors
    assert "OffloadFailed: step 'spin' failed: a process for offloaded functions could not be started" in errors
    assert errors.count("__main__") >= 2
