"""What was written is started: an order waits for its payment, the process is asked to end, the next goes on."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from durably_web import Durably, Step, job
from tests.deploying.conftest import ME

SECONDS = 60
"""The longest that anything may take."""

Process = subprocess.Popen[str]
Start = Callable[[], AbstractContextManager[Process]]


def elsewhere(command: list[str], ports: dict[int, int]) -> list[str]:
    """A command with other ports than those that were written, which may be taken here."""
    found = []
    for word in command:
        for written, free in ports.items():
            word = str(free) if word == str(written) else word.replace(f":{written}/", f":{free}/")
        found.append(word)
    return found


def become_well(process: Process, is_well: Callable[[], bool]) -> None:
    """Wait until its health check says so. Fails when it ends before."""
    deadline = time.monotonic() + SECONDS
    while not is_well():
        if process.poll() is not None:
            raise AssertionError(f"it ended with {process.returncode}: {process.communicate()[0]}")
        assert time.monotonic() < deadline, "it does not become well"
        time.sleep(0.05)


def end(process: Process, code: int = 0) -> None:
    """Ask it to end, as every platform does. What it says at last shows that it was not killed."""
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == code, f"it ended with {process.returncode}: {said}"
    assert "stopped" in said, said


def answers(url: str) -> bool:
    """Whether there is a 200."""
    try:
        return httpx.get(url, timeout=SECONDS).status_code == 200
    except httpx.TransportError:
        return False


def order_over_http(start: Start, address: str, is_well: Callable[[], bool], began: Path, code: int = 0) -> None:
    """An order is made, a stop and a start come in its middle, and nothing of it is done twice.

    `code` is what the process exits with when it has ended well.
    """

    def hear(run_id: str, event: str) -> Any:
        """Follow the run until something has happened to it."""
        url = f"{address}/subscribe?runId={run_id}"
        with httpx.stream("GET", url, headers=ME, timeout=SECONDS) as stream:
            return next(line for line in stream.iter_lines() if f'"type":"{event}"' in line)

    assert not is_well()
    with start() as process:
        become_well(process, is_well)
        body = {"jobName": "order", "input": {"item": "a lamp"}}
        assert httpx.post(f"{address}/trigger", json=body, timeout=SECONDS).status_code == 401
        run_id = httpx.post(f"{address}/trigger", json=body, headers=ME, timeout=SECONDS).json()["runId"]
        hear(run_id, "run:waiting")
        end(process, code)
    assert not is_well() and began.read_text() == "reserve\n"
    with start() as process:
        become_well(process, is_well)
        where = {"runId": run_id, "name": "paid"}
        httpx.post(f"{address}/signal", params=where, json=5, headers=ME, timeout=SECONDS).raise_for_status()
        assert '"output":"a lamp for 5"' in hear(run_id, "run:complete")
        end(process, code)
    assert began.read_text() == "reserve\nship\n"


def order_of_a_worker(start: Start, database: str, is_well: Callable[[], bool], began: Path) -> None:
    """The same for a worker, which only its database can be asked of."""

    async def make() -> str:
        async with _opened(database) as durably:
            run = await durably.trigger(order, {"item": "a lamp"})
            async with asyncio.timeout(SECONDS):
                async for event in run.events():
                    if event.type == "run:waiting":
                        return run.id
        raise AssertionError("it ended without a wait")

    async def pay(run_id: str) -> object:
        async with _opened(database) as durably:
            await durably.signal(run_id, "paid", 5)
            return (await durably.wait_for_run(run_id, timeout=SECONDS)).output

    assert not is_well()
    with start() as process:
        become_well(process, is_well)
        run_id = asyncio.run(make())
        end(process)
    assert not is_well() and began.read_text() == "reserve\n"
    with start() as process:
        become_well(process, is_well)
        assert asyncio.run(pay(run_id)) == "a lamp for 5"
        end(process)
    assert began.read_text() == "reserve\nship\n"


@asynccontextmanager
async def _opened(database: str) -> AsyncIterator[Durably]:
    """An engine that executes nothing."""
    durably = Durably(database, jobs=[order])
    await durably.migrate()
    try:
        yield durably
    finally:
        await durably.stop()


@job
async def order(step: Step, input: dict[str, Any]) -> str:
    """Only asked for here: that of the application is executed."""
    raise AssertionError
