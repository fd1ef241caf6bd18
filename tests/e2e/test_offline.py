"""A site goes on without its server, and changes its version only as a whole and only at a start."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from durably_web.site.files import integrity
from durably_web.site.release import release_files, write_release, write_withdrawal
from tests.e2e.conftest import create, wait_until
from tests.e2e.host import Host, host_of, publish

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

JOBS = ["jobs.py", "offload_jobs.py", "version_jobs.py"]
STORED = "async () => durably.site.stored"
TELL = "(options) => durably.triggerAndWait('tell_version', options ?? {}, { timeout: 90_000 })"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    (tmp_path / "www").mkdir()
    with host_of(tmp_path / "www") as host:
        yield host


@pytest.fixture
def site(host: Host, site_directory: Path) -> Path:
    """A site with its first version."""
    folder = host.directory / "my-repo"
    publish(site_directory, folder, "one")
    return folder


def open_page(browser: BrowserContext, address: str) -> Page:
    page = browser.new_page()
    page.goto(address)
    return page


def start(page: Page, **options: Any) -> str:
    return create(page, jobs=JOBS, **options)


def forget_loaded(profile: Path) -> None:
    """Empty the HTTP cache of a browser that is closed: nothing but the service worker's copy is left."""
    for folder in ("Cache", "Code Cache"):
        shutil.rmtree(profile / "Default" / folder)


def update(page: Page) -> None:
    """Have the browser look for a new version, as it does by itself at each navigation."""
    page.evaluate("async () => { await (await navigator.serviceWorker.getRegistration()).update().catch(() => {}) }")


def announced(page: Page) -> str:
    """The version that waits, once this page was told."""
    wait_until(page, "async () => durably.site.update !== null")
    told = page.evaluate("events.filter(({ type }) => type === 'site:update').map(({ version }) => version)")
    assert told[-1] == page.evaluate("durably.site.update")
    return str(told[-1])


def show(page: Page, title: str) -> None:
    """Until the page is there: another one may come before it, when a new version takes over."""
    page.wait_for_function("(title) => document.title === title", arg=title)


def kept(page: Page) -> dict[str, list[str]]:
    """What is in each cache of the origin: paths, without the hashes."""
    content = page.evaluate("""async () => {
      const found = {};
      for (const name of await caches.keys()) {
        found[name] = (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname);
      }
      return found;
    }""")
    return {str(name): sorted(paths) for name, paths in content.items()}


def paths_of(site: Path) -> list[str]:
    return sorted(f"/{site.name}/{path}" for path in release_files(site))


def test_everything_goes_on_without_the_server(
    open_browser: Callable[..., BrowserContext], host: Host, site: Path, tmp_path: Path
) -> None:
    address = f"{host.address}my-repo/"
    browser = open_browser()
    page = open_page(browser, address)
    assert start(page) == "leader"
    wait_until(page, STORED)
    page.wait_for_function("events.some(({ type, version }) => type === 'site:stored' && version)")
    assert kept(page) == {"durably-web:site:/my-repo/": paths_of(site)}
    # Keeping what the page had just loaded cost questions, and no second download.
    loaded = Counter(path for path, status in host.asked if status == 200)
    assert [path for path, times in loaded.items() if times > 1] == []

    # In the very first visit already what was not loaded yet comes from the copy.
    host.stop()
    browser.set_offline(True)
    assert page.evaluate("import('./lazy.js').then(({ version }) => version)") == "one"
    assert page.evaluate(TELL) == ["one", "one in a worker of one"]
    waiting = page.evaluate("durably.trigger('tell_version', { wait: true }).then(({ id }) => id)")
    wait_until(page, "async (id) => (await durably.getRun(id)).status === 'waiting'", waiting)
    browser.close()

    forget_loaded(tmp_path / "profile")
    browser = open_browser()
    browser.set_offline(True)
    page = open_page(browser, address)
    assert page.title() == "one"
    assert start(page) == "leader"
    page.evaluate("(id) => durably.signal(id, 'go on')", waiting)
    assert page.evaluate("(id) => durably.waitForRun(id).then(({ output }) => output[1])", waiting).endswith("of one")
    page.wait_for_function(
        "(id) => events.some(({ type, runId }) => type === 'run:complete' && runId === id)", arg=waiting
    )
    assert page.evaluate("(id) => durably.getSteps(id).then((steps) => steps.length)", waiting) == 3

    follower = open_page(browser, f"{address}index.html?from=here#there")
    assert start(follower) == "follower"
    assert follower.evaluate(TELL)[0] == "one"
    page.close()
    wait_until(follower, "async () => durably.status === 'leader'", patience=60_000)
    assert follower.evaluate(TELL) == ["one", "one in a worker of one"]
    assert follower.evaluate("durably.getRuns().then((runs) => runs.map(({ status }) => status))") == ["completed"] * 4


