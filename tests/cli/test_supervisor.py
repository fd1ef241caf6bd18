"""`durably-web worker --processes N`: several processes, kept alive by one."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably_web.cli import supervisor
from durably_web.cli.supervisor import supervise
from tests.cli.conftest import Command, CommandLine

SECONDS = 60

JOBS = """
import os
from durably_web import Step, job

@job
async def where(step: Step, input: dict) -> int:
    return await step.run("where", os.getpid)
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")


class Told:
    """What the supervisor says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._new = asyncio.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self._new.set()

    async def until(self, fits: Callable[[list[str]], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not fits(self.lines):
                self._new.clear()
                await self._new.wait()


def program(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_the_dead_are_replaced_after_pauses_that_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(supervisor, "LONGEST_DELAY", 0.004)
    told = Told()
    running = asyncio.create_task(supervise(program("raise SystemExit(3)"), 1, told))
    await told.until(lambda lines: sum("ended with 3" in line for line in lines) == 5)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, SECONDS) == 0
    deaths = [line.rpartition(" in ")[2] for line in told.lines if "ended" in line]
    assert deaths[:5] == ["1 ms", "2 ms", "4 ms", "4 ms", "4 ms"]


async def test_one_that_lived_long_is_replaced_without_more_ado(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(supervisor, "HEALTHY", 0.0)
    told = Told()
    running = asyncio.create_task(supervise(program("import os; os.abort()"), 1, told))
    await told.until(lambda lines: sum("SIGABRT" in line for line in lines) == 3)
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.wait_for(running, SECONDS) == 0
    assert {line.rpartition(" in ")[2] for line in told.lines if "SIGABRT" in line} == {"1 ms"}


async def test_one_that_cannot_be_begun_is_begun_later_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.001)
    begin = asyncio.create_subprocess_exec
    begun = 0

    async def begins_sometimes(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        nonlocal begun
        begun += 1
        if begun in (2, 3):
            raise BlockingIOError(errno.EAGAIN, "no process to be had")
        return await begin(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", begins_sometimes)
    told = Told()
    running = asyncio.create_task(supervise(program("import signal; signal.pause()"), 2, told))
    await told.until(lambda lines: running.done() or sum(" is process " in line for line in lines) == 2)
    failures = [line for line in told.lines if "could not be begun" in line]
    assert [line.rpartition(" in ")[2] for line in failures] == ["1 ms", "2 ms"]
    assert all("no process to be had" in line for line in failures)
    assert begun == 4 and not any("killed" in line for line in told.lines)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, SECONDS) == 0


async def test_a_mistake_ends_them_all(tmp_path: Path) -> None:
    """One says that it cannot work; the others would say the same."""
    code = f"""
import os, signal, sys
try:
    os.close(os.open({str(tmp_path / "first")!r}, os.O_CREAT | os.O_EXCL))
except FileExistsError:
    signal.pause()
sys.exit(2)
"""
    assert await asyncio.wait_for(supervise(program(code), 3, Told()), SECONDS) == 2


async def test_a_second_signal_is_passed_on_too() -> None:
    stubborn = """
import os, signal, sys
heard = []
signal.signal(signal.SIGTERM, lambda *_: (heard.append(1), os.write(1, b"heard\\n"), len(heard) > 1 and os._exit(0)))
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""
    reading, writing = os.pipe()
    saved = os.dup(1)
    os.dup2(writing, 1)
    try:
        running = asyncio.create_task(supervise(program(stubborn), 2, Told()))
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
        )
        async with asyncio.timeout(SECONDS):
            assert {await reader.readline() for _ in range(2)} == {b"ready\n"}
            os.kill(os.getpid(), signal.SIGTERM)
            assert {await reader.readline() for _ in range(2)} == {b"heard\n"}
            assert not running.done()
            os.kill(os.getpid(), signal.SIGTERM)
            assert await running == 128 + signal.SIGTERM
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(writing)


# -- as a command ------------------------------------------------------------------------------------------


def _begin(command_line: CommandLine, count: int) -> tuple[Command, dict[int, int]]:
    """The supervisor, and the process of each worker."""
    (command_line.folder / "my_jobs.py").write_text(JOBS)
    command = command_line.start("worker", "my_jobs.py", "--processes", f"{count}")
    for _ in range(count):
        command.wait_for_line(lambda line: line.startswith("worker on "))
    found = (re.fullmatch(r"worker (\d+) is process (\d+)", line) for line in command.told)
    return command, {int(match[1]): int(match[2]) for match in found if match}


def test_several_workers_and_one_that_is_killed(command_line: CommandLine) -> None:
    command, pids = _begin(command_line, 3)
    assert set(pids) == {1, 2, 3}
    os.kill(pids[2], signal.SIGKILL)
    command.wait_for_line(lambda line: line.startswith("worker 2 was killed by SIGKILL"))
    again = command.wait_for_line(lambda line: line.startswith("worker 2 is process"))
    assert int(again.split()[-1]) not in pids.values()
    command.wait_for_line(lambda line: line.startswith("worker on "))
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0
    assert command.told.count("worker stopped") == 3
    assert {path.name for path in command_line.folder.glob("*.db*")} == {"durably.db"}


def test_workers_end_with_a_supervisor_that_is_killed(command_line: CommandLine) -> None:
    command, _ = _begin(command_line, 2)
    command.process.kill()
    # Its stderr is theirs too: it ends with the last of them.
    assert command.end() == -signal.SIGKILL
    assert command.told.count("worker stopped") == 2


def test_mistakes_are_told_once(command_line: CommandLine) -> None:
    for arguments, complaint in (
        (("worker", "none.py", "--processes", "2"), "none.py does not exist"),
        (("worker", "none.py", "--processes", "0"), "--processes"),
    ):
        done = command_line.run(*arguments)
        assert done.returncode == 2 and complaint in done.stderr and done.stderr.count("\n") == 1
