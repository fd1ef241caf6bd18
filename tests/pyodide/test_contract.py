"""The contract suites inside Pyodide, in Chromium, on OPFS."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts import chromium
from scripts.serve import serve
from tests.contract import BARE, SUITES, cases

if TYPE_CHECKING:
    from playwright.sync_api import Page, Playwright

pytestmark = pytest.mark.browser

TESTS = Path(__file__).resolve().parent.parent
NEEDED = ("contract/*.py", "support/*.py", "pyodide/in_worker.py")

START = """() => {
  const worker = new Worker("worker.js", { type: "module" });
  globalThis.runCase = (...details) => new Promise((resolve) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => resolve(`the worker cannot run: ${message}`);
    worker.postMessage(details);
  });
}"""


@pytest.fixture(scope="module")
def page(
    site_directory: Path, playwright_driver: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """A page with one worker, in which all cases run one after another."""
    folder = tmp_path_factory.mktemp("contract")
    (folder / "durably-web").symlink_to(site_directory / "durably-web")
    (folder / "worker.js").symlink_to(TESTS / "pyodide" / "worker.js")
    (folder / "index.html").write_text('<!doctype html><link rel="icon" href="data:,">')
    with zipfile.ZipFile(folder / "suites.zip", "w") as archive:
        for pattern in NEEDED:
            for path in TESTS.glob(pattern):
                archive.write(path, f"tests/{path.relative_to(TESTS).as_posix()}")
    with serve(folder) as address, chromium.launch(playwright_driver, tmp_path_factory.mktemp("profile")) as browser:
        page = browser.new_page()
        page.goto(address)
        page.evaluate(START)
        yield page


BINDINGS = [
    pytest.param(suite, name, habit, id=f"{suite}-{name}-{habit}")
    for suite in SUITES
    for habit in ("plain", "repeating")
    if habit == "plain" or suite not in BARE
    for name, _ in cases(suite, frozenset())
]


@pytest.mark.parametrize(("suite", "name", "habit"), BINDINGS)
def test_contract_on_opfs(page: Page, suite: str, name: str, habit: str) -> None:
    failure = page.evaluate("details => runCase(...details)", [suite, name, habit])
    assert not failure, failure
