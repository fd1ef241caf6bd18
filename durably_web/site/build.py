"""Building a site: plain files that any host can serve below any path.

out/
├── the folder's files
├── .nojekyll           says whose folder this is, too
├── service-worker.js   keeps all of it for offline use
└── durably-web/        the runtime, with what the jobs require in its wheels/ and its lock
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from durably_web.site import files, pins, requirements
from durably_web.site.bundle import Package, add_packages, default_cdn, gather, use_cdn
from durably_web.site.problem import SiteProblem
from durably_web.site.release import write_release
from durably_web.site.runtime import Runtime
from durably_web.site.source import RUNTIME_FOLDER, Source, read_source

# GitHub Pages would otherwise hide files whose name starts with an underscore. Only that it is there matters to it.
MARKER = ".nojekyll"
MARK = "Made by durably-web build, which replaces this folder when it builds again.\n"

# For builders and servers, not for visitors.
NOT_SERVED = (requirements.FILE_NAME, pins.FILE_NAME)


class Site(NamedTuple):
    """What was built, and where."""

    folder: Path
    job_files: tuple[str, ...]
    packages: dict[str, str]


def build_site(
    folder: Path,
    out: Path,
    runtime: Runtime,
    *,
    cdn: bool = False,
    upgrade: bool = False,
    pyodide_cdn: str | None = None,
    replace: bool = False,
) -> Site:
    """Build the site of a folder at `out`, in place of an older build; a build that fails leaves that one alone.

    With `cdn` browsers get Pyodide itself from `pyodide_cdn`, and compare it with the one that was built with.
    With `upgrade` the requirements are resolved anew. What only Pyodide's own packages have comes from `pyodide_cdn`,
    or from where its makers offer them. With `replace` the site takes the place of whatever is at `out`. Raises
    `SiteProblem`.
    """
    require_own(folder, out, replace=replace)
    source = read_source(folder, without=out)
    pyodide_cdn = pyodide_cdn or default_cdn(runtime)
    packages = gather(source, runtime, pyodide_cdn, upgrade=upgrade)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site-") as scratch:
        fresh = Path(scratch) / "site"
        fresh.mkdir()
        _assemble(source, fresh, runtime, packages, pyodide_cdn if cdn else None, without=(out, Path(scratch)))
        files.replace_folder(out, fresh)
    names = tuple(path.relative_to(folder).as_posix() for path in source.job_files)
    return Site(out, names, {package.entry["name"]: package.entry["version"] for package in packages})


def require_own(folder: Path, out: Path, *, replace: bool = False) -> None:
    """Raises `SiteProblem` where a build would overwrite what is not its own."""
    if folder.resolve().is_relative_to(out.resolve()):
        raise SiteProblem(f"{out} is or holds the folder that is built: give another --out")
    if not out.exists() or replace:
        return
    if not out.is_dir():
        raise SiteProblem(f"{out} is a file: give another --out")
    if any(out.iterdir()) and not is_own(out):
        raise SiteProblem(f"{out} is not a folder that a build has made: remove it, or give another --out")


def is_own(out: Path) -> bool:
    """Whether a build has made this folder."""
    marker = out / MARKER
    return marker.is_file() and marker.read_bytes() == MARK.encode()


def _assemble(
    source: Source, site: Path, runtime: Runtime, packages: list[Package], cdn: str | None, *, without: tuple[Path, ...]
) -> None:
    unserved = tuple(source.folder / name for name in NOT_SERVED)
    files.copy_folder(source.folder, site, without=(*without, *unserved))
    shutil.copytree(runtime.served, site / RUNTIME_FOLDER)
    add_packages(site / RUNTIME_FOLDER, packages)
    if cdn is not None:
        use_cdn(site / RUNTIME_FOLDER, cdn)
    (site / MARKER).write_text(MARK)
    write_release(site)
