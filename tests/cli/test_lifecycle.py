"""A process that is asked to stop: by signals, within a deadline, twice, and with a newer database."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from durably_web.store import migrations
from tests.cli.conftest import PATIENCE, CommandLine

JOBS = """
import asyncio, os, threading
from durably_web import job, wait_until

def say(text):
    os.write(2, f"{text}\\n".encode())  # whole, beside another thread

def block():
    say("in a thread")
    threading.Event().wait()

async def hang():
    say("in a task")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("cancelled")
        raise

@job
async def blocks(step, input: dict) -> None:
    await step.run("before", int)
    await step.run("block", block)

@job
async def hangs(step, input: dict) -> None:
    await step.run("hang", hang)
"""

APPLICATION = """
import asyncio, signal, sys
from durably_web import Durably
from jobs import blocks, hangs, say

durably = Durably("app.db", jobs=[blocks, hangs])

async def letter():
    await durably.get_runs()
    say("sent")

async def main(timeout):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    durably.on("worker:error", lambda event: say(f"error: {event.error}"))
    durably.on("worker:shutdown", lambda event: durably.wait_until(letter()))
    await durably.migrate()
    for name in sys.argv[2:]:
        await durably.trigger(name)
    if not sys.argv[2:]:
        asyncio.get_running_loop().call_later(0, say, "idle")
    await durably.run_forever(stop_timeout=timeout)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    say("ended")

asyncio.run(main(None if sys.argv[1] == "-" else float(sys.argv[1])))
"""


class Process:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline().rstrip("\n")

    def end(self) -> tuple[int, list[str]]:
        """Its exit code, and what it said last."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said.splitlines()


Start = Callable[..., Process]


@pytest.fixture
def application(command_line: CommandLine) -> Iterator[Start]:
    (command_line.folder / "jobs.py").write_text(JOBS)
    (command_line.folder / "application.py").write_text(APPLICATION)
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> Process:
        line = [sys.executable, "application.py", *arguments]
        process = subprocess.Popen(
            line, cwd=command_line.folder, env=command_line.environment, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return Process(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_application_stops_when_it_is_asked_to(application: Start, number: signal.Signals) -> None:
    process: Process = application("-")
    assert process.line() == "idle"
    process.process.send_signal(number)
    assert process.end() == (0, ["sent", "ended"])


def test_a_thread_that_blocks_does_not_keep_the_process_beyond_the_deadline(
    application: Start, command_line: CommandLine
) -> None:
    process: Process = application("0.2", "blocks", "hangs")
    assert {process.line(), process.line()} == {"in a thread", "in a task"}
    process.process.send_signal(signal.SIGTERM)
    code, said = process.end()
    assert code == 0 and said[0] == "sent" and said[-1] == "ended"
    assert "cancelled" in said
    told = "\n".join(line for line in said if line.startswith("error: TimeoutError: step "))
    assert told.count("\n") == 1 and "step 'block' of run" in told and "step 'hang' of run" in told
    # What could be given back is; the other one is free because its process is gone.
    with sqlite3.connect(command_line.folder / "app.db") as connection:
        found = dict(connection.execute("SELECT job_name, status FROM durably_runs").fetchall())
        stored = connection.execute("SELECT step_name FROM durably_journal WHERE type LIKE 'step:%'").fetchall()
    connection.close()
    assert found == {"blocks": "leased", "hangs": "pending"} and stored == [("before",)]
    again = command_line.start("worker", "jobs.py", "-d", "app.db", "--stop-timeout", "1s")
    seen = [again.wait_for_line(lambda line: line in ("in a thread", "in a task")) for _ in range(2)]
    assert set(seen) == {"in a thread", "in a task"}
    again.process.terminate()
    assert again.end() == 0
    assert "SIGTERM: finishing the current steps" in again.told and again.told[-1] == "worker stopped"
    assert sum("(stopping)" in line for line in again.told) == 2


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_ends_it_at_once(application: Start, first: signal.Signals, second: signal.Signals) -> None:
    process: Process = application("-", "hangs")
    assert process.line() == "in a task"
    process.process.send_signal(first)
    # The stop has begun, and waits for the step.
    assert process.line() == "sent"
    process.process.send_signal(second)
    assert process.end() == (-second, [])


def test_a_worker_says_that_the_database_is_newer_and_ends(command_line: CommandLine) -> None:
    (command_line.folder / "jobs.py").write_text(JOBS)
    worker = command_line.start("worker", "jobs.py", "-d", "app.db")
    worker.wait_for_line(lambda line: line.startswith("worker on"))
    _migrate(command_line.folder / "app.db")
    assert worker.end() == 2
    assert "schema version" in worker.told[-1] and "update durably_web" in worker.told[-1]
    assert not any(line.startswith("error") for line in worker.told), "it is said once"
    for arguments in (("worker", "jobs.py", "-d", "app.db"), ("run", "jobs.py", "hangs", "-d", "app.db")):
        ended = command_line.run(*arguments)
        assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1, ended.stderr
        assert "only reads" in ended.stderr
    listed = command_line.run("runs", "list", "-d", "app.db", "--json")
    assert (listed.returncode, listed.stdout.strip()) == (0, "[]") and "only reads" in listed.stderr
    refused = command_line.run("runs", "cancel", "01HF7YAT00FBCB54955HDWHY7C", "-d", "app.db")
    assert refused.returncode == 2 and "only reads" in refused.stderr


def _migrate(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO durably_schema VALUES (?, 0)", (migrations.LATEST + 1,))
    connection.close()
