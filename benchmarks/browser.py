"""Steps, runs, triggers, replay and import in headless Chromium, on the built site's own modules."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page, sync_playwright

from benchmarks.report import Bar, Figure, at_most, share
from benchmarks.size import Size
from scripts import chromium
from scripts.build_runtime import NODE_MODULES
from scripts.chromium import ChromiumMissing
from scripts.runtime import package
from scripts.serve import serve

__all__ = ["BrowserError", "ChromiumMissing", "measure", "served"]

HERE = Path(__file__).resolve().parent
SITE = HERE.parent / "build" / "site"

# They make the package `benchmarks` that Pyodide imports.
MODULES = ("__init__.py", "inside.py", "jobs.py", "measure.py", "statements.py")
_PATIENCE_SECONDS = 150

# The bar of the steps was set for commits that are flushed.
_LINES: tuple[tuple[str, str, str, Bar | None], ...] = (
    ("steps", "steps/s", "/s", None),
    ("runs", "runs/s, one step each", "/s", None),
    ("replay", "replay of 1,000 steps", " ms", None),
    ("latency", "trigger → first line", " ms", None),
    ("import", "import Durably, job", " ms", at_most(100)),
)


@contextmanager
def served() -> Iterator[str]:
    """The pages of the benchmark, beside the runtime of the built site."""
    if not (SITE / "durably-web" / "manifest.json").exists():
        raise FileNotFoundError("the site is not built: run `make site`")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(HERE / "page", root, dirs_exist_ok=True)
        (root / "modules").mkdir()
        for name in MODULES:
            shutil.copy(HERE / name, root / "modules" / name)
        (root / "durably-web").symlink_to(SITE / "durably-web")
        # What a start is compared with.
        (root / "stock").symlink_to(package(NODE_MODULES, "pyodide"))
        with serve(root, base=chromium.SETTINGS["BASE_PATH"]) as address:
            yield address


def _measure_on(page: Page, durability: str, size: Size) -> list[Figure]:
    settings = {
        "durability": durability,
        "modules": MODULES,
        "seconds": _PATIENCE_SECONDS,
        "rounds": size.rounds,
        "steps": size.steps // 4,
        "runs": size.runs // 5,
        "triggers": size.triggers,
    }
    found = json.loads(page.evaluate("settings => window.measure(settings)", settings))
    figures = []
    for key, work, unit, bar in _LINES:
        ours, raw, ratio = found[key]
        if key == "steps" and durability == "full":
            bar = share(0.5)
        figures.append(Figure(f"Chromium {durability}", work, ours, unit, raw, ratio, bar))
    return figures


def measure(size: Size) -> list[Figure]:
    figures: list[Figure] = []
    with served() as address, tempfile.TemporaryDirectory() as profile, sync_playwright() as driver:
        for durability in ("full", "relaxed"):
            # A browser of its own for each: the second must not find the first one's caches.
            with chromium.launch(driver, Path(profile) / durability) as browser:
                page = browser.pages[0] if browser.pages else browser.new_page()
                page.goto(address)
                page.wait_for_function("() => window.measure")
                figures += _measure_on(page, durability, size)
    return figures
