"""Pack the client as an npm package: build/npm/durably-web-<version>.tgz.

package/
├── client.js, worker.js …   as written in web/
├── types/                   declarations, made from their comments
├── runtime/                 Python, SQLite and the wheels: plain files that a site serves beside its bundle
└── bin/                     `durably-web-runtime`, which copies them there
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from durably_web import __version__
from scripts.runtime import assemble_runtime
from scripts.wheels import ROOT, run

WEB = ROOT / "web"
# What a package.json has for those who work on the package, not for those who use it. Pyodide and SQLite are among the
# former: the package carries the files that it needs of them.
FOR_MAKERS = ("private", "scripts", "devDependencies")


def declarations(target: Path) -> None:
    """Put the `.d.ts` files of the modules into `target`."""
    run(WEB / "node_modules" / ".bin" / "tsc", "--project", WEB / "jsconfig.types.json", "--outDir", target)


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
    return target / str(packed["filename"])


def lock(example: Path) -> None:
    """Write the lock of an example anew: versions and hashes, but neither addresses nor the hash of our own package."""
    (example / "package-lock.json").unlink(missing_ok=True)
    subprocess.run(["npm", "install", "--package-lock-only"], cwd=example, check=True, timeout=120)
    content = json.loads((example / "package-lock.json").read_text())
    for package in content["packages"].values():
        package.pop("funding", None)
    # It differs from build to build: npm takes the file that is there.
    del content["packages"]["node_modules/durably-web"]["integrity"]
    (example / "package-lock.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack the client as an npm package.")
    parser.add_argument("--lock", action="store_true", help="then write the locks of the examples anew")
    options = parser.parse_args()
    package = pack(ROOT / "build" / "npm")
    print(f"{package.relative_to(ROOT)}: {package.stat().st_size / 1e6:.1f} MB")
    if options.lock:
        for example in sorted((ROOT / "examples").iterdir()):
            if (example / "package.json").exists():
                lock(example)


if __name__ == "__main__":
    main()
