"""Functions of a job file that was given by its path are found in other processes."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import CommandLine

JOBS = """
import os
from dataclasses import dataclass

from beside import DOUBLE
from durably_web import Step, job

@dataclass
class Point:
    x: int

def doubled(point: Point) -> Point:
    return Point(point.x * DOUBLE)

def place() -> list:
    return [os.getpid(), __name__]

@job
async def double(step: Step, input: dict) -> dict:
    point = await step.run("double", doubled, Point(21), offload=True)
    [pid, name] = await step.run("place", place, offload=True)
    return {"x": point.x, "elsewhere": pid != os.getpid(), "same module": name == __name__}
"""


@pytest.mark.parametrize("name", ["my_jobs.py", "statistics.py"], ids=["a name", "the name of another module"])
def test_functions_of_a_job_file(command_line: CommandLine, name: str) -> None:
    folder = command_line.folder / "deep" / "down"
    folder.mkdir(parents=True)
    (folder / name).write_text(JOBS)
    (folder / "beside.py").write_text("DOUBLE = 2")
    done = command_line.run("run", f"deep/down/{name}", "double", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"x": 42, "elsewhere": True, "same module": True}
