"""A job that breaks the interpreter, or leaves it: the worker is replaced, the others go on, and it ends some time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import create

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

BOTH = """async (how) => {
  const [bad, good] = [await durably.trigger("leave", { how }), await durably.trigger("stay")];
  return Promise.all([bad, good].map(({ id }) => durably.waitForRun(id, { timeout: 100_000 })));
}"""


@pytest.mark.parametrize("how", ["abort", "_exit"])
def test_an_interpreter_that_is_gone_is_replaced(visit: Callable[..., Page], how: str) -> None:
    page = visit()
    assert create(page, jobs="breaking_jobs.py") == "leader"
    bad, good = page.evaluate(BOTH, how)
    assert (good["status"], good["output"]) == ("completed", "stayed")
    assert bad["status"] == "failed" and bad["error"].startswith("PoisonRun: 3 workers in a row died")
    assert page.evaluate("workers.length") == 4
    assert page.evaluate("durably.status") == "leader"


def test_an_exit_ends_the_run_and_not_the_worker(visit: Callable[..., Page]) -> None:
    page = visit()
    assert create(page, jobs="breaking_jobs.py") == "leader"
    bad, good = page.evaluate(BOTH, "exit")
    assert (good["status"], bad["status"], bad["error"]) == ("completed", "failed", "SystemExit: 3")
    assert page.evaluate("workers.length") == 1
