"""Pack the client as an npm package: build/npm/durably-web-<version>.tgz.

package/
├── client.js, worker.js …   as written in web/
├── types/                   declarations, made from their comments
├── runtime/                 Python, SQLite and the wheels: plain files that a site serves beside its bundle
└── bin/                     `durably-web-runtime`, which copies them there
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from durably_web import __version__
from scripts.build_site import assemble_runtime
from scripts.wheels import ROOT, run

WEB = ROOT / "web"
# What a package.json has for those who work on the package, not for those who use it. Pyodide and SQLite are among the
# former: the package carries the files that it needs of them.
FOR_MAKERS = ("private", "scripts", "devDependencies")


def declarations(target: Path) -> None:
    """Put the `.d.ts` files of the modules into `target`."""
    run(
        *(WEB / "node_modules" / ".bin" / "tsc", "--project", WEB / "jsconfig.json"),
        *("--noEmit", "false", "--declaration", "--emitDeclarationOnly", "--outDir", target),
    )


def package_json() -> str:
    """The one of web/ for users. Exits when its version is not that of the Python package: they are one thing."""
    package = json.loads((WEB / "package.json").read_text())
    if package["version"] != __version__:
        raise SystemExit(f"web/package.json has version {package['version']}, and durably_web is {__version__}")
    return json.dumps({name: value for name, value in package.items() if name not in FOR_MAKERS}, indent=2) + "\n"


def stage(folder: Path) -> None:
    """Put everything that the package has into the empty folder `folder`."""
    (folder / "package.json").write_text(package_json())
    for path in (*sorted(WEB.glob("*.js")), *sorted(WEB.glob("*.d.ts")), WEB / "README.md", ROOT / "LICENSE"):
        shutil.copy(path, folder / path.name)
    shutil.copytree(WEB / "bin", folder / "bin")
    declarations(folder / "types")
    (folder / "runtime").mkdir()
    assemble_runtime(folder / "runtime", WEB / "node_modules")


def pack(target: Path) -> Path:
    """Build the package and put it into the folder `target`, in place of an older one of its version."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "package"
        folder.mkdir()
        stage(folder)
        command = ["npm", "pack", "--json", "--ignore-scripts", "--pack-destination", str(target)]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    (packed,) = json.loads(result.stdout)
    return target / packed["filename"]


def main() -> None:
    package = pack(ROOT / "build" / "npm")
    print(f"{package.relative_to(ROOT)}: {package.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
