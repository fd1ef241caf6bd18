"""The demo's page in a browser: what it shows, what it refuses, and that its report is the server's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo.jobs import import_csv
from durably_web import Durably
from scripts.chromium import SETTINGS
from tests.e2e.conftest import wait_until
from tests.e2e.gates import PYTHON, Gate, serve_gated

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

BROKEN = "state,name,latitude\nNY,<b>Alpha</b>,1\nNY,Beta,91\nTX,Gamma\nTX,Delta,2\nTX,Epsilon,3\n"
CHUNK_FOLDERS = """async () => {
  const names = [];
  const root = await navigator.storage.getDirectory();
  const imports = await root.getDirectoryHandle("imports", { create: true });
  for await (const name of imports.keys()) names.push(name);
  return names;
}"""

# In the midst of its work; whether there was something to click on.
CANCEL = """() => {
  const isMidway = Number(document.getElementById("run").dataset.current) >= 2;
  const button = isMidway && document.querySelector("[data-testid=cancel]");
  if (button) button.click();
  return Boolean(button);
}"""


@pytest.fixture
def page(site: str, open_browser: Callable[..., BrowserContext]) -> Page:
    """The page, ready, in a browser that has never been here."""
    page = open_browser().new_page()
    page.goto(site)
    page.wait_for_selector("[data-status=leader][data-phase=running][data-listed]", timeout=SETTINGS["RUN_TIMEOUT_MS"])
    return page


def test_a_first_visit_shows_how_much_of_python_is_there(
    site_directory: Path, open_browser: Callable[..., BrowserContext]
) -> None:
    """As long as something is missing; Python's machine code does not come here."""
    gate = Gate(PYTHON)
    with serve_gated(site_directory, gate) as address:
        page = open_browser().new_page()
        page.goto(address)
        bar = page.get_by_test_id("loading")
        bar.wait_for(timeout=SETTINGS["RUN_TIMEOUT_MS"])
        page.wait_for_function("document.querySelector('#loading').value > 0")
        value, size = bar.evaluate("bar => [bar.value, bar.max]")
        missing = (site_directory / "durably-web" / "pyodide" / PYTHON).stat().st_size
        assert 0 < value <= size - missing
        gate.open()
        bar.wait_for(state="hidden", timeout=SETTINGS["RUN_TIMEOUT_MS"])


def start(page: Page, pause: str = "0") -> None:
    page.get_by_test_id("pause").select_option(pause)
    page.get_by_test_id("start").click()


def pick(page: Page, name: str, content: bytes) -> None:
    page.get_by_test_id("file").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})


def wait_for_end(page: Page, name: str) -> str:
    """The status of the run of that name, which is the one shown, after its end."""
    page.wait_for_function(
        """name => document.getElementById("run-title").textContent === name
          && ["completed", "failed", "cancelled"].includes(document.getElementById("run").dataset.status)""",
        arg=name,
        timeout=SETTINGS["RUN_TIMEOUT_MS"],
    )
    return page.get_by_test_id("run").get_attribute("data-status") or ""


async def report_here(folder: Path, text: str) -> Any:
    async with Durably(str(folder / "app.db"), jobs=[import_csv]) as durably:
        return await durably.trigger_and_wait(import_csv, {"text": text, "file_name": "airports.csv"}, timeout=60)


