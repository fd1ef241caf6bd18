"""What was written is started: the order waits for its payment, the process is asked to end, and the next one ends it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx

from durably_web import Durably, Step, job
from tests.deploying.conftest import ME

SECONDS = 60
"""The longest that a process may take to become well, or to end."""

Start = Callable[[], AbstractContextManager["subprocess.Popen[str]"]]


def moved(command: list[str], ports: dict[str, int]) -> list[str]:
    """A command on other ports, which are free on this machine; a port may also be within a word."""
    words = command
    for fixed, free in ports.items():
        words = [word.replace(f":{fixed}/", f":{free}/") if word != fixed else str(free) for word in words]
    return words


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Fails when the process ends before, or it takes too long."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"it ended with {process.returncode}: {process.stdout and process.stdout.read()}")
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def end(process: subprocess.Popen[str]) -> str:
    """Ask it to end, as every platform does; gives what it said."""
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, f"it ended with {process.returncode}: {said}"
    return said


def answers(url: str) -> Callable[[], bool]:
    """Whether there is a 200 at a URL."""

    def ask() -> bool:
        try:
            return httpx.get(url, timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    return ask


def over_http(start: Start, address: str, health: Callable[[], bool], began: Path) -> None:
    """An order over HTTP, with a stop and a start in its middle."""

    def run(**query: str) -> Any:
        return httpx.get(f"{address}/run", params=query, headers=ME, timeout=10).json()

    assert not health()
    with start() as process:
        wait_for(health, process)
        body = {"jobName": "order", "input": {"item": "a lamp"}}
        assert httpx.post(f"{address}/trigger", json=body, timeout=10).status_code == 401
        run_id = httpx.post(f"{address}/trigger", json=body, headers=ME, timeout=10).json()["runId"]
        wait_for(lambda: run(runId=run_id)["status"] == "waiting", process)
        end(process)
    assert not health() and began.read_text() == "reserve\n"
    with start() as process:
        wait_for(health, process)
        where = {"runId": run_id, "name": "paid"}
        httpx.post(f"{address}/signal", params=where, json=5, headers=ME, timeout=10).raise_for_status()
        wait_for(lambda: run(runId=run_id)["status"] == "completed", process)
        assert run(runId=run_id)["output"] == "a lamp for 5"
        end(process)
    # What was stored was not done again.
    assert began.read_text() == "reserve\nship\n"


def of_a_worker(start: Start, app: Path, database: str, health: Callable[[], bool], began: Path) -> None:
    """The same for a worker, which only its database can be asked of."""

    def ask(*arguments: str) -> Any:
        line = [sys.executable, "-m", "durably_web", *arguments, "--database", database, "--json"]
        done = subprocess.run(line, cwd=app.parent, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run_id = asyncio.run(_trigger(database))
    with start() as process:
        wait_for(health, process)
        wait_for(lambda: ask("runs", "show", run_id)["run"]["status"] == "waiting", process)
        end(process)
    assert not health() and began.read_text() == "reserve\n"
    with start() as process:
        wait_for(health, process)
        ask("runs", "signal", run_id, "paid", "5")
        wait_for(lambda: ask("runs", "show", run_id)["run"]["status"] == "completed", process)
        end(process)
    assert began.read_text() == "reserve\nship\n"


async def _trigger(database: str) -> str:
    durably = Durably(database, jobs=[order])
    await durably.migrate()
    try:
        return (await durably.trigger("order", {"item": "a lamp"})).id
    finally:
        await durably.stop()


@job
async def order(step: Step, input: dict[str, Any]) -> None:
    """Only asked for here; that of the application is executed."""
