"""A job that imports `requests`, installed from wheels that the site serves, fetches over the network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.wheels import ROOT, download_wheels, pinned
from tests.e2e.conftest import HERE, create

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_requests_works_in_a_job(visit: Callable[..., Page], origin: str, origin_folder: Path) -> None:
    wheels = download_wheels(pinned(HERE / "jobs" / "requirements.txt"), ROOT / "build" / "cache")
    for wheel in wheels.values():
        shutil.copy(wheel, origin_folder / "my-repo")
    page = visit()
    requirements = [f"./{wheel.name}" for wheel in wheels.values()]
    assert create(page, jobs="requests_job.py", requirements=requirements) == "leader"
    fetch = "url => durably.triggerAndWait('fetch_with_requests', { url })"
    assert page.evaluate(fetch, f"{origin}my-repo/greeting.txt") == {"status": 200, "text": "hello"}
    assert page.evaluate(fetch, f"{origin}my-repo/nowhere.txt")["status"] == 404
