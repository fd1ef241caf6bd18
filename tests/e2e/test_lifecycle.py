"""What a browser does to pages: leaving them, keeping them for the way back, freezing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.e2e.tabs import (
    answer,
    ask,
    assert_same_events,
    evaluate,
    open_client,
    pythons,
    status_of,
    wait,
    wait_for_leader,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

Visit = Callable[..., "Page"]

FINISH = "id => durably.waitForRun(id)"
STEPS = "async id => (await durably.getSteps(id)).map(({name, output}) => [name, output])"
LEAVING = {"jobs": ["leaving_jobs.py", "tab_jobs.py", "waiting_jobs.py"]}
IN_STEP = "([id, name]) => events.some((e) => e.runId === id && e.type === 'step:start' && e.stepName === name)"
SHUTDOWNS = "events.filter(({type}) => type === 'worker:shutdown').map(({reason}) => reason)"


def open_tabs(visit: Visit, count: int, **options: object) -> list[Page]:
    pages = [visit() for _ in range(count)]
    assert [open_client(page, **options) for page in pages] == ["leader", *["follower"] * (count - 1)]
    return pages


def tell(page: Page, event: str) -> None:
    """`freeze` and `resume`, as a browser says them to a tab in the background. It does not do so to one in a test."""
    page.evaluate("(type) => { document.dispatchEvent(new Event(type)) }", event)


def start(page: Page, job: str) -> str:
    """A run that is in its second step, and stays there."""
    run_id = str(evaluate(page, "job => durably.trigger(job)", job)["id"])
    wait(page, IN_STEP, [run_id, {"leave": "work", "forever": "wait"}[job]])
    return run_id


def test_close_tells_the_steps_and_the_other_tabs(visit: Visit) -> None:
    """The step sees it and ends in peace, its result is kept, and the next tab goes on behind it at once."""
    leader, follower = open_tabs(visit, 2, **LEAVING)
    run_id = start(follower, "leave")
    evaluate(leader, "() => durably.close()")
    assert status_of(leader) == "closed"
    run = evaluate(follower, FINISH, run_id)
    assert run["status"] == "completed", run
    saw, nonce = run["output"]
    assert saw == "saw it" and len(nonce) == 32, "no step begins in an engine that stops"
    assert status_of(follower) == "leader"
    assert follower.evaluate(SHUTDOWNS) == ["close"]
    journal = assert_same_events([follower])
    assert [event["stepName"] for event in journal if event["type"] == "step:complete"] == ["work", "next"]


def test_close_of_a_follower_stops_nothing(visit: Visit) -> None:
    leader, follower = open_tabs(visit, 2, **LEAVING)
    run_id = start(follower, "leave")
    evaluate(follower, "() => durably.close()")
    assert evaluate(leader, "() => durably.triggerAndWait('once', {n: 1})")["n"] == 1
    assert leader.evaluate(SHUTDOWNS) == []
    assert evaluate(leader, "id => durably.getRun(id)", run_id)["status"] == "leased"


@pytest.mark.parametrize("how", ["navigate", "close"])
def test_leaving_the_page(how: str, visit: Visit) -> None:
    """Whether the engine still has the time to say so, the browser decides; the run goes on elsewhere in any case."""
    leader, follower = open_tabs(visit, 2, **LEAVING)
    run_id = start(follower, "leave")
    if how == "navigate":
        leader.goto("about:blank")
    else:
        leader.close(run_before_unload=False)
    wait_for_leader([follower])
    # Where the first engine had no time, the second step of its successor waits for the end of that one.
    assert follower.evaluate(SHUTDOWNS)[:1] in ([], ["pagehide"])
    steps = evaluate(follower, STEPS, run_id)
    completed = [name for name, output in steps if output == "saw it"]
    assert completed in ([], ["work"])
    if completed:
        assert evaluate(follower, FINISH, run_id)["output"][0] == "saw it"
    else:
        evaluate(follower, "() => durably.close()")
        assert open_client(follower, **LEAVING) == "leader"
        assert evaluate(follower, FINISH, run_id)["output"][0] == "saw it"


def test_frozen_with_other_tabs_open(visit: Visit) -> None:
    """The frozen tab gives the database up: another runs the jobs. When it wakes it follows, and has missed nothing."""
    leader, *followers = pages = open_tabs(visit, 3)
    run_id = start(followers[0], "forever")
    ask(leader, "end", FINISH, run_id)
    tell(leader, "freeze")
    assert status_of(leader) == "starting"
    new = wait_for_leader(followers)
    assert evaluate(new, FINISH, run_id)["status"] == "completed"
    assert evaluate(followers[0], "() => durably.triggerAndWait('once', {n: 1})")["n"] == 1
    tell(leader, "resume")
    wait(leader, "durably.status === 'follower'")
    assert evaluate(leader, "() => durably.triggerAndWait('once', {n: 2})")["n"] == 2
    assert answer(leader, "end")["status"] == "completed"
    assert status_of(new) == "leader" and pythons(pages) == 1
    assert_same_events(pages)


def test_a_frozen_follower(visit: Visit) -> None:
    leader, follower = pages = open_tabs(visit, 2)
    tell(follower, "freeze")
    assert evaluate(leader, "() => durably.triggerAndWait('commits', {steps: 20})") == 20
    tell(follower, "resume")
    assert evaluate(follower, "() => durably.triggerAndWait('once', {n: 1})")["n"] == 1
    assert [status_of(page) for page in pages] == ["leader", "follower"]
    assert_same_events(pages)


def test_frozen_and_alone(visit: Visit) -> None:
    """Nobody else could run the jobs: everything is kept, and goes on."""
    (page,) = open_tabs(visit, 1)
    run_id = start(page, "forever")
    asked = evaluate(page, "() => durably.trigger('ask')")["id"]
    workers = page.evaluate("workers.length")
    tell(page, "freeze")
    tell(page, "resume")
    evaluate(page, "id => durably.signal(id, 'answer', 1)", asked)
    assert evaluate(page, FINISH, asked)["output"]["answer"] == 1
    assert (status_of(page), page.evaluate("workers.length")) == ("leader", workers)
    # Its run was not even interrupted.
    run = evaluate(page, "id => durably.getRun(id)", run_id)
    assert run["status"] == "leased"
    assert_same_events([page])


def test_frozen_and_woken_again_and_again(visit: Visit) -> None:
    """The database goes round; every tab is answered every time, and a run that is going on ends."""
    pages = open_tabs(visit, 3)
    run_id = evaluate(pages[0], "() => durably.trigger('commits', {steps: 1500})")["id"]
    for number in range(4):
        leader = wait_for_leader(pages)
        others = [page for page in pages if page is not leader]
        tell(leader, "freeze")
        for page in others:
            assert evaluate(page, "n => durably.triggerAndWait('once', {n})", number)["n"] == number
        tell(leader, "resume")
        assert evaluate(leader, "n => durably.triggerAndWait('once', {n})", number)["n"] == number
    assert evaluate(pages[0], FINISH, run_id)["output"] == 1500
    steps = evaluate(pages[1], "async id => (await durably.getSteps(id)).map(({output}) => output[0])", run_id)
    assert steps == list(range(1500))
    assert_same_events(pages)


BACK = """() => {
  addEventListener("pageshow", ({ persisted }) => { globalThis.shown = persisted });
  addEventListener("pagehide", ({ persisted }) => { globalThis.hidden = persisted });
}"""


@pytest.mark.parametrize("others", [0, 1])
def test_away_and_back(others: int, visit: Visit, origin: str) -> None:
    """A page that the browser has kept works again with the client it had; one that it has not begins anew."""
    page, *rest = open_tabs(visit, 1 + others)
    page.evaluate(BACK)
    run_id = start(page, "forever")
    page.goto(origin + "other/")
    if rest:
        wait_for_leader(rest)
        assert evaluate(rest[0], FINISH, run_id)["status"] == "completed"
    page.go_back()
    kept = page.evaluate("globalThis.shown === true")
    assert page.evaluate("'durably' in globalThis") is kept
    if kept:
        wait(page, "durably.status === 'leader' || durably.status === 'follower'")
    else:
        assert open_client(page) == ("follower" if others else "leader")
    assert evaluate(page, FINISH, run_id)["status"] == "completed"
    assert evaluate(page, "() => durably.triggerAndWait('once', {n: 1})")["n"] == 1
    wait_for_leader([page, *rest])
    assert_same_events([page, *rest])


def test_the_events_of_a_page_that_is_kept(visit: Visit) -> None:
    """What a browser says when it keeps a page for the way back, said here by the test: it may not keep this one."""
    leader, follower = pages = open_tabs(visit, 2)
    run_id = start(follower, "forever")
    ask(leader, "end", FINISH, run_id)
    leader.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    wait(follower, "durably.status === 'leader'")
    assert evaluate(follower, FINISH, run_id)["status"] == "completed"
    assert status_of(leader) == "starting"
    leader.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    wait(leader, "durably.status === 'follower'")
    assert answer(leader, "end")["status"] == "completed"
    assert evaluate(leader, "() => durably.triggerAndWait('once', {n: 1})")["n"] == 1
    assert pythons(pages) == 1
    assert_same_events(pages)


def test_closed_while_it_is_frozen(visit: Visit) -> None:
    """A client that is closed stays closed, whatever the browser does to its page afterwards."""
    leader, follower = open_tabs(visit, 2)
    tell(leader, "freeze")
    wait(follower, "durably.status === 'leader'")
    evaluate(leader, "() => durably.close()")
    tell(leader, "resume")
    assert status_of(leader) == "closed"
    told = evaluate(leader, "() => durably.stats().then(() => 'answered', told)")
    assert told == "StoreUnavailable: this client was closed"
    assert leader.evaluate("workers.length") == 1
    assert evaluate(follower, "() => durably.triggerAndWait('once', {n: 1})")["n"] == 1
