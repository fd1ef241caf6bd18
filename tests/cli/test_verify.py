"""Runs as files."""

from __future__ import annotations

import json

from tests.cli.conftest import CommandLine

JOBS = """
from durably_web import Step, job


@job
async def double(step: Step, input: dict) -> int:
    n = await step.run("read", lambda: input["n"])
    return await step.run("double", lambda: 2 * n)
"""


def begin(command_line: CommandLine, *more: str) -> str:
    """A run that has completed; its id."""
    (command_line.folder / "my_jobs.py").write_text(JOBS)
    assert command_line.run("run", "my_jobs.py", "double", "n:=4").returncode == 0
    [run] = command_line.json("runs", "list")
    return str(run["id"])


def test_a_run_is_exported(command_line: CommandLine) -> None:
    run_id = begin(command_line)
    done = command_line.run("runs", "export", run_id)
    assert done.returncode == 0, done.stderr
    export = json.loads(done.stdout)
    assert (export["format"], export["run"]["id"], export["run"]["output"]) == ("durably-web run", run_id, 8)
    assert command_line.run("runs", "export", run_id, "-o", "run.json").stdout == ""
    assert json.loads((command_line.folder / "run.json").read_text()) == export

    for arguments, told in (
        (("none",), "there is no run 'none'"),
        ((run_id, "-o", "no/such/folder.json"), "no/such/folder.json cannot be written"),
    ):
        done = command_line.run("runs", "export", *arguments)
        assert (done.returncode, done.stdout) == (2, "") and told in done.stderr, done
