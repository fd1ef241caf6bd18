"""Steps with offload=True in a browser: in workers of their own, which can be ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import create

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

RUN = "([name, input]) => durably.triggerAndWait(name, input, {timeout: 60_000})"

# Resolves when a function says in its worker that it hangs.
LISTEN = """channel => {
  globalThis.spinning = new Promise((resolve) => { new BroadcastChannel(channel).onmessage = resolve; });
}"""

# Every worker holds one lock for as long as it lives: the engine's, and each below it.
WORKERS = "async () => (await navigator.locks.query()).held.filter(({name}) => name.includes(':lifeline:')).length"

BECOMES = f"""async count => {{
  const end = performance.now() + 30_000;
  let seen;
  while ((seen = await ({WORKERS})()) !== count) {{
    if (performance.now() > end) throw new Error(`there are ${{seen}} workers, not ${{count}}`);
    await new Promise((resume) => setTimeout(resume, 10));
  }}
}}"""


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    page = visit()
    assert create(page, jobs="offload_jobs.py") == "leader"
    return page


def run(page: Page, name: str, **input: Any) -> Any:
    return page.evaluate(RUN, [name, input])


def ended(page: Page, run_id: str) -> Any:
    return page.evaluate("id => durably.waitForRun(id, {timeout: 60_000})", run_id)


def test_values_go_there_and_come_back(page: Page) -> None:
    """Large ones too, in both directions; a worker is used again."""
    output = run(page, "values", megabytes=32)
    sent = output.pop("sent")
    assert output == {
        "turned": True,
        "checked": ["bytes", "bytearray", [0x6261, 0x6463], 7, 32 << 20, sent],
        "swapped": 2,
        "mapped": [1, 2, 3],
        "counts": [1, 2, 3],
    }


def test_failures_arrive_and_a_worker_that_dies_is_replaced(page: Page) -> None:
    died = "its worker is gone"
    left = "it raised SystemExit: 3, which ends its worker"
    expected = ["ValueError: plain", "ValueError: plain", "Strange: 1 and 2", "Strange: 1 and 2"]
    expected += [
        f"OffloadFailed: step 'fail{number}' failed: {reason}"
        for number, reason in (("#5", left), ("#6", left), ("#7", died), ("#8", died), ("#9", died))
    ]
    assert run(page, "failures", kinds=["plain", "strange", "exit", "os exit", "close"]) == expected
    failed = page.evaluate("async () => durably.waitForRun((await durably.trigger('tries')).id, {timeout: 60_000})")
    assert failed["error"] == f"OffloadFailed: step 'try' failed: {died}"
    [tried] = page.evaluate("id => durably.getSteps(id)", failed["id"])
    assert tried["attempt"] == 3


def test_what_cannot_be_offloaded_is_refused(page: Page) -> None:
    lambda_, local, arguments, result = run(page, "refused")
    assert lambda_.startswith("InvalidInput: step 'refused' with offload=True cannot call refused.<locals>.<lambda>, a")
    assert local.startswith("InvalidInput: step 'refused' with offload=True cannot call refused.<locals>.local, a func")
    assert arguments.startswith("InvalidInput: the arguments of step 'refused' cannot be pickled: TypeError: ")
    assert result.startswith("NotSerializable: the result of step 'refused#2' cannot be stored: it cannot be pickled: ")


def test_two_steps_run_at_the_same_time(page: Page) -> None:
    """Each ends only when it has heard of the other."""
    assert run(page, "meeting", channel="meeting") == ["one met two", "two met one"]


def test_an_endless_loop_is_ended_when_its_time_is_over(page: Page) -> None:
    assert run(page, "hangs", channel="spinning", timeout=0.5) == "step 'spin' took longer than 0.5 s"
    # Of the one that was ended nothing is left; its lock goes a moment later.
    page.evaluate(BECOMES, 2)


def spin(page: Page) -> str:
    """The id of a run whose second step hangs."""
    page.evaluate(LISTEN, "spinning")
    run_id = page.evaluate("async () => (await durably.trigger('hangs', {channel: 'spinning'})).id")
    page.evaluate("async () => { await spinning; }")
    return str(run_id)


def test_an_endless_loop_stops_nobody_else_and_is_ended_by_cancel(page: Page) -> None:
    run_id = spin(page)
    assert len(run(page, "beside")) == 32
    assert page.evaluate("async id => (await durably.getRun(id)).status", run_id) == "leased"
    assert page.evaluate(WORKERS) == 2
    page.evaluate("id => durably.cancel(id)", run_id)
    page.evaluate(BECOMES, 1)
    assert ended(page, run_id)["status"] == "cancelled"
    assert run(page, "values", megabytes=1)["swapped"] == 2


def test_close_waits_for_no_worker_that_is_idle_and_leaves_none(page: Page) -> None:
    run(page, "values", megabytes=1)
    assert page.evaluate(WORKERS) > 1
    page.evaluate("durably.close()")
    page.evaluate(BECOMES, 0)


@pytest.mark.parametrize("how", ["reload", "terminate"])
def test_a_run_that_was_cut_off_calls_its_function_again(page: Page, how: str) -> None:
    """And none whose result was stored. The worker of the function ends with the engine's."""
    run_id = spin(page)
    [before, *_] = page.evaluate("id => durably.getSteps(id)", run_id)
    if how == "reload":
        page.reload()
        page.evaluate(LISTEN, "spinning")
        assert create(page, jobs="offload_jobs.py") == "leader"
    else:
        page.evaluate(LISTEN, "spinning")
        page.evaluate("workers[0].terminate()")
    page.evaluate("async () => { await spinning; }")
    page.evaluate(BECOMES, 2)
    assert page.evaluate("id => durably.getSteps(id)", run_id) == [before]
    assert before["name"] == "before" and before["status"] == "completed"
