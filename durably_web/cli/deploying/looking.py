"""Looks at the user's project: what there is to be deployed, and what would not work elsewhere."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from durably_web import __version__
from durably_web.cli.deploying.project import Database, Project, Web
from durably_web.cli.jobfile import is_engine, load_engine, load_named
from durably_web.cli.mistakes import Mistake

PACKAGE = "durably-web"
EXTRAS: dict[Database, str] = {"sqlite": "", "postgresql": "[postgres]", "libsql": "[libsql]"}
# What an extra brings, for those who name it themselves.
DRIVERS: dict[Database, str | None] = {"sqlite": None, "postgresql": "psycopg", "libsql": "httpx"}

# A database that nobody has: an engine that opens it has asked the environment.
_PROBE = "sqlite:////durably-web-deploy/asks.db"


def look_at(target: str, database: Database, web: Web | None, name: str | None, line: str, load: bool) -> Project:
    """The project in the current folder. Raises `Mistake` for what would fail on the platform."""
    if not is_engine(target) and database != "sqlite":
        raise Mistake(
            f"{target} is a job file, which has no database of its own: make an engine, "
            'durably = Durably(os.environ["DATABASE_URL"], jobs=[…]), and deploy MODULE:durably'
        )
    if not is_engine(target) and web is not None and web.app is not None:
        raise Mistake("--app needs an engine as MODULE:NAME, the one that the application is made with")
    for path in filter(None, [target, web.auth if web else None, web.app if web else None]):
        if os.path.isabs(path) or ".." in Path(path).parts:
            raise Mistake(f"{path} is not below this folder: call it in the root of the project")
    if load:
        _load(target, web)
    requirements, missing = _requirements(database)
    return Project(
        name=fitting(name or Path.cwd().name),
        target=target,
        database=database,
        web=web,
        requirements=requirements,
        missing=missing,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        line=line,
    )


def fitting(name: str) -> str:
    """A name that every platform takes: lower-case letters, digits and hyphens, a letter first, 30 at most."""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:30].strip("-")
    return found if found[:1].isalpha() else f"app-{found}".strip("-")


def _load(target: str, web: Web | None) -> None:
    """Load what is to be deployed, as the platform will, and see that it asks the environment for its database."""
    before = os.environ.get("DATABASE_URL")
    os.environ["DATABASE_URL"] = _PROBE
    try:
        engine = load_engine(target)
        for other in filter(None, [web.auth if web else None, web.app if web else None]):
            load_named(other)
    finally:
        if before is None:
            del os.environ["DATABASE_URL"]
        else:
            os.environ["DATABASE_URL"] = before
    given = engine._database
    if is_engine(target) and given != _PROBE:
        # A URL may have a password in it.
        here = given if isinstance(given, str) and "://" not in given else "app.db"
        raise Mistake(
            f"{target} has its database in the code, and elsewhere it is another one: let it ask, "
            f'Durably(os.environ.get("DATABASE_URL", "{here}"), …)'
        )


def _requirements(database: Database) -> tuple[Literal["requirements.txt", "pyproject.toml"], str | None]:
    """Which file says what to install; and what a requirements.txt has to have, if there is no file yet."""
    wanted = f"{PACKAGE}{EXTRAS[database]}=={__version__}"
    path = Path("requirements.txt")
    if path.is_file():
        lines = path.read_text("utf-8").splitlines()
        # What another file has is not followed.
        if not any(line.lstrip().startswith(("-r", "--requirement", "-c", "-e")) for line in lines):
            _check(path.name, lines, database, wanted)
        return "requirements.txt", None
    path = Path("pyproject.toml")
    if path.is_file():
        try:
            project = tomllib.loads(path.read_text("utf-8")).get("project")
        except tomllib.TOMLDecodeError as error:
            raise Mistake(f"pyproject.toml cannot be read: {error}") from None
        if project is None:
            raise Mistake("pyproject.toml has no [project], so that pip could install it: write a requirements.txt")
        if "dependencies" not in project.get("dynamic", ()):
            _check(path.name, project.get("dependencies", []), database, wanted)
        return "pyproject.toml", None
    return "requirements.txt", wanted


def _check(file: str, lines: list[str], database: Database, wanted: str) -> None:
    named: dict[str, set[str]] = {}
    for line in lines:
        text = re.split(r"\s+[#;]|\s+--|^#", line)[0].strip()
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # an option, a comment, an address
        named.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    if PACKAGE not in named:
        raise Mistake(f"{file} does not name {PACKAGE}: add {wanted}")
    extra = EXTRAS[database].strip("[]")
    driver = DRIVERS[database]
    if driver is not None and extra not in named[PACKAGE] and driver not in named:
        raise Mistake(f"{file} names {PACKAGE} without what {database} needs: make it {wanted}")
