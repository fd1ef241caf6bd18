"""examples/outbox in a browser: reports arrive exactly once and in order, whatever the network and the tabs do."""

from __future__ import annotations

import io
import json
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from examples.outbox.server import Reports
from tests.e2e.gallery import PATIENCE_MS, Visit, served, sticks_out
from tests.support.png import bands, png

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.browser

FAULTS = ("busy", "lost before", "lost after")


class Handler(BaseHTTPRequestHandler):
    """The example's server behind a bad line: a request may be lost, and so may the answer to one that arrived."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self._serve()

    def do_OPTIONS(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault() if self.command == "POST" else "none"
        if fault == "lost before":
            self.close_connection = True
            return
        said: list[Any] = []
        environ = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": self.path,
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_IDEMPOTENCY_KEY": self.headers.get("Idempotency-Key"),
            "wsgi.input": io.BytesIO(body),
        }
        answer = b"".join(self.server.reports(environ, lambda *told: said.extend(told)))
        if fault == "lost after":
            self.close_connection = True
            return
        # The answer of a server that has done what it was asked all the same.
        self.send_response(503 if fault == "busy" else int(said[0].split()[0]))
        for name, value in said[1]:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, database: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.database = database
        self.reports = Reports(str(database))
        self.faults: list[str] = []
        self.happened: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/reports"

    def fault(self) -> str:
        """What happens to the next report that comes; nothing when the list is at its end."""
        fault = self.faults.pop(0) if self.faults else "none"
        self.happened.append(fault)
        return fault

    def ledger(self) -> list[str]:
        """What has arrived, in the order of its arrival."""
        with closing(sqlite3.connect(self.database)) as connection:
            rows = connection.execute("SELECT report FROM reports ORDER BY number").fetchall()
        return [json.loads(report)["what"] for (report,) in rows]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "reports.db") as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=10)


@pytest.fixture(scope="module")
def address(site_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served("outbox/site", tmp_path_factory.mktemp("gallery")) as address:
        yield address


def settle(visit: Visit, server: Server) -> None:
    """Tell the page where its reports go."""
    page = visit.page
    if not page.locator("#endpoint").is_visible():
        page.get_by_text("Where reports go").click()
    page.fill("#endpoint", server.address)
    page.keyboard.press("Tab")


def save(visit: Visit, what: str, where: str = "") -> None:
    """Write a report, and press Save: when this returns the page says that it is stored."""
    page = visit.page
    page.get_by_label("What did you see?").fill(what)
    page.get_by_label("Where?").fill(where)
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved in the outbox.").wait_for(timeout=PATIENCE_MS)
    assert page.get_by_label("What did you see?").input_value() == ""


def all_sent(visit: Visit) -> None:
    visit.wait("html[data-waiting='0']")


@pytest.mark.parametrize("seed", [1])
def test_each_report_arrives_once_and_in_order_through_a_storm(
    seed: int,
    open_browser: Callable[..., BrowserContext],
    address: str,
    server: Server,
    tmp_path: Path,
    crash_tabs: Callable[[BrowserContext], None],
) -> None:
    """Lost requests, lost answers, busy answers; no network; reloads, second tabs, crashes, and a restart offline."""
    chance = random.Random(seed)
    browser = open_browser()
    visit = Visit(browser, address)
    settle(visit, server)
    visit.page.get_by_text("This page works without a network.").wait_for(timeout=PATIENCE_MS)
    # Not many after another: the delays between attempts grow.
    for _ in range(4):
        server.faults += [*chance.sample(FAULTS, chance.randrange(3)), "none"]
    server.faults.append("lost after")
    written: list[str] = []
    happenings = ["offline", "online", "reload", "second tab", "crash"]
    chance.shuffle(happenings)
    # What must not be missing, whatever the seed says: a restart without a network, with reports in the outbox.
    happenings += ["offline", "restart"]
    offline = False
    for happening in happenings:
        for _ in range(chance.randrange(1, 3)):
            written.append(f"report {len(written) + 1}")
            save(visit, written[-1])
        match happening:
            case "offline" | "online":
                offline = happening == "offline"
                browser.set_offline(offline)
            case "reload":
                visit.page.reload()
                visit.wait("html[data-ready]")
            case "second tab":
                first = visit
                visit = Visit(browser, address)
                first.page.close()
            case "crash" | "restart":
                if happening == "crash":
                    with visit.page.expect_event("crash"):
                        crash_tabs(browser)
                # A browser that lost its service worker's process takes no orders about the network any more.
                browser.close()
                # Nothing but the kept copy of the site is left.
                with suppress(FileNotFoundError):
                    shutil.rmtree(tmp_path / "profile" / "Default" / "Cache")
                browser = open_browser()
                browser.set_offline(offline)
                visit = Visit(browser, address)
    assert offline
    written.append("written at the end, without a network")
    save(visit, written[-1], "here")
    visit.page.get_by_text("waits for the network").wait_for(timeout=PATIENCE_MS)
    assert visit.page.inner_text("#network") == "offline"
    # Every line of the list that is to be sent is there, before anything of it has gone.
    assert visit.page.locator("#reports li").count() == len(written)

    browser.set_offline(False)
    all_sent(visit)
    assert server.ledger() == written
    assert "lost after" in server.happened, server.happened
    assert len(server.happened) >= len(written) + sum(fault != "none" for fault in server.happened)
    states = visit.page.locator("#reports .badge").all_inner_texts()
    assert states == [f"sent, number {number}" for number in range(len(written), 0, -1)]
    assert sticks_out(visit.page) == []


def test_what_is_refused_says_why_and_holds_up_nothing(
    open_browser: Callable[..., BrowserContext], address: str, server: Server
) -> None:
    browser = open_browser()
    visit = Visit(browser, address)
    page = visit.page
    settle(visit, server)
    page.set_input_files("#file", {"name": "p.png", "mimeType": "image/png", "buffer": png(320, 200, bands)})
    page.locator("#photo[src^='data:image/jpeg']").wait_for()
    # A draft is there again after a reload, photo included.
    page.get_by_label("Where?").fill("<b>bridge")
    page.reload()
    visit.wait("html[data-ready]")
    assert page.get_by_label("Where?").input_value() == "<b>bridge" and page.locator("#photo").is_visible()
    save(visit, "x" * 1001, "<b>bridge")
    save(visit, "a second one")
    all_sent(visit)
    assert page.locator("[data-status=failed] .badge").inner_text() == "refused"
    assert "a report has 1 to 1000 characters" in page.locator("[data-status=failed]").inner_text()
    assert server.ledger() == ["a second one"]

    page.get_by_role("button", name="Edit").click()
    page.locator("[data-status=failed]").wait_for(state="detached")
    assert page.get_by_label("Where?").input_value() == "<b>bridge" and page.locator("#photo").is_visible()
    save(visit, "shorter", "<b>bridge")
    all_sent(visit)
    assert server.ledger() == ["a second one", "shorter"]
    assert page.locator("[data-status=completed] img").count() == 1

    # What was taken back is not sent, unless somebody wants that after all.
    browser.set_offline(True)
    for what in ("never", "in the end", "right away"):
        save(visit, what)
    for what in ("never", "in the end"):
        page.get_by_role("button", name=f"Take back: {what}").click()
        page.get_by_role("button", name=f"Send after all: {what}").wait_for()
    browser.set_offline(False)
    all_sent(visit)
    page.get_by_role("button", name="Send after all: in the end").click()
    page.locator("[data-status=completed]", has_text="in the end").wait_for(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Delete: never").click()
    page.locator("li", has_text="never").wait_for(state="detached")
    assert server.ledger() == ["a second one", "shorter", "right away", "in the end"]

    # Saved twice, because the tab went in between, it is one report.
    page.get_by_label("What did you see?").fill("one")
    kept = page.evaluate("localStorage.getItem('outbox-example-draft')")
    save(visit, "one")
    page.evaluate("draft => localStorage.setItem('outbox-example-draft', draft)", kept)
    page.reload()
    visit.wait("html[data-ready]")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved in the outbox.").wait_for()
    all_sent(visit)
    assert server.ledger()[4:] == ["one"]
