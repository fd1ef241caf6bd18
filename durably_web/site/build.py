"""Building a site: plain files that any host can serve below any path.

out/
├── the folder's files
├── .nojekyll           says whose folder this is, too
├── service-worker.js   keeps all of it for offline use
└── durably-web/        the runtime, with what the jobs require in its wheels/ and its lock
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from durably_web.site import files
from durably_web.site.problem import SiteProblem
from durably_web.site.release import write_release
from durably_web.site.runtime import Runtime
from durably_web.site.source import RUNTIME_FOLDER, Source, read_source

# GitHub Pages would otherwise hide files whose name starts with an underscore. Only that it is there matters to it.
MARKER = ".nojekyll"
MARK = "Made by durably-web build, which replaces this folder when it builds again.\n"

# For builders and servers, not for visitors.
NOT_SERVED = ("requirements.txt", "requirements.lock")


class Site(NamedTuple):
    """What was built, and where."""

    folder: Path
    job_files: tuple[str, ...]
    packages: tuple[str, ...]


def build_site(folder: Path, out: Path, runtime: Runtime, *, replace: bool = False) -> Site:
    """Build the site of a folder at `out`, in place of an older build; a build that fails leaves that one alone.

    With `replace` in place of whatever is there. Raises `SiteProblem`.
    """
    require_own(folder, out, replace=replace)
    source = read_source(folder, without=out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site-") as scratch:
        fresh = Path(scratch) / "site"
        fresh.mkdir()
        _assemble(source, fresh, runtime, without=(out, Path(scratch)))
        files.replace_folder(out, fresh)
    manifest = read_manifest(out)
    names = tuple(path.relative_to(folder).as_posix() for path in source.job_files)
    return Site(out, names, tuple(manifest.get("packages", ())))


def require_own(folder: Path, out: Path, *, replace: bool = False) -> None:
    """Raises `SiteProblem` where a build would overwrite what is not its own."""
    if folder.resolve().is_relative_to(out.resolve()):
        raise SiteProblem(f"{out} is or holds the folder that is built: give another --out")
    if not out.exists() or replace:
        return
    if not out.is_dir():
        raise SiteProblem(f"{out} is a file: give another --out")
    if any(out.iterdir()) and not _is_own(out):
        raise SiteProblem(f"{out} is not a folder that a build has made: remove it, or give another --out")


def _is_own(out: Path) -> bool:
    marker = out / MARKER
    return marker.is_file() and marker.read_bytes() == MARK.encode()


def _assemble(source: Source, site: Path, runtime: Runtime, *, without: tuple[Path, ...]) -> None:
    unserved = tuple(source.folder / name for name in NOT_SERVED)
    files.copy_folder(source.folder, site, without=(*without, *unserved))
    shutil.copytree(runtime.served, site / RUNTIME_FOLDER)
    (site / MARKER).write_text(MARK)
    write_release(site)


def read_manifest(site: Path) -> dict[str, Any]:
    return dict(json.loads((site / RUNTIME_FOLDER / "manifest.json").read_text()))
