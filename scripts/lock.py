"""Write requirements-dev.txt: the exact versions, installed here, of everything that pyproject.toml asks for.

Names and versions only, so that the file works with whatever package index a machine is set up to use.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# What `make setup` installs: the tools and what the command line needs, with all they depend on.
# Made by `make lock` from what was installed; edit pyproject.toml, install, and make it again.
"""


def wanted() -> list[Requirement]:
    """What pyproject.toml names: the package's own requirements, the build's, and a developer's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
    ]
    return [Requirement(text) for text in named]


def applies(requirement: Requirement, extras: set[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras or {""})


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """Name → installed version of the requirements and of everything they require in turn."""
    versions: dict[str, str] = {}
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in versions and not requirement.extras:
            continue
        found = distribution(name)
        versions[name] = found.version
        further = (Requirement(text) for text in found.requires or ())
        waiting += [each for each in further if applies(each, requirement.extras)]
    return dict(sorted(versions.items()))


def main() -> None:
    lines = [f"{name}=={version}\n" for name, version in closure(wanted()).items()]
    (ROOT / "requirements-dev.txt").write_text(HEADER + "".join(lines))
    print(f"requirements-dev.txt: {len(lines)} packages")


if __name__ == "__main__":
    main()
