"""Fetching the wheels of a site, and describing them to Pyodide."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from durably_web.site.pins import Pin
from durably_web.site.pip import PipFailed, run_pip
from durably_web.site.problem import SiteProblem
from durably_web.site.target import Target

PATIENCE = 60.0
"""Seconds until a CDN that says nothing is given up."""


class Cache:
    """Wheels that were fetched once, by their hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, sha256: str) -> Path | None:
        """The file with this hash. One that was damaged is forgotten."""
        for path in sorted((self.folder / sha256).glob("*")):
            if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                return path
            path.unlink()
        return None

    def keep(self, path: Path, sha256: str) -> Path:
        target = self.folder / sha256 / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
        return target


def fetch(pins: Sequence[Pin], target: Target, cache: Cache) -> list[Path]:
    """The wheels of pins of the index, with their hashes verified. Raises `SiteProblem`."""
    missing = [pin for pin in pins if cache.find(pin.sha256) is None]
    if missing:
        with tempfile.TemporaryDirectory() as scratch:
            listed = Path(scratch) / "pins.txt"
            listed.write_text("".join(f"{pin}\n" for pin in missing))
            to = Path(scratch) / "wheels"
            arguments = ("--quiet", "--no-deps", "--require-hashes", "--dest", to, "--requirement", listed)
            try:
                run_pip(target, "download", *arguments)
            except PipFailed as failure:
                raise SiteProblem(_explain(failure)) from None
            for path in sorted(to.iterdir()):
                cache.keep(path, hashlib.sha256(path.read_bytes()).hexdigest())
    found = [(pin, cache.find(pin.sha256)) for pin in pins]
    wheels = [path for _, path in found if path is not None]
    if len(wheels) < len(found):
        lost = ", ".join(pin.name for pin, path in found if path is None)
        raise SiteProblem(f"{lost} has another hash than it is pinned with; if you expect that, build with --upgrade")
    return wheels


def _explain(failure: PipFailed) -> str:
    if failure.offline:
        return (
            "the package index could not be reached, and not all that is pinned was fetched before: is there a network?"
        )
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in failure.complaint:
        lines = [line.strip() for line in failure.complaint.splitlines()]
        names = [
            line.partition(" from ")[0] for line in lines if " from " in line and "==" in line and "hash" not in line
        ]
        culprits = ", ".join(names) or "a package"
        return f"{culprits} has another hash than it is pinned with; if you expect that, build with --upgrade"
    return f"what is pinned could not be fetched ({'; '.join(failure.errors)}); build with --upgrade to resolve it anew"


def fetch_from_pyodide(entry: Mapping[str, Any], cdn: str, cache: Cache) -> Path:
    """The file of an entry of Pyodide's lock, with its hash verified. Raises `SiteProblem`."""
    sha256 = str(entry["sha256"])
    known = cache.find(sha256)
    if known is not None:
        return known
    url = f"{cdn}{entry['file_name']}"
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "durably-web"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            data = response.read()
    except urllib.error.HTTPError as error:
        raise SiteProblem(f"{url} could not be fetched: the server answered {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SiteProblem(f"{url} could not be fetched: {reason}; --pyodide-cdn names another place") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SiteProblem(f"{url} has another hash than Pyodide's lock says")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / str(entry["file_name"])
        path.write_bytes(data)
        return cache.keep(path, sha256)


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1]
    return BytesParser().parsebytes(wheel.read(name))


def lock_entry(path: Path, target: Target, file_name: str) -> dict[str, Any]:
    """A wheel as `pyodide-lock.json` describes it."""
    with zipfile.ZipFile(path) as wheel:
        declared = metadata(wheel)
        modules = {
            name.partition("/")[0].partition(".")[0]
            for name in wheel.namelist()
            if name.endswith((".py", ".pyc", ".so"))
        }
    return {
        "name": canonicalize_name(declared["Name"]),
        "version": declared["Version"],
        "file_name": file_name,
        "install_dir": "site",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "package_type": "package",
        "imports": sorted(modules),
        "depends": _dependencies(declared, target),
        "unvendored_tests": False,
    }


def _dependencies(declared: Message, target: Target) -> list[str]:
    """What a wheel requires inside of Pyodide."""
    environment = {**target.markers(), "extra": ""}
    wanted = map(Requirement, declared.get_all("Requires-Dist", []))
    return [canonicalize_name(one.name) for one in wanted if one.marker is None or one.marker.evaluate(environment)]
