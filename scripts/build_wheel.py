"""Build the wheel that everyone installs: the package, and the browser's runtime as `durably_web/_runtime/` in it.

With it `durably-web build` needs neither Node nor a checkout. The browser's own wheel, inside of that runtime, is
made of the package without it.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

from durably_web.site.runtime import INSTALLED, PACKAGE
from scripts import build_runtime
from scripts.wheels import ROOT, build_wheel, files_below, record, write_zip


def build(target: Path, runtime: Path) -> Path:
    """Build the wheel with the runtime in the folder `runtime`, and put it into the folder `target`."""
    place = INSTALLED.relative_to(PACKAGE.parent).as_posix()
    with tempfile.TemporaryDirectory() as scratch:
        plain = build_wheel(Path(scratch))
        with zipfile.ZipFile(plain) as archive:
            files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    (record_name,) = [name for name in files if name.endswith(".dist-info/RECORD")]
    del files[record_name]
    files |= {f"{place}/{name}": data for name, data in files_below(runtime).items()}
    files[record_name] = record(files, record_name)
    target.mkdir(parents=True, exist_ok=True)
    write_zip(target / plain.name, files)
    return target / plain.name


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the wheel that everyone installs.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR")
    options = parser.parse_args()
    wheel = build(options.out, build_runtime.build().folder)
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