def test_the_report_is_the_same_in_the_browser_and_on_a_server(
    page: Page, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(page)
    assert wait_for_end(page, "airports.csv") == "completed"
    run = page.evaluate("async () => (await durably.getRuns())[0]")

    monkeypatch.setenv("IMPORTS", str(tmp_path / "imports"))
    text = (root / "demo" / "airports.csv").read_bytes().decode()
    # In a thread, because Playwright keeps an event loop running in this one.
    assert run["output"] == in_thread(report_here(tmp_path, text))
    assert page.get_by_test_id("groups").locator("[data-group]").count() == 57


def in_thread(coroutine: Any) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result(60)


def test_a_file_that_is_no_text_is_refused_before_there_is_a_run(page: Page) -> None:
    for name, content, complaint in (
        ("picture.csv", b"\x89PNG\r\n\x1a\n\xff", "picture.csv is not UTF-8 text"),
        ("nothing.csv", b"", "nothing.csv is empty."),
        ("blank.csv", b"\xef\xbb\xbf \r\n", "blank.csv is empty."),
        ("nul.csv", b"a,b\n\0,1\n", "nul.csv is not a text file"),
    ):
        pick(page, name, content)
        start(page)
        page.get_by_test_id("form-error").get_by_text(complaint).wait_for()
    assert page.evaluate("durably.getRuns()") == []


def test_broken_rows_are_listed_and_nothing_of_a_file_becomes_markup(page: Page) -> None:
    pick(page, "<i>rows.csv", BROKEN.encode())
    start(page)
    assert wait_for_end(page, "<i>rows.csv") == "completed"
    rows = page.get_by_test_id("rejected").locator("tbody tr")
    assert [row.split("\t") for row in rows.all_inner_texts()] == [
        ["3", "latitude 91 is not between -90 and 90"],
        ["4", "it has 2 fields instead of 3"],
    ]
    groups = page.get_by_test_id("groups").locator("[data-group]")
    assert [group.get_attribute("data-group") for group in groups.all()] == ["TX", "NY"]
    assert "row 3 is left out: latitude 91" in page.get_by_test_id("log").inner_text()


def test_a_run_that_fails_tells_why(page: Page) -> None:
    pick(page, "quotes.csv", b'"a,b\n1,2\n')
    start(page)
    assert wait_for_end(page, "quotes.csv") == "failed"
    assert "the first row cannot be used" in page.get_by_test_id("run-error").inner_text()


def test_cancel_retry_and_delete(page: Page) -> None:
    start(page, pause="0.15")
    # In the page's own turn: on a busy machine the run may be over before a click from outside has come.
    page.wait_for_function(CANCEL)
    assert wait_for_end(page, "airports.csv") == "cancelled"
    page.get_by_test_id("retry").click()
    page.wait_for_selector("[data-testid=report]:not([hidden])", timeout=SETTINGS["RUN_TIMEOUT_MS"])
    assert re.search(r"going on with chunk \d+", page.get_by_test_id("log").inner_text())
    assert page.get_by_test_id("chunks-again").inner_text() == "0"
    assert len(page.evaluate(CHUNK_FOLDERS)) == 1

    page.get_by_test_id("delete").click()
    page.wait_for_selector("[data-testid=run-line]", state="detached")
    assert not page.get_by_test_id("run").is_visible()
    # The list hears of the deletion, and the files go right after it.
    wait_until(page, f"async () => (await ({CHUNK_FOLDERS})()).length === 0")


def test_a_second_tab_shows_the_same_and_takes_over(page: Page, site: str, root: Path) -> None:
    # Fewer chunks than all, and slow ones: the other tab opens meanwhile.
    lines = (root / "demo" / "airports.csv").read_bytes().splitlines(keepends=True)
    pick(page, "airports.csv", b"".join(lines[:1201]))
    start(page, pause="1")
    page.wait_for_function("Number(document.getElementById('run').dataset.current) >= 2")
    second = page.context.new_page()
    second.goto(site)
    second.wait_for_selector("[data-status=follower][data-listed]")
    assert second.get_by_test_id("status").inner_text() == "another tab runs the jobs"
    assert second.get_by_test_id("start").is_enabled()
    current = "Number(document.getElementById('run').dataset.current)"
    second.wait_for_function(f"seen => {current} > seen", arg=second.evaluate(current))

    page.close()
    second.wait_for_selector("[data-status=leader]", timeout=SETTINGS["RUN_TIMEOUT_MS"])
    assert wait_for_end(second, "airports.csv") == "completed"
    assert second.get_by_test_id("chunks-again").inner_text() == "0"


def test_nothing_sticks_out(page: Page) -> None:
    start(page)
    wait_for_end(page, "airports.csv")
    for width in (320, 700, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_an_expense_waits_for_a_person_across_a_reload(page: Page) -> None:
    def lines() -> list[str | None]:
        return [line.get_attribute("data-state-of-run") for line in page.get_by_test_id("expense-line").all()]

    for what in ("<b>Telescope", "Umbrella"):
        page.get_by_test_id("expense-what").fill(what)
        page.get_by_test_id("ask").click()
        page.get_by_test_id("expense-line").filter(has_text=what).get_by_text("waits for you").wait_for()
    filed = page.evaluate("async () => (await durably.getSteps((await durably.getRuns())[1].id))[0].output")

    page.reload()
    page.wait_for_selector("[data-status=leader][data-phase=running][data-listed]", timeout=SETTINGS["RUN_TIMEOUT_MS"])
    assert lines() == ["waits for you", "waits for you"]
    page.get_by_role("button", name="Approve <b>Telescope").click()
    page.get_by_text("paid once, as P-").wait_for()
    page.get_by_role("button", name="Reject Umbrella").click()
    page.get_by_text("nothing was paid").wait_for()
    assert lines() == ["rejected", "approved"]
    outputs = [run["output"] for run in page.evaluate("durably.getRuns()")]
    assert outputs[1]["number"] == filed
    # An expense is not an import.
    assert page.get_by_test_id("run-line").count() == 0

    page.get_by_role("button", name="Delete Umbrella").click()
    page.get_by_test_id("expense-line").filter(has_text="Umbrella").wait_for(state="detached")
    page.get_by_test_id("expense-what").fill(" ")
    page.get_by_test_id("ask").click()
    page.get_by_text("an expense says what it is for").wait_for()
