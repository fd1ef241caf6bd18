"""pytest-pyodide with our browser, on our server, and with our package in every Pyodide that it starts."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from pytest_pyodide import get_global_config

from scripts import chromium, pyodide_dist
from scripts.serve import serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

# The plugin would wait for Pyodide without end; a module takes seconds.
SECONDS = 60.0

JOB_FILE = json.dumps(Path(__file__).with_name("jobs.py").read_text("utf-8"))
get_global_config().set_initialize_script(f"""
    await pyodide.loadPackage("durably-web");
    pyodide.FS.mkdirTree("tests/pyodide_plugin");
    pyodide.FS.writeFile("tests/pyodide_plugin/jobs.py", {JOB_FILE});
""")


@pytest.fixture(scope="session")
def web_server_main(site_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, Path]]:
    """In place of the plugin's server, which forks this process and listens on every interface."""
    folder = tmp_path_factory.mktemp("pyodide")
    with serve(pyodide_dist.build(folder / "dist", site_directory)) as address:
        place = urlsplit(address)
        assert place.hostname is not None and place.port is not None
        yield place.hostname, place.port, folder / "server.log"


@pytest.fixture(scope="module")
def playwright_browsers(playwright_driver: Playwright) -> Iterator[dict[str, Browser]]:
    """In place of the plugin's, which looks for a Chromium that Playwright has downloaded."""
    browser = playwright_driver.chromium.launch(
        executable_path=chromium.require(),
        args=chromium.launch_arguments(),
        timeout=chromium.SETTINGS["LAUNCH_TIMEOUT_MS"],
    )
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    (process,) = (int(process["id"]) for process in processes if process["type"] == "browser")
    overdue = threading.Timer(SECONDS, os.kill, (process, signal.SIGKILL))
    overdue.daemon = True
    overdue.start()
    try:
        yield {"chrome": browser}
    finally:
        overdue.cancel()
        browser.close()