ASK = """async ([path, range]) => {
  try {
    const response = await fetch(path, range ? { headers: { range } } : {});
    return [response.status, response.headers.get("content-range"), await response.text()];
  } catch (error) {
    return [error.name];
  }
}"""


def test_answers_are_those_of_a_host(
    open_browser: Callable[..., BrowserContext], host: Host, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "cdn").mkdir()
    (tmp_path / "cdn" / "python.txt").write_text("from elsewhere")
    manifest = site / "durably-web" / "manifest.json"
    content = json.loads(manifest.read_text())
    described = {"bytes": 14, "integrity": integrity(b"from elsewhere")}
    with host_of(tmp_path / "cdn") as elsewhere:
        address = f"{elsewhere.address}python.txt"
        manifest.write_text(json.dumps({**content, "files": {**content["files"], address: described}}))
        look_at_answers(open_browser(), host, site, address, elsewhere)


def look_at_answers(browser: BrowserContext, host: Host, site: Path, address: str, elsewhere: Host) -> None:
    (site / "folder").mkdir()
    (site / "folder" / "index.html").write_text("inside")
    (site / "folder" / "100% näher #1.txt").write_text("named")
    (site / "about.html").write_text("<title>about</title>")
    write_release(site)
    page = open_page(browser, f"{host.address}my-repo/")
    assert start(page) == "leader"
    wait_until(page, STORED)
    (site / "later.txt").write_text("not in the release")
    assert page.evaluate(ASK, ["later.txt", None]) == [200, None, "not in the release"]
    host.stop()
    elsewhere.stop()
    for path, span, answer in (
        (address, None, [200, None, "from elsewhere"]),
        (f"{address}?again=1", None, ["TypeError"]),
        ("greeting.txt?again=1", None, [200, None, "0123456789"]),
        ("greeting.txt", "bytes=2-4", [206, "bytes 2-4/10", "234"]),
        ("greeting.txt", "bytes=7-", [206, "bytes 7-9/10", "789"]),
        ("greeting.txt", "bytes=-3", [206, "bytes 7-9/10", "789"]),
        ("greeting.txt", "bytes=8-20", [206, "bytes 8-9/10", "89"]),
        ("greeting.txt", "bytes=10-", [416, "bytes */10", ""]),
        ("greeting.txt", "bytes=0-1,4-5", [200, None, "0123456789"]),
        ("folder/", None, [200, None, "inside"]),
        ("folder/100%25%20n%C3%A4her%20%231.txt", None, [200, None, "named"]),
        ("later.txt", None, ["TypeError"]),
        ("../other/greeting.txt", None, ["TypeError"]),
    ):
        assert page.evaluate(ASK, [path, span]) == answer, (path, span)
    page.goto(f"{host.address}my-repo/about")
    assert page.title() == "about"


def test_a_new_version_is_taken_at_the_next_start(
    open_browser: Callable[..., BrowserContext], host: Host, site: Path, site_directory: Path
) -> None:
    """One tab: it goes on as it began, in the middle of a run, until it is reloaded."""
    address = f"{host.address}my-repo/"
    browser = open_browser()
    page = open_page(browser, address)
    assert start(page) == "leader"
    wait_until(page, STORED)
    run = page.evaluate("durably.trigger('tell_version', { wait: true }).then(({ id }) => id)")
    (site / "dropped.txt").write_text("only in the first version")
    write_release(site)
    update(page)
    announced(page)
    page.reload()
    show(page, "one")
    assert start(page) == "leader"
    assert "/my-repo/dropped.txt" in kept(page)["durably-web:site:/my-repo/"]

    (site / "dropped.txt").unlink()
    host.asked.clear()
    version = publish(site_directory, site, "two")
    update(page)
    assert announced(page) == version
    # Nothing else had changed.
    assert {path.removeprefix("/my-repo/") for path, _ in host.asked} == {
        "service-worker.js",
        "index.html",
        "lazy.js",
        "version_jobs.py",
        "durably-web/offload-worker.js",
    }
    assert page.evaluate("import('./lazy.js').then(({ version }) => version)") == "one"
    page.evaluate("(id) => durably.signal(id, 'go on')", run)
    output = page.evaluate("(id) => durably.waitForRun(id).then(({ output }) => output)", run)
    assert output == ["one", "one in a worker of one"]

    host.stop()
    page.reload()
    show(page, "two")
    assert start(page) == "leader"
    assert page.evaluate(TELL) == ["two", "two in a worker of two"]
    assert page.evaluate("durably.site") == {"stored": True, "update": None}
    assert kept(page) == {"durably-web:site:/my-repo/": paths_of(site)}


