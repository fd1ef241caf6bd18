"""How Python comes up: from its memory or from the beginning, from this server or another one, with packages."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

import pytest

from scripts.serve import SiteHandler
from tests.e2e.conftest import PAGE, create

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page

pytestmark = pytest.mark.browser

Manifest = dict[str, Any]

LOOK = """
import contextvars
import inspect
import asyncio
import json
import locale
import logging
import os
import random
import sys
import time
import uuid

import durably_web.retry
from durably_web import job


@job
async def look(step, input: dict) -> dict:
    before = time.perf_counter()
    tasks = []
    for _ in range(10):
        # A heartbeat's comes and goes.
        await asyncio.sleep(0.01)
        tasks.append(len(asyncio.all_tasks()))
    return {
        "drawn": {
            "random": random.random(),
            "urandom": os.urandom(8).hex(),
            "uuid4": str(uuid.uuid4()),
            "module": random.Random().random(),
        },
        "hash": hash("durably"),
        "surroundings": {
            "path": sys.path,
            "environment": dict(os.environ),
            "zone": [time.timezone, time.altzone, time.daylight, list(time.tzname)],
            "local": [time.localtime(0).tm_hour, time.localtime(0).tm_zone, time.strftime("%z", time.localtime(0))],
            "locale": list(locale.getlocale()),
            "executable": sys.executable,
            "folder": os.getcwd(),
            "source": inspect.getsource(durably_web.retry)[:40],
            "finders": [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path],
            "context": sorted(str(variable.name) for variable in contextvars.copy_context()),
            "loop": type(asyncio.get_running_loop()).__name__,
            "tasks": min(tasks),
        },
        "clocks": {
            "time": time.time(),
            "logging": logging._startTime / 1e9,
            "grows": time.perf_counter() > before,
        },
    }
