"""examples/images in a browser: pictures on several cores, one that is broken, stops and kills in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import wait_until
from tests.e2e.gallery import KEPT, Visit, served, sticks_out
from tests.support.examples import imported
from tests.support.png import bands, png, waves

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.browser

HERE = "images-example"

# Every worker holds one lock for as long as it lives.
WORKERS = "async () => (await navigator.locks.query()).held.filter(({name}) => name.includes(':lifeline:')).length"

DROP = """(files) => {
  const dataTransfer = new DataTransfer();
  for (const [name, bytes] of files) dataTransfer.items.add(new File([Uint8Array.from(bytes)], name));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""

# A client of the test's own.
ASK = """async (question) => {
  const { createDurably } = await import("./durably-web/client.js");
  globalThis.asking ??= await createDurably({ role: "follower", database: "images" });
  const [run] = await asking.getRuns();
  return question === "steps" ? asking.getSteps(run.id) : run;
}"""


@pytest.fixture(scope="module")
def address(site_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served("images", tmp_path_factory.mktemp("gallery")) as address:
        yield address


@pytest.fixture
def browser(open_browser: Callable[..., BrowserContext]) -> BrowserContext:
    return open_browser()


def finished(visit: Visit) -> list[dict[str, Any]]:
    """The stored results of pictures, in the order of the pictures."""
    steps = [step for step in visit.page.evaluate(ASK, "steps") if step["name"].startswith("picture")]
    return sorted(
        (step for step in steps if step["status"] in ("completed", "failed")),
        key=lambda step: int(step["name"].partition(" ")[2]),
    )


def upload(*files: tuple[str, bytes]) -> list[Any]:
    return [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]


def test_a_tab_that_is_killed_in_the_middle_looks_at_no_picture_again(
    browser: BrowserContext, address: str, crash_tabs: Callable[[BrowserContext], None]
) -> None:
    visit = Visit(browser, address)
    page = visit.page
    page.check("#single")
    page.click("#samples")
    visit.wait("#cards img")
    before = finished(visit)
    with page.expect_event("crash"):
        crash_tabs(browser)
    page.close()
    assert 0 < len(before) < 24

    visit = Visit(browser, address)
    page = visit.page
    visit.ended("completed")
    page.get_by_text("1 group of pictures that are alike · 1 file could not be read").wait_for()
    after = {step["name"]: step for step in finished(visit)}
    assert [after[step["name"]] for step in before] == before
    page.locator("#cards .alike").nth(1).wait_for()
    assert page.locator("#cards img").count() == 23
    alike = [card.inner_text().split("\n")[0] for card in page.locator("#cards [data-alike]").all()]
    assert alike == ["hills 3.png", "hills 3, small.jpg"]
    assert "this is no picture" in page.locator("#cards li").last.inner_text()
    assert sticks_out(page) == []
    assert len(visit.kept(HERE)) == 24
    assert visit.complaints == []


def test_a_batch_uses_all_cores_is_stopped_goes_on_and_is_deleted(
    browser: BrowserContext, address: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit = Visit(browser, address)
    page = visit.page
    page.click("#samples")
    page.get_by_role("button", name="Stop the batch").click()
    visit.ended("cancelled")
    assert len(finished(visit)) < 24
    page.get_by_role("button", name="Go on the batch").click()
    visit.wait("#shown[data-status=completed]")
    page.wait_for_function("document.querySelectorAll('#cards img').length === 23")
    # The engine's worker, the one of the client that asks here, and those of the pictures.
    wait_until(page, f"async () => await ({WORKERS})() === 2 + Math.min(navigator.hardwareConcurrency, 4)")

    # The same picture under two names is stored once, a dropped file works as well, and text is no picture.
    page.set_input_files("#files", upload(("<b>one.png", png(96, 72, bands)), ("two.png", png(96, 72, bands))))
    page.get_by_role("heading", name="2 pictures").wait_for()
    page.get_by_text("1 group of pictures that are alike").wait_for()
    assert page.locator("#cards li").first.inner_text().startswith("<b>one.png")
    assert len(visit.kept(HERE)) == 24 + 1
    other = png(60, 40, waves)
    page.evaluate(DROP, [["other.png", list(other)], ["text.png", list(b"no picture")]])
    page.get_by_text("1 file could not be read").wait_for()
    page.get_by_text("this is no picture").wait_for()
    found = page.evaluate(ASK, "run")["output"]["pictures"][0]

    # What Pillow makes of the same bytes may differ in the last digit.
    (tmp_path / "other").write_bytes(other)
    monkeypatch.setenv("IMAGES", str(tmp_path))
    here = in_thread(root, "other")
    assert (found["width"], found["height"]) == (here["width"], here["height"]) == (60, 40)
    assert (int(found["hash"], 16) ^ int(here["hash"], 16)).bit_count() <= 8
    assert len(found["colours"]) == len(here["colours"])

    # Each goes with the pictures that no other batch has: the oldest first, which had 24.
    for left in (3, 2, 0):
        page.locator("#runs").get_by_role("button", name="Delete").last.click()
        wait_until(page, f"async ([name, left]) => (await ({KEPT})(name))?.length === left", [HERE, left])
    page.wait_for_selector("#none:not([hidden])")
    assert visit.kept(HERE) == []
    assert visit.complaints == []


def in_thread(root: Path, file: str) -> Any:
    """`look` on this Python, in a thread, because Playwright keeps an event loop running in this one."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    with imported(root / "examples" / "images") as jobs, ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, jobs.look(file)).result(60)
