"""What the jobs of a site require: found for the browser's Python, pinned, fetched, listed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durably_web.site.build import Site, build_site
from durably_web.site.problem import SiteProblem
from durably_web.site.runtime import Runtime
from scripts.serve import serve
from tests.cli.wheels import PURE, WASM, Index, make_wheel, sha256

JOBS = """
from durably_web import job


@job
async def nothing(step, input):
    pass
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The only package index that pip knows of."""
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    index = Index(tmp_path / "index")
    monkeypatch.setenv("PIP_INDEX_URL", index.folder.as_uri())
    return index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "jobs.py").write_text(JOBS)
    (folder / "index.html").write_text("<!doctype html>")
    return folder


@pytest.fixture
def runtime(runtime_directory: Path, tmp_path: Path) -> Runtime:
    """The real one, with two packages and a library that Pyodide's lock says it has."""
    real = Runtime(runtime_directory)
    folder = tmp_path / "runtime"
    folder.mkdir()
    (folder / "durably-web").symlink_to(real.served)
    shutil.copy(real.folder / "pyodide.json", folder)
    cdn = tmp_path / "cdn"
    matrix = make_wheel(cdn, "matrix", "2.0", tag=WASM)
    frame = make_wheel(cdn, "frame", "1.0", tag=WASM)
    (cdn / "libalgebra-1.0.zip").write_bytes(b"PK\5\6" + bytes(18))
    lock = real.pyodide_lock()
    lock["packages"] = {
        "matrix": pyodide_entry(matrix, "matrix", "2.0", ["libalgebra"]),
        "frame": pyodide_entry(frame, "frame", "1.0", ["matrix", "small"]),
        "small": pyodide_entry(make_wheel(cdn, "small", "0.5"), "small", "0.5", []),
        "libalgebra": pyodide_entry(cdn / "libalgebra-1.0.zip", "libalgebra", "1.0", [], kind="shared_library"),
    }
    (folder / "pyodide-lock.json").write_text(json.dumps(lock))
    return Runtime(folder)


@pytest.fixture
def cdn(runtime: Runtime, tmp_path: Path) -> Iterator[str]:
    with serve(tmp_path / "cdn") as address:
        yield address


def pyodide_entry(path: Path, name: str, version: str, depends: list[str], kind: str = "package") -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "file_name": path.name,
        "install_dir": "site" if kind == "package" else "dynlib",
        "sha256": sha256(path),
        "package_type": kind,
        "imports": [name],
        "depends": depends,
        "unvendored_tests": False,
    }


def build(folder: Path, runtime: Runtime, requirements: str | None = None, **options: Any) -> Site:
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    return build_site(folder, folder / "dist", runtime, **options)


def manifest_of(site: Site) -> dict[str, Any]:
    return dict(json.loads((site.folder / "durably-web" / "manifest.json").read_text()))


def test_wheels_for_the_browser_are_found_pinned_and_listed(index: Index, folder: Path, runtime: Runtime) -> None:
    index.add("fast", "1.0", tag=WASM, requires=("small>=1", "colours; sys_platform == 'win32'"))
    index.add("fast", "1.1", tag="cp314-cp314-manylinux_2_17_x86_64")
    index.add("fast", "1.2", tag="cp313-cp313-pyemscripten_2025_0_wasm32")
    index.add("small", "1.0", requires=("browser-only; sys_platform == 'emscripten'", "old; python_version < '3.14'"))
    index.add("browser-only", "3.0", requires=("micropip", "durably-web; platform_machine == 'wasm32'"))
    (folder / "jobs.py").write_text(
        f'# /// script\n# requires-python = ">=3.11"\n# dependencies = ["fast"]\n# ///\n{JOBS}'
    )
    site = build(folder, runtime)
    assert site.packages == {"fast": "1.0", "small": "1.0", "browser-only": "3.0"}

    served = site.folder / "durably-web"
    lock = json.loads((served / "pyodide" / "pyodide-lock.json").read_text())
    assert set(lock["packages"]) == set(site.packages)
    for entry in lock["packages"].values():
        assert sha256(served / "pyodide" / entry["file_name"]) == entry["sha256"]
    assert lock["packages"]["fast"]["depends"] == ["small"]
    assert lock["packages"]["small"]["depends"] == ["browser-only"]
    assert lock["packages"]["browser-only"]["depends"] == [], "what every site has is there before"
    assert lock["packages"]["browser-only"]["imports"] == ["browser_only"]
    assert manifest_of(site)["packages"] == ["browser-only", "fast", "small"]
    assert not (site.folder / "requirements.lock").exists()
    assert "://" not in (folder / "requirements.lock").read_text()


def test_the_same_wheels_again_until_asked_for_newer_ones(index: Index, folder: Path, runtime: Runtime) -> None:
    index.add("small", "1.0")
    build(folder, runtime, "small\n")
    pinned = (folder / "requirements.lock").read_text()
    index.add("small", "1.1")
    shutil.rmtree(folder / ".durably-web")  # as in another checkout
    assert build(folder, runtime, "# our only one\nsmall  # small").packages == {"small": "1.0"}
    assert (folder / "requirements.lock").read_text() == pinned

    hidden = index.folder.rename(index.folder.with_name("hidden"))
    assert build(folder, runtime).packages == {"small": "1.0"}, "what was fetched before needs no network"
    hidden.rename(index.folder)

    assert build(folder, runtime, upgrade=True).packages == {"small": "1.1"}
    assert build(folder, runtime, "small<1.1").packages == {"small": "1.0"}, "other requirements, other pins"


