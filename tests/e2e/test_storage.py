"""What happens to the storage has a name, an event and a way out: full, cleared, damaged, not ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import create, wait_until
from tests.e2e.tabs import evaluate, kill, open_client, processes_of, wait, wait_for_leader

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

REFUSED = "({name, message}) => `${name}: ${message}`"
JOBS = ["jobs.py", "large_jobs.py"]
TYPES = "events.map(({type}) => type).filter((type) => type.startsWith('storage:'))"

# So much is taken until nothing fits, by a file of the page's own.
LITTER = """async (leave) => {
  const root = await navigator.storage.getDirectory();
  const script = `onmessage = async ({ data: leave }) => {
    const root = await navigator.storage.getDirectory();
    const file = await root.getFileHandle("litter", { create: true });
    globalThis.handle = await file.createSyncAccessHandle();
    let size = 0;
    for (let step = 8 << 20; step >= 4096; step /= 2) {
      try { for (;;) { handle.truncate(size + step); size += step; } } catch {}
    }
    handle.truncate(Math.max(0, size - leave));
    handle.close();
    postMessage(size);
  };`;
  const worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  const told = new Promise((resolve) => { worker.onmessage = ({ data }) => resolve(data); });
  worker.postMessage(leave);
  const size = await told;
  worker.terminate();
  return size;
}"""


@contextmanager
def quota(page: Page, origin: str, size: int) -> Iterator[None]:
    """So many bytes for the origin."""
    session = page.context.new_cdp_session(page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": origin.rstrip("/"), "quotaSize": size})
    yield
    lift_quota(page, origin)


def lift_quota(page: Page, origin: str) -> None:
    session = page.context.new_cdp_session(page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": origin.rstrip("/")})


def reserved(page: Page) -> int:
    """How much is kept in reserve."""
    return int(
        evaluate(
            page,
            """async () => {
              const root = await navigator.storage.getDirectory();
              const owners = await root.getDirectoryHandle("durably-web.owners");
              for await (const file of owners.values()) {
                if (file.name.endsWith(".reserve")) return (await file.getFile()).size;
              }
              return 0;
            }""",
        )
    )


def test_a_full_quota_pauses_runs_and_deleting_lets_them_go_on(visit: Callable[..., Page], origin: str) -> None:
    page = visit()
    assert create(page, jobs=JOBS) == "leader"
    wait(page, "async () => (await durably.storage()).bytes > 0")
    done = evaluate(page, "() => durably.triggerAndWait('fill', {bytes: 6_000_000})")
    assert done == 6_000_000
    assert reserved(page) == 8 << 20
    with quota(page, origin, 36_000_000):
        assert evaluate(page, LITTER, 150_000) > 0
        run = evaluate(page, "() => durably.trigger('gather_pieces', {pieces: 20, bytes: 400_000})")
        wait(page, f"{TYPES}.length > 0")
        assert page.evaluate(TYPES) == ["storage:full"]
        # Who comes later sees it too.
        assert evaluate(page, "() => durably.stats()")["storageFull"]
        assert evaluate(page, "() => durably.storage()")["full"] is True
        refused = evaluate(page, f"() => durably.trigger('keep', {{text: 'x'.repeat(900_000)}}).catch({REFUSED})")
        assert refused.startswith("StorageFull: ") and "purgeRuns" in refused and "persist" in refused
        assert evaluate(page, "id => durably.getRun(id)", run["id"])["status"] == "leased"
        # There is room in reserve for this, and it is told of at once.
        assert evaluate(page, "() => durably.purgeRuns({olderThan: 0})") == 1
        wait(page, f"{TYPES}.length > 1")
        ended = evaluate(page, "id => durably.waitForRun(id)", run["id"])
        assert ended["status"] == "completed", ended
        assert ended["output"]["calls"] == 20, "no step ran twice"
        assert page.evaluate(TYPES) == ["storage:full", "storage:room"]
        steps = evaluate(page, "id => durably.getSteps(id)", run["id"])
        assert [one["attempts"] for one in steps] == [[]] * 20
        assert [one["output"][0] for one in steps] == ended["output"]["nonces"]
    assert not evaluate(page, "() => durably.storage()")["full"]


def test_a_tab_that_dies_while_the_quota_is_full(visit: Callable[..., Page], origin: str) -> None:
    """What was stored stays; the run goes on at the next visit; and room comes by itself when the quota grows."""
    page, other = visit(), visit()
    assert create(page, jobs=JOBS) == "leader"
    with quota(other, origin, 20_000_000):
        evaluate(page, LITTER, 300_000)
        run = evaluate(page, "() => durably.trigger('gather_pieces', {pieces: 60, bytes: 200_000})")
        wait(page, f"{TYPES}.length > 0")
        before = evaluate(page, "id => durably.getSteps(id)", run["id"])
        kill(page, processes_of([page, other])[0])
        assert create(other, jobs=JOBS) == "leader"
        wait(other, f"{TYPES}.includes('storage:full')")
        after = evaluate(other, "id => durably.getSteps(id)", run["id"])
        assert 0 < len(before) < 60 and after[: len(before)] == before
        lift_quota(other, origin)
        ended = evaluate(other, "id => durably.waitForRun(id)", run["id"])
        assert ended["output"]["calls"] == 60 - len(before)
        assert ended["output"]["nonces"][: len(before)] == [one["output"][0] for one in before]


def test_cleared_site_data(visit: Callable[..., Page], origin: str) -> None:
    """Chromium lets open handles go on, and keeps nothing of what they write: nothing may be acknowledged then."""
    first, second = visit(), visit()
    open_client(first)
    open_client(second)
    lost = evaluate(second, "() => durably.trigger('keep', {text: 'lost'})")
    evaluate(second, "id => durably.waitForRun(id)", lost["id"])
    session = first.context.new_cdp_session(first)
    session.send("Storage.clearDataForOrigin", {"origin": origin.rstrip("/"), "storageTypes": "all"})
    # At once: before anybody has looked.
    run = evaluate(second, "() => durably.trigger('keep', {text: 'kept'})")
    for page in (first, second):
        wait(page, "events.some(({type}) => type === 'storage:cleared')")
    assert (
        first.evaluate("statuses").count(
            [
                "starting",
                None,
                "StorageCleared: the data of this site was cleared while it was open; an empty database is used",
            ]
        )
        == 1
    )
    leader = wait_for_leader([first, second])
    assert evaluate(leader, "id => durably.waitForRun(id)", run["id"])["output"] == 4
    assert [one["id"] for one in evaluate(leader, "() => durably.getRuns()")] == [run["id"]]
    told = evaluate(second, f"id => durably.waitForRun(id).catch({REFUSED})", lost["id"])
    assert told.startswith("NotFound: ")
    # What is acknowledged now is kept.
    for page in (first, second):
        evaluate(page, "() => durably.close()")
    assert create(first) == "leader"
    assert evaluate(first, "id => durably.getRun(id)", run["id"])["status"] == "completed"


# What happens to a file, as a function of its bytes behind the pool's header.
HARM = """async ([harm]) => {
  const place = await (await navigator.storage.getDirectory()).getDirectoryHandle("durably-web");
  for await (const database of place.values()) {
    if (await database.getFileHandle("set-aside").then(() => true, () => false)) continue;
    const files = await database.getDirectoryHandle(".opaque");
    for await (const file of files.values()) {
      const bytes = new Uint8Array(await (await file.getFile()).arrayBuffer());
      if (!new TextDecoder().decode(bytes.subarray(0, 100)).startsWith("/durably.db\\0")) continue;
      const changed = (0, eval)(harm)(bytes.subarray(4096));
      const writable = await file.createWritable();
      await writable.write(bytes.subarray(0, 4096));
      await writable.write(changed);
      await writable.close();
      return changed.length;
    }
  }
}"""
BYTES = "async (blob) => Array.from(new Uint8Array(await blob.slice(0, 100).arrayBuffer()))"

# What is done to the file, and what the report of it says.
HARMS = {
    "another file": ("() => new TextEncoder().encode('not a database. '.repeat(4096))", "not a SQLite database"),
    "its header": ("(bytes) => { bytes.fill(7, 0, 100); return bytes; }", "not a SQLite database"),
    "cut off": ("(bytes) => bytes.slice(0, 4096 * 3)", "damaged"),
    "its first page": ("(bytes) => { bytes.fill(255, 100, 4096); return bytes; }", "damaged"),
}


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    page = visit()
    assert create(page) == "leader"
    return page


def test_a_file_that_cannot_be_used_is_set_aside(page: Page) -> None:
    names: set[str] = set()
    for what, (harm, reason) in HARMS.items():
        run = evaluate(page, "() => durably.trigger('keep', {text: 'before'})")
        evaluate(page, "id => durably.waitForRun(id)", run["id"])
        evaluate(page, "() => durably.close()")
        size = evaluate(page, HARM, [harm])
        assert create(page) == "leader", what
        [event] = [event for event in page.evaluate("events") if event["type"] == "storage:set-aside"]
        assert reason in event["reason"], (what, event)
        assert evaluate(page, "() => durably.getRuns()") == []
        found = evaluate(page, "() => durably.storage()")["setAside"]
        [new] = [one for one in found if one["name"] not in names]
        assert (new["bytes"], reason in new["reason"]) == (size, True), (what, found)
        names.add(new["name"])
        # The way out: the file as it is.
        exported = evaluate(page, "async (name) => (await durably.exportDatabase({name})).size", new["name"])
        assert exported == size
        # Nothing of it is told, or changed, again.
        evaluate(page, "() => durably.close()")
        assert create(page) == "leader"
        assert evaluate(page, "() => durably.storage()")["setAside"] == found
        assert page.evaluate(TYPES) == []
    for name in names:
        evaluate(page, "name => durably.deleteSetAside(name)", name)
    assert evaluate(page, "() => durably.storage()")["setAside"] == []
    refused = evaluate(page, f"() => durably.exportDatabase({{name: 'nothing'}}).catch({REFUSED})")
    assert refused.startswith("NotFound: nothing was set aside as nothing")
    assert evaluate(page, "() => durably.triggerAndWait('keep', {text: 'after'})") == 5


def test_damage_in_the_middle_shows_when_it_is_used(page: Page) -> None:
    runs = evaluate(
        page, "() => durably.triggerMany('keep', Array.from({length: 400}, (_, n) => ({input: {text: 'x'.repeat(n)}})))"
    )
    for run in (runs[0], runs[-1]):
        evaluate(page, "id => durably.waitForRun(id)", run["id"])
    wait(page, "async () => (await durably.stats()).byStatus.completed === 400")
    evaluate(page, "() => durably.close()")
    harm = """(bytes) => {
      for (let at = 4096 * 40; at < 4096 * 60; at += 4096) bytes.fill(255, at, at + 8);
      return bytes;
    }"""
    size = evaluate(page, HARM, [harm])
    assert size > 4096 * 100
    assert create(page) == "leader"
    page.evaluate("durably.getRuns({limit: 500}).catch(() => {})")
    page.evaluate("durably.triggerMany('keep', Array.from({length: 50}, () => ({input: {text: ''}}))).catch(() => {})")
    wait_until(page, "async () => (await durably.storage()).setAside?.length === 1", None, 60_000)
    wait(page, "events.some(({type}) => type === 'storage:set-aside')")
    assert ["starting", None, "StorageDamaged"] in page.evaluate("statuses")
    assert evaluate(page, "() => durably.triggerAndWait('keep', {text: 'after'})") == 5
    [aside] = evaluate(page, "() => durably.storage()")["setAside"]
    assert aside["bytes"] == size and "damaged" in aside["reason"]


def test_what_there_is(page: Page) -> None:
    told: dict[str, Any] = evaluate(page, "() => durably.storage()")
    assert told["bytes"] > 0 and told["free"] >= 0 and told["full"] is False and told["setAside"] == []
    assert told["usage"] >= told["bytes"] and told["quota"] > told["usage"]
    assert evaluate(page, "() => durably.persist()") in (True, False)
    # A browser that refuses to tell, and one that tells nothing.
    page.evaluate(
        """() => {
          const refuse = async () => { throw new TypeError("no"); };
          Object.assign(StorageManager.prototype, { estimate: refuse, persisted: refuse });
        }"""
    )
    told = evaluate(page, "() => durably.storage()")
    assert (told["usage"], told["quota"], told["persisted"]) == (None, None, False) and told["bytes"] > 0
    evaluate(page, "() => durably.close()")
    assert evaluate(page, "() => durably.storage()")["bytes"] is None
