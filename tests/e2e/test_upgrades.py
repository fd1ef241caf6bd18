"""An old page, with its code from a cache, meets a database that a newer version has migrated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from scripts.chromium import SETTINGS
from tests.e2e.conftest import create
from tests.e2e.tabs import evaluate

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

# What a newer version does to the database, but for what it adds.
MIGRATE = """
from durably_bridge import run_batch
from durably_web import job
from durably_web.backends.opfs import OpfsExecutor
from durably_web.store.batch import Batch, Statement

async def migrate():
    executor = OpfsExecutor(run_batch)
    await executor.open()
    await executor.run(Batch("write", (Statement("INSERT INTO durably_schema (version, applied_at) VALUES (99, 0)"),)))

@job
async def say(step, input: dict) -> str:
    return await step.run("say", str, input["what"])

@job
async def becomes_newer(step, input: dict) -> None:
    await step.run("migrate", migrate)
"""

OPEN = """async ({ database }) => {
  const { createDurably } = await import("./durably-web/client.js");
  globalThis.durably = await createDurably({ jobs: "migrating_jobs.py", database });
  await durably.ready;
}"""
OUTPUT = "async (id) => (await durably.waitForRun(id)).status"
REFUSED = "(error) => `${error.name}: ${error.message}`"


def _make_newer(page: Page, database: str) -> str:
    """A run of this database, which is then migrated, and closed."""
    served = {"body": MIGRATE, "content_type": "text/x-python"}
    page.context.route("**/migrating_jobs.py", lambda route: route.fulfill(**served))
    evaluate(page, OPEN, {"database": database})
    run = evaluate(page, "() => durably.trigger('say', {what: 'of before'})")
    assert evaluate(page, OUTPUT, run["id"]) == "completed"
    assert evaluate(page, "() => durably.readOnly") is None
    last = evaluate(page, "() => durably.trigger('becomes_newer')")
    assert evaluate(page, OUTPUT, last["id"]) == "completed", "its lease still held"
    evaluate(page, "() => durably.close()")
    return str(run["id"])


def test_an_old_page_reads_what_a_newer_version_has(visit: Callable[..., Page]) -> None:
    page = visit()
    old = _make_newer(page, "default")
    page.reload()
    assert create(page, jobs=["jobs.py"]) == "leader"
    reason = evaluate(page, "() => durably.readOnly")
    assert "schema version 99" in reason and "this page only reads" in reason
    runs = evaluate(page, "() => durably.getRuns()")
    assert [(run["jobName"], run["status"]) for run in runs] == [("becomes_newer", "completed"), ("say", "completed")]
    assert evaluate(page, "id => durably.getRun(id)", old)["output"] == "of before"
    assert [step["name"] for step in evaluate(page, "id => durably.getSteps(id)", old)] == ["say"]
    assert evaluate(page, "() => durably.stats()")["byStatus"]["completed"] == 2
    assert evaluate(page, "() => durably.storage()")["bytes"] > 0
    for write in ("trigger('keep', {text: 'x'})", f"retrigger('{old}')", f"deleteRun('{old}')"):
        told = evaluate(page, f"() => durably.{write}.catch({REFUSED})")
        assert told.startswith("SchemaTooNew: ") and "only reads" in told, told
    # Another tab is told, too, and asks the same.
    other = visit()
    assert create(other, jobs=["jobs.py"]) == "follower"
    assert "schema version 99" in evaluate(other, "() => durably.readOnly")
    told = evaluate(other, f"() => durably.trigger('keep', {{text: 'x'}}).catch({REFUSED})")
    assert told.startswith("SchemaTooNew: ")
    assert len(evaluate(other, "() => durably.getRuns()")) == 2


def test_the_demo_says_that_it_only_reads(
    site: str, open_browser: Callable[..., BrowserContext], tmp_path: Any
) -> None:
    page = open_browser().new_page()
    page.goto(site)
    page.wait_for_selector("[data-status=leader][data-phase=running][data-listed]", timeout=SETTINGS["RUN_TIMEOUT_MS"])
    page.get_by_test_id("start").click()
    page.wait_for_selector("#run[data-status=completed]", timeout=SETTINGS["RUN_TIMEOUT_MS"])
    evaluate(page, "() => durably.close()")
    _make_newer(page, "demo")
    page.reload()
    page.wait_for_selector("[data-status=leader][data-phase=running][data-listed]", timeout=SETTINGS["RUN_TIMEOUT_MS"])
    assert page.get_by_test_id("status").inner_text() == "this tab only reads"
    notice = page.locator("#notice").inner_text()
    assert notice.startswith("A newer version of this page has the runs now: reload.") and "schema version 99" in notice
    assert page.locator("#start").is_disabled()
    assert page.get_by_text("airports.csv").count() > 0, "the runs are shown"
    page.screenshot(path=str(tmp_path / "read-only.png"))
