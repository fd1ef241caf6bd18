"""A leader that sleeps, in a browser where two workers cannot open one file: nobody takes over, and nothing breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.tabs import answer, ask, evaluate, frozen, open_client, processes_of, status_of, wait
from tests.e2e.test_start import link_site

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

# As browsers do that do not know the option.
EXCLUSIVE = """
const prototype = FileSystemFileHandle.prototype;
const create = prototype.createSyncAccessHandle;
prototype.createSyncAccessHandle = function () {
  return create.call(this);
};
"""
TOLD = "statuses.some(([, , error]) => error?.startsWith('StoreUnavailable: the tab that runs the jobs does not '))"


def test_where_handles_cannot_be_shared_a_follower_waits(visit: Callable[..., Page], origin_folder: Path) -> None:
    site = origin_folder / "exclusive"
    worker = link_site(origin_folder / "my-repo", site, without="worker.js")
    for name in ("waiting_jobs.py", "tab_jobs.py"):
        (site / name).symlink_to(origin_folder / "my-repo" / name)
    worker.write_text((origin_folder / "my-repo" / "durably-web" / "worker.js").read_text() + EXCLUSIVE)
    leader, follower = pages = [visit("exclusive/"), visit("exclusive/")]
    assert [open_client(page) for page in pages] == ["leader", "follower"]
    process, _ = processes_of(pages)
    with frozen(process):
        ask(follower, "trigger", "() => durably.triggerAndWait('once', {n: 1})")
        wait(follower, TOLD)
        assert status_of(follower) == "follower"
    assert answer(follower, "trigger")["n"] == 1
    assert [status_of(page) for page in pages] == ["leader", "follower"]
    leader.close()
    wait(follower, "durably.status === 'leader'")
    assert evaluate(follower, "() => durably.triggerAndWait('once', {n: 2})")["n"] == 2
