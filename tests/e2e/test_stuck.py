"""A step that never lets go of its worker: the page ends that worker and starts another, and only who did it pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.gates import Gate, serve_gated
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
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

Visit = Callable[..., "Page"]

HANG_MS = 5_000
FINISH = "id => durably.waitForRun(id)"
GET = "id => durably.getRun(id)"
IN_STEP = "([id, name]) => events.some((e) => e.runId === id && e.type === 'step:start' && e.stepName === name)"


@pytest.fixture
def gate() -> Gate:
    """Closed: who asks for the greeting waits."""
    return Gate("greeting.txt")


@pytest.fixture
def visit(browser: BrowserContext, origin_folder: Path, gate: Gate) -> Iterator[Visit]:
    with serve_gated(origin_folder, gate) as address:

        def visit(site: str = "my-repo/") -> Page:
            page = browser.new_page()
            page.goto(address + site)
            return page

        yield visit


def trigger(page: Page, job: str, input: object = None, **options: object) -> str:
    made = evaluate(
        page, "([job, input, options]) => durably.trigger(job, input ?? {}, options)", [job, input, options]
    )
    return str(made["id"])


def waiting_at_the_gate(page: Page) -> str:
    """A run in the middle of an async step. Its job forgives one death, and no more."""
    run_id = trigger(page, "gate", {"url": page.url + "greeting.txt"})
    wait(page, IN_STEP, [run_id, "gate"])
    return run_id


def test_the_guilty_run_fails_and_the_others_go_on(visit: Visit, gate: Gate) -> None:
    page = visit()
    assert open_client(page, hangTimeout=HANG_MS) == "leader"
    innocent = waiting_at_the_gate(page)
    first = evaluate(page, "async id => (await durably.getSteps(id))[0].output", innocent)
    guilty = trigger(page, "hang")
    # These come while nobody answers.
    wait(page, IN_STEP, [guilty, "endless"])
    ask(page, "pending", "() => durably.triggerAndWait('once', {n: 1})")
    ask(page, "guilty", FINISH, guilty)
    failed = answer(page, "guilty")
    assert failed["status"] == "failed" and failed["error"].startswith("PoisonRun: 2 workers in a row died")
    assert answer(page, "pending")["n"] == 1
    # Twice a worker was ended, and it was told why.
    assert page.evaluate("workers.length") == 3
    reasons = [error for status, _, error in page.evaluate("statuses") if status == "starting" and error]
    assert len(reasons) == 2 and all(reason.startswith("StoreUnavailable: ") for reason in reasons)
    # Two deaths laid to it would have failed the innocent one as well.
    gate.open()
    run = evaluate(page, FINISH, innocent)
    assert run["status"] == "completed", run
    assert run["output"]["first"] == first and run["output"]["answer"] == "hello"
    assert run["output"]["attempts"] == 3
    # It goes on without being asked for.
    assert evaluate(page, "() => durably.triggerAndWait('once', {n: 2})")["n"] == 2
    assert status_of(page) == "leader"
    assert_same_events([page])


def test_seen_by_a_follower(visit: Visit, gate: Gate) -> None:
    """Whoever leads after a worker was ended, the guilty run pays, and nobody else."""
    pages = [visit(), visit(), visit()]
    assert [open_client(page, hangTimeout=HANG_MS) for page in pages] == ["leader", "follower", "follower"]
    witness = pages[-1]
    innocent = waiting_at_the_gate(witness)
    guilty = trigger(witness, "hang")
    wait(witness, IN_STEP, [guilty, "endless"])
    ask(witness, "pending", "() => durably.triggerAndWait('once', {n: 1})")
    ask(witness, "guilty", FINISH, guilty)
    ask(pages[1], "signal", "() => durably.signal('nobody', 'answer')")
    failed = answer(witness, "guilty")
    assert failed["status"] == "failed" and failed["error"].startswith("PoisonRun: 2 workers in a row died")
    assert answer(witness, "pending")["n"] == 1
    assert answer(pages[1], "signal").startswith("NotFound: ")
    gate.open()
    run = evaluate(witness, FINISH, innocent)
    assert run["status"] == "completed" and run["output"]["answer"] == "hello", run
    wait_for_leader(pages)
    assert pythons(pages) == 1
    assert_same_events(pages)


def test_a_run_that_was_only_slow_to_learn(visit: Visit) -> None:
    """It hangs twice, which its job allows, and succeeds at the third attempt; the page has not given up by then."""
    page = visit()
    assert open_client(page, hangTimeout=HANG_MS) == "leader"
    run = evaluate(page, FINISH, trigger(page, "hang_twice"))
    assert (run["status"], run["output"]) == ("completed", 3)
    assert page.evaluate("workers.length") == 3


def test_a_poisoned_run_can_be_cancelled_and_what_waits_in_line_runs(visit: Visit) -> None:
    """Ten runs that hang would end a worker twenty times; cancelled in time they do not."""
    page = visit()
    assert open_client(page, hangTimeout=HANG_MS) == "leader"
    guilty = trigger(page, "hang")
    wait(page, IN_STEP, [guilty, "endless"])
    ask(page, "cancel", "id => durably.cancel(id).then(() => 'cancelled', told)", guilty)
    run = evaluate(page, FINISH, guilty)
    # The request waits in the line of the next worker, which may begin the run once more before it.
    assert run["status"] in ("cancelled", "failed")
    assert answer(page, "cancel") == "cancelled" if run["status"] == "cancelled" else True
    assert evaluate(page, "() => durably.triggerAndWait('once', {n: 1})")["n"] == 1


def test_a_worker_that_computes_for_long_is_left_alone(visit: Visit) -> None:
    """A page that allows more than the step takes: nothing is ended."""
    page = visit()
    assert open_client(page, hangTimeout=3_600_000) == "leader"
    assert evaluate(page, "() => durably.triggerAndWait('commits', {steps: 2000})") == 2000
    assert page.evaluate("workers.length") == 1
