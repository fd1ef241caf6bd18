"""The command line as a process of its own, in an empty folder."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0
"""Seconds until a command that says nothing is given up."""


class Command:
    """A command that is running; its stderr can be read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.told: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for_line(self, fits: Callable[[str], bool]) -> str:
        """The next line on stderr that fits. Fails when the command ends, or says nothing for too long."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                pytest.fail(f"the command said nothing for {PATIENCE:g} s after: {self.told}")
            if line is None:
                pytest.fail(f"the command ended early: {self.told}")
            if fits(line):
                return line

    def end(self) -> int:
        """Wait for the command's end, and give its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.told.append(line.rstrip("\n"))
            self._lines.put(self.told[-1])
        self._lines.put(None)


class CommandLine:
    """Starts commands in one folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []
        environment = {
            key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR", "IMPORTS")
        }
        path = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH", "")]))
        self.environment = {**environment, "PYTHONPATH": path, "PYTHONUTF8": "1", "TERM": "dumb"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            self._line(arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def python(self, code: str) -> str:
        """What a program prints. Fails unless it exits with 0."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json. Fails unless it exits with 0."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str) -> Command:
        """A command that goes on; it is killed after the test, if it is still there."""
        process = subprocess.Popen(
            self._line(arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return Command(process)

    def kill_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
            if process.stderr is not None:
                process.stderr.close()

    def _line(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "durably_web", *arguments]


@pytest.fixture
def command_line(root: Path, tmp_path: Path) -> Iterator[CommandLine]:
    started = CommandLine(root, tmp_path)
    yield started
    started.kill_all()


@pytest.fixture
def demo(root: Path) -> tuple[str, str, str, str]:
    """The arguments that import the airports: the job file, the job, and its input."""
    folder = root / "demo"
    return (str(folder / "jobs.py"), "import_csv", f"text=@{folder / 'airports.csv'}", "file_name=airports.csv")
