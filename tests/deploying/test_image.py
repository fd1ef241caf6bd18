"""The image, built by the steps of its Dockerfile in a plain directory, and its processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from durably_web.cli.deploying import PLATFORMS
from durably_web.cli.deploying.dockerfile import UID
from durably_web.cli.deploying.project import Project, Web
from scripts.wheels import build_wheel
from tests.deploying.conftest import APP, project
from tests.deploying.image import IS_ROOT, Image, built, ignored, instructions
from tests.deploying.running import Process, become_well, elsewhere, order_of_a_worker, order_over_http
from tests.support.guarded import free_port

SECRETS = (".env", "sub/.env.local", ".git/config", "app.db", "app.db-wal", ".venv/bin/python", "sub/__pycache__/a.pyc")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of this checkout, as an index would have it."""
    folder = tmp_path_factory.mktemp("packages")
    build_wheel(folder)
    return folder


def context(folder: Path, platform: str, project: Project) -> Path:
    """The user's project with the files for a platform, and with what must not get into an image."""
    for path, text in {"app.py": APP, **PLATFORMS[platform](project).files, **dict.fromkeys(SECRETS, "secret")}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.fixture(scope="module")
def docker(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("docker")
    with built(context(folder, "docker", project(web=Web(auth="app:Auth"))), packages) as image:
        yield image


def began_of(image: Image) -> Path:
    """Where the order tells what it does: a file that the image's user may write to."""
    path = image.root / "began"
    path.touch()
    path.chmod(0o666)
    return path


def test_an_order_over_a_restart_of_the_container(docker: Image) -> None:
    port = free_port()
    check = elsewhere(docker.health, {8080: port})
    began = began_of(docker)

    def start() -> AbstractContextManager[Process]:
        return docker.started(elsewhere(docker.command, {8080: port}), BEGAN=str(began))

    order_over_http(start, f"http://127.0.0.1:{port}", lambda: docker.is_well(check), began)
    database = docker.root / "data" / "durably.db"
    assert database.exists()
    if IS_ROOT:
        assert docker.user == UID and database.stat().st_uid == UID


def test_no_secret_gets_into_the_image(docker: Image) -> None:
    found = {path.relative_to(docker.folder).as_posix() for path in docker.folder.rglob("*") if path.is_file()}
    assert {path for path in found if "__pycache__" not in path} == {"app.py", "requirements.txt"}


def test_code_of_the_image_does_not_belong_to_its_user(docker: Image) -> None:
    """Who breaks in changes nothing of it."""
    assert {path.stat().st_uid for path in (docker.folder, *docker.folder.rglob("*"))} == {os.getuid()}


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a volume to somebody")
def test_a_volume_of_root_is_given_to_the_images_user(packages: Path, tmp_path: Path) -> None:
    """As Fly.io, Railway and Render mount it; and a worker alone."""
    port = free_port()
    with built(context(tmp_path, "fly", project()), packages) as image:
        volume = image.root / "data"
        # A new volume is empty, hides what the image has there, and belongs to root.
        shutil.rmtree(volume)
        volume.mkdir(mode=0o755)
        assert image.user is None and image.entrypoint
        began = began_of(image)
        check = elsewhere(image.health, {8081: port})

        def start() -> AbstractContextManager[Process]:
            return image.started(elsewhere(image.command, {8081: port}), BEGAN=str(began))

        with start() as process:
            become_well(process, lambda: image.is_well(check))
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in status
            # It is the worker itself, and no shell that would keep SIGTERM.
            assert "durably-web" in Path(f"/proc/{process.pid}/cmdline").read_text()
        database = volume / "durably.db"
        order_of_a_worker(start, str(database), lambda: image.is_well(check), began)
        assert database.stat().st_uid == UID and volume.stat().st_uid == UID


def test_a_project_with_a_pyproject(packages: Path, tmp_path: Path) -> None:
    project_file = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "shop"
version = "1"
dependencies = ["durably-web"]

[tool.hatch.build.targets.wheel]
only-include = ["app.py"]
"""
    one = Project("shop", "app:durably", "sqlite", None, "pyproject.toml", None, "3.13", "durably-web deploy")
    (tmp_path / "pyproject.toml").write_text(project_file)
    with built(context(tmp_path, "docker", one), packages) as image:
        image.run('python -c "import app, durably_web"')
        image.run("durably-web --help")


# -- a test of the tests: what is read here is what Docker reads -----------------------------------------


def test_a_dockerfile_is_read_as_it_is_written() -> None:
    text = '# a comment\n\nFROM a:1\nRUN one && \\\n    two\nCMD ["x", "y z"]\n'
    found = instructions(text)
    assert [each.name for each in found] == ["FROM", "RUN", "CMD"]
    assert found[1].rest.split() == ["one", "&&", "two"] and found[2].words() == ["x", "y z"]


@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        (".git", ".git/config", True),
        (".git", "sub/.git", False),
        ("**/*.db", "a/b/app.db", True),
        ("**/*.db", "app.db", True),
        ("**/.env", "sub/.env", True),
        ("**/.env", ".envelope", False),
        ("**/__pycache__", "a/__pycache__/b.pyc", True),
        ("Dockerfile", "sub/Dockerfile", False),
    ],
)
def test_what_is_ignored(pattern: str, path: str, out: bool) -> None:
    assert ignored([pattern], path) is out
