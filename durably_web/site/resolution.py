"""Which wheels fulfil the requirements, of those that run in Pyodide.

Two places have them: the user's package index, with pure wheels and those for Pyodide's platform, and Pyodide's own
packages, listed in its lock. pip chooses among both at once: what Pyodide has is shown to it as wheels with nothing but
metadata. The newest version wins; where both have it, that of the index.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from durably_web.site.pins import Pin
from durably_web.site.pip import PipFailed, run_pip
from durably_web.site.problem import SiteProblem
from durably_web.site.target import Target

# The least of all tags that a Python 3 takes, so that a wheel of the index goes before.
TAG = "py30-none-any"

MOST_REASONS = 4


def resolve(
    requirements: Sequence[Requirement],
    target: Target,
    pyodide: Mapping[str, dict[str, Any]],
    inside: Mapping[str, str],
) -> list[Pin]:
    """The wheels to fetch, with all that they require. `inside` has the versions of what every site has.

    Raises `SiteProblem`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        stand_ins, report = Path(scratch) / "stand-ins", Path(scratch) / "report.json"
        stand_ins.mkdir()
        for name, entry in pyodide.items():
            if is_package(entry) and name not in inside:
                _stand_in(stand_ins, name, entry["version"], _names(entry, pyodide))
        for name, version in inside.items():
            _stand_in(stand_ins, name, version, ())
        fixed, wanted = Path(scratch) / "inside.txt", Path(scratch) / "requirements.txt"
        fixed.write_text("".join(f"{name}=={version}\n" for name, version in inside.items()))
        wanted.write_text("".join(f"{requirement}\n" for requirement in requirements))
        where = (
            "--target",
            Path(scratch) / "nothing",
            "--find-links",
            stand_ins,
            "--constraint",
            fixed,
            "--requirement",
            wanted,
        )
        try:
            run_pip(target, "install", "--dry-run", "--ignore-installed", "--report", report, *where)
        except PipFailed as failure:
            raise SiteProblem(_explain(failure, target)) from None
        chosen = json.loads(report.read_text())["install"]
        pins = [_pin(item, stand_ins, pyodide) for item in chosen]
    return [pin for pin in pins if pin.name not in inside]


def is_package(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of Pyodide's lock is one that a requirement may name: no library, and no tests."""
    return entry["package_type"] == "package" and str(entry["file_name"]).endswith(".whl")


def _names(entry: Mapping[str, Any], pyodide: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    for name in map(canonicalize_name, entry["depends"]):
        if name in pyodide and is_package(pyodide[name]):
            yield name


def _stand_in(folder: Path, name: str, version: str, requires: Iterator[str] | tuple[str, ...]) -> None:
    stem = f"{name.replace('-', '_')}-{version}"
    information = f"{stem}.dist-info"
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        *(f"Requires-Dist: {one}\n" for one in requires),
    ]
    with zipfile.ZipFile(folder / f"{stem}-{TAG}.whl", "w") as wheel:
        wheel.writestr(f"{information}/METADATA", "".join(metadata))
        wheel.writestr(f"{information}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {TAG}\n")
        wheel.writestr(f"{information}/RECORD", "")


def _pin(item: Mapping[str, Any], stand_ins: Path, pyodide: Mapping[str, dict[str, Any]]) -> Pin:
    name, version = canonicalize_name(item["metadata"]["name"]), str(item["metadata"]["version"])
    source = item["download_info"]
    path = unquote(urlsplit(source["url"]).path)
    if Path(path).name.endswith(f"-{TAG}.whl") and stand_ins.name in path:
        sha256 = str(pyodide[name]["sha256"]) if name in pyodide else ""
        return Pin(name, version, sha256, from_pyodide=True)
    archive = source.get("archive_info", {})
    sha256 = archive.get("hashes", {}).get("sha256") or str(archive.get("hash", "")).removeprefix("sha256=")
    if not sha256:
        raise SiteProblem(f"the package index tells no hash of {name} {version}, and without one it cannot be pinned")
    return Pin(name, version, sha256)


def _explain(failure: PipFailed, target: Target) -> str:
    """What pip found wrong, in one sentence."""
    complaint = failure.complaint
    missing = re.search(r"No matching distribution found for ([^\s;(]+)", complaint)
    if failure.offline:
        return (
            "the package index could not be reached, and not all that the jobs require is pinned: is there a network?"
        )
    if missing:
        return _explain_missing(missing[1].rstrip(","), complaint, target)
    conflict = re.search(r"The conflict is caused by:\n(.*?)\n\n", complaint, re.DOTALL)
    if conflict:
        reasons = [line.strip() for line in conflict[1].splitlines()]
        # Of a package with a hundred versions there are a hundred.
        shown = [*reasons[:MOST_REASONS], "…"] if len(reasons) > MOST_REASONS else reasons
        return f"no wheels that run in a browser fulfil all requirements: {'; '.join(shown)}"
    return f"the requirements could not be resolved: {'; '.join(failure.errors) or complaint.strip()}"


def _explain_missing(wanted: str, complaint: str, target: Target) -> str:
    name = Requirement(wanted).name
    by = re.search(rf"requirement {re.escape(wanted)}[^\n]*\(from ([^\n)]+)\)(?=[^\n]*\(from versions)", complaint)
    required = (
        f", which {by[1].partition(' (')[0].partition('->')[0]} requires,"
        if by and "requirements.txt" not in by[1]
        else ""
    )
    try:
        versions = run_pip(target, "index", "versions", name, only_wheels=False)
    except PipFailed as failure:
        if failure.offline:
            return "the package index could not be reached: is there a network?"
        return f"there is no package {name}{required.rstrip(',')}: is the name right?"
    newest = re.search(r"\(([^)]+)\)", versions)
    offered = re.search(r"\(from versions: ([^)]+)\)", complaint)
    if offered and offered[1] != "none":
        return f"no version of {name}{required} fits {wanted!r} and runs in a browser; these do: {offered[1]}"
    return (
        f"{name}{required} has no wheel that runs in a browser: neither a pure one (none-any) nor one for"
        f" {target.platform}{f'; its newest version is {newest[1]}' if newest else ''}"
    )
