"""Runs that go from a page to a server and back: a real page, its database on OPFS, and a real server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import HERE, PAGE, create, wait_until
from tests.e2e.test_http_client import jobs_of
from tests.support.http_server import HttpServer, http_server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

JOB_FILE = "waiting_jobs.py"
CONNECT = """async () => {
  const { createDurably } = await import("/durably-web/client.js");
  globalThis.server = await createDurably({ url: "/api/durably" });
}"""
TOLD = "({name, message}) => `${name}: ${message}`"
TO_SERVER = "id => durably.handOver(id, server, { name: 'the server', timeout: 20_000 })"
TO_PAGE = "id => server.handOver(id, durably, { name: 'the page', timeout: 20_000 })"


@pytest.fixture
def server(tmp_path: Path, site_directory: Path) -> Iterator[HttpServer]:
    """It answers below /api/durably, and serves a site with the same job file."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(PAGE)
    shutil.copy(HERE / "jobs" / JOB_FILE, site)
    with http_server(tmp_path / "server.db", jobs_of(JOB_FILE), site_directory / "durably-web", site) as server:
        yield server


@pytest.fixture
def page(server: HttpServer, open_browser: Callable[..., BrowserContext]) -> Page:
    page = open_browser().new_page()
    enter(page, server)
    return page


def enter(page: Page, server: HttpServer) -> None:
    page.goto(server.address)
    assert create(page, jobs=JOB_FILE) == "leader"
    page.evaluate(CONNECT)


def begin(page: Page, client: str) -> tuple[str, str]:
    """A run that has done its first step and waits for an answer: its id, and what only that step can have made."""
    run_id: str = page.evaluate(f"async () => (await {client}.trigger('ask', {{ n: 1 }})).id")
    wait_until(page, f"async id => (await {client}.getRun(id)).status === 'waiting'", run_id)
    return run_id, made(page, client, run_id)


def made(page: Page, client: str, run_id: str) -> str:
    step: str = page.evaluate(f"async id => (await {client}.getSteps(id))[0].output", run_id)
    return step


def answer(page: Page, client: str, run_id: str) -> Any:
    """Let the run go on where it is now; its output."""
    page.evaluate(f"id => {client}.signal(id, 'answer', 42)", run_id)
    ended = page.evaluate(f"id => {client}.waitForRun(id, {{ timeout: 30_000 }})", run_id)
    return ended["output"]


def run(page: Page, client: str, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(f"id => {client}.getRun(id)", run_id)
    return found


def steps(page: Page, client: str, run_id: str) -> list[str]:
    found: list[Any] = page.evaluate(f"id => {client}.getSteps(id)", run_id)
    return [step["status"] for step in found]


def states(page: Page, client: str, run_id: str) -> list[str]:
    """What the run's journal tells of its handovers."""
    events: list[Any] = page.evaluate(
        f"async id => {{ const seen = []; for await (const e of {client}.subscribe(id)) seen.push(e); return seen; }}",
        run_id,
    )
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    return [event["data"]["state"] for event in events if event["type"] == "run:handover"]


def test_a_run_begun_offline_goes_on_on_the_server(page: Page, server: HttpServer) -> None:
    page.context.set_offline(True)
    run_id, secret = begin(page, "durably")
    page.context.set_offline(False)
    page.evaluate(TO_SERVER, run_id)
    here = run(page, "durably", run_id)
    assert (here["status"], here["error"]) == ("cancelled", "handed over to the server")
    assert made(page, "server", run_id) == secret
    assert answer(page, "server", run_id) == {"input": {"n": 1}, "asked": secret, "answer": 42}
    # Nothing went on here meanwhile, and nobody can make it.
    told = page.evaluate(f"id => durably.retry(id).then(() => 'retried').catch({TOLD})", run_id)
    assert told.startswith("Conflict: ")
    assert steps(page, "durably", run_id) == ["completed", "waiting"]
    assert states(page, "durably", run_id) == ["offered", "given"]
    assert states(page, "server", run_id) == ["offered", "taken"]


def test_a_run_of_the_server_goes_on_in_the_page(page: Page, server: HttpServer) -> None:
    run_id, secret = begin(page, "server")
    page.evaluate(TO_PAGE, run_id)
    assert run(page, "server", run_id)["error"] == "handed over to the page"
    assert answer(page, "durably", run_id) == {"input": {"n": 1}, "asked": secret, "answer": 42}
    assert steps(page, "server", run_id) == ["completed", "waiting"]


def test_there_and_back_again(page: Page, server: HttpServer) -> None:
    run_id, secret = begin(page, "durably")
    page.evaluate(TO_SERVER, run_id)
    page.evaluate(TO_PAGE, run_id)
    assert run(page, "server", run_id)["status"] == "cancelled"
    assert run(page, "durably", run_id)["status"] == "waiting"
    assert answer(page, "durably", run_id)["asked"] == secret
    assert states(page, "durably", run_id)[:2] == ["offered", "given"]


def test_a_lost_reply_is_asked_for_again(page: Page, server: HttpServer) -> None:
    run_id, secret = begin(page, "durably")
    server.drop_replies(1)
    page.evaluate(TO_SERVER, run_id)
    imports = [asked for asked in server.asked if asked.path == "/runs/import"]
    assert len(imports) > 1 and len({asked.key for asked in imports}) == 1
    assert states(page, "durably", run_id) == ["offered", "given"]
    assert answer(page, "server", run_id)["asked"] == secret
    assert states(page, "server", run_id) == ["offered", "taken"]


def test_a_page_that_is_closed_before_the_answer_comes(page: Page, server: HttpServer) -> None:
    run_id, secret = begin(page, "durably")
    server.go_away()
    told = page.evaluate(
        f"id => durably.handOver(id, server, {{ name: 'the server', timeout: 500 }}).catch({TOLD})", run_id
    )
    assert told, "there is nobody to hand it over to"
    held = run(page, "durably", run_id)
    assert (held["status"], held["paused"]) == ("waiting", True)
    told = page.evaluate(f"id => durably.signal(id, 'answer', 1).then(() => 'told').catch({TOLD})", run_id)
    assert told.startswith("Conflict: ")
    page.goto("about:blank")
    server.come_back()
    enter(page, server)
    assert run(page, "durably", run_id)["status"] == "waiting"
    page.evaluate(TO_SERVER, run_id)
    assert run(page, "durably", run_id)["status"] == "cancelled"
    assert answer(page, "server", run_id) == {"input": {"n": 1}, "asked": secret, "answer": 42}


def test_what_the_server_refuses_goes_on_in_the_page(page: Page, server: HttpServer) -> None:
    run_id, _ = begin(page, "durably")
    # The same key is somebody else's there.
    first = page.evaluate("async () => (await durably.trigger('ask', {}, { idempotencyKey: 'k' })).id")
    wait_until(page, "async id => (await durably.getRun(id)).status === 'waiting'", first)
    page.evaluate("() => server.trigger('ask', {}, { idempotencyKey: 'k' })")
    told = page.evaluate(
        f"id => durably.handOver(id, server, {{ name: 'the server' }}).then(() => '').catch({TOLD})", first
    )
    assert told.startswith("Conflict: ")
    assert run(page, "durably", first)["paused"] is False
    assert answer(page, "durably", first)["answer"] == 42
    # And it harms no other.
    page.evaluate(TO_SERVER, run_id)
    assert answer(page, "server", run_id)["answer"] == 42
