"""The runtime that comes with the package: what a site serves below `durably-web/`, and what a build asks of it.

durably_web/_runtime/           in an installed package; build/runtime/ in a checkout, made by `make runtime`
├── durably-web/                served as it is, or nearly
├── demo/                       the sources of the demo site
├── pyodide.json                which Pyodide this is
└── pyodide-lock.json           its own list of packages
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from durably_web.site.problem import SiteProblem

PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED = PACKAGE / "_runtime"
CHECKOUT = PACKAGE.parent / "build" / "runtime"


class Runtime(NamedTuple):
    """An assembled runtime."""

    folder: Path

    @property
    def served(self) -> Path:
        """What a site has as `durably-web/`."""
        return self.folder / "durably-web"

    @property
    def demo(self) -> Path:
        return self.folder / "demo"

    def manifest(self) -> dict[str, Any]:
        """The manifest as it is before a site adds its packages."""
        return dict(json.loads((self.served / "manifest.json").read_text()))

    def pyodide_lock(self) -> dict[str, Any]:
        """Pyodide's own lock, with the packages that its CDN has."""
        return dict(json.loads((self.folder / "pyodide-lock.json").read_text()))

    def pyodide_version(self) -> str:
        return str(json.loads((self.folder / "pyodide.json").read_text())["version"])


def find_runtime() -> Runtime:
    """The runtime in the folder `$DURABLY_WEB_RUNTIME`, or else that of this package. Raises `SiteProblem`."""
    named = os.environ.get("DURABLY_WEB_RUNTIME")
    if named is not None:
        if not (Path(named) / "durably-web" / "manifest.json").is_file():
            raise SiteProblem(f"DURABLY_WEB_RUNTIME is {named}, and there is no runtime in it")
        return Runtime(Path(named))
    for folder in (INSTALLED, CHECKOUT):
        if (folder / "durably-web" / "manifest.json").is_file():
            return Runtime(folder)
    if (PACKAGE.parent / "Makefile").is_file():
        raise SiteProblem("the browser's runtime is not built yet: run `make runtime` in the checkout")
    raise SiteProblem("this durably-web was installed without the browser's runtime: install it anew from its wheel")
