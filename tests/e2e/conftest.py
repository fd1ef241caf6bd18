"""Sites made for the tests: two below one origin, with pages that hand `createDurably` to the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.serve import serve

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

HERE = Path(__file__).parent
PAGE = '<!doctype html><meta charset="utf-8"><title>test</title><link rel="icon" href="data:,">'

# Keeps every worker within reach of the test, which may end one; the product has no such door.
KEEP_WORKERS = """
globalThis.workers = [];
globalThis.Worker = class extends Worker {
  constructor(...details) {
    super(...details);
    workers.push(this);
  }
};
"""

# Ends when the jobs can run, here or in another tab, or with the error; `early` does not wait for Python.
CREATE = """async ({ early = false, ...options }) => {
  const { createDurably } = await import("./durably-web/client.js");
  globalThis.statuses = [];
  globalThis.downloads = [];
  try {
    const onStatus = (status, { phase, loaded, total, error }) => {
      statuses.push([status, phase ?? null, error?.name ?? null]);
      if (total !== undefined) downloads.push([phase, loaded, total]);
    };
    globalThis.durably = await createDurably({ jobs: "jobs.py", onStatus, ...options });
    globalThis.events = [];
    durably.on("*", (event) => events.push(event));
    if (!early) await durably.ready;
    return durably.status;
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}"""

# Playwright's own `wait_for_function` takes the promise of an async function for its answer, which is always true.
WAIT = """async ([condition, arg, patience]) => {
  const holds = (0, eval)(`(${condition})`);
  const deadline = new Promise((_, reject) => setTimeout(
    () => reject(new Error(`not true within ${patience} ms: ${condition}`)), patience));
  while (!(await Promise.race([holds(arg), deadline]))) await new Promise((resume) => setTimeout(resume, 20));
}"""

Create = Callable[..., str]


@pytest.fixture(scope="session")
def origin_folder(site_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one origin serves: the same runtime below /my-repo/ and below /other/, with the job files of these tests."""
    folder = tmp_path_factory.mktemp("origin")
    for name in ("my-repo", "other"):
        site = folder / name
        site.mkdir()
        (site / "durably-web").symlink_to(site_directory / "durably-web")
        (site / "index.html").write_text(PAGE)
        (site / "greeting.txt").write_text("hello")
        for job_file in sorted((HERE / "jobs").glob("*.py")):
            (site / job_file.name).symlink_to(job_file)
    return folder


@pytest.fixture(scope="session")
def origin(origin_folder: Path) -> Iterator[str]:
    with serve(origin_folder) as address:
        yield address


@pytest.fixture
def browser(open_browser: Callable[..., BrowserContext]) -> BrowserContext:
    context = open_browser()
    context.add_init_script(KEEP_WORKERS)
    return context


@pytest.fixture
def visit(browser: BrowserContext, origin: str) -> Callable[..., Page]:
    """Open a page of a site in a new tab."""

    def visit(site: str = "my-repo/") -> Page:
        page = browser.new_page()
        page.goto(origin + site)
        return page

    return visit


def wait_until(page: Page, condition: str, arg: Any = None, patience: int = 30_000) -> None:
    """Until an async function of the page gives something true, for so many milliseconds at most."""
    page.evaluate(WAIT, [condition, arg, patience])


def create(page: Page, **options: Any) -> str:
    """`createDurably` on the page, and Python up: its status, or its error as `Name: message`."""
    return str(page.evaluate(CREATE, options))


def create_early(page: Page, **options: Any) -> str:
    """`createDurably` on the page, whether Python is up or not."""
    return create(page, early=True, **options)
