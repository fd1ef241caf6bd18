"""What the commands print, and what they say to a mistake."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
import yaml

from durably_web import __version__
from tests.cli.conftest import CommandLine

JOBS = """
from durably_web import Step, job


@job
async def greet(step: Step, input: dict) -> dict:
    greeting = await step.run("greet", lambda: f"Hello, {input['name']}!")
    step.log.info("greeted", name=input["name"])
    return {"greeting": greeting, "given": input, "list": [{"n": 1}, {"n": 2}]}


@job(name="break")
async def break_(step: Step, input: dict) -> None:
    await step.run("fine", lambda: 1)
    await step.run("broken", lambda: 1 / input["zero"])
"""


@pytest.fixture
def jobs(command_line: CommandLine) -> str:
    (command_line.folder / "my_jobs.py").write_text(JOBS)
    return "my_jobs.py"


def assert_mistake(command_line: CommandLine, arguments: tuple[str, ...], complaint: str) -> None:
    done = command_line.run(*arguments)
    assert done.stderr.startswith("durably-web: ")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--help",), "survive"),
        (("run", "--help"), "key:=json"),
        (("worker", "--help"), "SIGTERM"),
        (("runs", "--help"), "retrigger"),
        (("new", "--help"), "GitHub Pages"),
        (("dev", "--help"), "--port"),
        (("build", "--help"), "--pyodide-cdn"),
        (("demo", "--help"), "--no-open"),
        *((("runs", name, "--help"), "--database") for name in "list show logs retry retrigger cancel delete".split()),
    ],
)
def test_every_command_has_help(command_line: CommandLine, arguments: tuple[str, ...], expected: str) -> None:
    done = command_line.run(*arguments)
    assert done.returncode == 0
    assert expected in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("walk",), "No such command 'walk' (see durably-web --help)"),
        (("run",), "Missing argument 'FILE'"),
        (("runs", "list", "--wrong"), "No such option"),
        (("run", "absent.py", "greet"), "absent.py does not exist"),
        (("run", "absent.module", "greet"), "there is no file and no module absent.module"),
        (("run", ".", "greet"), "neither a Python file nor a module"),
        (("run", "my_jobs.py", "wave"), "there is no job 'wave' in my_jobs.py; there is break, greet"),
        (("run", "json", "dumps"), "there is no job in json"),
        (("worker", "absent.py"), "absent.py does not exist"),
        (("run", "my_jobs.py", "greet", "name"), "'name' is not key=value"),
        (("run", "my_jobs.py", "greet", "name=1", "name=2"), "name is given twice"),
        (("run", "my_jobs.py", "greet", "name:=Anna"), "name is not JSON"),
        (("run", "my_jobs.py", "greet", "name=@absent.txt"), "absent.txt cannot be read: No such file"),
        (("run", "my_jobs.py", "greet", "name=@binary"), "binary is not UTF-8 text"),
        (("run", "my_jobs.py", "greet", "--label", "org"), "the label 'org' is not key=value"),
        (("run", "my_jobs.py", "greet", "-d", "binary"), "binary is not a SQLite database"),
        (("run", "my_jobs.py", "greet", "-d", "absent/app.db"), "absent/app.db cannot be opened: there is no folder"),
        (("run", "my_jobs.py", "greet", "-d", "mysql://app"), "mysql://"),
        (
            ("runs", "list", "-d", "absent.db"),
            "there is no database absent.db (durably-web migrate --create makes one)",
        ),
        (("runs", "list", "-d", "binary"), "binary is not a SQLite database"),
        (("runs", "list", "-d", "other.db"), "other.db is not a database of durably_web"),
        (("runs", "list", "-d", "."), ". is not a file"),
        (("runs", "list", "-d", ":memory:"), "there is no database :memory:"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing(
    command_line: CommandLine, jobs: str, arguments: tuple[str, ...], complaint: str
) -> None:
    folder = command_line.folder
    (folder / "binary").write_bytes(b"\x89PNG\xff\x00" * 50)
    with sqlite3.connect(folder / "other.db") as other:
        other.execute("CREATE TABLE mine (id)")
    other.close()
    before = contents(folder)
    assert_mistake(command_line, arguments, complaint)
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"}


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("def broken(:\n", "bad.py, line 1: "),
        ("\nimport nothing_like_it\n", "bad.py, line 2: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("raise SystemExit(3)\n", "bad.py, line 1: SystemExit: 3"),
        ("from durably_web import job\n\n@job\ndef plain(step, input): ...\n", "a job is an async function"),
    ],
)
def test_a_job_file_that_cannot_be_loaded_is_told_with_its_line(
    command_line: CommandLine, source: str, complaint: str
) -> None:
    (command_line.folder / "bad.py").write_text(source)
    assert_mistake(command_line, ("run", "bad.py", "greet"), complaint)


def test_a_job_file_may_have_the_name_of_another_module(command_line: CommandLine) -> None:
    (command_line.folder / "jobs").mkdir()
    (command_line.folder / "jobs" / "queue.py").write_text(JOBS)
    assert command_line.json("run", "jobs/queue.py", "greet", "name=Anna")["greeting"] == "Hello, Anna!"


def test_input_that_does_not_fit_makes_no_database(command_line: CommandLine, demo: tuple[str, ...]) -> None:
    assert_mistake(command_line, ("run", demo[0], demo[1], "size:=1"), "'text'")
    assert list(command_line.folder.glob("durably.db*")) == []


def test_the_forms_of_input(command_line: CommandLine, jobs: str) -> None:
    (command_line.folder / "name.txt").write_bytes("Änna\r\n".encode())
    (command_line.folder / "more.json").write_text('{"a": [1, 2.5, null]}')
    given = ("name=@name.txt", "more:=@more.json", "count:=3", "flag:=true", "text=a=b:=c", "empty=")
    output = command_line.json("run", jobs, "greet", *given)
    assert output["given"] == {
        "name": "Änna\r\n",
        "more": {"a": [1, 2.5, None]},
        "count": 3,
        "flag": True,
        "text": "a=b:=c",
        "empty": "",
    }


def test_output_goes_to_stdout_and_the_log_to_stderr(command_line: CommandLine, jobs: str) -> None:
    done = command_line.run("run", jobs, "greet", "name=Anna")
    assert "Hello, Anna!" in done.stdout
    assert "greeted" not in done.stdout
    assert "info    greeted  name=Anna\n" in done.stderr


def test_a_module_is_as_good_as_a_file(command_line: CommandLine, jobs: str) -> None:
    assert command_line.json("run", "my_jobs", "greet", "name=Anna")["greeting"] == "Hello, Anna!"


def test_a_finished_run_is_not_resumed_and_new_makes_another(command_line: CommandLine, jobs: str) -> None:
    for more in ((), (), ("--new",)):
        done = command_line.run("run", jobs, "greet", "name=Anna", *more)
        assert done.stderr.startswith("run ")
    assert len(command_line.json("runs", "list")) == 3


def test_a_failed_run_exits_with_1_and_can_be_retried(command_line: CommandLine, jobs: str) -> None:
    done = command_line.run("run", jobs, "break", "zero:=0")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "failed: ZeroDivisionError: division by zero" in done.stderr.splitlines()[-1]
    [run] = command_line.json("runs", "list", "--status", "failed")
    assert command_line.json("runs", "retry", run["id"]) == {"success": True, "runId": run["id"]}
    again = command_line.run("run", jobs, "break", "zero:=0")
    assert again.stderr.startswith(f"resuming run {run['id']} ")
    assert again.returncode == 1


def test_looking_at_runs_and_acting_on_them(command_line: CommandLine, jobs: str) -> None:
    assert command_line.run("run", jobs, "greet", "name=Anna", "--label", "org=acme").returncode == 0
    assert command_line.run("run", jobs, "greet", "name=Bert").returncode == 0
    listed = command_line.json("runs", "list")
    assert [run["input"]["name"] for run in listed] == ["Bert", "Anna"]
    [anna] = command_line.json("runs", "list", "--label", "org=acme")
    run_id = anna["id"]
    assert anna["id"] in command_line.run("runs", "list").stdout

    shown = command_line.run("runs", "show", run_id)
    assert "Hello, Anna!" in shown.stdout
    assert "org=acme" in shown.stdout
    assert [step["name"] for step in command_line.json("runs", "show", run_id)["steps"]] == ["greet"]
    assert "info    greeted  name=Anna" in command_line.run("runs", "logs", run_id).stdout
    assert [entry["message"] for entry in command_line.json("runs", "logs", run_id)] == ["greeted"]

    made = command_line.json("runs", "retrigger", run_id)["runId"]
    assert command_line.json("runs", "show", made)["status"] == "pending"
    assert_mistake(command_line, ("runs", "delete", made), "is pending, so it cannot be deleted")
    assert command_line.run("runs", "cancel", made).stdout == f"run {made} is cancelled\n"
    assert_mistake(command_line, ("runs", "cancel", made), "is cancelled, so it cannot be cancelled")
    assert command_line.run("runs", "delete", made).stdout == f"run {made} is deleted\n"
    for verb in ("show", "logs", "retry", "retrigger", "cancel", "delete"):
        assert_mistake(command_line, ("runs", verb, made), "there is no run")


def test_a_new_site_is_complete_and_overwrites_nothing(command_line: CommandLine) -> None:
    new = command_line.json("new", "my-site")
    site = command_line.folder / "my-site"
    assert set(new["files"]) == {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {"index.html", "jobs.py", "app.js", "style.css", "README.md", ".gitignore"} <= set(new["files"])
    compile((site / "jobs.py").read_text(), "jobs.py", "exec")
    workflow = yaml.safe_load((site / ".github" / "workflows" / "pages.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [
        f'pip install "durably-web=={__version__}"',
        "durably-web build",
    ]
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"]) for step in steps if "uses" in step)
    assert workflow["jobs"]["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}

    (site / "jobs.py").write_text("mine")
    assert_mistake(command_line, ("new", "my-site"), "my-site is not empty")
    assert (site / "jobs.py").read_text() == "mine"
    assert_mistake(command_line, ("new", "my-site/jobs.py"), "my-site/jobs.py is a file")
    (command_line.folder / "empty").mkdir()
    assert command_line.json("new", "empty")["files"] == new["files"]


def test_without_a_runtime_it_is_told_where_one_comes_from(command_line: CommandLine) -> None:
    command_line.environment["DURABLY_WEB_RUNTIME"] = str(command_line.folder)
    command_line.json("new", "site")
    for command in (("build", "site"), ("dev", "site"), ("demo", "--no-open")):
        assert_mistake(command_line, command, "there is no runtime in it")
