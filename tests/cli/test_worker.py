"""`durably-web worker`: the jobs of a module, or an engine that it makes."""

from __future__ import annotations

import signal

import pytest

from tests.cli.conftest import CommandLine

WORK = """
from durably_web import Durably, Step, job

@job
async def add(step: Step, input: dict) -> int:
    return await step.run("add", sum, input["numbers"])

durably = Durably("engine.db", jobs=[add])
number = 5
"""


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("target", ["work:durably", "work.py:durably"])
def test_an_engine_works_on_the_database_that_it_was_given(
    command_line: CommandLine, target: str, processes: str
) -> None:
    (command_line.folder / "work.py").write_text(WORK)
    worker = command_line.start("worker", target, "--processes", processes)
    worker.wait_for_line(lambda line: line == f"worker on {target}: add")
    assert (command_line.folder / "engine.db").exists()
    done = command_line.run("run", "work.py", "add", "numbers:=[1, 2]", "--database", "engine.db")
    assert done.returncode == 0, done.stderr
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0
    assert not (command_line.folder / "durably.db").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("work:durably", "--database", "other.db"), "work:durably has its database already: leave --database out"),
        (("work:number",), "work:number is no engine: number = Durably(…) would be one"),
        (("work:nothing",), "there is no nothing in work"),
    ],
)
def test_mistakes(command_line: CommandLine, arguments: tuple[str, ...], complaint: str) -> None:
    (command_line.folder / "work.py").write_text(WORK)
    done = command_line.run("worker", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert complaint in done.stderr