def test_no_tab_is_taken_along(
    open_browser: Callable[..., BrowserContext], host: Host, site: Path, site_directory: Path
) -> None:
    """Two tabs: whatever one of them does, the other keeps its version; when both are gone it is the new one's turn."""
    address = f"{host.address}my-repo/"
    browser = open_browser()
    leader = open_page(browser, address)
    assert start(leader) == "leader"
    wait_until(leader, STORED)
    run = leader.evaluate("durably.trigger('tell_version', { wait: true }).then(({ id }) => id)")
    follower = open_page(browser, address)
    assert start(follower) == "follower"
    version = publish(site_directory, site, "two")
    update(follower)
    assert announced(leader) == announced(follower) == version

    follower.reload()
    assert follower.title() == "one"
    # It is certainly there, and certainly gone.
    assert start(follower) == "follower"
    follower.close()
    # One is open, and another comes: that looks like a reload of the only one.
    for path in ("", "index.html"):
        another = open_page(browser, address + path)
        show(another, "one")
        assert start(another) == "follower"
        assert another.evaluate("durably.site.update") == version
        another.close()
    leader.evaluate("(id) => durably.signal(id, 'go on')", run)
    output = leader.evaluate("(id) => durably.waitForRun(id).then(({ output }) => output)", run)
    assert output == ["one", "one in a worker of one"]
    elsewhere = open_page(browser, f"{host.address}nowhere")
    leader.close()
    page = open_page(browser, address)
    show(page, "two")
    assert start(page) == "leader"
    assert page.evaluate(TELL) == ["two", "two in a worker of two"]
    elsewhere.close()


def test_a_version_that_is_not_whole_is_refused(
    open_browser: Callable[..., BrowserContext], host: Host, site: Path, site_directory: Path, tmp_path: Path
) -> None:
    address = f"{host.address}my-repo/"
    browser = open_browser()
    page = open_page(browser, address)
    assert start(page) == "leader"
    wait_until(page, STORED)
    before = kept(page)

    def refused(spoil: Callable[[], object], file: str) -> None:
        reason = f"this version of the site was not stored: {file}"
        with page.expect_console_message(lambda message: reason in message.text, timeout=60_000):
            spoil()
            update(page)
        wait_until(page, "async () => !(await navigator.serviceWorker.getRegistration()).installing")
        assert kept(page) == before
        page.reload()
        assert page.title() == "one"
        assert start(page) == "leader"
        assert page.evaluate("durably.site") == {"stored": True, "update": None}
        assert page.evaluate(TELL) == ["one", "one in a worker of one"]

    fresh = tmp_path / "fresh"
    publish(site_directory, fresh, "two")

    def publish_half() -> None:
        """The new list is there, and one file is still that of the version before."""
        names = ["index.html", "lazy.js", "durably-web/offload-worker.js", "service-worker.js"]
        for name in names:
            shutil.copy(fresh / name, site / name)

    def fall_midway() -> None:
        host.fall_at("/my-repo/version_jobs.py")
        shutil.copy(fresh / "version_jobs.py", site / "version_jobs.py")

    refused(publish_half, "version_jobs.py: the server cannot be reached, or does not have this version of it")
    refused((site / "version_jobs.py").unlink, "version_jobs.py: the server cannot be reached, or does not have")
    refused(fall_midway, "")
    assert host.fallen.wait(60)

    host.start()
    update(page)
    announced(page)
    page.reload()
    show(page, "two")
    assert kept(page) == {"durably-web:site:/my-repo/": paths_of(site)}


