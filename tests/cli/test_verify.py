"""Runs as files, and the code against them."""

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


def test_code_is_verified_against_runs(command_line: CommandLine) -> None:
    run_id = begin(command_line)
    folder = command_line.folder / "runs"
    folder.mkdir()
    assert command_line.run("runs", "export", run_id, "-o", "runs/one.json").returncode == 0
    done = command_line.run("verify", "runs", "--jobs", "my_jobs.py")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == f"runs/one.json: double {run_id}, completed: the same\n1 run, 0 differ\n"
    [told] = command_line.json("verify", "runs/one.json", "--jobs", "my_jobs.py")
    assert told == {
        "file": "runs/one.json",
        "runId": run_id,
        "jobName": "double",
        "status": "completed",
        "differences": [],
        "goesOnWith": [],
    }

    changed = JOBS.replace('step.run("double", lambda: 2 * n)', 'step.run("twice", print)')
    (command_line.folder / "new_jobs.py").write_text(changed)
    done = command_line.run("verify", "runs", "--jobs", "new_jobs.py")
    assert done.returncode == 1 and "the code asks for step 'twice', which is not stored" in done.stdout, done
    assert "step 'double'" in done.stdout and "1 run, 1 differs" in done.stdout, done
    done = command_line.run("verify", "runs", "--jobs", "new_jobs.py", "--json")
    [told] = json.loads(done.stdout)
    assert done.returncode == 1 and [one["what"] for one in told["differences"]] == ["new"]

    # A run that was under way goes on, with the code as it is now.
    export = json.loads((folder / "one.json").read_text())
    export["run"]["status"] = "pending"
    del export["run"]["output"]
    export["journal"] = [entry for entry in export["journal"] if entry.get("stepName") != "double"]
    (folder / "two.json").write_text(json.dumps(export))
    done = command_line.run("verify", "runs/two.json", "--jobs", "new_jobs.py")
    assert done.returncode == 0 and "would go on with twice" in done.stdout, done


def test_what_cannot_be_verified_is_a_mistake(command_line: CommandLine) -> None:
    begin(command_line)
    (command_line.folder / "empty").mkdir()
    (command_line.folder / "broken.json").write_text("{")
    (command_line.folder / "other.json").write_text("{}")
    for arguments, told in (
        (("none.json", "--jobs", "my_jobs.py"), "none.json does not exist"),
        (("empty", "--jobs", "my_jobs.py"), "no exported run in empty"),
        (("broken.json", "--jobs", "my_jobs.py"), "broken.json is no exported run"),
        (("other.json", "--jobs", "my_jobs.py"), "other.json: this is no exported run"),
        (("other.json", "--jobs", "none.py"), "none.py does not exist"),
        (("other.json",), "--jobs"),
    ):
        done = command_line.run("verify", *arguments)
        assert (done.returncode, done.stdout) == (2, "") and told in done.stderr, done
