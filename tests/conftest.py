"""What several kinds of tests share: the built site, a server for it, Chromium, and database servers.

Everything is made on demand, so that a run of the unit tests starts no process.
"""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from durably_web.site.build import build_site
from durably_web.site.runtime import Runtime
from scripts import build_runtime, chromium, databases, runtime
from scripts.serve import serve
from tests.support import guarded

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Playwright

    from tests.support.servers import PgBouncer, Postgres, Sqld

pytest.register_assert_rewrite("tests.contract")

# Where pytest puts the folders of tests. Each commit of theirs is flushed, and disks take their time for it.
if (memory := guarded.memory()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))

ROOT = Path(__file__).resolve().parent.parent


# Where every suite of tests/contract is played once more, and takes its time: in a page, and on servers.
ONCE_MORE = ("pyodide/test_contract.py", "backends/test_postgres.py", "backends/test_libsql.py")
MINUTES = 70
"""They come last, and those that were not begun by then are told of, untested: for machines that are very slow."""

_BEGAN = time.monotonic()


# Before xdist asks who belongs together.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that drive tabs come first, and where tests run side by side, these stay one after the other: they are
    about who is awake and who is late, and each keeps more than one core busy already."""
    items.sort(key=lambda item: ("e2e" not in item.path.parts, _turn(item)))
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("e2e"))


def pytest_collection_finish() -> None:
    """What there is by now stays: the collections of garbage that cases ask for need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if _turn(item) > 0 and time.monotonic() - _BEGAN > MINUTES * 60:
        pytest.skip(f"this machine did not get to it in {MINUTES} minutes: give {item.path.name} to pytest by itself")


def _turn(item: pytest.Item) -> int:
    """0, or the place among those that come last."""
    name = item.path.relative_to(ROOT / "tests").as_posix() if item.path.is_relative_to(ROOT / "tests") else ""
    return ONCE_MORE.index(name) + 1 if name in ONCE_MORE else 0


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def browser_settings() -> dict[str, Any]:
    """The constants of playwright.config.py."""
    return chromium.SETTINGS


@pytest.fixture(scope="session")
def pyodide_directory() -> Path:
    """The npm package, for tests that run Pyodide in Node."""
    return runtime.package(ROOT / "web" / "node_modules", "pyodide")


@pytest.fixture(scope="session")
def runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The runtime that sites are built with, built once: others may build theirs meanwhile. Commands find it, too."""
    with pytest.MonkeyPatch.context() as patch:
        folder = build_runtime.build(tmp_path_factory.mktemp("build") / "runtime").folder
        patch.setenv("DURABLY_WEB_RUNTIME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def site_directory(runtime_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static site, built once."""
    return build_site(ROOT / "demo", tmp_path_factory.mktemp("site") / "site", Runtime(runtime_directory)).folder


@pytest.fixture(scope="session")
def site(site_directory: Path, browser_settings: dict[str, Any]) -> Iterator[str]:
    """The address of the static site: below a path, without special headers."""
    with serve(site_directory, base=browser_settings["BASE_PATH"]) as address:
        yield address


@pytest.fixture(scope="module")
def playwright_driver() -> Iterator[Playwright]:
    """Playwright, for one module: while it runs, asyncio believes that a loop is running in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield driver


@pytest.fixture
def open_browser(playwright_driver: Playwright, tmp_path: Path) -> Iterator[Callable[..., BrowserContext]]:
    """Call it for a Chromium with a profile of its own; call it again with that name for what a restart finds.

    Close a browser before its profile is opened again: two of them cannot share one.
    """
    with ExitStack() as browsers:

        def open_profile(name: str = "profile") -> BrowserContext:
            return browsers.enter_context(chromium.launch(playwright_driver, tmp_path / name))

        yield open_profile


@pytest.fixture
def crash_tabs() -> Callable[[BrowserContext], None]:
    """Kill the processes of all tabs of a browser."""
    return chromium.crash_tabs


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for everybody: make a database of your own in it, and do not stop it."""
    from tests.support import servers

    try:
        server = servers.postgres_server(where=guarded.memory())
    except databases.ServerMissing as missing:
        pytest.skip(str(missing))
    with closing(server):
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode, before `postgres`."""
    from tests.support import servers

    try:
        server = servers.pgbouncer(postgres)
    except databases.ServerMissing as missing:
        pytest.skip(str(missing))
    with closing(server):
        yield server


@pytest.fixture(scope="session")
def sqld() -> Iterator[Sqld]:
    """A libSQL server for everybody: make a database of your own in it, and do not stop it."""
    from tests.support import servers

    try:
        server = servers.sqld_server(where=guarded.memory())
    except databases.ServerMissing as missing:
        pytest.skip(str(missing))
    with closing(server):
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nobody should believe that a backend was tested when it was not there."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("not tested here")
        reasons = Counter(_reason(report) for report in skipped)
        for reason, count in reasons.items():
            terminalreporter.line(f"{count} tests: {reason}")
        for report in skipped:
            if reasons[_reason(report)] < _FEW:
                terminalreporter.line(f"{report.nodeid}: {_reason(report)}")


_FEW = 20


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
