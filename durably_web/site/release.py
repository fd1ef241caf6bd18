"""A release of a site: which files it has, and the service worker that keeps them for use without a network.

The service worker is one file at the site's root: what the release has, then the code of
`durably-web/service-worker.js`. Any changed byte of the site changes that file, and a browser that compares it with the
one that it has finds a new release.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from durably_web.site.files import integrity
from durably_web.site.source import RUNTIME_FOLDER

SERVICE_WORKER = "service-worker.js"
_CODE = f"{RUNTIME_FOLDER}/{SERVICE_WORKER}"

# What no page loads, and what hosts keep for themselves. A file that a host does not give out would be missing in every
# visitor's copy, which then never gets complete.
_FOR_HOSTS = ("404.html", "CNAME", "_headers", "_redirects")


def write_release(site: Path) -> str:
    """Make the finished site in the folder `site` work offline; gives the release's version.

    Call it last: every file that changes later is one that browsers refuse. The same files give the same version and
    the same bytes, and calling it again changes nothing.

    Raises `FileNotFoundError` where the folder has no runtime of durably_web.
    """
    _mark(site, offline=True)
    code = (site / _CODE).read_text("utf-8")
    files = release_files(site)
    version = _version(files, code)
    _write(site, {"version": version, "files": files}, code)
    return version


def write_withdrawal(site: Path) -> None:
    """Make the finished site in the folder `site` one that is not kept for offline use, also where it was before.

    Browsers that have an older release take this one like any newer release; then they delete what they have kept.

    Raises `FileNotFoundError` where the folder has no runtime of durably_web.
    """
    _mark(site, offline=False)
    _write(site, {"version": None, "files": {}}, (site / _CODE).read_text("utf-8"))


def release_files(site: Path) -> dict[str, dict[str, Any]]:
    """What a visitor's copy of the site consists of: each file's path, hash and size in bytes.

    What a start loads from another server belongs to it, too, by its address: as the manifest describes it.
    """
    own = {
        name: {"integrity": integrity(path.read_bytes()), "bytes": path.stat().st_size}
        for name, path in sorted((path.relative_to(site).as_posix(), path) for path in site.rglob("*"))
        if path.is_file() and _is_kept(name)
    }
    described = json.loads((site / RUNTIME_FOLDER / "manifest.json").read_text("utf-8")).get("files", {})
    return {**own, **{name: file for name, file in sorted(described.items()) if "://" in name}}


def _is_kept(name: str) -> bool:
    *folders, own = name.split("/")
    if any(part.startswith(".") for part in (*folders, own)) or name in (SERVICE_WORKER, _CODE, *_FOR_HOSTS):
        return False
    return not (own.startswith("README") or own.endswith(".map"))


def _version(files: dict[str, dict[str, Any]], code: str) -> str:
    pairs = [(name, file["integrity"]) for name, file in files.items()]
    return hashlib.sha256(json.dumps([pairs, code]).encode()).hexdigest()[:16]


def _mark(site: Path, *, offline: bool) -> None:
    """Tell pages whether there is a service worker that they may register."""
    path = site / RUNTIME_FOLDER / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest.pop("offline", None)
    path.write_text(json.dumps({**manifest, **({"offline": True} if offline else {})}, indent=2) + "\n", "utf-8")


def _write(site: Path, release: dict[str, Any], code: str) -> None:
    (site / SERVICE_WORKER).write_text(f"self.RELEASE = {json.dumps(release, indent=1)};\n\n{code}", "utf-8")
