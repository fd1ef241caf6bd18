"""The hooks of @coji/durably-react, the package as it is, driven on a page against the server."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import HERE
from tests.e2e.test_http_client import JOB_FILES, jobs_of
from tests.support.http_server import HttpServer, http_server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

# The list of the package is not read again when a run begins to wait.
UNDER_WAY = "(leased|waiting)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, bundled as a user would."""
    folder = tmp_path_factory.mktemp("fullstack") / "page"
    shutil.copytree(HERE / "fullstack", folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    for command in (("ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"), ("run", "build")):
        done = subprocess.run(["npm", *command], cwd=folder, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture
def server(tmp_path: Path, root: Path, pages: Path) -> Iterator[HttpServer]:
    jobs = [job for file in JOB_FILES for job in jobs_of(file)]
    with http_server(tmp_path / "server.db", jobs, root / "web", pages) as server:
        yield server


@pytest.fixture
def page(server: HttpServer, open_browser: Callable[..., BrowserContext]) -> Page:
    page = open_browser().new_page()
    page.goto(server.address)
    return page


def state(page: Page, id: str, condition: str) -> Any:
    """What the hook gives, once the condition on it, as `state`, is true."""
    page.wait_for_function(
        f"""id => {{
          const text = document.getElementById(id)?.textContent;
          const state = text ? JSON.parse(text) : null;
          return state !== null && ({condition});
        }}""",
        arg=id,
    )
    return json.loads(page.locator(f"#{id}").inner_text())


def choose(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()
    page.locator(f"section#{name}").wait_for()


def act(page: Page, action: str, row: int = 0) -> None:
    page.locator("#runs li").nth(row).get_by_role("button", name=action, exact=True).click()


def rows(page: Page, *lines: str) -> None:
    """Wait until the list begins like this; each line is a pattern."""
    page.wait_for_function(
        """lines => {
          const told = [...document.querySelectorAll("#runs li")].map((row) => row.firstChild.textContent.trim());
          return lines.every((line, number) => new RegExp(`^${line}$`).test(told[number]));
        }""",
        arg=list(lines),
    )


async def _until_waiting(server: HttpServer, count: int) -> None:
    while len(await server.durably.get_runs(status="waiting")) < count:  # noqa: ASYNC110
        await asyncio.sleep(0)


def test_from_a_click_to_the_output(page: Page, server: HttpServer) -> None:
    page.get_by_role("button", name="trigger").click()
    shown = state(page, "save_chunks-state", "state.isTerminal")
    assert shown["status"] == "completed" and shown["error"] is None
    assert shown["output"] == {"chunks": [0, 1, 2, 3, 4], "sum": 10}
    assert shown["progress"] == {"current": 5, "total": 5}
    assert shown["logs"] == [["info", "saved", {"chunks": 5}]]
    rows(page, "save_chunks completed")
    [run] = server.call(server.durably.get_runs)
    assert run.id == shown["runId"]
    # Nothing more comes, and no connection is kept for it: the list has one, and who looks for the latest run.
    server.call(lambda: _until(lambda: server.streams == 2))
    assert state(page, "save_chunks-state", "true")["error"] is None

    page.get_by_role("button", name="wait").click()
    assert state(page, "save_chunks-state", "state.waited")["waited"]["sum"] == 10
    rows(page, "save_chunks completed", "save_chunks completed")


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def test_a_run_that_fails(page: Page) -> None:
    choose(page, "fail")
    page.get_by_role("button", name="wait").click()
    shown = state(page, "fail-state", "state.waited")
    assert shown["status"] == "failed" and "no such thing" in shown["error"]
    assert "no such thing" in shown["waited"]
    rows(page, "fail failed")


def test_list_cancel_retrigger_delete(page: Page, server: HttpServer) -> None:
    choose(page, "ask")
    page.get_by_role("button", name="trigger").click()
    state(page, "ask-state", "state.status === 'leased'")
    rows(page, f"ask {UNDER_WAY}")
    server.call(lambda: _until_waiting(server, 1))
    act(page, "steps")
    assert state(page, "answer", "state")[0] == ["ask", "completed"]
    act(page, "cancel")
    assert state(page, "ask-state", "state.isTerminal")["status"] == "cancelled"
    rows(page, "ask cancelled")
    # What cannot be done says why.
    act(page, "cancel")
    assert "is cancelled, so it cannot be cancelled" in state(page, "answer", "/cannot/.test(state)")
    act(page, "get none")
    assert state(page, "answer", "state === 'null'") == "null"
    act(page, "get")
    assert state(page, "answer", "state.status")["jobName"] == "ask"

    act(page, "retrigger")
    rows(page, f"ask {UNDER_WAY}", "ask cancelled")
    newest = state(page, "answer", "typeof state === 'string' && state.length === 26")
    # The hook follows the latest run of its job, whoever has asked for it.
    assert state(page, "ask-state", f"state.runId === '{newest}' && state.status === 'leased'")
    server.call(lambda: server.durably.signal(newest, "answer", "yes"))
    assert state(page, "ask-state", "state.isTerminal")["output"]["answer"] == "yes"
    rows(page, "ask completed", "ask cancelled")
    act(page, "delete", row=1)
    rows(page, "ask completed")
    page.wait_for_function("document.querySelectorAll('#runs li').length === 1")
    assert [run.id for run in server.call(server.durably.get_runs)] == [newest]


def test_a_run_that_has_ended_is_followed_from_its_beginning(page: Page, server: HttpServer) -> None:
    page.get_by_role("button", name="trigger").click()
    rows(page, "save_chunks completed")
    act(page, "select")
    shown = state(page, "run-state", "state.status === 'completed' && state.logs.length > 0")
    assert (shown["output"]["sum"], shown["logs"], shown["error"]) == (10, ["saved"], None)


def test_pages_and_filters(page: Page, server: HttpServer) -> None:
    for _ in range(2):
        server.call(lambda: server.durably.trigger_and_wait("save_chunks", {"chunks": 1}, timeout=20))
    for _ in range(2):
        server.call(lambda: server.durably.trigger("ask"))
    rows(page, f"ask {UNDER_WAY}", f"ask {UNDER_WAY}", "save_chunks completed")
    assert state(page, "list-state", "!state.isLoading")["hasMore"] is True
    page.get_by_role("button", name="older").click()
    rows(page, "save_chunks completed")
    assert state(page, "list-state", "state.page === 1 && !state.isLoading")["hasMore"] is False
    page.get_by_role("button", name="newer").click()
    # Two statuses at once, as the hook sends them.
    page.get_by_role("button", name="ended").click()
    rows(page, "save_chunks completed", "save_chunks completed")
    assert state(page, "list-state", "!state.isLoading")["error"] is None


def test_after_a_reload_the_hook_finds_its_run(page: Page, server: HttpServer) -> None:
    """A run that is executing: its step is held at its first attempt."""
    run = server.call(lambda: server.durably.trigger("save_chunks", {"chunks": 2, "hold_at": 1}))
    page.reload()
    assert state(page, "save_chunks-state", "state.status === 'leased'")["runId"] == run.id
    server.call(lambda: server.durably.cancel(run.id))
    assert state(page, "save_chunks-state", "state.isTerminal")["status"] == "cancelled"
