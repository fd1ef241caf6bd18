"""Commands about schedules, on a database that a program has left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably_web import Durably, Step, job
from tests.cli.conftest import CommandLine


@job
async def report(step: Step, input: dict[str, Any]) -> None: ...


@pytest.fixture(autouse=True)
def database(command_line: CommandLine) -> str:
    path = str(command_line.folder / "durably.db")

    async def fill() -> None:
        durably = Durably(path, jobs=[report])
        await durably.migrate()
        await durably.schedule(report, cron="30 7 * * mon-fri", timezone="Europe/Berlin", labels={"a": "b"})
        await durably.schedule(report, name="often", every=90, missed="one", overlap="queue")
        await durably.stop()

    asyncio.run(fill())
    return path


def test_schedules_are_listed(command_line: CommandLine) -> None:
    done = command_line.run("schedules", "list")
    assert done.returncode == 0, done.stderr
    often, daily = (line.split() for line in done.stdout.splitlines() if "report" in line)
    assert often[:6] == ["often", "report", "every", "1", "min", "30"] and often[-2:] == ["one", "queue"]
    assert daily[:8] == ["report", "report", "30", "7", "*", "*", "mon-fri", "Europe/Berlin"]
    found = command_line.json("schedules", "list")
    assert [one["name"] for one in found] == ["often", "report"] and found[0]["everyMs"] == 90_000


def test_a_schedule_is_paused_resumed_and_removed(command_line: CommandLine) -> None:
    assert command_line.json("schedules", "pause", "report")["paused"] is True
    assert "paused" in command_line.run("schedules", "list").stdout
    done = command_line.run("schedules", "resume", "report")
    assert "schedule report ticks next 20" in done.stdout
    assert command_line.run("schedules", "remove", "often").stdout == "schedule often is removed\n"
    assert command_line.run("schedules", "remove", "report").returncode == 0
    assert command_line.run("schedules", "list").stdout == "no schedules\n"
    done = command_line.run("schedules", "pause", "report")
    assert done.returncode == 2 and done.stderr == "durably-web: there is no schedule 'report'\n"


def test_a_run_by_hand(command_line: CommandLine) -> None:
    made = command_line.json("schedules", "trigger", "report")
    [run] = command_line.json("runs", "list")
    assert (run["id"], run["schedule"], run["status"], run["labels"]) == (
        made["runId"],
        "report",
        "pending",
        {"a": "b"},
    )
    done = command_line.run("schedules", "trigger", "report")
    assert done.returncode != 0 and made["runId"] in done.stderr
