"""`durably-web dev`: a page that is loaded again when a file changes, and what is said when one is broken."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Command, CommandLine
from tests.support.static_server import static_server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

PAGE = """<!doctype html>
<html><head><title>first</title><link rel="icon" href="data:,"></head>
<body><script type="module">
  import { createDurably } from "./durably-web/client.js";
  globalThis.durably = await createDurably({ jobs: "./jobs.py", database: "dev" });
  await durably.ready;
  const { id } = await durably.trigger("answer", {});
  globalThis.output = (await durably.waitForRun(id, { timeout: 60_000 })).output;
</script></body></html>
"""
JOBS = """
from durably_web import Step, job


@job
async def answer(step: Step, input: dict) -> int:
    return await step.run("answer", lambda: 41)
"""
# Answers every page by itself.
SERVICE_WORKER = """
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  const page = new Response("<!doctype html><title>kept</title>", { headers: { "Content-Type": "text/html" } });
  if (event.request.mode === "navigate") event.respondWith(page);
});
"""
VISIT = 60_000


@pytest.fixture
def command_line(root: Path, runtime_directory: Path, tmp_path: Path) -> Iterator[CommandLine]:
    started = CommandLine(root, tmp_path)
    started.environment["DURABLY_WEB_RUNTIME"] = str(runtime_directory)
    yield started
    started.kill_all()


def address_of(server: Command) -> str:
    return server.wait_for_line(lambda line: " is at http://" in line).split(" is at ")[1]


def answer(page: Page, expected: int) -> None:
    # It goes on where a page is loaded again meanwhile.
    page.wait_for_function("(expected) => globalThis.output === expected", arg=expected, timeout=VISIT)


def contains(text: str, line: str) -> bool:
    return text in line


def wait_for_reload(page: Page, change: Callable[[], object]) -> None:
    with page.expect_navigation(timeout=VISIT):
        change()


def test_a_change_is_loaded_a_mistake_is_told_and_an_interrupt_ends_it(
    command_line: CommandLine, open_browser: Callable[..., BrowserContext]
) -> None:
    folder = command_line.folder / "site"
    folder.mkdir()
    (folder / "index.html").write_text(PAGE)
    (folder / "jobs.py").write_text(JOBS)
    server = command_line.start("dev", "site", "--port", "0")
    address = address_of(server)
    page = open_browser().new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(address)
    answer(page, 41)
    assert page.evaluate("navigator.serviceWorker.getRegistrations().then((found) => found.length)") == 0
    for path in ("jobs.py", ".durably-web/.gitignore", "durably-web/manifest.json"):
        status = page.evaluate("(path) => fetch(path).then((response) => response.status)", path)
        assert status == (404 if path.startswith(".") else 200)

    wait_for_reload(page, lambda: (folder / "jobs.py").write_text(JOBS.replace("41", "42")))
    answer(page, 42)
    wait_for_reload(page, lambda: (folder / "index.html").write_text(PAGE.replace("first", "second")))
    assert page.title() == "second"
    answer(page, 42)

    # One that shows before anything runs, and one that shows when the file is imported.
    for mistake, complaint in (("def (", "jobs.py, line 8: invalid syntax"), ("missing()", "'missing' is not defined")):
        wait_for_reload(page, partial((folder / "jobs.py").write_text, JOBS + mistake))
        server.wait_for_line(partial(contains, complaint))
    assert any("jobs.py, line 8: invalid syntax" in text for text in said)

    wait_for_reload(page, lambda: (folder / "jobs.py").write_text(JOBS.replace("41", "43")))
    answer(page, 43)
    server.process.send_signal(signal.SIGINT)
    assert server.end() == 0
    assert server.told[-1] == "stopped"


def test_a_service_worker_that_a_built_site_left_goes_away(
    command_line: CommandLine, open_browser: Callable[..., BrowserContext]
) -> None:
    built, folder = command_line.folder / "built", command_line.folder / "site"
    for each in (built, folder):
        each.mkdir()
        (each / "index.html").write_text(f"<!doctype html><title>{each.name}</title>")
    (built / "service-worker.js").write_text(SERVICE_WORKER)
    (folder / "jobs.py").write_text(JOBS)
    page = open_browser().new_page()
    with static_server(built) as address:
        page.goto(address)
        page.evaluate("navigator.serviceWorker.register('service-worker.js').then(() => navigator.serviceWorker.ready)")
    server = command_line.start("dev", "site", "--port", address.split(":")[2].rstrip("/"))
    assert address_of(server) == address
    page.goto(address)
    page.wait_for_function("document.title === 'site'", timeout=VISIT)
    assert page.evaluate("navigator.serviceWorker.getRegistrations().then((found) => found.length)") == 0
