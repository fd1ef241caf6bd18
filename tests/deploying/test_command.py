"""`durably-web deploy`: what it asks of a project, what it writes, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from durably_web import __version__
from durably_web.cli.deploy import NAMES, PAGES
from durably_web.cli.deploying import PLATFORMS
from durably_web.cli.deploying.looking import fitting
from durably_web.cli.deploying.project import Database, Web
from tests.cli.conftest import CommandLine
from tests.deploying.conftest import APP, project


@pytest.fixture
def command_line(root: Path, shop: Path) -> CommandLine:
    return CommandLine(root, shop)


def test_the_help_names_every_platform(command_line: CommandLine) -> None:
    shown = command_line.run("deploy", "--help").stdout
    assert all(f"• {name}: " in shown for name in NAMES)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_writes_says_what_is_next_and_is_safe_to_repeat(command_line: CommandLine, platform: str) -> None:
    kind: Database = "postgresql" if platform == "vercel" else "sqlite"
    options = ["app:durably", *(["--database", kind] if kind != "sqlite" else []), "--auth", "app:Auth"]
    arguments = ("deploy", platform, *options)
    before = {path.name for path in command_line.folder.iterdir()}
    shown = command_line.json(*arguments, "--print")
    assert {path.name for path in command_line.folder.iterdir()} - {"__pycache__"} == before and shown["written"] == []
    done = command_line.run(*arguments)
    assert done.returncode == 0, done.stderr
    plan = PLATFORMS[platform](project(kind, Web(auth="app:Auth")))
    assert shown["files"].keys() == plan.files.keys()
    assert f"Written: {', '.join(plan.files)}\n" in done.stdout
    for path, text in shown["files"].items():
        assert (command_line.folder / path).read_text() == text
    made_by = f"Made by `durably-web deploy {platform} {' '.join(options)}`. It is yours"
    assert made_by in "".join(shown["files"].values())
    for line in plan.next:
        assert f"  {line}\n" in done.stdout
    for note in plan.notes:
        assert f"Note: {note}.\n" in done.stdout
    again = command_line.run(*arguments)
    assert again.returncode == 0 and again.stdout.startswith("All files are there already.")


def test_nothing_is_overwritten_unasked(command_line: CommandLine) -> None:
    (command_line.folder / "Dockerfile").write_text("FROM mine\n")
    done = command_line.run("deploy", "docker", "app:durably")
    assert done.returncode == 2
    assert done.stderr == (
        "durably-web: Dockerfile would be overwritten: say --force, or look at it first with --print\n"
    )
    # All or nothing.
    assert (command_line.folder / "Dockerfile").read_text() == "FROM mine\n"
    assert not (command_line.folder / "compose.yaml").exists()
    assert command_line.run("deploy", "docker", "app:durably", "--force").returncode == 0
    assert (command_line.folder / "Dockerfile").read_text().startswith("# Made by")


def test_into_another_folder(command_line: CommandLine) -> None:
    done = command_line.run("deploy", "procfile", "app.py", "--output", "one/two")
    assert done.returncode == 0, done.stderr
    assert "belong into the root of the project" in done.stdout
    text = (command_line.folder / "one" / "two" / "Procfile").read_text()
    assert "worker: exec durably-web worker app.py --database ./durably.db --stop-timeout 20s\n" in text


def test_the_workflow_of_a_site(command_line: CommandLine) -> None:
    assert command_line.run("new", "my-site").returncode == 0
    done = command_line.run("deploy", PAGES, "my-site")
    assert done.returncode == 0, done.stderr
    text = (command_line.folder / ".github" / "workflows" / "pages.yml").read_text()
    assert "- run: durably-web build my-site\n" in text and f"durably-web=={__version__}" in text


NO_PROJECT = '[tool.poetry]\nname = "shop"\n'


@pytest.mark.parametrize(
    ("arguments", "files", "complaint"),
    [
        (("nowhere", "app:durably"), {}, "there is no platform 'nowhere'; there is docker, fly,"),
        (("docker",), {}, "what is to be deployed? Give MODULE:NAME, as durably-web deploy docker app:durably"),
        (("docker", "absent:durably"), {}, "there is no file and no module absent"),
        (("docker", "app:nothing"), {}, "there is no nothing in app"),
        (("docker", "app:Auth"), {}, "app:Auth is no engine"),
        (("docker", "../app.py"), {}, "../app.py is not below this folder"),
        (
            ("docker", "fixed:durably"),
            {"fixed.py": APP.replace('os.environ.get("DATABASE_URL", "app.db")', '"my.db"')},
            'let it ask, Durably(os.environ.get("DATABASE_URL", "my.db"), …)',
        ),
        (
            ("fly", "fixed:durably"),
            {"fixed.py": APP.replace('os.environ.get("DATABASE_URL", "app.db")', '"sqlite:///my.db"')},
            'Durably(os.environ.get("DATABASE_URL", "app.db"), …)',
        ),
        (("docker", "app.py", "--database", "postgresql"), {}, "app.py is a job file, which has no database"),
        (("docker", "app:durably", "--database", "postgresql://me:secret@here/db"), {}, "the URL itself is a secret"),
        (("docker", "app:durably", "--anybody", "--auth", "app:Auth"), {}, "give one of them"),
        (("docker", "app:durably", "--auth", "Auth"), {}, "--auth is MODULE:NAME, and not 'Auth'"),
        (("docker", "app:durably", "--auth", "app:Nobody"), {}, "there is no Nobody in app"),
        (("docker", "app:durably", "--health", "/up"), {}, "--health belongs to --app"),
        (("docker", "app:durably", "--app", "app:web", "--health", "up"), {}, "--health is a path"),
        (("docker", "app:durably"), {"requirements.txt": "flask\n"}, f"add durably-web=={__version__}"),
        (
            ("docker", "app:durably", "--database", "libsql"),
            {"requirements.txt": "durably-web  # jobs\n"},
            f"without what libsql needs: make it durably-web[libsql]=={__version__}",
        ),
        (("vercel", "app:durably", "--anybody"), {}, "a function's disk is gone with it: say --database postgresql"),
        (("vercel", "app:durably", "--database", "libsql"), {}, "say --auth MODULE:NAME, or --anybody"),
        (("docker", "app:durably"), {"pyproject.toml": NO_PROJECT}, "pyproject.toml has no [project]"),
        (("docker", "app:durably"), {"pyproject.toml": "["}, "pyproject.toml cannot be read"),
        (("docker", "app:durably", "--output", "app.py"), {}, "app.py is a file"),
        (("github-pages", "."), {}, ". has no index.html"),
        (("github-pages", ".", "--anybody"), {}, "github-pages has no server"),
    ],
)
def test_mistakes(command_line: CommandLine, arguments: tuple[str, ...], files: dict[str, str], complaint: str) -> None:
    for path, text in files.items():
        (command_line.folder / path).write_text(text)
    before = {path.name for path in command_line.folder.iterdir()} | {"__pycache__"}
    done = command_line.run("deploy", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert complaint in done.stderr and "secret@" not in done.stderr
    assert {path.name for path in command_line.folder.iterdir()} | {"__pycache__"} == before


@pytest.mark.parametrize(
    ("file", "text", "installs"),
    [
        ("requirements.txt", "durably-web[crypto,postgres]>=0.1 ; python_version > '3'\n", "--requirement"),
        ("requirements.txt", "Durably_Web>=0.1\npsycopg[binary]\n", "--requirement"),
        ("requirements.txt", "-r base.txt\n", "--requirement"),
        ("requirements.txt", "durably-web[postgres]==0.1.0 --hash=sha256:00\n", "--requirement"),
        ("pyproject.toml", '[project]\nname = "shop"\ndependencies = ["durably-web[postgres]"]\n', " ."),
        ("pyproject.toml", '[project]\nname = "shop"\ndynamic = ["dependencies"]\n', " ."),
    ],
)
def test_what_says_what_to_install(command_line: CommandLine, file: str, text: str, installs: str) -> None:
    (command_line.folder / file).write_text(text)
    shown = command_line.json("deploy", "docker", "app:durably", "--database", "postgresql", "--print")
    assert "requirements.txt" not in shown["files"]
    assert re.search(
        rf"^RUN pip install --no-cache-dir{re.escape(installs) if installs == ' .' else '.*'}",
        shown["files"]["Dockerfile"],
        re.M,
    )


def test_without_loading_nothing_of_the_project_is_executed(command_line: CommandLine) -> None:
    (command_line.folder / "app.py").write_text("raise SystemExit(3)\n")
    assert command_line.run("deploy", "docker", "app:durably").returncode == 2
    assert command_line.run("deploy", "docker", "app:durably", "--no-load").returncode == 0


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("shop", "shop"),
        ("My Shop_2", "my-shop-2"),
        ("2nd", "app-2nd"),
        ("é", "app"),
        ("x" * 40, "x" * 30),
        ("-a-", "a"),
    ],
)
def test_names(name: str, fits: str) -> None:
    assert fitting(name) == fits
