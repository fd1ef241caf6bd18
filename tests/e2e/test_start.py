"""A start that cannot work rejects with an error that names the cause, and harms nothing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import CREATE, PAGE, create

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

# What a browser may lack, as the worker would find it.
MISSING = {
    "opfs": (
        "delete FileSystemFileHandle.prototype.createSyncAccessHandle;",
        "StoreUnavailable: this browser has no origin private file system",
    ),
    "private": (
        "StorageManager.prototype.getDirectory = async () => { throw new DOMException('no', 'SecurityError') };",
        "StoreUnavailable: the browser gives this page no private file system (a private window?)",
    ),
    "locks": (
        "Object.defineProperty(navigator, 'locks', { value: undefined });",
        "StoreUnavailable: this browser has no Web Locks",
    ),
    "secure": (
        "Object.defineProperty(globalThis, 'isSecureContext', { value: false });",
        "StoreUnavailable: this page is not a secure context",
    ),
    "flush": (
        "const query = FileSystemSyncAccessHandle.prototype; Object.defineProperty(query, 'flush', "
        "{ get: () => () => {}, set() {} });",
        "StoreNotDurable: a commit reached no flush()",
    ),
}


def link_site(source: Path, target: Path, *, without: str) -> Path:
    """A site in `target` that shares everything with `source` but one file of its runtime; that file's place."""
    runtime = target / "durably-web"
    runtime.mkdir(parents=True)
    (target / "index.html").write_text(PAGE)
    (target / "jobs.py").symlink_to(source / "jobs.py")
    for path in (source / "durably-web").iterdir():
        if path.name != without:
            (runtime / path.name).symlink_to(path)
    return runtime / without


@pytest.mark.parametrize("lack", MISSING)
def test_a_browser_that_cannot_store(lack: str, visit: Callable[..., Page], origin_folder: Path) -> None:
    script, expected = MISSING[lack]
    site = origin_folder / f"without-{lack}"
    worker = link_site(origin_folder / "my-repo", site, without="worker.js")
    worker.write_text((origin_folder / "my-repo" / "durably-web" / "worker.js").read_text() + f"\n{script}\n")
    assert create(visit(f"{site.name}/")).startswith(expected)


def test_job_files(visit: Callable[..., Page], origin_folder: Path) -> None:
    """Each is refused with its name and line, and afterwards the right one works on the same page."""
    files = {
        "bad_syntax.py": ("import os\n\n\ndef broken(:\n    pass\n", "SyntaxError: bad_syntax.py, line 4: "),
        "bad_import.py": ("import os\n\nimport nobody\n", "ModuleNotFoundError: bad_import.py, line 3: No module"),
        "no_jobs.py": ("x = 1\n", "InvalidInput: there is no @job in no_jobs.py"),
        "json.py": ("x = 1\n", "InvalidInput: another module has the name of the job file json.py"),
        "not-a-module.py": ("x = 1\n", "InvalidInput: a job file is called like a Python module"),
    }
    page = visit()
    for name, (source, expected) in files.items():
        (origin_folder / "my-repo" / name).write_text(source)
        assert create(page, jobs=name).startswith(expected)
    missing = create(page, jobs="nowhere.py")
    assert missing.startswith("NotFound: the job file ") and "nowhere.py" in missing and "404" in missing
    assert create(page) == "leader"


def test_a_missing_wheel(visit: Callable[..., Page], origin_folder: Path) -> None:
    site = origin_folder / "missing-wheel"
    manifest = link_site(origin_folder / "my-repo", site, without="manifest.json")
    right = json.loads((origin_folder / "my-repo" / "durably-web" / "manifest.json").read_text())
    manifest.write_text(json.dumps({**right, "wheel": "wheels/nowhere.whl"}))
    outcome = create(visit(f"{site.name}/"))
    assert outcome.startswith("NotFound: the wheel ") and "nowhere.whl" in outcome and "404" in outcome


@pytest.mark.parametrize("part", ["manifest.json", "worker.js", "pyodide", "sqlite"])
def test_a_runtime_with_a_hole(part: str, visit: Callable[..., Page], origin_folder: Path) -> None:
    site = origin_folder / f"hole-{part}"
    link_site(origin_folder / "my-repo", site, without=part)
    outcome = create(visit(f"{site.name}/"))
    assert outcome.split(":")[0] in {"NotFound", "BootFailed", "StoreUnavailable"}
    assert part in outcome


def test_a_database_name_that_leads_elsewhere(visit: Callable[..., Page]) -> None:
    assert create(visit(), database="../other").startswith("InvalidInput: a database name has ")


def test_requirements(visit: Callable[..., Page], origin_folder: Path) -> None:
    site = origin_folder / "my-repo"
    wheel = site / "tiny_greeting-1.0-py3-none-any.whl"
    information = "tiny_greeting-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_greeting.py", "WORD = 'hello'\n")
        archive.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: tiny-greeting\nVersion: 1.0\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    (site / "greeting_job.py").write_text(
        "import tiny_greeting\nfrom durably_web import job\n\n\n"
        "@job\nasync def greet(step, input: dict) -> str:\n    return tiny_greeting.WORD\n"
    )
    page = visit()
    missing = create(page, jobs="greeting_job.py", requirements=["./nowhere-1.0-py3-none-any.whl"])
    assert missing.startswith("RequirementFailed: ") and "nowhere-1.0" in missing
    assert create(page, jobs="greeting_job.py", requirements=[f"./{wheel.name}"]) == "leader"
    assert page.evaluate("durably.triggerAndWait('greet')") == "hello"
    assert "requirements" in [phase for _, phase, _ in page.evaluate("statuses")]


HOLD_A_FILE = """async () => {
  const script = `
    const place = await (await navigator.storage.getDirectory()).getDirectoryHandle("durably-web");
    const [database] = await Array.fromAsync(place.values());
    const [file] = await Array.fromAsync((await database.getDirectoryHandle(".opaque")).values());
    const handle = await file.createSyncAccessHandle();
    onmessage = () => handle.close();
    postMessage("held");
  `;
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  globalThis.holder = new Worker(url, { type: "module" });
  await new Promise((resolve, reject) => Object.assign(holder, { onmessage: resolve, onerror: reject }));
}"""


def test_files_that_are_still_held(visit: Callable[..., Page]) -> None:
    """The tab before may keep its files a while longer than its lock: wait, and delete nothing."""
    page = visit()
    assert create(page) == "leader"
    run = page.evaluate("durably.trigger('keep', {text: 'kept'})")
    page.evaluate("id => durably.waitForRun(id)", run["id"])
    page.evaluate("durably.close()")
    page.evaluate(HOLD_A_FILE)
    page.evaluate(f"() => {{ globalThis.creating = ({CREATE})({{}}); }}")
    page.wait_for_function("globalThis.statuses?.some(([, phase]) => phase === 'opening')")
    page.evaluate("holder.postMessage('release')")
    assert page.evaluate("creating") == "leader"
    assert page.evaluate("id => durably.getRun(id)", run["id"])["output"] == 4