"""


def described(data: bytes) -> dict[str, Any]:
    digest = base64.b64encode(hashlib.sha384(data).digest()).decode()
    return {"bytes": len(data), "integrity": f"sha384-{digest}"}


def make_site(origin_folder: Path, name: str, **changed: bytes | None) -> tuple[Path, Manifest]:
    """A site whose runtime is that of the others but for its manifest; its runtime, and the manifest as it was.

    Files may be changed, or left out (`None`), by their path with `__` for a slash and `_0` for a dot.
    """
    source, site = origin_folder / "my-repo", origin_folder / name
    runtime = site / "durably-web"
    runtime.mkdir(parents=True)
    (site / "index.html").write_text(PAGE)
    for job_file in source.glob("*.py"):
        (site / job_file.name).symlink_to(job_file.resolve())
    (site / "look.py").write_text(LOOK)
    files = {path.replace("__", "/").replace("_0", "."): data for path, data in changed.items()}
    for path in (source / "durably-web").resolve().rglob("*"):
        place = path.relative_to((source / "durably-web").resolve())
        if path.is_file() and place.as_posix() not in {*files, "manifest.json"}:
            (runtime / place).parent.mkdir(exist_ok=True)
            (runtime / place).symlink_to(path)
    for path_, data in files.items():
        if data is not None:
            (runtime / path_).write_bytes(data)
    manifest: Manifest = json.loads((source / "durably-web" / "manifest.json").read_text())
    write(runtime, manifest)
    return runtime, manifest


def write(runtime: Path, manifest: Manifest) -> None:
    path = runtime / "manifest.json"
    # The server dates files by whole seconds: two of one second would be one file to the browser.
    later = int(path.stat().st_mtime) + 1 if path.exists() else None
    path.write_text(json.dumps(manifest))
    if later is not None:
        os.utime(path, (later, later))


def warnings_of(page: Page) -> list[str]:
    """Those that say that Python did not start as it should, from now on."""
    heard: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "warning" and "Python" in message.text:
            heard.append(message.text)

    page.on("console", hear)
    return heard


def look(page: Page, **options: Any) -> dict[str, Any]:
    assert create(page, jobs="look.py", **options) == "leader"
    found: dict[str, Any] = page.evaluate("durably.triggerAndWait('look')")
    page.evaluate("durably.close()")
    return found


# -- the memory ------------------------------------------------------------------------------------------


def test_a_start_from_memory_knows_its_surroundings(visit: Callable[..., Page], origin_folder: Path) -> None:
    make_site(origin_folder, "memory")
    page = visit("memory/")
    warned = warnings_of(page)
    one, other = look(page), look(page)
    plain, plain_again = look(page, snapshot=False), look(page, snapshot=False)
    assert warned == []
    for name, value in one["drawn"].items():
        assert len({value, *(found["drawn"][name] for found in (other, plain, plain_again))}) == 4, name
    assert one["surroundings"] == other["surroundings"] == plain["surroundings"]
    now = page.evaluate("Date.now() / 1000")
    for found in (one, other, plain):
        assert found["clocks"]["grows"]
        assert now - 120 < found["clocks"]["logging"] <= found["clocks"]["time"] <= now
    # Of the memory, by which its dictionaries are laid out; each other start draws its own.
    assert one["hash"] == other["hash"]
    assert len({one["hash"], plain["hash"], plain_again["hash"]}) == 3


@pytest.mark.parametrize("damage", ["missing", "changed", "cut off", "of another build", "too large"])
def test_a_memory_that_does_not_load(damage: str, visit: Callable[..., Page], origin_folder: Path) -> None:
    right = (origin_folder / "my-repo" / "durably-web" / "snapshot.bin").read_bytes()
    memory = gzip.decompress(right)
    data = {
        "missing": None,
        "changed": right[:-9] + b"x" + right[-8:],
        "cut off": right[:100_000],
        "of another build": gzip.compress(memory[:16] + bytes(32) + memory[48:], 1),
        "too large": gzip.compress(memory + bytes(65536), 1),
    }[damage]
    name = f"memory-{damage.replace(' ', '-')}"
    runtime, manifest = make_site(origin_folder, name, snapshot_0bin=data)
    if data is not None and damage != "changed":
        # As if it had been built like that: what is wrong with it shows only when it is used.
        write(runtime, {**manifest, "files": {**manifest["files"], "snapshot.bin": described(data)}})
    page = visit(f"{name}/")
    warned = warnings_of(page)
    assert create(page) == "leader"
    assert page.evaluate("durably.triggerAndWait('keep', {text: 'four'})") == 4
    assert [text for text in warned if text.startswith("durably-web: Python starts from the beginning")]


# -- what is fetched -------------------------------------------------------------------------------------


class ListeningHandler(SiteHandler):
    """Keeps what it was asked for; lets pages of other origins read the answers, as a CDN does."""

    def __init__(self, *connection: Any, asked: list[str], base: str, directory: str) -> None:
        self.asked = asked
        super().__init__(*connection, base=base, directory=directory)

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        self.asked.append(urlsplit(self.path).path.removeprefix(self.base))
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


@contextmanager
def listening(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder at the root of an origin of its own; its address, and the paths that are asked for."""
    asked: list[str] = []
    handler = partial(ListeningHandler, asked=asked, base="/", directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", asked
        finally:
            server.shutdown()
            thread.join(timeout=10)


def bytes_told(page: Page, phase: str) -> list[tuple[int, int]]:
    told: list[list[Any]] = page.evaluate("downloads")
    return [(loaded, total) for name, loaded, total in told if name == phase]


def test_what_a_first_visit_fetches(browser: BrowserContext, origin_folder: Path) -> None:
    """Each file once, nothing in vain, and the page hears how much of it is there; a follower fetches no Python."""
    _, manifest = make_site(origin_folder, "fetches")
    with listening(origin_folder / "fetches") as (address, asked):
        page = browser.new_page()
        page.goto(address)
        assert create(page) == "leader"
        asked_first = Counter(path.removeprefix("durably-web/") for path in asked)
        described_files = {name for name in asked_first if not name.endswith(".js")}
        later = {manifest[name] for name in ("micropip", "cronsim", "tzdata")}
        assert described_files == {"", "jobs.py", "manifest.json", *manifest["files"]} - later
        # The page and its worker share some modules, and each fetches its own.
        assert not {name for name, times in asked_first.items() if times > (2 if name.endswith(".js") else 1)}

        asked.clear()
        follower = browser.new_page()
        follower.goto(address)
        assert create(follower) == "follower"
        assert {path for path in asked if not path.endswith(".js")} <= {"", "durably-web/manifest.json"}

    pyodide = ("pyodide/pyodide.mjs", "pyodide/pyodide.asm.mjs", "pyodide/pyodide.asm.wasm")
    names = [*pyodide, manifest["stdlib"], manifest["snapshot"], manifest["wheel"]]
    whole = sum(manifest["files"][name]["bytes"] for name in names)
    told = bytes_told(page, "python")
    assert told[-1] == (whole, whole)
    assert {total for _, total in told} == {whole}
    assert [loaded for loaded, _ in told] == sorted(loaded for loaded, _ in told)


def test_a_file_that_was_changed_after_the_build(visit: Callable[..., Page], origin_folder: Path) -> None:
    runtime, manifest = make_site(origin_folder, "changed-library")
    library = runtime / manifest["stdlib"]
    data = library.read_bytes()
    library.unlink()
    library.write_bytes(data[:-1] + b"x")
    outcome = create(visit("changed-library/"))
    assert outcome.startswith("BootFailed: ") and "python_stdlib.zip is not the file that the manifest" in outcome


# -- a Pyodide on another server -------------------------------------------------------------------------

PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm")


def point_at(runtime: Path, manifest: Manifest, address: str) -> None:
    """Let a site take Pyodide from an address, and have none of its own."""
    files = dict(manifest["files"])
    for name in PYODIDE:
        (runtime / "pyodide" / name).unlink(missing_ok=True)
        files[f"{address}{name}"] = manifest["files"][f"pyodide/{name}"]
        files.pop(f"pyodide/{name}", None)
    write(runtime, {**manifest, "pyodide": address, "files": files})


def test_pyodide_from_another_server(
    visit: Callable[..., Page], origin_folder: Path, site_directory: Path, tmp_path: Path
) -> None:
    for name in PYODIDE:
        (tmp_path / name).write_bytes((site_directory / "durably-web" / "pyodide" / name).read_bytes())
    runtime, manifest = make_site(origin_folder, "cdn")
    with listening(tmp_path) as (address, asked):
        point_at(runtime, manifest, address)
        page = visit("cdn/")
        warned = warnings_of(page)
        assert create(page) == "leader"
        assert page.evaluate("durably.triggerAndWait('keep', {text: 'four'})") == 4
        page.evaluate("durably.close()")
        assert Counter(asked) == dict.fromkeys(PYODIDE, 1)
        assert warned == []
    for name in PYODIDE:
        right = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(right + b"\n")
        # Another address each time: what is in the cache and right would do.
        with listening(tmp_path) as (address, _):
            point_at(runtime, manifest, address)
            outcome = create(visit("cdn/"), database=f"refused-{name}")
        assert outcome.startswith("BootFailed: ") and f"{address}{name} is not the file" in outcome
        (tmp_path / name).write_bytes(right)


# -- packages that the site was built with ---------------------------------------------------------------

TINY = "tiny_package-1.0-py3-none-any.whl"


def tiny_wheel() -> bytes:
    information = "tiny_package-1.0.dist-info"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("tiny_package.py", "WORD = 'hello'\n")
        archive.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return packed.getvalue()


def add_package(runtime: Path, manifest: Manifest, data: bytes) -> None:
    """As a build does: the wheel beside the others, an entry in the lock, its name and its file in the manifest."""
    name = f"wheels/{TINY}"
    entry = {
        **{"name": "tiny-package", "version": "1.0", "file_name": f"../{name}", "install_dir": "site"},
        **{"sha256": hashlib.sha256(data).hexdigest(), "package_type": "package", "imports": ["tiny_package"]},
        **{"depends": [], "unvendored_tests": False},
    }
    lock = json.dumps({**manifest["lock"], "packages": {"tiny-package": entry}}).encode()
    (runtime / "pyodide" / "pyodide-lock.json").unlink(missing_ok=True)
    (runtime / "pyodide" / "pyodide-lock.json").write_bytes(lock)
    (runtime / name).write_bytes(data)
    files = {**manifest["files"], name: described(data), "pyodide/pyodide-lock.json": described(lock)}
    write(runtime, {**manifest, "packages": ["tiny-package"], "files": files})


def test_packages_of_the_site(visit: Callable[..., Page], origin_folder: Path) -> None:
    runtime, manifest = make_site(origin_folder, "packages")
    data = tiny_wheel()
    add_package(runtime, manifest, data)
    (runtime.parent / "greet.py").write_text(
        "import tiny_package\nfrom durably_web import job\n\n\n"
        "@job\nasync def greet(step, input: dict) -> str:\n    return tiny_package.WORD\n"
    )
    # What is in the cache and right would do, so what is wrong comes first.
    wheel = runtime / "wheels" / TINY
    wheel.write_bytes(data[:-1] + b"x")
    damaged = create(visit("packages/"), jobs="greet.py", database="damaged")
    assert damaged.startswith("RequirementFailed: tiny-package could not be loaded: ") and TINY in damaged
    wheel.unlink()
    missing = create(visit("packages/"), jobs="greet.py", database="missing")
    assert missing.startswith("RequirementFailed: tiny-package could not be loaded: ") and "404" in missing
    # What the manifest takes for right, and is no package.
    add_package(runtime, manifest, b"no archive")
    broken = create(visit("packages/"), jobs="greet.py", database="broken")
    assert broken.startswith("RequirementFailed: tiny-package could not be loaded")

    add_package(runtime, manifest, data)
    page = visit("packages/")
    assert create(page, jobs="greet.py") == "leader"
    assert page.evaluate("durably.triggerAndWait('greet')") == "hello"
    assert bytes_told(page, "requirements")[-1] == (len(data), len(data))