def test_a_wheel_that_changed_is_refused(index: Index, folder: Path, runtime: Runtime) -> None:
    index.add("small", "1.0")
    site = build(folder, runtime, "small")
    index.add("small", "1.0", code="stolen = True")
    shutil.rmtree(folder / ".durably-web")
    with pytest.raises(SiteProblem, match=r"small==1\.0 has another hash than it is pinned with"):
        build(folder, runtime)
    assert "stolen" not in (site.folder / "durably-web" / "wheels" / f"small-1.0-{PURE}.whl").read_text("latin1")


def test_what_only_pyodide_has_comes_from_its_cdn(
    index: Index, folder: Path, runtime: Runtime, cdn: str, tmp_path: Path
) -> None:
    index.add("small", "1.0")
    index.add_source("matrix", "3.0")
    index.add("report", "1.0", requires=("frame>=1", "matrix<3"))
    site = build(folder, runtime, "report", pyodide_cdn=cdn)
    assert site.packages == {"report": "1.0", "frame": "1.0", "matrix": "2.0", "libalgebra": "1.0", "small": "1.0"}
    lock = json.loads((site.folder / "durably-web" / "pyodide" / "pyodide-lock.json").read_text())
    assert lock["packages"]["libalgebra"]["install_dir"] == "dynlib"
    assert lock["packages"]["frame"]["depends"] == ["matrix", "small"]
    for entry in lock["packages"].values():
        assert sha256(site.folder / "durably-web" / "pyodide" / entry["file_name"]) == entry["sha256"]
    assert build(folder, runtime, pyodide_cdn="http://127.0.0.1:9/").packages == site.packages, "it is here already"

    shutil.rmtree(folder / ".durably-web")
    make_wheel(tmp_path / "cdn", "frame", "1.0", tag=WASM, code="stolen = True")
    with pytest.raises(SiteProblem, match=r"frame-1\.0.* has another hash than Pyodide's lock says"):
        build(folder, runtime, pyodide_cdn=cdn)
    with pytest.raises(SiteProblem, match=r"could not be fetched: .*; --pyodide-cdn names another place"):
        build(folder, runtime, pyodide_cdn="http://127.0.0.1:9/")


def test_pyodide_itself_from_a_cdn(index: Index, folder: Path, runtime: Runtime) -> None:
    ours = manifest_of(build(folder, runtime))
    site = build(folder, runtime, cdn=True, pyodide_cdn="https://cdn.example/full/")
    theirs = manifest_of(site)
    assert theirs["pyodide"] == "https://cdn.example/full/"
    assert sorted(path.name for path in (site.folder / "durably-web" / "pyodide").iterdir()) == [
        "pyodide-lock.json",
        "python_stdlib.zip",
    ]
    for name in ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm"):
        assert theirs["files"][f"https://cdn.example/full/{name}"] == ours["files"][f"pyodide/{name}"]
    assert all("://" in name or (site.folder / "durably-web" / name).is_file() for name in theirs["files"])


@pytest.mark.parametrize(
    ("requirements", "complaint"),
    [
        ("smal", r"there is no package smal: is the name right\?"),
        (
            "native",
            r"native has no wheel that runs in a browser: .*pyemscripten_2026_0_wasm32; its newest version is 2\.0",
        ),
        ("needs-native", r"native, which needs-native requires, has no wheel that runs in a browser"),
        ("small>=7", r"no version of small fits 'small>=7' and runs in a browser; these do: 0\.5, 1\.0"),
        ("small<1\nstrict", r"fulfil all requirements: .*strict 1\.0 depends on small>=1"),
        ("-e .", r"requirements\.txt, line 1: '-e \.' is not the name of a package"),
        ("\nsmall @ file:///tmp/small.whl", r"requirements\.txt, line 2: small is asked for by address"),
    ],
)
def test_what_cannot_be_had_is_told(
    index: Index, folder: Path, runtime: Runtime, requirements: str, complaint: str
) -> None:
    index.add("small", "1.0")
    index.add("strict", "1.0", requires=("small>=1",))
    index.add_source("native", "2.0")
    index.add("native", "1.0", tag="cp314-cp314-win_amd64")
    index.add("needs-native", "1.0", requires=("native",))
    with pytest.raises(SiteProblem, match=complaint) as caught:
        build(folder, runtime, requirements)
    assert "\n" not in str(caught.value)
    assert not (folder / "requirements.lock").exists()
    assert not (folder / "dist").exists()


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ('# /// script\n# dependencies = ["small"]\n', "has no end"),
        ("# /// script\n# dependencies = [\n# ///\n", "is not TOML"),
        ('# /// script\n# dependencies = "small"\n# ///\n', "dependencies is a list of strings"),
        ('# /// script\n# requires-python = "<3.12"\n# ///\n', r"requires Python <3\.12, and a browser's is 3\.14"),
    ],
)
def test_inline_metadata_that_cannot_be_used(folder: Path, runtime: Runtime, block: str, complaint: str) -> None:
    (folder / "jobs.py").write_text(block + JOBS)
    with pytest.raises(SiteProblem, match=complaint):
        build(folder, runtime)


def test_no_index_to_be_reached(folder: Path, runtime: Runtime, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(SiteProblem, match=r"the package index could not be reached.*: is there a network\?"):
        build(folder, runtime, "small>=1")
