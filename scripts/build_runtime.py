"""Build the runtime folder: all that `durably-web build` needs, so that it needs neither Node nor a checkout.

build/runtime/
├── durably-web/        our modules as written in web/, what scripts/runtime.py puts beside them, licences
├── demo/               the sources of the demo site
├── pyodide.json        which Pyodide this is
└── pyodide-lock.json   its own list of packages
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from durably_web.site.files import replace_folder
from durably_web.site.runtime import CHECKOUT, Runtime
from scripts.runtime import assemble_runtime, package
from scripts.wheels import ROOT

NODE_MODULES = ROOT / "web" / "node_modules"
NOT_SERVED = ("node_modules", "__pycache__", "types", ".*", "*.pyc", "*.test.js", "package*.json", "jsconfig*.json")
# Of web/: what only the npm package has.
NPM_ONLY = ("bin", "*.d.ts", "README.md")


def assemble(folder: Path, node_modules: Path) -> None:
    """Put the whole runtime into the empty folder `folder`."""
    shutil.copytree(ROOT / "web", folder / "durably-web", ignore=shutil.ignore_patterns(*NOT_SERVED, *NPM_ONLY))
    assemble_runtime(folder / "durably-web", node_modules)
    shutil.copytree(ROOT / "demo", folder / "demo", ignore=shutil.ignore_patterns(*NOT_SERVED))
    pyodide = package(node_modules, "pyodide")
    shutil.copy(pyodide / "pyodide-lock.json", folder)
    version = json.loads((pyodide / "package.json").read_text())["version"]
    (folder / "pyodide.json").write_text(json.dumps({"version": version}) + "\n")
    # With every copy that is served.
    shutil.copytree(ROOT / "scripts" / "licences", folder / "durably-web" / "licences")


def build(target: Path = CHECKOUT, *, node_modules: Path = NODE_MODULES) -> Runtime:
    """Build the folder and put it at `target`, in place of an older one; a build that fails leaves that one alone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".runtime-") as scratch:
        fresh = Path(scratch) / "runtime"
        fresh.mkdir()
        assemble(fresh, node_modules)
        replace_folder(target, fresh)
    return Runtime(target)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the runtime folder.")
    parser.add_argument("--out", type=Path, default=CHECKOUT, metavar="DIR")
    options = parser.parse_args()
    print(build(options.out).folder, file=sys.stderr)


if __name__ == "__main__":
    main()
