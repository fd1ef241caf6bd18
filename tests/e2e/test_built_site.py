"""A site from beginning to end as its makers have it: the package installed, its commands, and any static server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import yaml

from durably_web.site.build import build_site
from durably_web.site.runtime import Runtime
from durably_web.site.starter import write_starter
from scripts import build_wheel
from scripts.serve import SiteHandler
from tests.cli.wheels import WASM, make_wheel, sha256
from tests.support.static_server import static_server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

# A run of a job, asked for by a client of the page beside the page's own.
ASK = """async (job) => {
  const { createDurably } = await import("./durably-web/client.js");
  const durably = await createDurably({ jobs: "./jobs.py", database: "words" });
  const { id } = await durably.trigger(job, {});
  return (await durably.waitForRun(id, { timeout: 60_000 })).output;
}"""

PATIENCE = 300
VISIT = 60_000

# Three packages from the registry: a pure one, one for Pyodide's platform, and one of each that belong together.
REQUIREMENTS = "six>=1.16\nmsgspec>=0.20\npydantic>=2.12\n"
USING_THEM = """

import msgspec
import pydantic
import six


class Point(msgspec.Struct):
    x: int


class Place(pydantic.BaseModel):
    name: str


@job
async def use_packages(step: Step, input: dict[str, Any]) -> list[Any]:
    point = msgspec.json.decode(b'{"x": 7}', type=Point)
    return [point.x, Place.model_validate({"name": "here"}).name, six.PY3]
"""


@pytest.fixture(scope="module")
def installed(runtime_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel that everyone installs, and nothing that leads to this checkout; its programs."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = build_wheel.build(folder, runtime_directory)
    environment = folder / "environment"
    run(folder, sys.executable, "-m", "venv", "--without-pip", environment)
    run(folder, sys.executable, "-m", "pip", "--python", environment, "install", "--quiet", "--no-deps", wheel)
    # What it depends on is taken from here, without what leads to the checkout.
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (packages / "dependencies.pth").write_text(f"{dependencies(folder)}\n")
    return environment / "bin"


def dependencies(folder: Path) -> Path:
    """A folder with all that is installed here, but not our package."""
    found = folder / "dependencies"
    found.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("durably_web", "_durably_web")) and path.suffix != ".pth":
            (found / path.name).symlink_to(path)
    return found


def run(folder: Path, *command: str | Path) -> str:
    """A program to its end, far from the checkout. Fails unless it exits with 0."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def browser(open_browser: Callable[..., BrowserContext]) -> BrowserContext:
    return open_browser()


def listening(page: Page) -> list[str]:
    """What the page complains about from now on."""
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def completed(page: Page) -> None:
    page.wait_for_selector('#runs [data-status="completed"]', timeout=VISIT)


def test_a_new_site_is_published_below_a_path(installed: Path, browser: BrowserContext, tmp_path: Path) -> None:
    run(tmp_path, installed / "durably-web", "new", "my-site")
    source = tmp_path / "my-site"
    (source / "requirements.txt").write_text(REQUIREMENTS)
    with (source / "jobs.py").open("a") as jobs:
        jobs.write(USING_THEM)
    workflow = yaml.safe_load((source / ".github" / "workflows" / "pages.yml").read_text())
    steps = workflow["jobs"]["build"]["steps"]
    (command,) = [step["run"] for step in steps if step.get("run", "").startswith("durably-web")]
    (published,) = [step["with"]["path"] for step in steps if "upload-pages" in step.get("uses", "")]
    program, *arguments = command.split()
    said = run(source, installed / program, *arguments)
    assert "is ready" in said
    assert (source / "requirements.lock").read_text().count("--hash=sha256:") >= 3

    served = tmp_path / "served"
    served.mkdir()
    (source / published).rename(served / "my-repo")
    with static_server(served) as address:
        page = browser.new_page()
        complaints = listening(page)
        page.goto(f"{address}my-repo/")
        page.click("#start:enabled", timeout=VISIT)
        page.wait_for_selector("#runs progress[value]", timeout=VISIT)
        page.wait_for_function("document.querySelector('#runs progress')?.value >= 2", timeout=VISIT)
        page.reload()
        completed(page)
        assert page.locator("#runs > li").count() == 1
        assert "96 words, 41 different" in page.inner_text("#runs")
        assert page.evaluate("crossOriginIsolated") is False

        # The page's own client keeps the database; another tab asks it.
        second = browser.new_page()
        complaints_there = listening(second)
        second.goto(f"{address}my-repo/")
        second.wait_for_selector("#start:enabled", timeout=VISIT)
        output = second.evaluate(ASK, "use_packages")
        assert output == [7, "here", True]
        assert complaints == complaints_there == []


class CdnHandler(SiteHandler):
    """Lets pages of any origin read its files, as a CDN does."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


@contextmanager
def cdn_server(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(CdnHandler, base="/", directory=str(folder))) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join(timeout=10)


def test_pyodide_from_a_cdn_and_a_package_that_only_pyodide_has(
    runtime_directory: Path, browser: BrowserContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    real = Runtime(runtime_directory)
    cdn = tmp_path / "cdn"
    matrix = make_wheel(cdn, "matrix", "2.0", tag=WASM)
    for path in (real.served / "pyodide").iterdir():
        (cdn / path.name).symlink_to(path)
    shutil.copytree(real.folder, tmp_path / "runtime", ignore=lambda *_: ["demo"])
    lock = real.pyodide_lock()
    entry = {**lock["packages"]["numpy"], "name": "matrix", "version": "2.0", "imports": ["matrix"]}
    entry |= {"file_name": matrix.name, "sha256": sha256(matrix)}
    (tmp_path / "runtime" / "pyodide-lock.json").write_text(json.dumps({**lock, "packages": {"matrix": entry}}))
    source = tmp_path / "source"
    write_starter(source)
    (source / "requirements.txt").write_text("matrix\n")
    with (source / "jobs.py").open("a") as jobs:
        jobs.write("\n\nimport matrix\n\n\n@job\nasync def version(step: Step, input: dict[str, Any]) -> str:\n")
        jobs.write("    return matrix.__version__\n")
    with cdn_server(cdn) as address, static_server(tmp_path) as host:
        runtime = Runtime(tmp_path / "runtime")
        build_site(source, tmp_path / "served" / "my-repo", runtime, cdn=True, pyodide_cdn=address)
        page = browser.new_page()
        complaints = listening(page)
        page.goto(f"{host}served/my-repo/")
        page.wait_for_selector("#start:enabled", timeout=VISIT)
        assert page.evaluate(ASK, "version") == "2.0"
        assert complaints == []
