"""`durably-web build`: what it puts where, and what it refuses."""

from __future__ import annotations

import signal
import urllib.request
from pathlib import Path

import pytest

from durably_web.site.build import build_site
from durably_web.site.runtime import Runtime
from tests.cli.conftest import PATIENCE, CommandLine

JOBS = """
from durably_web import Step, job


@job
async def greet(step: Step, input: dict) -> str:
    return await step.run("greet", lambda: f"Hello, {input['name']}!")
"""
PAGE = "<!doctype html><title>test</title>"


@pytest.fixture
def source(tmp_path: Path, command_line: CommandLine, runtime_directory: Path) -> Path:
    command_line.environment["DURABLY_WEB_RUNTIME"] = str(runtime_directory)
    folder = tmp_path / "my site"
    folder.mkdir()
    (folder / "jobs.py").write_text(JOBS)
    (folder / "index.html").write_text(PAGE)
    return folder


def complaint(command_line: CommandLine, *arguments: str) -> str:
    done = command_line.run("build", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("durably-web: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_everything_that_belongs_to_the_site_and_nothing_else(command_line: CommandLine, source: Path) -> None:
    for junk in (".git/config", "__pycache__/jobs.pyc", "node_modules/x.js", ".venv/bin.py", "runs.db", "a.db-wal"):
        (source / junk).parent.mkdir(exist_ok=True)
        (source / junk).write_text("(")
    (source / "requirements.txt").write_text("# none\n")
    for kept in ("data/rows.csv", ".well-known/security.txt"):
        (source / kept).parent.mkdir()
        (source / kept).write_text("kept")
    built = command_line.json("build", source.name)
    assert built["folder"] == str(Path(source.name) / "dist")
    assert built["jobFiles"] == ["jobs.py"]
    site = source / "dist"
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert built["files"] == len(found)
    assert {name for name in found if not name.startswith("durably-web/")} - {"service-worker.js"} == {
        ".nojekyll",
        ".well-known/security.txt",
        "data/rows.csv",
        "index.html",
        "jobs.py",
    }
    assert {"durably-web/client.js", "durably-web/manifest.json", "durably-web/licences/README.txt"} <= found

    (source / "jobs.py").write_text(JOBS + "# changed\n")
    assert command_line.json("build", source.name)["files"] == len(found), "the older build is not part of the new one"
    assert (site / "jobs.py").read_text().endswith("# changed\n")
    assert {path.name for path in source.iterdir() if path.name.startswith(".site-")} == set()


def test_mistakes_are_told_in_one_line_and_leave_the_older_build(command_line: CommandLine, source: Path) -> None:
    assert "there is no folder nowhere" in complaint(command_line, "nowhere")
    assert "is or holds the folder" in complaint(command_line, source.name, "--out", ".")
    (source / "dist").mkdir()
    (source / "dist" / "thesis.txt").write_text("irreplaceable")
    assert "is not a folder that a build has made" in complaint(command_line, source.name)
    assert (source / "dist" / "thesis.txt").read_text() == "irreplaceable"
    command_line.json("build", source.name, "--out", "site")

    (source / "jobs.py").write_text("async def greet(step:\n")
    assert "jobs.py, line 1: '(' was never closed" in complaint(command_line, source.name, "--out", "site")
    (source / "jobs.py").write_text("async def greet(step, input): ...\n")
    assert "jobs.py has no @job" in complaint(command_line, source.name, "--out", "site")
    (source / "jobs.py").unlink()
    assert "there is no job file in" in complaint(command_line, source.name, "--out", "site")
    (source / "index.html").unlink()
    assert "there is no index.html" in complaint(command_line, source.name, "--out", "site")
    assert (command_line.folder / "site" / "jobs.py").read_text() == JOBS


def test_a_build_that_fails_half_way_leaves_the_older_one(
    source: Path, runtime_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(runtime_directory)
    site = build_site(source, source / "dist", runtime).folder
    (source / "index.html").write_text("new")

    def fail(self: Path, target: Path) -> Path:
        if self.name == "site":
            raise OSError("no room")
        return original(self, target)

    original = Path.rename
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no room"):
        build_site(source, source / "dist", runtime)
    assert (site / "index.html").read_text() == PAGE


@pytest.mark.usefixtures("source")
def test_the_demo_is_built_and_served_until_it_is_told_to_stop(command_line: CommandLine) -> None:
    server = command_line.start("demo", "--no-open", "--port", "0")
    address = server.wait_for_line(lambda line: line.startswith("The demo is at ")).removeprefix("The demo is at ")
    with urllib.request.urlopen(f"{address}durably-web/pyodide/pyodide.asm.wasm", timeout=PATIENCE) as response:
        assert response.headers["Content-Type"] == "application/wasm"
    with urllib.request.urlopen(address, timeout=PATIENCE) as response:
        assert b"durably_web: a job that survives its tab" in response.read()
    port = address.split(":")[2].rstrip("/")
    taken = command_line.run("demo", "--no-open", "--port", port)
    assert taken.stderr == f"durably-web: port {port} is taken: give another --port\n"
    assert taken.returncode == 2
    server.process.send_signal(signal.SIGTERM)
    assert server.end() == 0
    assert server.told[-1] == "stopped"