def test_sites_of_one_origin_keep_to_themselves(
    open_browser: Callable[..., BrowserContext], host: Host, site_directory: Path
) -> None:
    """One below the other even; and what else the origin keeps stays."""
    browser = open_browser()
    pages = {}
    for path in ("a", "a/b"):
        publish(site_directory, host.directory / path, f"one of {path}")
        pages[path] = open_page(browser, f"{host.address}{path}/")
        assert start(pages[path]) == "leader"
        wait_until(pages[path], STORED)
    page = pages["a"]
    page.evaluate("async () => { await (await caches.open('of somebody')).put('/a/x', new Response('kept')) }")
    before = kept(page)
    assert before.keys() == {"durably-web:site:/a/", "durably-web:site:/a/b/", "of somebody"}
    (host.directory / "a" / "lazy.js").unlink()
    (host.directory / "a" / "index.html").write_text((host.directory / "a" / "index.html").read_text() + "<p>more</p>")
    write_release(host.directory / "a")
    update(page)
    announced(page)
    # The site below is a page of this origin, not of this site.
    pages["a/b"].close()
    page.reload()
    page.wait_for_selector("p", state="attached")
    host.stop()
    after = kept(page)
    assert "/a/lazy.js" not in after["durably-web:site:/a/"]
    assert {name: after[name] for name in before if name != "durably-web:site:/a/"} == {
        name: paths for name, paths in before.items() if name != "durably-web:site:/a/"
    }
    page = open_page(browser, f"{host.address}a/b/")
    assert page.title() == "one of a/b"
    assert start(page) == "leader"
    assert page.evaluate(TELL)[0] == "one of a/b"


LOSE = """async (path) => {
  const store = await caches.open("durably-web:site:/my-repo/");
  const lost = (await store.keys()).filter(({ url }) => new URL(url).pathname.endsWith(path));
  for (const request of lost) await store.delete(request);
}"""


def test_a_copy_that_is_damaged(
    open_browser: Callable[..., BrowserContext], host: Host, site: Path, site_directory: Path
) -> None:
    browser = open_browser()
    page = open_page(browser, f"{host.address}my-repo/")
    assert start(page) == "leader"
    wait_until(page, STORED)
    whole = kept(page)
    page.evaluate(LOSE, "/lazy.js")
    assert page.evaluate("import('./lazy.js').then(({ version }) => version)") == "one"
    assert kept(page) == whole

    page.evaluate(LOSE, "/greeting.txt")
    host.stop()
    status, _, text = page.evaluate(ASK, ["greeting.txt", None])
    assert status == 503
    assert text.startswith("The stored copy of this site is damaged. greeting.txt: the server cannot be reached")
    host.start()
    (site / "greeting.txt").write_text("of another version")
    status, _, text = page.evaluate(ASK, ["greeting.txt", None])
    assert (status, "does not have this version" in text) == (503, True)

    # All of it is gone, and so is the version: the next one comes by itself.
    publish(site_directory, site, "two")
    page.evaluate("async () => { await caches.delete('durably-web:site:/my-repo/') }")
    page.reload()
    assert "The stored copy of this site is damaged" in page.inner_text("body")
    wait_until(page, "async () => (await navigator.serviceWorker.getRegistration()).waiting !== null")
    page.reload()
    show(page, "two")
    assert start(page) == "leader"
    assert kept(page) == {"durably-web:site:/my-repo/": paths_of(site)}


def test_a_site_that_is_no_longer_kept(open_browser: Callable[..., BrowserContext], host: Host, site: Path) -> None:
    browser = open_browser()
    page = open_page(browser, f"{host.address}my-repo/")
    assert start(page, offline=False) == "leader"
    assert page.evaluate("durably.site") == {"stored": False, "update": None}
    page.reload()
    assert page.evaluate("navigator.serviceWorker.getRegistrations().then(({ length }) => length)") == 0
    assert start(page) == "leader"
    wait_until(page, STORED)
    write_withdrawal(site)
    update(page)
    assert announced(page) == "withdrawn"
    page.reload()
    show(page, "one")
    page.reload()
    assert page.evaluate("navigator.serviceWorker.getRegistrations().then(({ length }) => length)") == 0
    assert start(page) == "leader"
    assert page.evaluate(TELL)[0] == "one"
    assert kept(page) == {}
    assert page.evaluate("durably.site") == {"stored": False, "update": None}


def test_no_room_for_a_copy(open_browser: Callable[..., BrowserContext], host: Host, site: Path) -> None:
    browser = open_browser()
    page = open_page(browser, f"{host.address}my-repo/")
    session = browser.new_cdp_session(page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": host.address.rstrip("/"), "quotaSize": 8_000_000})
    with page.expect_console_message(lambda message: "no room to keep the site" in message.text, timeout=60_000):
        assert start(page) == "leader"
    assert page.evaluate(TELL)[0] == "one"
    assert page.evaluate("durably.site") == {"stored": False, "update": None}
    wait_until(page, "async () => (await navigator.serviceWorker.getRegistrations()).length === 0")
    assert kept(page) == {"durably-web:site:/my-repo/": []}
