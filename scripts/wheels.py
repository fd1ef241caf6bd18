"""The wheels that the site serves: ours, with byte code for Pyodide inside, and those it installs beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The browser has no terminal and no sockets: the command line stays at home, and so does what only servers need. Tests
# get what they need beside the site (pyodide_dist.py).
LEFT_OUT = (
    "durably_web/backends/postgres/",
    "durably_web/blocking/",
    "durably_web/cli/",
    "durably_web/server/",
    "durably_web/site/",
    "durably_web/testing/",
    "durably_web/__main__.py",
)

# Two builds of the same sources give the same bytes.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def run(*arguments: str | Path) -> str:
    """Run a tool and return what it printed; what it complains about is shown when it fails."""
    command = [str(argument) for argument in arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def compile_python(pyodide: Path, sources: Path) -> str:
    """Compile everything below `sources` with Pyodide's own Python, for an archive; returns that Python's version."""
    report = run("node", ROOT / "scripts" / "compile_python.mjs", pyodide, sources)
    return str(json.loads(report.splitlines()[-1])["python"])


def write_zip(target: Path, files: dict[str, bytes]) -> None:
    """Write `files` in the given order, the same bytes on every machine."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)


def files_below(directory: Path) -> dict[str, bytes]:
    """The files below `directory`, by their path relative to it."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def record(files: dict[str, bytes], own_name: str) -> bytes:
    """The RECORD of a wheel that holds `files`; its own line has neither hash nor size."""
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{own_name},,\n"]).encode()


def build_wheel(target: Path) -> Path:
    """Build the wheel that everyone else installs, without the network."""
    before = set(target.glob("*.whl"))
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", target)
    (wheel,) = set(target.glob("*.whl")) - before
    return wheel


def build_browser_wheel(pyodide: Path, target: Path) -> Path:
    """Build our wheel for exactly the Python of `pyodide`: sources, for tracebacks, and their byte code.

    The worker imports from it as it is, without unpacking it. Unpacked it works too, from the sources.

    A wheel with the byte code of another Python installs without complaint and fails at the first import,
    hence the Python version in the file name.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain = build_wheel(Path(scratch))
        tree = Path(scratch) / "tree"
        with zipfile.ZipFile(plain) as archive:
            archive.extractall(tree, [name for name in archive.namelist() if not name.startswith(LEFT_OUT)])
        python = compile_python(pyodide, tree)
        name, version, *_ = plain.stem.split("-")
        tag = "cp" + "".join(python.split(".")[:2])
        information = f"{name}-{version}.dist-info"
        files = files_below(tree)
        del files[f"{information}/RECORD"]
        files.pop(f"{information}/entry_points.txt", None)
        metadata = files[f"{information}/WHEEL"].decode()
        files[f"{information}/WHEEL"] = re.sub(r"(?m)^Tag: .*$", f"Tag: {tag}-none-any", metadata).encode()
        files[f"{information}/RECORD"] = record(files, f"{information}/RECORD")
    wheel = target / f"{name}-{version}-{tag}-none-any.whl"
    write_zip(wheel, files)
    return wheel


def compiled_standard_library(pyodide: Path, cache: Path) -> Path:
    """Pyodide's standard library as byte code.

    As it comes, the archive holds sources only, and compiling them is most of the time that a start takes.
    Sources and byte code together would be the larger download by 2.5 MB, to show the text of a line in tracebacks
    through the standard library; those still have file and number.
    """
    original = pyodide / "python_stdlib.zip"
    digest = hashlib.sha256(original.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
    compiled = cache / f"python_stdlib-{digest}.zip"
    if not compiled.exists():
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch)
            with zipfile.ZipFile(original) as archive:
                archive.extractall(tree)
            compile_python(pyodide, tree)
            files = files_below(tree)
            cache.mkdir(parents=True, exist_ok=True)
            write_zip(
                compiled.with_suffix(f".{os.getpid()}.part"),
                {name: data for name, data in files.items() if f"{name}c" not in files},
            )
        compiled.with_suffix(f".{os.getpid()}.part").replace(compiled)
    return compiled


def memory_snapshot(runtime: Path, wheel: Path, cache: Path) -> Path:
    """The memory of a Python that has started from the files in `runtime` and has imported the engine from `wheel`.

    Kept, because no two are the same: a site that is built again from the same files has the same memory.
    """
    script = ROOT / "scripts" / "make_snapshot.mjs"
    parts = [*sorted((runtime / "pyodide").iterdir()), wheel, script]
    digest = hashlib.sha256(b"".join(hashlib.sha256(part.read_bytes()).digest() for part in parts)).hexdigest()[:16]
    made = cache / f"snapshot-{digest}.bin"
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = made.with_suffix(f".{os.getpid()}.part")
        run("node", script, runtime, wheel, part)
        part.replace(made)
    return made


def pinned(requirements: Path) -> dict[str, str]:
    """Name → exact version, as the lock file has them."""
    pins: dict[str, str] = {}
    for line in requirements.read_text().splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        if name:
            pins[name] = version
    return pins


def download_wheels(pins: dict[str, str], cache: Path) -> dict[str, Path]:
    """The wheels of these versions, by their import name; fetched with pip where they are not there already."""
    found: dict[str, Path] = {}
    for name, version in pins.items():
        module = name.replace("-", "_")
        pattern = f"{module}-{version}-*.whl"
        if not any(cache.glob(pattern)):
            # For Pyodide, not for the Python that builds: pure wheels, whatever they say about older versions.
            run(
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
                *("--python-version=3.14", "--implementation=py", "--abi=none", "--platform=any"),
                *("--dest", cache, f"{name}=={version}"),
            )
        found[module] = next(cache.glob(pattern))
    return found
