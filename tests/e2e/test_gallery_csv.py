"""examples/csv in a browser: what it makes of files, good and bad, and that a kill in the middle changes nothing."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import wait_until
from tests.e2e.gallery import KEPT, Visit, served, sticks_out

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.browser

HERE = "csv-example"
HEADER = ["id", "day", "place", "level"]

DROP = """([name, text]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([text], name, { type: "text/csv" }));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def address(site_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served("csv", tmp_path_factory.mktemp("gallery")) as address:
        yield address


@pytest.fixture
def browser(open_browser: Callable[..., BrowserContext]) -> BrowserContext:
    return open_browser()


def some_file(seed: int) -> tuple[str, list[list[str]], list[list[str]]]:
    """A file with faults at places that a seed says, its clean rows, and `[line, reason]` of the others."""
    chance = random.Random(seed)
    lines, good, bad = [";".join(HEADER)], [], []
    line = 2
    for number in range(1500):
        day, month, tenths = 1 + number % 28, 1 + number // 28 % 12, chance.randrange(1000)
        row = [str(number), f"{day}.{month}.2010", f"place {number % 7}", f"{tenths // 10},{tenths % 10}"]
        clean = [row[0], f"2010-{month:02}-{day:02}", row[2], row[3].replace(",", ".")]
        fault = chance.randrange(30) if number else None
        if fault == 0:
            row[3] = "high"
            bad.append([str(line), "level is not a number: 'high'"])
        elif fault == 1:
            row.pop()
            bad.append([str(line), "it has 3 fields instead of 4"])
        elif fault == 2:
            row[2] = f'"{row[2]}\n and ""more"""'
            good.append([*clean[:2], f'{clean[2]} and "more"', clean[3]])
        elif fault == 3:
            row[3] = "N/A"
            good.append([*clean[:3], ""])
        else:
            good.append(clean)
        lines.append(";".join(row))
        line += 2 if fault == 2 else 1
    # To know the first row again, the last piece must know the first one.
    lines.append(lines[1])
    bad.append([str(line), "an earlier row is the same"])
    return "\n".join(lines) + "\n", good, bad


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text("utf-8"), newline="")))


def download(visit: Visit, which: str) -> list[list[str]]:
    with visit.page.expect_download() as waiting:
        visit.page.click(f"#get-{which}")
    return rows_of(waiting.value.path())


def steps(visit: Visit) -> list[dict[str, Any]]:
    """The stored steps of the only run, asked through a client of the test's own."""
    return list(
        visit.page.evaluate(
            """async () => {
              const { createDurably } = await import("./durably-web/client.js");
              globalThis.second ??= await createDurably({ role: "follower", database: "csv" });
              return second.getSteps((await second.getRuns())[0].id);
            }"""
        )
    )


@pytest.mark.parametrize("seed", [20261129])
def test_a_tab_that_is_killed_in_the_middle_changes_nothing(
    seed: int, browser: BrowserContext, address: str, crash_tabs: Callable[[BrowserContext], None]
) -> None:
    text, good, bad = some_file(seed)
    visit = Visit(browser, address)
    page = visit.page
    page.check("#slow")
    page.set_input_files("#file", {"name": "<b>levels.csv", "mimeType": "text/csv", "buffer": text.encode()})
    page.wait_for_function("document.getElementById('bar').value > 0", timeout=180_000)
    before = [step for step in steps(visit) if step["name"].startswith("clean") and step["status"] == "completed"]
    assert before, "no piece was stored"
    with page.expect_event("crash"):
        crash_tabs(browser)
    page.close()

    visit = Visit(browser, address)
    page = visit.page
    # The list of files, and the one that was not finished, are there at once.
    assert page.locator("#runs li").count() == 1
    assert page.inner_text("#name") == "<b>levels.csv"
    visit.ended("completed")
    assert steps(visit)[: 3 + len(before)][3:] == before, "a stored piece was cleaned again"
    assert len(steps(visit)) > 3 + len(before), "it was at its end before the kill"
    assert page.inner_text("#good-rows") == f"{len(good):,}"
    assert page.inner_text("#rows-left-out") == str(len(bad))
    shown = [row.split("\t") for row in page.locator("[aria-label='Rows left out'] tbody tr").all_inner_texts()]
    assert shown == bad[:100]
    assert download(visit, "clean") == [HEADER, *good]
    rejected = download(visit, "rejected")
    assert [row[:2] for row in rejected] == [["line", "reason"], *bad]
    page.get_by_label("Column of the chart").select_option("level")
    levels = [float(level) for *_, level in good if level]
    title = f"level from 2010-01-01 to 2010-12-28: between {min(levels):g} and {max(levels):g}"
    assert page.get_by_role("img", name=title).is_visible()
    assert sticks_out(page) == []

    assert len(visit.kept(HERE)) > 5
    page.get_by_role("button", name="Delete <b>levels.csv").click()
    page.wait_for_selector("#none:not([hidden])")
    wait_until(page, f"async (name) => (await ({KEPT})(name))?.length === 0", HERE)
    assert visit.complaints == []


def test_files_that_cannot_be_used_say_why_and_others_are_told_apart(browser: BrowserContext, address: str) -> None:
    visit = Visit(browser, address)
    page = visit.page
    page.set_input_files("#file", {"name": "nothing.csv", "mimeType": "text/csv", "buffer": b""})
    page.get_by_text("nothing.csv is empty.").wait_for()
    for name, content, told in (
        ("picture.csv", b"\x89PNG\r\n\x1a\n\0\0\0", "this is not a text file: it contains NUL bytes"),
        ("blank.csv", b"\xef\xbb\xbf \r\n", "the file is empty"),
        ("wide.csv", "a,b\n1,2\n".encode("utf-16"), "the file is UTF-16"),
        ("quote.csv", b'"a,b\n1,2\n', "the first row cannot be used: its quotes do not match"),
    ):
        page.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": content})
        page.get_by_role("heading", name=name).wait_for()
        visit.ended("failed")
        assert told in page.inner_text("#error")

    page.set_input_files(
        "#file", {"name": "west.csv", "mimeType": "text/csv", "buffer": "n;k\n1;é\n2;ü\n".encode("cp1252")}
    )
    page.get_by_text("Read as Windows-1252, because it is not UTF-8, with semicolons").wait_for()
    assert download(visit, "clean") == [["n", "k"], ["1", "é"], ["2", "ü"]]

    # One that is dropped, and the sample.
    page.evaluate(DROP, ["dropped.csv", "place,n\nNorth,1\nSouth,2\nNorth,3\nSouth,4\n"])
    page.get_by_role("img", name="Rows by group: North 2, South 2").wait_for()
    page.click("#sample")
    page.get_by_role("img", name="temp from 2010-01-01 to 2010-12-31: between 45.6 and 72.2").wait_for()
    assert page.inner_text("#good-rows") == "8,759"
    assert visit.complaints == []
