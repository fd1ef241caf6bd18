"""Import the airports in a real browser, kill the tab midway, come back, and compare the report with our own count."""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scripts import chromium

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

RUN_TIMEOUT = chromium.SETTINGS["RUN_TIMEOUT_MS"]
CHUNK_SIZE = 100

# The page shows three decimals.
CLOSE_ENOUGH = 0.00051

READ_REPORT = """() => {
  const text = (name) => document.querySelector(`[data-testid=${name}]`).textContent;
  const number = (text) => Number(text.replaceAll(",", ""));
  return {
    rows: number(text("row-count")),
    saved: number(text("saved")),
    left_out: number(text("rejected-count")),
    times_saved: [...document.querySelectorAll("[data-times-saved]")].map((chunk) => Number(chunk.dataset.timesSaved)),
    states: Object.fromEntries([...document.querySelectorAll("[data-testid=groups] [data-group]")].map((row) => {
      const cells = [...row.querySelectorAll("td:not(.share)")].map((cell) => number(cell.textContent));
      return [row.dataset.group, cells];
    })),
  };
}"""


class WrongReport(Exception):
    """What the page shows is not what the file says."""


class Report(NamedTuple):
    """What is compared: `states` has the number of airports, the mean latitude and the mean longitude."""

    rows: int
    saved: int
    left_out: int
    times_saved: list[int]
    states: dict[str, list[float]]


def expected_report(file: Path) -> Report:
    """The figures, computed here from the file and by nothing of the demo's."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    states: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        states[row["state"]].append((float(row["latitude"]), float(row["longitude"])))
    means = {
        state: [math.fsum(axis) / len(places) for axis in zip(*places, strict=True)] for state, places in states.items()
    }
    return Report(
        rows=len(rows),
        saved=len(rows),
        left_out=0,
        times_saved=[1] * math.ceil(len(rows) / CHUNK_SIZE),
        states={state: [len(places), *means[state]] for state, places in states.items()},
    )


def differences(shown: Report, expected: Report) -> list[str]:
    """Every figure that is not as it must be, in words."""
    found = [
        f"{name} is {got}, not {wanted}"
        for name, got, wanted in zip(Report._fields[:-1], shown[:-1], expected[:-1], strict=True)
        if got != wanted
    ]
    for state in sorted(shown.states.keys() | expected.states.keys()):
        got, wanted = shown.states.get(state, []), expected.states.get(state, [])
        if len(got) != len(wanted) or any(abs(a - b) > CLOSE_ENOUGH for a, b in zip(got, wanted, strict=True)):
            found.append(f"state {state} has {got}, not {wanted}")
    return found


def wait_for(page: Page, selector: str) -> None:
    """Raises `WrongReport`, with what the page shows instead, when `selector` does not appear."""
    from playwright.sync_api import TimeoutError

    try:
        page.wait_for_selector(selector, timeout=RUN_TIMEOUT)
    except TimeoutError:
        shown = " | ".join(page.locator("body").inner_text().split("\n"))
        raise WrongReport(f"the page does not reach {selector}; it shows: {shown}") from None


def open_page(browser: BrowserContext, address: str) -> Page:
    page = browser.new_page()
    page.goto(address)
    wait_for(page, "html[data-status=leader], html[data-status=failed]")
    if page.evaluate("document.documentElement.dataset.status") == "failed":
        raise WrongReport(f"the page says: {page.get_by_test_id('notice').inner_text()}")
    return page


def import_and_crash(browser: BrowserContext, address: str, chunks: int) -> int:
    """Start the import, kill its process in the middle; returns how many chunks the page had seen."""
    page = open_page(browser, address)
    page.get_by_test_id("start").click()
    page.wait_for_function(
        "least => Number(document.getElementById('run').dataset.current) >= least", arg=chunks // 3, timeout=RUN_TIMEOUT
    )
    seen = int(page.get_by_test_id("run").get_attribute("data-current") or 0)
    with page.expect_event("crash"):
        chromium.crash_tabs(browser)
    page.close()
    if not 0 < seen < chunks:
        raise WrongReport(f"the tab was to be killed in the middle, and the page was at chunk {seen} of {chunks}")
    return seen


def come_back(browser: BrowserContext, address: str) -> tuple[int, Report]:
    """Open the page again and touch nothing: the chunk that it went on with, and the report that it ended with."""
    page = open_page(browser, address)
    ended = ",".join(f"#run[data-status={status}]" for status in ("completed", "failed", "cancelled"))
    wait_for(page, ended)
    status = page.get_by_test_id("run").get_attribute("data-status")
    if status != "completed":
        raise WrongReport(f"the run {status}: {page.get_by_test_id('run-error').inner_text()}")
    wait_for(page, "[data-testid=report]:not([hidden])")
    resumed = re.search(r"going on with chunk (\d+)", page.get_by_test_id("log").inner_text())
    if resumed is None:
        raise WrongReport("the run's log does not say that it went on")
    return int(resumed[1]), Report(**page.evaluate(READ_REPORT))


def run(address: str, profile: Path, file: Path) -> int:
    """The chunk that the run went on with after its tab was killed.

    Raises `WrongReport` if it did stored work again, or if its report is not the one that `file` asks for.
    """
    from playwright.sync_api import sync_playwright

    expected = expected_report(file)
    chunks = len(expected.times_saved)
    with sync_playwright() as driver, chromium.launch(driver, profile) as browser:
        seen = import_and_crash(browser, address, chunks)
        print(f"The tab was killed after chunk {seen} of {chunks}.", flush=True)
        resumed, shown = come_back(browser, address)
    print(f"The next visit went on with chunk {resumed}.", flush=True)
    wrong = differences(shown, expected)
    if resumed <= seen:
        wrong.insert(0, f"chunk {seen} was stored, and the run went on with chunk {resumed}")
    if wrong:
        raise WrongReport("; ".join(wrong[:5]))
    return resumed
