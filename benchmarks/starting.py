"""How soon a page has stored what it is asked for, and has Python; how soon the next tab runs the jobs when the one
that led is gone; and what a tab gets of the engine in another.

Most is compared with a plain boot: Pyodide as its npm package is, started as its documentation says, by the same server
in a page and a worker of its own. They take turns in one browser. The same boot with the site's byte code tells how
much of the difference that is.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from playwright.sync_api import BrowserContext, Page, Playwright, sync_playwright

from benchmarks.browser import served
from benchmarks.measure import Comparison, compare
from benchmarks.report import Figure, compared, within
from benchmarks.size import Size
from scripts import chromium

T = TypeVar("T")

# A page that is asked for something answers within this time.
_PATIENCE_MS = 60_000
_COLD_ROUNDS = 3
_TABS_ROUNDS = 5
_COLD_SECONDS = 30.0
_WARM_SECONDS = 60.0
_REQUESTS = 200
_STEPS = 200

_BESIDE_READY = "raw: page load → Python ready"
_BESIDE_PLAIN = "raw: page load → stock Pyodide ready"

# What each phase of a start is for, in order; it lasts until the next one begins.
_PHASES = {
    "locking": "begin the worker",
    "opening": "get the lock",
    "python": "open the database",
    "jobs": "start Python",
    "running": "load jobs, migrate, empty the inbox",
}


class Start(NamedTuple):
    """Milliseconds since the page was asked for. `plain` is that of a page with nothing but Pyodide, `compiled` that
    with byte code; `phases` says when each began."""

    plain: float
    compiled: float
    stored: float
    ready: float
    phases: dict[str, float]


class Takeover(NamedTuple):
    """Milliseconds since the tab that led was killed."""

    stored: float
    running: float


class Tab(NamedTuple):
    page: Page
    process: int


def measure(size: Size) -> list[Figure]:
    with served() as address, tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        cold = _repeat(lambda: _cold(driver, address), min(size.rounds, _COLD_ROUNDS), _COLD_SECONDS)
        with chromium.launch(driver, Path(folder)) as browser:
            # The first time fills the caches.
            _round(browser, address)
            rounds = _repeat(lambda: _round(browser, address), size.rounds, _WARM_SECONDS)
            asking, hearing = _two_tabs(browser, address, min(size.rounds, _TABS_ROUNDS))
    warm = [start for start, _ in rounds]
    return [
        *_starts("Chromium cold", cold),
        *_starts("Chromium warm", warm),
        *_takeovers("Chromium warm", rounds),
        compared("Chromium tabs", "a follower's getRun", asking, " ms", note="raw: the leader's own"),
        compared("Chromium tabs", "events/s that a follower hears", hearing, note="raw: the leader's page"),
    ]


def _repeat(once: Callable[[], T], rounds: int, enough_seconds: float) -> list[T]:
    """Fewer times when they take longer than `enough_seconds`, and once at least."""
    ends = time.monotonic() + enough_seconds
    done = [once()]
    while len(done) < rounds and time.monotonic() < ends:
        done.append(once())
    return done


def _starts(place: str, starts: list[Start]) -> list[Figure]:
    stored = compare([(start.stored, start.ready) for start in starts])
    ready = compare([(start.ready, start.plain) for start in starts])
    compiled = compare([(start.compiled, start.plain) for start in starts])
    warm = place.endswith("warm")
    bar = within(0.25) if warm else within(0.5)
    return [
        compared(place, "page load → trigger stored", stored, " ms", within(0.25) if warm else None, _BESIDE_READY),
        compared(place, "page load → Python ready", ready, " ms", bar, _BESIDE_PLAIN),
        *_phases(place, starts),
        compared(place, "page load → Pyodide with byte code ready", compiled, " ms", note=_BESIDE_PLAIN),
    ]


def _phases(place: str, starts: list[Start]) -> Iterator[Figure]:
    """How long each phase took, beside the whole of a plain boot."""
    ends = list(_PHASES)
    for before, end in zip([None, *ends], ends, strict=False):
        lasted = [(start.phases[end] - (start.phases[before] if before else 0.0), start.plain) for start in starts]
        yield compared(place, f"  {_PHASES[end]}", compare(lasted), " ms", note=_BESIDE_PLAIN)


def _takeovers(place: str, rounds: list[tuple[Start, Takeover]]) -> list[Figure]:
    def beside_plain(part: Callable[[Takeover], float]) -> Comparison:
        return compare([(part(takeover), start.plain) for start, takeover in rounds])

    stored = beside_plain(lambda takeover: takeover.stored)
    running = beside_plain(lambda takeover: takeover.running)
    return [
        compared(place, "leader killed → repeated trigger stored", stored, " ms", within(1), _BESIDE_PLAIN),
        compared(place, "leader killed → next tab's engine", running, " ms", within(1), _BESIDE_PLAIN),
    ]


def _cold(driver: Playwright, address: str) -> Start:
    """Each page is the first that a new profile sees."""

    def first(name: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as profile, chromium.launch(driver, Path(profile)) as browser:
            return _started(browser.new_page(), address, name)

    plain = first("plain.html?stock")
    compiled = first("plain.html")
    return _start(plain, compiled, first("starting.html"))


def _start(plain: dict[str, Any], compiled: dict[str, Any], ours: dict[str, Any]) -> Start:
    return Start(plain["ready"], compiled["ready"], ours["stored"], ours["ready"], ours["phases"])


def _round(browser: BrowserContext, address: str) -> tuple[Start, Takeover]:
    """Plain Pyodide in one tab, then ours in two: the first is killed."""
    plain, compiled = (_alone(browser, address, name) for name in ("plain.html?stock", "plain.html"))
    leader, start = _open(browser, address, "leader")
    follower, _ = _open(browser, address, "follower")
    takeover = _kill(leader, follower.page)
    _close(follower.page)
    return _start(plain, compiled, start), takeover


def _alone(browser: BrowserContext, address: str, name: str) -> dict[str, Any]:
    with closing(browser.new_page()) as page:
        return _started(page, address, name)


def _two_tabs(browser: BrowserContext, address: str, rounds: int) -> tuple[Comparison, Comparison]:
    """Milliseconds from request to answer, and events per second: in a follower's tab beside the leader's."""
    leader, _ = _open(browser, address, "leader")
    follower, _ = _open(browser, address, "follower")

    def beside_leader(what: str, count: int) -> Comparison:
        return compare([(_ask(follower.page, what, count), _ask(leader.page, what, count)) for _ in range(rounds)])

    compared_tabs = beside_leader("ask", _REQUESTS), beside_leader("hear", _STEPS)
    _close(follower.page)
    _close(leader.page)
    return compared_tabs


def _open(browser: BrowserContext, address: str, status: str) -> tuple[Tab, dict[str, Any]]:
    """A new tab with our page, and how it started. Raises `ProcessLookupError` when it has no process of its own."""
    before = chromium.renderers(browser)
    page = browser.new_page()
    start = _started(page, address, "starting.html")
    new = chromium.renderers(browser) - before
    if len(new) != 1:
        raise ProcessLookupError(f"a new tab came with {len(new)} processes")
    if start["status"] != status:
        raise ChildProcessError(f"the new tab should be a {status}, and is a {start['status']}")
    return Tab(page, new.pop()), start


def _started(page: Page, address: str, name: str) -> dict[str, Any]:
    page.goto(address + name)
    started: dict[str, Any] = _evaluate(page, "starting")
    return started


def _kill(leader: Tab, follower: Page) -> Takeover:
    """As a crash does. What the follower asks meanwhile, the leader cannot answer: it stands still by then."""
    os.kill(leader.process, signal.SIGSTOP)
    try:
        follower.evaluate("() => { globalThis.takenOver = takeOver() }")
    finally:
        killed = time.time() * 1000
        os.kill(leader.process, signal.SIGKILL)
    times = _evaluate(follower, "takenOver")
    leader.page.close()
    return Takeover(times["stored"] - killed, times["running"] - killed)


def _close(page: Page) -> None:
    """Only when the engine has let go of the database, so that the next tab does not wait for it."""
    _evaluate(page, "durably.close()")
    page.close()


def _ask(page: Page, what: str, count: int) -> float:
    return float(_evaluate(page, f"{what}({count})"))


def _evaluate(page: Page, expression: str) -> Any:
    """What the promise of the page gives. Raises Playwright's `Error` when it rejects, or takes too long."""
    late = f'setTimeout(() => reject(new Error("no end: {expression}")), {_PATIENCE_MS})'
    return page.evaluate(f"() => Promise.race([{expression}, new Promise((_, reject) => {late})])")
