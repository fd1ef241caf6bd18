"""Small wheels, and a package index of them as files."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

WASM = "cp314-cp314-pyemscripten_2026_0_wasm32"
PURE = "py3-none-any"


def make_wheel(
    folder: Path, name: str, version: str, *, tag: str = PURE, requires: tuple[str, ...] = (), code: str = ""
) -> Path:
    """A wheel with one module, which has its name and says its version."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    information = f"{module}-{version}.dist-info"
    required = "".join(f"Requires-Dist: {one}\n" for one in requires)
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{module}.py", f"__version__ = {version!r}\n{code}")
        wheel.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}"
        )
        wheel.writestr(f"{information}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{information}/RECORD", "")
    return path


class Index:
    """A package index: a folder for each package, with a page that lists its files and their hashes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()

    def add(self, name: str, version: str, *, tag: str = PURE, requires: tuple[str, ...] = (), code: str = "") -> Path:
        path = make_wheel(self.folder / name, name, version, tag=tag, requires=requires, code=code)
        self._list(name)
        return path

    def add_source(self, name: str, version: str) -> None:
        """What would have to be built first."""
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / f"{name}-{version}.tar.gz").write_bytes(b"source")
        self._list(name)

    def _list(self, name: str) -> None:
        files = [path for path in sorted((self.folder / name).iterdir()) if path.name != "index.html"]
        links = [f'<a href="{path.name}#sha256={sha256(path)}">{path.name}</a>' for path in files]
        (self.folder / name / "index.html").write_text(f"<!doctype html>{''.join(links)}")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
