"""The sites of examples/, built as a user does it, and the files that they keep in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from durably_web.site.build import build_site
from durably_web.site.runtime import find_runtime
from scripts.chromium import SETTINGS
from scripts.serve import serve
from tests.e2e.conftest import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# From a click to a finished run, Python's start included, on a machine with other things to do.
PATIENCE_MS = SETTINGS["RUN_TIMEOUT_MS"]

# Every file in this origin's private file system below one folder, as a path; `null` where they are just being removed.
KEPT = """async (name) => {
  const found = [];
  const look = async (folder, path) => {
    for await (const entry of folder.values()) {
      if (entry.kind === "directory") await look(entry, `${path}${entry.name}/`);
      else found.push(path + entry.name);
    }
  };
  const root = await navigator.storage.getDirectory();
  try {
    await look(await root.getDirectoryHandle(name, { create: true }), "");
  } catch (error) {
    if (error.name === "NotFoundError") return null;
    throw error;
  }
  return found.sort();
}"""


@contextmanager
def served(name: str, folder: Path) -> Iterator[str]:
    """Build one example into `folder`, which a test session does once, and serve it below a path."""
    site = build_site(EXAMPLES / name, folder / name, find_runtime()).folder
    with serve(site, base=SETTINGS["BASE_PATH"]) as address:
        yield address


class Visit:
    """A tab with an example, and everything that its console complained about."""

    def __init__(self, browser: BrowserContext, address: str) -> None:
        self.page: Page = browser.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]", timeout=PATIENCE_MS)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)

    def wait(self, selector: str) -> None:
        self.page.wait_for_selector(selector, timeout=PATIENCE_MS)

    def ended(self, status: str) -> None:
        """Wait until the run on display has ended, and that is how."""
        self.wait(", ".join(f"#shown[data-status={one}]" for one in ("completed", "failed", "cancelled")))
        shown = self.page.locator("#shown")
        assert shown.get_attribute("data-status") == status, self.page.inner_text("#error")

    def kept(self, folder: str) -> list[str]:
        wait_until(self.page, f"async (name) => await ({KEPT})(name) !== null", folder)
        return list(self.page.evaluate(KEPT, folder))


def sticks_out(page: Page) -> list[int]:
    """The widths at which something of the page is outside of it."""
    wrong = []
    for width in (320, 700, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            wrong.append(width)
    return wrong
