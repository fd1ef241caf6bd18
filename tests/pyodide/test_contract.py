"""The contract suites inside Pyodide, in Chromium, on OPFS; and on a libSQL server, through `fetch`."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts import chromium
from scripts.serve import serve
from tests.contract import SUITES, cases

if TYPE_CHECKING:
    from playwright.sync_api import Page, Playwright

    from tests.support.servers import Sqld

pytestmark = pytest.mark.browser

TESTS = Path(__file__).resolve().parent.parent
NEEDED = ("contract/*.py", "support/*.py", "pyodide/in_worker.py")

SECONDS = 300
"""For a case, and the start of Python before the first. What never waits does not meet the bounds of its own."""

# A worker that gives no answer is replaced, for the cases behind.
START = """(seconds) => {
  let worker;
  globalThis.runCase = (...details) => new Promise((resolve) => {
    worker ??= new Worker("worker.js", { type: "module" });
    const late = setTimeout(() => {
      worker.terminate();
      worker = undefined;
      resolve(`no answer within ${seconds} s`);
    }, seconds * 1000);
    const end = (told) => {
      clearTimeout(late);
      resolve(told);
    };
    worker.onmessage = ({ data }) => end(data);
    worker.onerror = ({ message }) => end(`the worker cannot run: ${message}`);
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
        page.evaluate(START, SECONDS)
        yield page


_TWICE = ("flow", "children", "schedules")
"""Suites whose every batch is sent twice as well. On a file of the same SQLite, all of them are."""

_ELSEWHERE = ("the_same_holds_for_a_database_that_takes_its_time",)
"""The browser's answers within the call."""

BINDINGS = [
    pytest.param(suite, name, habit, id=f"{suite}-{name}-{habit}")
    for suite in SUITES
    # Its hundreds of crashes take minutes in Pyodide; they are about the store, which is the same.
    if suite != "handover_faults"
    for habit in ("plain", "repeating")
    if habit == "plain" or suite in _TWICE
    for name, _ in cases(suite, frozenset({"another"}))
    if name not in _ELSEWHERE
]


@pytest.mark.parametrize(("suite", "name", "habit"), BINDINGS)
def test_contract_on_opfs(page: Page, suite: str, name: str, habit: str) -> None:
    failure = page.evaluate("details => runCase(...details)", [suite, name, habit])
    assert not failure, failure


@pytest.mark.parametrize("name", [name for name, _ in cases("executor", frozenset())])
def test_a_libsql_server_through_fetch(page: Page, sqld: Sqld, name: str) -> None:
    url = sqld.namespace()
    failure = page.evaluate("details => runCase(...details)", ["executor", name, url])
    assert not failure, failure
    sqld.drop_namespace(url)


ELSEWHERE = """
import asyncio, sys
from durably_web import Durably, job

@job
async def shout(step, input: dict) -> str:
    step.log.info("heard")
    return await step.run("upper", str.upper, input["text"])

asyncio.run(Durably(sys.argv[1], jobs=[shout], polling_interval=0.05, durability="relaxed").run_forever())
"""


def test_a_page_triggers_and_a_worker_elsewhere_executes(page: Page, sqld: Sqld) -> None:
    url = sqld.namespace()
    worker = subprocess.Popen([sys.executable, "-c", ELSEWHERE, url])
    try:
        told = page.evaluate("details => runCase(...details)", ["ask", url, "hello"])
        found = json.loads(told)
        assert found["output"] == "HELLO"
        expected = ["run:trigger", "run:leased", "log:write", "step:complete", "run:complete"]
        assert [one for one in found["events"] if one in expected] == expected
        assert worker.poll() is None
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
    sqld.drop_namespace(url)
