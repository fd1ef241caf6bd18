"""Steps with offload=True in a browser: in workers of their own, which can be ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import create

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

RUN = "([name, input]) => durably.triggerAndWait(name, input)"

# Resolves when a function says in its worker that it hangs.
LISTEN = """channel => {
  globalThis.spinning = new Promise((resolve) => { new BroadcastChannel(channel).onmessage = resolve; });
}"""

# Every worker holds one lock for as long as it lives: the engine's, and each below it.
WORKERS = "async () => (await navigator.locks.query()).held.filter(({name}) => name.includes(':lifeline:')).length"


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    page = visit()
    assert create(page, jobs="offload_jobs.py") == "leader"
    return page


def run(page: Page, name: str, **input: Any) -> Any:
    return page.evaluate(RUN, [name, input])


def ended(page: Page, run_id: str) -> Any:
    return page.evaluate("id => durably.waitForRun(id)", run_id)


def test_values_go_there_and_come_back(page: Page) -> None:
    """Large ones too, in both directions; a worker is used again."""
    output = run(page, "values", megabytes=32)
    assert output == {
        "turned": True,
        "length": 32 << 20,
        "checked": ["bytes", "bytearray", [0x6261, 0x6463], 7 + (32 << 20)],
        "swapped": 2,
        "mapped": [1, 2, 3],
        "counts": [1, 2, 3],
    }
