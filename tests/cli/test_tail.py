"""`durably-web runs tail`: as lines, as JSON, and on a terminal."""

from __future__ import annotations

import os
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, CommandLine

JOBS = """
import asyncio, os
from durably_web import Step, job

async def hold():
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)

@job
async def counts(step: Step, input: dict) -> int:
    step.progress(3, total=8, message="three of eight")
    await step.run("hold", hold)
    return 1

@job
async def fails(step: Step, input: dict) -> int:
    raise ValueError("no")
"""


def run_id_of(command_line: CommandLine, job: str) -> str:
    code = f"""
import asyncio, work
from durably_web import Durably
async def main():
    durably = Durably("durably.db", jobs=[work.counts, work.fails])
    await durably.migrate()
    print((await durably.trigger({job!r})).id)
    await durably.stop()
asyncio.run(main())
"""
    (command_line.folder / "work.py").write_text(JOBS)
    return command_line.python(code).strip()


@pytest.mark.parametrize(("job", "code"), [("counts", 0), ("fails", 1)])
def test_the_exit_status_is_the_runs_where_that_is_asked_for(command_line: CommandLine, job: str, code: int) -> None:
    run_id = run_id_of(command_line, job)
    (command_line.folder / "go").touch()
    worker = command_line.start("worker", "work.py")
    tailed = command_line.run("runs", "tail", run_id, "--exit-status")
    assert tailed.returncode == code, tailed.stderr
    assert ("progress   3/8  three of eight" in tailed.stdout) == (job == "counts")
    assert command_line.run("runs", "tail", run_id).returncode == 0
    worker.process.terminate()
    worker.end()


@pytest.mark.skipif(os.name != "posix", reason="a terminal of POSIX")
def test_on_a_terminal_the_progress_is_a_bar_and_the_lines_stay(command_line: CommandLine) -> None:
    run_id = run_id_of(command_line, "counts")
    worker = command_line.start("worker", "work.py")
    ours, theirs = os.openpty()
    tail = subprocess.Popen(
        command_line._line(("runs", "tail", run_id)),
        cwd=command_line.folder,
        env={**command_line.environment, "TERM": "xterm", "COLUMNS": "100"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        shown = _read_until(ours, "38%")
        assert "three of eight" in shown and "━" in shown
        (command_line.folder / "go").touch()
        shown += _read_until(ours, "run:complete")
        assert tail.wait(PATIENCE) == 0
        assert "run:leased" in shown and "run:progress" not in shown
    finally:
        tail.kill()
        tail.wait(PATIENCE)
        os.close(ours)
    worker.process.terminate()
    worker.end()


def _read_until(terminal: int, text: str) -> str:
    shown, deadline = "", time.monotonic() + PATIENCE
    while text not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


def test_a_run_that_is_not_there(command_line: CommandLine, tmp_path: Path) -> None:
    run_id_of(command_line, "fails")
    refused = command_line.run("runs", "tail", "none", "--exit-status")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
