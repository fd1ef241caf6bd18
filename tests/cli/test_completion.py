"""What the shells offer: asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, CommandLine

JOBS = """
raise RuntimeError("nobody executes this to complete a word")

import durably_web
from durably_web import job

@job
async def resize(step, input: dict): ...

@durably_web.job(name="send-mail", version="1")
async def mail(step, input: dict): ...

async def no_job(): ...
"""

SET_UP = """
import asyncio
from durably_web import Durably, job

@job
async def resize(step, input: dict): await step.run("one", int)

@job
async def fails(step, input: dict): raise ValueError("no")

async def main():
    async with Durably("app.db", jobs=[resize, fails]) as durably:
        done, failed = await durably.trigger(resize), await durably.trigger(fails)
        await durably.wait_for_run(done.id, timeout=60)
        await durably.wait_for_run(failed.id, timeout=60)
        await durably.schedule(resize, name="nightly", every=3600)
    print(done.id, failed.id)

asyncio.run(main())
"""

BASH = """
eval "$(durably-web --show-completion)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
function=$(complete -p durably-web | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function" durably-web "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")


class Bash:
    def __init__(self, command_line: CommandLine) -> None:
        self._command_line = command_line
        # As the program is called where it is installed.
        programs = command_line.folder / "bin"
        programs.mkdir()
        program = programs / "durably-web"
        program.write_text(f'#!/bin/sh\nexec {" ".join(command_line._line(()))} "$@"\n')
        program.chmod(0o755)
        self.environment = {
            **command_line.environment,
            "PATH": f"{programs}:{command_line.environment['PATH']}",
            "HOME": str(command_line.folder),
            "SHELL": "/bin/bash",
        }

    def offers(self, *words: str) -> list[str]:
        """What a tab at the end of the last of these words offers."""
        done = self.run(["bash", "--norc", "-c", BASH, "bash", "durably-web", *words])
        assert done.stderr == ""
        return done.stdout.split()

    def run(self, line: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            line,
            cwd=self._command_line.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )


@pytest.fixture
def bash(command_line: CommandLine) -> Bash:
    return Bash(command_line)


@needs_bash
def test_commands_and_options(bash: Bash) -> None:
    assert set(bash.offers("")) >= {"worker", "serve", "runs", "schedules", "doctor", "sql"}
    assert bash.offers("runs", "ret") == ["retry", "retrigger"]
    assert {"--processes", "--health-port", "--log-format"} <= set(bash.offers("worker", "jobs.py", "--"))
    assert bash.offers("worker", "jobs.py", "--log-format", "") == ["text", "json"]
    assert bash.offers("runs", "list", "--status", "c") == ["completed", "cancelled"]


@needs_bash
def test_what_is_in_the_database(bash: Bash, command_line: CommandLine) -> None:
    done, failed = command_line.python(SET_UP).split()
    before = (command_line.folder / "app.db").read_bytes()
    assert bash.offers("runs", "show", "-d", "app.db", "") == [failed, done]
    assert bash.offers("runs", "show", "-d", "app.db", done) == [done]
    assert bash.offers("runs", "show", "-d", "app.db", f"{failed}0") == []
    # Only what it can be done to.
    assert bash.offers("runs", "retry", "-d", "app.db", "") == [failed]
    assert bash.offers("runs", "cancel", "-d", "app.db", "") == []
    assert bash.offers("runs", "list", "-d", "app.db", "--job", "") == ["fails", "resize"]
    assert bash.offers("schedules", "pause", "-d", "app.db", "n") == ["nightly"]
    assert (command_line.folder / "app.db").read_bytes() == before


@needs_bash
@pytest.mark.parametrize("database", ["none.db", "text.db", "postgresql://nobody@127.0.0.1:1/none"])
def test_where_there_is_nothing_nothing_is_said(bash: Bash, command_line: CommandLine, database: str) -> None:
    (command_line.folder / "text.db").write_text("no database")
    assert bash.offers("runs", "show", "-d", database, "") == []
    assert not (command_line.folder / "none.db").exists()


@needs_bash
def test_jobs_are_read_and_not_executed(bash: Bash, command_line: CommandLine) -> None:
    (command_line.folder / "work.py").write_text(JOBS)
    assert bash.offers("run", "work.py", "") == ["resize", "send-mail"]
    assert bash.offers("run", "work", "s") == ["send-mail"]
    assert bash.offers("run", "none.py", "") == []


@needs_bash
def test_it_is_installed_for_the_next_shell(bash: Bash, command_line: CommandLine) -> None:
    (command_line.folder / ".bashrc").write_text("# mine\n")
    said = bash.run(["bash", "-c", "durably-web --install-completion; true"]).stdout
    assert "completion installed" in said
    assert (command_line.folder / ".bashrc").read_text().startswith("# mine\n")
    shown = bash.run(["bash", "--rcfile", str(command_line.folder / ".bashrc"), "-ic", "complete -p durably-web"])
    assert "-F _durably_web_completion" in shown.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_it_takes(command_line: CommandLine, tmp_path: Path, shell: str) -> None:
    command_line.environment["_DURABLY_WEB_COMPLETE"] = f"source_{shell}"
    shown = command_line.run()
    assert shown.returncode == 0 and f"complete_{shell}" in shown.stdout
    if shutil.which(shell) is not None:
        (tmp_path / "script").write_text(shown.stdout)
        line = [shell, "-n", str(tmp_path / "script")]
        checked = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert checked.returncode == 0, checked.stderr


def test_a_shell_that_is_not_known_is_a_mistake(command_line: CommandLine) -> None:
    command_line.environment["_DURABLY_WEB_COMPLETE"] = "source_tcsh"
    refused = command_line.run()
    assert refused.returncode == 1 and refused.stderr == "Shell tcsh not supported.\n"
