"""The client of the page, with the real worker behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import create

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

REFUSED = "({name, message}) => `${name}: ${message}`"


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    page = visit()
    assert create(page) == "leader"
    return page


def test_runs_and_their_reading(page: Page) -> None:
    output = page.evaluate("durably.jobs.save_chunks.triggerAndWait({chunks: 2}, {labels: {org: 'acme'}})")
    assert output == {"chunks": [0, 1], "sum": 1}
    first = page.evaluate("durably.trigger('keep', {text: 'a'}, {idempotencyKey: 'k'})")
    again = page.evaluate("durably.trigger('keep', {text: 'b'}, {idempotencyKey: 'k'})")
    assert (first["disposition"], again["disposition"]) == ("created", "idempotent")
    assert first["id"] == again["id"]
    page.evaluate("id => durably.waitForRun(id)", first["id"])
    runs = page.evaluate("durably.getRuns()")
    assert [run["jobName"] for run in runs] == ["keep", "save_chunks"]
    labelled: Any = page.evaluate("durably.getRuns({labels: {org: 'acme'}, status: 'completed', limit: 5})")
    assert [run["jobName"] for run in labelled] == ["save_chunks"]
    assert labelled[0]["stepCount"] == 2 and labelled[0]["isTerminal"]
    assert page.evaluate("durably.getRun('nobody')") is None


def test_retry_retrigger_and_delete(page: Page) -> None:
    refusal = page.evaluate(f"durably.triggerAndWait('fail').catch({REFUSED})")
    assert refusal.startswith("RunFailed: ") and "no such thing" in refusal
    [run] = page.evaluate("durably.getRuns({status: 'failed'})")
    page.evaluate("id => durably.retry(id)", run["id"])
    assert page.evaluate("id => durably.waitForRun(id)", run["id"])["status"] == "failed"
    other = page.evaluate("id => durably.retrigger(id)", run["id"])
    assert other["id"] != run["id"]
    assert page.evaluate("id => durably.waitForRun(id)", other["id"])["status"] == "failed"
    page.evaluate("id => durably.deleteRun(id)", other["id"])
    assert page.evaluate("id => durably.getRun(id)", other["id"]) is None


def test_cancel_a_run_that_hangs(page: Page) -> None:
    run = page.evaluate("durably.trigger('save_chunks', {chunks: 3, hold_at: 1})")
    page.wait_for_function("events.some(({type, stepName}) => type === 'step:start' && stepName === 'save#2')")
    page.evaluate("id => durably.cancel(id)", run["id"])
    assert page.evaluate("id => durably.waitForRun(id)", run["id"])["status"] == "cancelled"
    assert page.evaluate(f"id => durably.cancel(id).catch({REFUSED})", run["id"]).startswith("Conflict: ")


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ("durably.trigger('nobody')", "NotFound"),
        ("durably.trigger('keep', 5)", "InvalidInput"),
        ("durably.trigger('keep', {text: 1n})", "InvalidInput"),
        ("durably.trigger('keep', {}, {labels: {a: 1}})", "BadRequest"),
        ("durably.getRuns({status: 'odd'})", "BadRequest"),
        ("durably.cancel('nobody')", "NotFound"),
        ("durably.waitForRun('nobody')", "NotFound"),
    ],
)
def test_a_wrong_request_has_a_name(page: Page, request_: str, name: str) -> None:
    assert page.evaluate(f"{request_}.catch({REFUSED})").startswith(f"{name}: ")


def test_blocking_http_works_in_a_job(page: Page, origin: str) -> None:
    url = f"{origin}my-repo/greeting.txt"
    assert page.evaluate("url => durably.triggerAndWait('fetch_blocking', {url})", url) == "hello"


def test_a_full_disk_is_an_error_that_passes(page: Page, origin: str) -> None:
    """What does not fit is refused, and nothing else is lost: with room again, everything goes on."""
    session = page.context.new_cdp_session(page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": origin.rstrip("/"), "quotaSize": 2_000_000})
    large = "length => durably.trigger('keep', {text: 'x'.repeat(length)})"
    assert page.evaluate(f"length => ({large})(length).catch({REFUSED})", 4_000_000).startswith("StorageFull: ")
    session.send("Storage.overrideQuotaForOrigin", {"origin": origin.rstrip("/")})
    run = page.evaluate(large, 4_000_000)
    assert page.evaluate("id => durably.waitForRun(id)", run["id"])["output"] == 4_000_000
    assert len(page.evaluate("durably.getRuns()")) == 1
