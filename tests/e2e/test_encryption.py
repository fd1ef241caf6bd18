"""A database whose values only who has the key can read, in the browser's private file system."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import CREATE, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

MAKE_KEYS = """async () => {
  globalThis.key = crypto.getRandomValues(new Uint8Array(32));
  globalThis.same = await crypto.subtle.importKey("raw", key, "AES-GCM", true, ["encrypt"]);
  globalThis.other = crypto.getRandomValues(new Uint8Array(32));
}"""

# Whether a text stands anywhere in the files of this origin, as UTF-8.
FIND = """async (text) => {
  const place = await (await navigator.storage.getDirectory()).getDirectoryHandle("durably-web");
  for await (const database of place.values()) {
    for await (const file of (await database.getDirectoryHandle(".opaque")).values()) {
      if (new TextDecoder().decode(await (await file.getFile()).arrayBuffer()).includes(text)) return true;
    }
  }
  return false;
}"""


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    page = visit()
    page.evaluate(MAKE_KEYS)
    return page


def create(page: Page, key: str = "undefined") -> str:
    """`createDurably` with an expression of the page as its key."""
    return str(page.evaluate(f"({CREATE})({{ jobs: 'waiting_jobs.py', encryptionKey: {key} }})"))


def test_what_is_stored_holds_no_value_in_plain_text(page: Page) -> None:
    assert create(page, "key") == "leader"
    run: Any = page.evaluate("durably.trigger('ask', {card: 'SECRET-INPUT'}, {labels: {org: 'READABLE-LABEL'}})")
    page.evaluate("id => durably.signal(id, 'answer', 'SECRET-ANSWER')", run["id"])
    ended = page.evaluate("id => durably.waitForRun(id)", run["id"])
    assert (ended["output"]["input"], ended["output"]["answer"]) == ({"card": "SECRET-INPUT"}, "SECRET-ANSWER")
    page.evaluate("durably.close()")
    assert page.evaluate(FIND, "READABLE-LABEL") is True
    assert page.evaluate(FIND, "SECRET") is False

    assert create(page, "other").startswith("DecryptionFailed: the value was sealed with the key ")
    for key in ("key", "same", "[other, same]"):
        assert create(page, key) == "leader"
        assert page.evaluate("id => durably.getRun(id)", run["id"])["output"] == ended["output"]
        page.evaluate("durably.close()")


def test_without_the_key_nothing_is_read_and_nothing_is_lost(page: Page) -> None:
    assert create(page, "key") == "leader"
    run = page.evaluate("durably.trigger('ask', {card: 'SECRET'})")
    wait_until(page, "async id => (await durably.getRun(id)).status === 'waiting'", run["id"])
    page.evaluate("durably.close()")

    assert create(page) == "leader"
    told = page.evaluate("id => durably.getRun(id).catch(({name, message}) => `${name}: ${message}`)", run["id"])
    assert told.startswith("DecryptionFailed: the value is sealed, and there is no key")
    page.evaluate("durably.close()")

    assert create(page, "key") == "leader"
    page.evaluate("id => durably.signal(id, 'answer', 1)", run["id"])
    assert page.evaluate("id => durably.waitForRun(id)", run["id"])["output"]["answer"] == 1


@pytest.mark.parametrize("key", ["new Uint8Array(16)", "'x'.repeat(32)", "null", "[]"])
def test_what_is_no_key_is_refused(page: Page, key: str) -> None:
    assert create(page, key).startswith("InvalidInput: encryptionKey is 32 random bytes")
