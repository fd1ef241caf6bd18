"""The npm package in the hands of a bundler: both examples, installed and built as a user would, below a path."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts import npm_package
from scripts.serve import serve

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

pytestmark = pytest.mark.browser

# From nothing to an engine that runs, on a slow machine.
START_MS = 60_000


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm_package.pack(tmp_path_factory.mktemp("checkout") / "build" / "npm")


def npm(example: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["npm", *arguments], cwd=example, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait(*processes: subprocess.Popen[str]) -> None:
    """Until all have ended well; none is left behind."""
    try:
        for process in processes:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def examples(package: Path, root: Path) -> dict[str, Path]:
    """The examples beside the package, as in a checkout where `make npm` was run; built."""
    folders = {name: package.parents[2] / "examples" / name for name in ("vite", "react")}
    made = shutil.ignore_patterns("node_modules", "dist", "durably-web")
    for name, folder in folders.items():
        shutil.copytree(root / "examples" / name, folder, ignore=made)
    install = ("ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund")
    wait(*(npm(folder, *install) for folder in folders.values()))
    wait(*(npm(folder, "run", "build") for folder in folders.values()))
    return folders


@pytest.fixture(scope="module")
def addresses(examples: dict[str, Path], browser_settings: dict[str, Any]) -> Iterator[dict[str, str]]:
    base = browser_settings["BASE_PATH"]
    with serve(examples["vite"] / "dist", base=base) as vite, serve(examples["react"] / "dist", base=base) as react:
        yield {"vite": vite, "react": react}


@pytest.fixture
def browser(open_browser: Callable[..., BrowserContext]) -> BrowserContext:
    return open_browser()


def visit(browser: BrowserContext, address: str) -> Page:
    page = browser.new_page()
    page.goto(address)
    return page


# -- the package ----------------------------------------------------------------------------------------------------


def test_the_package_has_what_its_description_names(package: Path, root: Path) -> None:
    with tarfile.open(package) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
        file = archive.extractfile("package/package.json")
        assert file is not None
        described = json.load(file)
    assert not {"private", "scripts", "devDependencies", "dependencies"} & set(described)
    promised = [described["types"], *described["bin"].values()]
    for target in described["exports"].values():
        promised += target.values() if isinstance(target, dict) else [target]
    assert {path.removeprefix("./") for path in promised} <= names
    assert {path.name for path in (root / "web").glob("*.js")} <= names
    assert {"README.md", "LICENSE", "types/types.d.ts", "runtime/manifest.json", "runtime/pyodide/pyodide.mjs"} <= names
    assert {"runtime/sqlite/sqlite3.wasm", "runtime/pyodide/python_stdlib.zip"} <= names
    assert not [name for name in names if "node_modules" in name or name.endswith(".test.js")]


def test_the_runtime_is_copied_over_an_older_one_and_over_nothing_else(examples: dict[str, Path]) -> None:
    example = examples["vite"]
    runtime = example / "public" / "durably-web"
    (runtime / "wheels" / "old.whl").touch()
    command = ["node_modules/.bin/durably-web-runtime"]
    subprocess.run([*command, "public/durably-web"], cwd=example, check=True, timeout=60)
    assert not (runtime / "wheels" / "old.whl").exists()
    manifest = json.loads((runtime / "manifest.json").read_text())
    assert (runtime / manifest["wheel"]).is_file()

    refused = subprocess.run([*command, "public"], cwd=example, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "holds something else" in refused.stderr
    assert (example / "public" / "jobs.py").is_file()
    assert [path.name for path in (example / "public").iterdir() if path.name.startswith(".")] == []
    assert subprocess.run(command, cwd=example, capture_output=True, timeout=60).returncode == 2


def test_the_types_fit_the_hooks(examples: dict[str, Path]) -> None:
    """The React example is strict TypeScript, the declarations of the packages included, without a cast."""
    wait(npm(examples["react"], "run", "check"))


# -- a plain page ---------------------------------------------------------------------------------------------------


def count(page: Page, below: int, *, pause: float = 0, offload: bool = False) -> None:
    page.locator("#message", has_text="Ready.").wait_for(timeout=START_MS)
    page.locator("#below").fill(str(below))
    page.locator("#pause").fill(str(pause))
    page.locator("#offload").set_checked(offload)
    page.get_by_role("button", name="Count").click()


def test_a_plain_page(browser: BrowserContext, addresses: dict[str, str]) -> None:
    """From a click to the output, with a reload in the middle."""
    page = visit(browser, addresses["vite"])
    count(page, 300_000, pause=0.15)
    page.wait_for_function("document.querySelector('#bar').value >= 3")
    page.reload()
    assert page.locator("#result").inner_text() == ""
    page.locator("#result", has_text="25997 primes").wait_for(timeout=START_MS)
    assert page.locator("#bar").evaluate("bar => [bar.value, bar.max]") == [30, 30]
    assert page.locator("#message").inner_text() == "25997 below 300000"


def test_a_worker_that_starts_a_worker(browser: BrowserContext, addresses: dict[str, str]) -> None:
    page = visit(browser, addresses["vite"])
    count(page, 20_000, offload=True)
    page.locator("#result", has_text="2262 primes").wait_for(timeout=START_MS)
    assert [worker.url for worker in page.workers if "/assets/offload-worker-" in worker.url]


@contextmanager
def development_server(example: Path) -> Iterator[str]:
    """`npm run dev` on a free port; its address."""
    command = ["node_modules/.bin/vite", "--host", "127.0.0.1", "--port", "0", "--logLevel", "info"]
    with subprocess.Popen(command, cwd=example, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        said = []
        try:
            for line in server.stdout:
                said.append(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+/", re.sub(r"\x1b\[[\d;]*m", "", line)):
                    yield found[0]
                    break
            else:
                raise AssertionError("".join(said))
        finally:
            server.terminate()
            server.stdout.read()


def test_the_development_server(browser: BrowserContext, examples: dict[str, Path]) -> None:
    with development_server(examples["vite"]) as address:
        page = visit(browser, address)
        count(page, 20_000, offload=True)
        page.locator("#result", has_text="2262 primes").wait_for(timeout=START_MS)


# -- React ----------------------------------------------------------------------------------------------------------


def start(page: Page, below: int, blocks: int, *, pause: float = 0, fail: bool = False) -> None:
    page.get_by_label("below").fill(str(below))
    page.get_by_label("blocks", exact=True).fill(str(blocks))
    page.get_by_label("seconds a block").fill(str(pause))
    page.get_by_label("one fails").set_checked(fail)
    page.get_by_role("button", name="Count").click()


def visit_react(browser: BrowserContext, addresses: dict[str, str], where: str = "runs in this tab") -> Page:
    page = visit(browser, addresses["react"])
    page.get_by_test_id("status").filter(has_text=re.compile(f"^{where}$")).wait_for(timeout=START_MS)
    return page


def current(page: Page) -> Locator:
    """What `useJob` knows."""
    return page.get_by_test_id("current")


def details(page: Page) -> Locator:
    """What `useJobRun` and `useJobLogs` know of the run that is selected, beside what is stored."""
    return page.get_by_test_id("details")


def heard(page: Page, status: str) -> None:
    """Wait until `useJobRun` says so."""
    page.locator(f'[data-testid="details"][data-heard="{status}"]').wait_for()


def rows(page: Page) -> Locator:
    """What `useRuns` knows."""
    return page.get_by_test_id("runs").get_by_role("button")


def test_react_from_a_click_to_the_output(browser: BrowserContext, addresses: dict[str, str]) -> None:
    """The click comes as soon as there is a button: Python is hardly up by then."""
    page = visit(browser, addresses["react"])
    start(page, 100_000, 8)
    current(page).get_by_text("9,592 primes").wait_for()
    current(page).get_by_text("8 of 8").wait_for()
    assert current(page).get_by_role("listitem").last.inner_text().endswith("counted\nblock=8 primes=1100")
    rows(page).filter(has_text="completed").filter(has_text="9,592 primes").wait_for()

    # Nothing happens to it any more, so the hooks hear nothing (theirs is "pending" then): all of this is stored.
    rows(page).click()
    details(page).get_by_text("9,592 primes").wait_for()
    heard(page, "pending")
    assert details(page).get_by_role("listitem").count() == 8


def test_react_shows_a_run_while_it_runs_and_cancels_it(browser: BrowserContext, addresses: dict[str, str]) -> None:
    page = visit_react(browser, addresses)
    start(page, 100_000, 1_000, pause=0.2)
    progress = re.compile(r"\d+ of 1000")
    current(page).get_by_text(progress).wait_for()
    current(page).get_by_text("running").wait_for()
    rows(page).filter(has_text="running").filter(has_text=progress).click()
    details(page).get_by_text("counted").nth(1).wait_for()
    current(page).get_by_role("button", name="Cancel").click()
    current(page).get_by_text("cancelled").wait_for()
    details(page).get_by_text("cancelled").wait_for()
    rows(page).filter(has_text="cancelled").wait_for()
    heard(page, "cancelled")


def test_react_goes_on_after_a_reload(browser: BrowserContext, addresses: dict[str, str]) -> None:
    """The hook finds the run again, and no block is counted twice."""
    page = visit_react(browser, addresses)
    start(page, 200_000, 40, pause=0.15)
    current(page).get_by_text(re.compile(r"^([2-9]|[12]\d) of 40")).wait_for()
    run_id = current(page).get_attribute("data-run")
    page.reload()
    current(page).get_by_text("17,984 primes").wait_for(timeout=START_MS)
    assert current(page).get_attribute("data-run") == run_id
    assert rows(page).count() == 1
    rows(page).click()
    lines = details(page).get_by_role("listitem")
    lines.nth(39).wait_for()
    blocks = [re.findall(r"block=(\d+)", line) for line in lines.all_inner_texts()]
    assert blocks == [[str(number)] for number in range(1, 41)]


def test_react_in_two_tabs(browser: BrowserContext, addresses: dict[str, str]) -> None:
    """The second tab shows, starts, cancels and retries what the first one runs."""
    first = visit_react(browser, addresses)
    start(first, 1_000, 2)
    rows(first).filter(has_text="168 primes").wait_for()
    second = visit_react(browser, addresses, where="runs in another tab")
    rows(second).filter(has_text="168 primes").wait_for()

    start(second, 2_000_000, 1_000, pause=1)
    current(second).get_by_text("of 1000").wait_for()
    rows(first).filter(has_text="below 2,000,000").filter(has_text="running").click()
    details(first).get_by_role("button", name="Cancel").wait_for()
    current(second).get_by_role("button", name="Cancel").click()
    current(second).get_by_text("cancelled").wait_for()
    details(first).get_by_text("cancelled").wait_for()
    heard(first, "cancelled")

    start(second, 1_000, 4, fail=True)
    current(second).get_by_text("asked to fail once").wait_for()
    rows(second).filter(has_text="failed").click()
    details(second).get_by_role("button", name="Retry").click()
    details(second).get_by_text("168 primes").wait_for()
    heard(second, "completed")
    rows(first).first.filter(has_text="168 primes").wait_for()


def test_react_lists_in_pages(browser: BrowserContext, addresses: dict[str, str]) -> None:
    page = visit_react(browser, addresses)
    for number in range(6):
        start(page, 1_000 + number, 1)
        rows(page).first.filter(has_text=f"below {1_000 + number:,}").filter(has_text="completed").wait_for()
    assert rows(page).count() == 5
    page.get_by_role("button", name="Older").click()
    page.get_by_test_id("page").get_by_text("2").wait_for()
    rows(page).filter(has_text="below 1,000").wait_for()
    assert rows(page).count() == 1
    assert page.get_by_role("button", name="Older").is_disabled()
    page.get_by_role("button", name="Newer").click()
    rows(page).nth(4).wait_for()
