"""A killed command loses nothing: the next one goes on with the first chunk that has no result."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command, CommandLine

# Long enough to be killed in; the chunks before the kill take it too.
PAUSE = "pause:=0.05"


def progress_reached(current: int) -> Callable[[str], bool]:
    def fits(line: str) -> bool:
        found = re.match(r"(?:\S+ )?progress (\d+)/34 ", line)
        return found is not None and int(found[1]) >= current

    return fits


def kill(command: Command) -> None:
    command.process.send_signal(signal.SIGKILL)
    assert command.end() == -signal.SIGKILL


@pytest.fixture
def undisturbed(command_line: CommandLine, demo: tuple[str, ...]) -> Any:
    """The report of a run that nobody kills."""
    return command_line.json("run", *demo, "--database", "undisturbed.db")


def assert_every_chunk_was_saved_once(folder: Path, run_id: str) -> None:
    files = list((folder / "imports" / run_id).glob("*.json"))
    counts = [json.loads(file.read_text())[:2] for file in files]
    assert len(counts) == 34
    assert {saved for _, saved in counts} == {1}


def test_a_killed_run_goes_on_and_its_report_is_the_same(
    command_line: CommandLine, demo: tuple[str, ...], undisturbed: Any
) -> None:
    first = command_line.start("run", *demo, PAUSE)
    run_id = first.wait_for_line(lambda line: line.startswith("run ")).split()[1]
    first.wait_for_line(progress_reached(3))
    kill(first)
    second = command_line.start("run", *demo, PAUSE)
    assert second.wait_for_line(lambda line: line.startswith("resuming run ")).startswith(f"resuming run {run_id} ")
    second.wait_for_line(progress_reached(9))
    kill(second)
    third = command_line.run("run", *demo, PAUSE, "--json")

    assert third.returncode == 0
    stored = re.match(rf"resuming run {run_id} in durably.db: (\d+) steps are stored\n", third.stderr)
    assert stored is not None
    assert 9 <= int(stored[1]) < 35
    assert json.loads(third.stdout) == undisturbed
    assert_every_chunk_was_saved_once(command_line.folder, run_id)
    runs = command_line.json("runs", "list")
    assert [(run["id"], run["status"]) for run in runs] == [(run_id, "completed")]
    steps = command_line.json("runs", "show", run_id)["steps"]
    assert len({step["name"] for step in steps}) == len(steps) == 35


def test_a_killed_worker_loses_nothing(command_line: CommandLine, demo: tuple[str, ...], undisturbed: Any) -> None:
    killed = command_line.start("run", *demo, PAUSE)
    run_id = killed.wait_for_line(lambda line: line.startswith("run ")).split()[1]
    killed.wait_for_line(progress_reached(2))
    kill(killed)
    worker = command_line.start("worker", demo[0])
    worker.wait_for_line(progress_reached(5))
    kill(worker)
    worker = command_line.start("worker", demo[0])
    worker.wait_for_line(lambda line: line == f"{run_id} completed")
    worker.process.terminate()

    assert worker.end() == 0
    assert worker.told[-2:] == ["SIGTERM: finishing the current steps", "worker stopped"]
    assert command_line.json("runs", "show", run_id)["output"] == undisturbed
    assert_every_chunk_was_saved_once(command_line.folder, run_id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_asked_to_stop_gives_its_run_back(
    command_line: CommandLine, demo: tuple[str, ...], undisturbed: Any, number: signal.Signals
) -> None:
    run = command_line.start("run", *demo, PAUSE)
    run_id = run.wait_for_line(lambda line: line.startswith("run ")).split()[1]
    run.wait_for_line(progress_reached(1))
    kill(run)
    worker = command_line.start("worker", demo[0])
    worker.wait_for_line(progress_reached(4))
    worker.process.send_signal(number)

    assert worker.end() == 0
    [listed] = command_line.json("runs", "list")
    assert (listed["id"], listed["status"]) == (run_id, "pending")
    assert command_line.json("run", *demo, PAUSE) == undisturbed


def test_a_run_that_is_asked_to_stop_says_how_to_go_on(command_line: CommandLine, demo: tuple[str, ...]) -> None:
    command = command_line.start("run", *demo, PAUSE)
    run_id = command.wait_for_line(lambda line: line.startswith("run ")).split()[1]
    command.wait_for_line(progress_reached(2))
    command.process.send_signal(signal.SIGINT)

    assert command.end() == 128 + signal.SIGINT
    assert command.told[-1] == f"stopped by SIGINT; the same command goes on with run {run_id}"
    assert command_line.json("runs", "show", run_id)["status"] == "pending"


def test_two_commands_for_one_run_share_it(command_line: CommandLine, demo: tuple[str, ...], undisturbed: Any) -> None:
    # The other command has to begin before the run is over.
    slowly = "pause:=0.3"
    first = command_line.start("run", *demo, slowly)
    first.wait_for_line(progress_reached(2))
    second = command_line.run("run", *demo, slowly, "--json")

    assert first.end() == 0
    assert second.returncode == 0
    assert json.loads(second.stdout) == undisturbed
    assert "progress 34/34" in second.stderr
    assert len(command_line.json("runs", "list")) == 1
