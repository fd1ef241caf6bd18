"""Folders of a build: what of them is copied, how one takes the place of another, how large they are."""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

# Never part of a site, at whatever depth: other people's code, caches, databases, and all that begins with a dot.
JUNK = (
    ".*",
    "__pycache__",
    "*.pyc",
    "node_modules",
    "venv",
    "*.db",
    "*.db-shm",
    "*.db-wal",
    "*.test.js",
    "*~",
)


def is_junk(name: str) -> bool:
    # What a browser or a certificate authority asks for.
    return name != ".well-known" and any(fnmatch(name, pattern) for pattern in JUNK)


def copy_folder(source: Path, target: Path, *, without: Iterable[Path] = ()) -> None:
    """Copy what belongs to a site from one folder into another, but nothing at or below the paths `without`."""
    left_out = {path.resolve() for path in without}

    def ignored(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if is_junk(name) or (Path(folder) / name).resolve() in left_out}

    shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)


def replace_folder(target: Path, fresh: Path) -> None:
    """Put the folder `fresh` at `target`, in place of an older one, which comes back when that fails.

    `fresh` is on the same disk.
    """
    if not target.exists():
        fresh.rename(target)
        return
    old = fresh.with_name(f"{fresh.name}.old")
    target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def integrity(data: bytes) -> str:
    """What a browser compares a file with: subresource integrity."""
    return f"sha384-{base64.b64encode(hashlib.sha384(data).digest()).decode()}"


class Size(NamedTuple):
    """How much of something is served: bytes as they are, and after gzip as a host would send them."""

    files: int
    plain: int
    packed: int


def sizes(folder: Path) -> dict[str, Size]:
    """The sizes of the folders below `folder`, each without those inside of it, by their path."""
    found: dict[str, Size] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        name = path.parent.relative_to(folder).as_posix()
        before = found.get(name, Size(0, 0, 0))
        packed = min(len(data), len(gzip.compress(data, 6)))
        found[name] = Size(before.files + 1, before.plain + len(data), before.packed + packed)
    return found


def total(rows: Iterable[Size]) -> Size:
    return Size(*map(sum, zip(*rows, strict=True)))
