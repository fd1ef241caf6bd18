"""Find Chromium, start it on a profile that outlives it, and kill the process of a tab.

`python -m scripts.chromium` prints the path of the browser, and installs one where that needs no question.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Playwright

ROOT = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, Any] = runpy.run_path(str(ROOT / "playwright.config.py"))


class ChromiumMissing(RuntimeError):
    """No Chromium here: install it (on Debian `apt-get install chromium`), or name one in the variable CHROMIUM."""

    def __init__(self) -> None:
        named = os.environ.get("CHROMIUM")
        super().__init__(f"CHROMIUM is {named}, and there is no such program." if named else type(self).__doc__)


def find() -> str | None:
    """The browser to use, or `None`."""
    named = os.environ.get("CHROMIUM")
    candidates = (named,) if named else SETTINGS["EXECUTABLES"]
    return next((path for path in map(shutil.which, candidates) if path), None)


def require() -> str:
    """The browser to use. Raises `ChromiumMissing`."""
    path = find()
    if path is None:
        raise ChromiumMissing
    return path


def install() -> None:
    """Install Chromium with apt. Raises `ChromiumMissing` where we may not, or where somebody chose another one."""
    apt = shutil.which("apt-get")
    if apt is None or os.getuid() != 0 or "CHROMIUM" in os.environ:
        raise ChromiumMissing
    print("Installing Chromium …", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    package = SETTINGS["APT_PACKAGE"]
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
        subprocess.run([apt, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)


def launch_arguments() -> list[str]:
    """The flags for this user."""
    as_root = SETTINGS["LAUNCH_ARGS_AS_ROOT"] if os.getuid() == 0 else ()
    return [*SETTINGS["LAUNCH_ARGS"], *as_root]


@contextmanager
def launch(driver: Playwright, profile: Path) -> Iterator[BrowserContext]:
    """A headless Chromium whose storage stays in `profile` after it has gone."""
    context = driver.chromium.launch_persistent_context(
        profile,
        executable_path=require(),
        args=launch_arguments(),
        timeout=SETTINGS["LAUNCH_TIMEOUT_MS"],
    )
    context.set_default_timeout(SETTINGS["ACTION_TIMEOUT_MS"])
    try:
        yield context
    finally:
        context.close()


def renderers(context: BrowserContext) -> set[int]:
    """Process ids of everything in this browser that runs a page or its workers."""
    browser = context.browser
    assert browser is not None, "a browser that Playwright started itself"
    session = browser.new_browser_cdp_session()
    try:
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    finally:
        session.detach()
    return {int(process["id"]) for process in processes if process["type"] == "renderer"}


def crash_tabs(context: BrowserContext) -> None:
    """Take every tab away as a crash does: no event, no clean-up. The browser itself goes on.

    The process is killed because the protocol's own `Page.crash` never returns through Playwright's sync API.
    """
    for process in renderers(context):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def main() -> None:
    try:
        if find() is None:
            install()
        print(require())
    except (ChromiumMissing, subprocess.CalledProcessError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
