"""What a site's jobs require, as files of the site: resolved or pinned, fetched, and listed for Pyodide."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name, parse_wheel_filename

from durably_web import __version__
from durably_web.site.files import integrity
from durably_web.site.packages import Cache, fetch, fetch_from_pyodide, lock_entry
from durably_web.site.pins import Pin, read_pins, write_pins
from durably_web.site.requirements import read_requirements
from durably_web.site.resolution import is_package, resolve
from durably_web.site.runtime import Runtime
from durably_web.site.source import Source
from durably_web.site.target import Target

# Beside the job files; it says to git by itself that it is of no interest.
WORK_FOLDER = ".durably-web"

# From the folder of the lock, pyodide/, to that of the other wheels.
WHEELS = "../wheels/"


class Package(NamedTuple):
    """A wheel or a library, and how Pyodide's lock describes it."""

    path: Path
    entry: dict[str, Any]


def gather(source: Source, runtime: Runtime, pyodide_cdn: str, *, upgrade: bool = False) -> list[Package]:
    """All that the job files require and that not every site has. Writes the pins into the folder.

    With `upgrade` the pins are made anew. What only Pyodide's own packages have comes from the address `pyodide_cdn`.
    Raises `SiteProblem`.
    """
    lock = runtime.pyodide_lock()
    target = Target.of(lock)
    requirements = read_requirements(source.folder, source.python_files, target.python)
    if not requirements:
        return []
    pyodide = {str(canonicalize_name(name)): entry for name, entry in lock["packages"].items()}
    pins = None if upgrade else read_pins(source.folder, requirements, target)
    if pins is not None and any(pin.from_pyodide and not _is_current(pin, pyodide) for pin in pins):
        pins = None
    fresh = pins is None
    if pins is None:
        pins = resolve(requirements, target, pyodide, _inside(runtime))
    cache = Cache(work_folder(source.folder) / "wheels")
    wheels = fetch([pin for pin in pins if not pin.from_pyodide], target, cache)
    packages = [Package(path, lock_entry(path, target, f"{WHEELS}{path.name}")) for path in wheels]
    for name in _with_libraries([pin.name for pin in pins if pin.from_pyodide], pyodide):
        entry = pyodide[name]
        path = fetch_from_pyodide(entry, pyodide_cdn, cache)
        packages.append(Package(path, {**entry, "file_name": f"{WHEELS}{path.name}"}))
    if fresh:
        write_pins(source.folder, pins, requirements, target)
    return _closed(packages)


def default_cdn(runtime: Runtime) -> str:
    """Where Pyodide's makers offer the packages that its lock lists, and its own files."""
    return f"https://cdn.jsdelivr.net/pyodide/v{runtime.pyodide_version()}/full/"


def add_packages(folder: Path, packages: Sequence[Package]) -> None:
    """Put packages into a site's runtime folder, and list them in its lock and its manifest."""
    if not packages:
        return
    for package in packages:
        shutil.copy(package.path, folder / "wheels" / package.path.name)
    lock_file = folder / "pyodide" / "pyodide-lock.json"
    lock = json.loads(lock_file.read_text())
    lock["packages"].update({package.entry["name"]: package.entry for package in packages})
    lock_file.write_text(json.dumps(lock, indent=2) + "\n")
    manifest_file = folder / "manifest.json"
    manifest = json.loads(manifest_file.read_text())
    manifest["packages"] = sorted(package.entry["name"] for package in packages)
    # What a start downloads, where the runtime lists it.
    if "files" in manifest:
        names = [lock_file.relative_to(folder).as_posix(), *(f"wheels/{package.path.name}" for package in packages)]
        manifest["files"].update({name: described((folder / name).read_bytes()) for name in names})
    manifest_file.write_text(json.dumps(manifest, indent=2) + "\n")


def use_cdn(folder: Path, cdn: str) -> None:
    """Let a site's runtime folder have Pyodide's own files from a CDN, which browsers compare with ours.

    What is not just as its makers made it stays with the site: the standard library, the memory, the lock.
    """
    manifest_file = folder / "manifest.json"
    manifest = json.loads(manifest_file.read_text())
    ours = (manifest["stdlib"], "pyodide/pyodide-lock.json")
    for name in [name for name in manifest["files"] if name.startswith("pyodide/") and name not in ours]:
        manifest["files"][f"{cdn}{Path(name).name}"] = manifest["files"].pop(name)
        (folder / name).unlink()
    manifest["pyodide"] = cdn
    manifest_file.write_text(json.dumps(manifest, indent=2) + "\n")


def described(data: bytes) -> dict[str, Any]:
    """A file as the manifest lists it."""
    return {"bytes": len(data), "integrity": integrity(data)}


def _is_current(pin: Pin, pyodide: Mapping[str, dict[str, Any]]) -> bool:
    return pin.name in pyodide and pyodide[pin.name]["sha256"] == pin.sha256


def _inside(runtime: Runtime) -> dict[str, str]:
    """What every site has, and its versions."""
    manifest = runtime.manifest()
    found = {"durably-web": __version__}
    for key in ("micropip", "pyodide_http"):
        name, version, *_ = parse_wheel_filename(Path(manifest[key]).name)
        found[name] = str(version)
    return found


def _with_libraries(names: Sequence[str], pyodide: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """These packages of Pyodide's, and the libraries that they load, which are no packages."""
    seen = set(names)
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        yield name
        for other in map(canonicalize_name, pyodide[name]["depends"]):
            if other not in seen and not is_package(pyodide[other]):
                seen.add(other)
                waiting.append(other)


def _closed(packages: Sequence[Package]) -> list[Package]:
    """The same, each depending on nothing that is not among them: what every site has is there before."""
    names = {canonicalize_name(package.entry["name"]) for package in packages}

    def among(entry: Mapping[str, Any]) -> list[str]:
        return [name for name in entry["depends"] if canonicalize_name(name) in names]

    return [Package(package.path, {**package.entry, "depends": among(package.entry)}) for package in packages]


def work_folder(folder: Path) -> Path:
    """Where things are kept for the next time; it is there then."""
    work = folder / WORK_FOLDER
    work.mkdir(exist_ok=True)
    (work / ".gitignore").write_text("*\n")
    return work
