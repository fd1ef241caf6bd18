"""A run in a browser goes on behind its last stored step, whatever ends the tab, and nothing is stored twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import create

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

CHUNKS, HELD = 12, 7
LABEL = {"test": "survival"}

TRIGGER = "([input, labels]) => durably.trigger('save_chunks', input, {labels})"
SEEN = "count => events.filter(({type}) => type === 'step:complete').length >= count"
BEGUN = "count => events.filter(({type}) => type === 'step:start').length > count"
RUN = "async id => await durably.waitForRun(id, {timeout: 30_000})"
STEPS = "async id => (await durably.getSteps(id)).map(({name, output}) => [name, output.nonce])"


def begin(page: Page, *, busy: bool = False) -> tuple[str, list[list[str]]]:
    """Start the run and wait until it hangs in the middle; its id, and the steps that are stored."""
    assert create(page) == "leader"
    run = page.evaluate(TRIGGER, [{"chunks": CHUNKS, "hold_at": HELD, "busy": busy}, LABEL])
    page.wait_for_function(SEEN, arg=HELD)
    page.wait_for_function(BEGUN, arg=HELD)
    # A worker in an endless loop answers nobody.
    steps = [] if busy else page.evaluate(STEPS, run["id"])
    return run["id"], steps


def finish(page: Page, run_id: str, before: list[list[str]]) -> None:
    """The run ends by itself, as an undisturbed one does; what was stored before is what is stored now."""
    run = page.evaluate(RUN, run_id)
    assert run["status"] == "completed", run
    undisturbed = page.evaluate("input => durably.triggerAndWait('save_chunks', input)", {"chunks": CHUNKS})
    assert run["output"] == undisturbed
    after = page.evaluate(STEPS, run_id)
    assert [name for name, _ in after] == ["save", *(f"save#{number}" for number in range(2, CHUNKS + 1))]
    assert after[: len(before)] == before
    assert len({nonce for _, nonce in after}) == CHUNKS
    assert run["progress"] == {"current": CHUNKS, "total": CHUNKS}
    logs = page.evaluate("id => durably.getLogs(id)", run_id)
    assert [entry["message"] for entry in logs] == ["saved"]


def test_reload(visit: Callable[..., Page]) -> None:
    page = visit()
    run_id, before = begin(page)
    assert len(before) == HELD
    page.reload()
    assert create(page) == "leader"
    finish(page, run_id, before)


def test_close_the_tab(visit: Callable[..., Page]) -> None:
    page = visit()
    run_id, before = begin(page)
    page.close()
    page = visit()
    assert create(page) == "leader"
    finish(page, run_id, before)


def test_close_the_browser(open_browser: Callable[..., BrowserContext], origin: str) -> None:
    context = open_browser("kept")
    page = context.new_page()
    page.goto(origin + "my-repo/")
    run_id, before = begin(page)
    context.close()
    page = open_browser("kept").new_page()
    page.goto(origin + "my-repo/")
    assert create(page) == "leader"
    finish(page, run_id, before)


@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "in an endless loop"])
def test_terminate_the_worker(visit: Callable[..., Page], busy: bool) -> None:
    """The page notices, starts another worker, and what it was waiting for comes."""
    page = visit()
    run_id, before = begin(page, busy=busy)
    page.evaluate("id => { globalThis.waiting = durably.waitForRun(id) }", run_id)
    page.evaluate("workers[0].terminate()")
    assert page.evaluate("async () => (await waiting).status") == "completed"
    assert page.evaluate("workers.length") == 2
    assert ["starting", None, "StoreUnavailable"] in page.evaluate("statuses")
    finish(page, run_id, before)


@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "in an endless loop"])
def test_kill_the_renderer(
    visit: Callable[..., Page], browser: BrowserContext, crash_tabs: Callable[[BrowserContext], None], busy: bool
) -> None:
    page = visit()
    run_id, before = begin(page, busy=busy)
    with page.expect_event("crash"):
        crash_tabs(browser)
    page.close()
    page = visit()
    assert create(page) == "leader"
    finish(page, run_id, before)


def test_close_gives_the_run_back(visit: Callable[..., Page]) -> None:
    """After `close`, another client of the same page goes on at once."""
    page = visit()
    assert create(page) == "leader"
    run = page.evaluate(TRIGGER, [{"chunks": CHUNKS}, LABEL])
    page.evaluate("durably.close()")
    assert page.evaluate("durably.status") == "closed"
    assert create(page) == "leader"
    finish(page, run["id"], [])


def test_the_second_tab_asks_the_first_and_takes_over(visit: Callable[..., Page]) -> None:
    first = visit()
    run_id, before = begin(first)
    second = visit()
    assert create(second) == "follower"
    assert second.evaluate(STEPS, run_id) == before
    first.close()
    second.wait_for_function("durably.status === 'leader'")
    finish(second, run_id, before)


def test_sites_on_one_origin_never_meet(visit: Callable[..., Page]) -> None:
    """Nor do two databases of one site: each has a leader, and runs of its own."""
    pages = [visit("my-repo/"), visit("other/"), visit("my-repo/")]
    names = ["default", "default", "second"]
    assert [create(page, database=name) for page, name in zip(pages, names, strict=True)] == ["leader"] * 3
    for number, page in enumerate(pages):
        page.evaluate("input => durably.triggerAndWait('save_chunks', input)", {"chunks": number + 1})
    for number, page in enumerate(pages):
        runs = page.evaluate("durably.getRuns()")
        assert [run["input"] for run in runs] == [{"chunks": number + 1}]
