"""Commands about runs that wait, and about many runs at once."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import CommandLine

JOBS = """
from durably_web import Retry, Step, job

tries = []


def flaky():
    tries.append(1)
    if len(tries) < 2:
        raise ConnectionError("the server did not answer")


@job
async def order(step: Step, input: dict) -> dict:
    await step.run("check", flaky, retry=Retry(max_attempts=2, initial_delay=0.01))
    answer = await step.wait_for_signal("approval", timeout=3 * 86400)
    return {"answer": answer, "shipped": await step.call(ship, {"n": 2})}


@job
async def ship(step: Step, input: dict) -> int:
    return await step.run("pack", lambda: input["n"])


@job
async def fail(step: Step, input: dict) -> None:
    raise ValueError("no such thing")
"""


@pytest.fixture(autouse=True)
def jobs(command_line: CommandLine) -> str:
    (command_line.folder / "my_jobs.py").write_text(JOBS)
    return "my_jobs.py"


def begin(command_line: CommandLine, *more: str) -> str:
    """An order that waits for its approval; its id."""
    command = command_line.start("run", "my_jobs.py", "order", *more)
    command.wait_for_line(lambda line: line.startswith("waiting for approval, until "))
    command.process.terminate()
    assert command.end() == 128 + 15
    assert any("warning check failed: ConnectionError: the server did not answer; again in " in s for s in command.told)
    [run] = command_line.json("runs", "list", "--status", "waiting")
    return str(run["id"])


def complaint(command_line: CommandLine, *arguments: str) -> str:
    """The one line that a mistake is told in."""
    done = command_line.run(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("durably-web: ") and done.stderr.count("\n") == 1
    return done.stderr.removeprefix("durably-web: ").rstrip("\n")


def test_an_approval(command_line: CommandLine) -> None:
    run_id = begin(command_line, "--priority", "3", "--key", "k", "--label", "org=acme")
    shown = command_line.run("runs", "show", run_id).stdout
    for told in ("waits        for approval, until ", "(in 3 d)", "key          k", "priority     3", "org=acme"):
        assert told.replace(" ", "") in shown.replace(" ", ""), shown
    assert "check, try 1" in shown and "ConnectionError: the server did not answer" in shown
    assert "wakes in 3 d" in command_line.run("runs", "list").stdout

    assert command_line.run("runs", "pause", run_id).stdout == f"run {run_id} is paused\n"
    assert "waiting, paused" in command_line.run("runs", "show", run_id).stdout
    sent = command_line.run("runs", "signal", run_id, "approval", '{"yes": true}')
    assert sent.stdout == f"signal approval is stored for run {run_id}\n"
    assert command_line.json("runs", "resume", run_id) == {"success": True, "runId": run_id}

    output = command_line.json("run", "my_jobs.py", "order")
    assert output == {"answer": {"yes": True}, "shipped": 2}
    [child] = command_line.json("runs", "list", "--job", "ship")
    assert child["parentRunId"] == run_id
    assert run_id in command_line.run("runs", "show", child["id"]).stdout

    lines = [line.split("  ", 1)[1] for line in command_line.run("runs", "tail", run_id).stdout.splitlines()]
    assert lines[0].split() == ["run:trigger"] and lines[-1].split()[0] == "run:complete"
    assert any(
        line.startswith("step:retry     check  ConnectionError: the server did not answer  until ") for line in lines
    )
    events = [json.loads(line) for line in command_line.run("runs", "tail", run_id, "--json").stdout.splitlines()]
    assert len(events) == len(lines)
    rest = command_line.run("runs", "tail", run_id, "--json", "--after", str(events[-3]["seq"])).stdout.splitlines()
    assert [json.loads(line) for line in rest] == events[-2:]

    forked = command_line.json("runs", "fork", run_id, "--from-step", "approval")["runId"]
    assert f"forked from {run_id}" in " ".join(command_line.run("runs", "show", forked).stdout.split())
    assert command_line.json("runs", "show", forked)["stepCount"] == 1


def test_many_runs_and_their_numbers(command_line: CommandLine) -> None:
    for number in range(3):
        assert (
            command_line.run("run", "my_jobs.py", "ship", f"n:={number}", "--label", f"odd={number % 2}").returncode
            == 0
        )
        assert command_line.run("run", "my_jobs.py", "fail", f"n:={number}").returncode == 1
    assert command_line.json("stats")["byJob"] == {"fail": {"failed": 3}, "ship": {"completed": 3}}
    counted = [line.split() for line in command_line.run("stats").stdout.splitlines() if line.strip()]
    assert ["job", "completed", "failed", "runs"] in counted
    assert ["ship", "3", "·", "3"] in counted
    assert ["all", "3", "3", "6"] in counted

    assert "this would retry 3 runs: say --yes" in complaint(command_line, "runs", "retry", "--job", "fail")
    assert command_line.run("runs", "retry", "--job", "fail", "--yes").stdout == "3 runs pending again\n"
    assert (
        command_line.run("runs", "cancel", "--status", "pending", "--created-before", "7d").stdout
        == "no run cancelled\n"
    )
    assert command_line.json("runs", "cancel", "--status", "pending", "-y") == {"count": 3}
    assert command_line.run("runs", "delete", "--label", "odd=1", "--yes").stdout == "1 run deleted\n"
    assert command_line.run("runs", "purge", "--older-than", "7d").stdout == "no run deleted\n"
    assert command_line.json("runs", "purge", "--older-than", "0s", "--limit", "2") == {"count": 2}
    assert command_line.json("runs", "purge", "--older-than", "0s") == {"count": 3}
    assert command_line.run("stats").stdout == "no runs\n"


def test_options_of_a_new_run(command_line: CommandLine) -> None:
    done = command_line.run("run", "my_jobs.py", "ship", "n:=1", "--delay", "50ms", "--priority=-2", "--json")
    assert json.loads(done.stdout) == 1
    [run] = command_line.json("runs", "list")
    assert run["priority"] == -2 and run["startedAt"] >= run["runAt"] > run["createdAt"]

    run_id = begin(command_line, "--key", "k")
    waiting = command_line.start("run", "my_jobs.py", "order", "n:=2", "--key", "k")
    waiting.wait_for_line(lambda line: line.startswith("run "))
    waiting.process.terminate()
    waiting.end()
    again = ("run", "my_jobs.py", "order", "n:=3", "--key", "k")
    assert "is pending already" in complaint(command_line, *again)
    command_line.json("runs", "signal", run_id, "approval")
    replaced = command_line.start(*again, "--coalesce", "replace")
    replaced.wait_for_line(lambda line: line.startswith("pending run "))
    replaced.process.terminate()
    replaced.end()
    assert [run["input"] for run in command_line.json("runs", "list", "--job", "order")] == [{"n": 3}, {}]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "my_jobs.py", "ship", "n:=1", "--delay", "soon"), "--delay is a duration such as 90s"),
        (("run", "my_jobs.py", "ship", "n:=1", "--coalesce", "first"), "--coalesce is skip, replace or queue"),
        (("run", "my_jobs.py", "ship", "n:=1", "--coalesce", "skip"), "--coalesce needs a --key"),
        (("run", "my_jobs.py", "ship", "n:=1", "--priority", "high"), "--priority"),
        (("runs", "cancel"), "which runs? Give the id of one, or --status"),
        (("runs", "cancel", "x", "--job", "ship"), "give the id of a run or conditions, not both"),
        (("runs", "delete", "--status", "odd"), "there is no status 'odd'"),
        (("runs", "delete", "--created-before", "long ago"), "--created-before is an age such as 7d"),
        (("runs", "pause", "nobody"), "there is no run 'nobody'"),
        (("runs", "tail", "nobody"), "there is no run nobody"),
        (("runs", "signal", "nobody", "x"), "there is no run 'nobody'"),
        (("runs", "signal", "nobody", "x", "yes"), "PAYLOAD is not JSON"),
        (("runs", "fork", "nobody"), "there is no run 'nobody'"),
        (("runs", "purge"), "--older-than"),
        (("runs", "purge", "--older-than", "7"), "--older-than is an age such as 7d"),
        (("stats", "-d", "absent.db"), "there is no database absent.db"),
    ],
)
def test_a_mistake_is_told_in_one_line(command_line: CommandLine, arguments: tuple[str, ...], told: str) -> None:
    if arguments[0] == "runs":
        command_line.run("run", "my_jobs.py", "ship", "n:=1")
    assert told in complaint(command_line, *arguments)


@pytest.mark.parametrize("command", ["tail", "signal", "pause", "resume", "fork", "purge"])
def test_every_command_has_help(command_line: CommandLine, command: str) -> None:
    done = command_line.run("runs", command, "--help")
    assert done.returncode == 0 and "--database" in done.stdout and done.stderr == ""
