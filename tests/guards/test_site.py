"""The built site holds what the browser needs, and its Python compiles nothing when it starts."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.pyodide

RunPython = Callable[[str], Any]

# What a start of the engine may load beyond what Pyodide has loaded by then. Each entry costs every visit
# some milliseconds: add one only with a reason.
MAY_LOAD = {
    "_datetime",  # part of the interpreter, and so is the next
    "_pydatetime",
    "datetime",  # instants on the wire
}


@pytest.fixture(scope="module")
def runtime(site_directory: Path) -> Path:
    return site_directory / "durably-web"


@pytest.fixture(scope="module")
def manifest(runtime: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((runtime / "manifest.json").read_text())
    return content


@pytest.fixture(scope="module")
def run_python(runtime: Path, root: Path) -> RunPython:
    """Run a program in the site's Python; its last expression must be JSON."""

    def run(program: str) -> Any:
        result = subprocess.run(
            ["node", str(root / "tests" / "guards" / "python_in_node.mjs"), str(runtime)],
            input=program,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run


def test_the_manifest_describes_files_that_exist(runtime: Path, manifest: dict[str, Any]) -> None:
    assert set(manifest) == {
        *("version", "schema", "wheel", "micropip", "pyodide_http", "cronsim", "tzdata"),
        *("pyodide", "stdlib", "snapshot", "lock", "packages", "files", "offline"),
    }
    for name in ("wheel", "micropip", "pyodide_http", "cronsim", "tzdata", "stdlib", "snapshot"):
        assert manifest[name] in manifest["files"]
    for folder in ("pyodide", "sqlite", "wheels"):
        there = {path.relative_to(runtime).as_posix() for path in (runtime / folder).iterdir()}
        # The lock itself is in the manifest.
        assert there - {"pyodide/pyodide-lock.json"} == {
            name for name in manifest["files"] if name.startswith(f"{folder}/")
        }
    for name, described in manifest["files"].items():
        data = (runtime / name).read_bytes()
        digest = base64.b64encode(hashlib.sha384(data).digest()).decode()
        assert described == {"bytes": len(data), "integrity": f"sha384-{digest}"}, name
    assert manifest["lock"] == json.loads((runtime / "pyodide" / "pyodide-lock.json").read_text())
    assert manifest["lock"]["packages"] == {}


def test_the_memory_of_python_knows_nothing_of_this_machine(
    runtime: Path, manifest: dict[str, Any], root: Path
) -> None:
    memory = gzip.decompress((runtime / manifest["snapshot"]).read_bytes())
    for trace in (str(root), sys.prefix, str(Path(sys.executable).resolve())):
        assert trace.encode() not in memory, trace
    assert b"/lib/durably_web.whl" in memory


# What a first visit downloads, in MB as the files are. A host that packs them sends about two thirds of it.
MOST_IN_ALL, MOST_OF_MEMORY = 23.5, 5.5


def test_a_first_visit_stays_as_small_as_it_is(manifest: dict[str, Any]) -> None:
    sizes = {name: described["bytes"] / 1e6 for name, described in manifest["files"].items()}
    later = ("micropip", "cronsim", "tzdata")
    assert sum(sizes.values()) - sum(sizes[manifest[name]] for name in later) < MOST_IN_ALL
    assert sizes[manifest["snapshot"]] < MOST_OF_MEMORY


def test_the_site_has_everything_that_a_page_loads(site_directory: Path, runtime: Path) -> None:
    assert (site_directory / "index.html").is_file()
    assert (site_directory / ".nojekyll").is_file()
    for name in ("client.js", "worker.js", "sqlite/index.mjs", "sqlite/sqlite3.wasm", "pyodide/pyodide.mjs"):
        assert (runtime / name).is_file(), name
    assert not list(site_directory.rglob("node_modules"))
    assert not list(site_directory.rglob("package.json"))


def test_the_wheel_is_what_its_record_says(runtime: Path, manifest: dict[str, Any]) -> None:
    with zipfile.ZipFile(runtime / manifest["wheel"]) as wheel:
        names = wheel.namelist()
        (record,) = [name for name in names if name.endswith(".dist-info/RECORD")]
        lines = {path: (digest, size) for path, digest, size in csv.reader(io.StringIO(wheel.read(record).decode()))}
        assert sorted(lines) == sorted(names)
        assert lines.pop(record) == ("", "")
        for path, (digest, size) in lines.items():
            data = wheel.read(path)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={expected}", str(len(data))), path


def test_the_wheel_has_byte_code_for_every_module_and_no_command_line(runtime: Path, manifest: dict[str, Any]) -> None:
    with zipfile.ZipFile(runtime / manifest["wheel"]) as wheel:
        names = set(wheel.namelist())
    sources = {Path(name) for name in names if name.endswith(".py")}
    assert sources
    for source in sources:
        assert source.with_suffix(".pyc").as_posix() in names
    assert not [name for name in names if name.startswith(("durably_web/cli", "durably_web/server"))]


def test_our_modules_are_loaded_from_byte_code(run_python: RunPython) -> None:
    compiled = run_python("""
import json, zipimport

compiled = []
compile_source = zipimport._compile_source
def noticed(path, source):
    compiled.append(path)
    return compile_source(path, source)
zipimport._compile_source = noticed

import durably_web.browser
assert type(durably_web.__loader__) is zipimport.zipimporter
json.dumps(compiled)
""")
    assert compiled == []


def test_a_traceback_shows_our_source(run_python: RunPython) -> None:
    text = run_python("""
import json, traceback
from durably_web.ids import counted_up
try:
    counted_up("?", 1)
except Exception:
    text = traceback.format_exc()
json.dumps(text)
""")
    assert re.search(r'File "durably_web/ids.py", line \d+, in counted_up\n +number = number << 5 ', text), text


def test_a_start_from_memory_imports_nothing_more(runtime: Path, root: Path) -> None:
    """Neither the engine, nor what settles it, nor the standard library: all of that is in the memory."""
    result = subprocess.run(
        ["node", str(root / "tests" / "guards" / "memory_in_node.mjs"), str(runtime)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert {"durably_web.browser", "durably_web.restored", "durably_web.engine.durably"} <= set(found["before"])
    assert found["added"] == []


def test_a_start_loads_only_what_pyodide_has_loaded_already(run_python: RunPython) -> None:
    added = run_python("""
import json, sys
# What the worker itself uses before it hands over.
import asyncio, pyodide.ffi
before = set(sys.modules)
import durably_web.browser
json.dumps(sorted(set(sys.modules) - before))
""")
    foreign = {name for name in added if name.partition(".")[0] not in ("durably_web", "durably_bridge")}
    assert foreign <= MAY_LOAD
    assert not [name for name in added if name.startswith(("durably_web.cli", "durably_web.backends.sqlite"))]
