"""What a folder says that its jobs require: in `requirements.txt`, and in the job files (inline metadata, PEP 723)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from durably_web.site.problem import SiteProblem

FILE_NAME = "requirements.txt"

_START = re.compile(r"# /// script\s*")
_END = re.compile(r"# ///\s*")


def read_requirements(folder: Path, python_files: tuple[Path, ...], python: str) -> list[Requirement]:
    """All that is asked for, sorted. `python` is the version that will run the jobs. Raises `SiteProblem`."""
    found = [
        *_listed(folder / FILE_NAME),
        *(each for path in python_files for each in _inline(path, path.relative_to(folder).as_posix(), python)),
    ]
    return [Requirement(text) for text in sorted({str(each) for each in found})]


def _listed(path: Path) -> Iterator[Requirement]:
    if not path.is_file():
        return
    for number, line in enumerate(_text(path, path.name).splitlines(), 1):
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        if text:
            yield _requirement(text, f"{path.name}, line {number}")


def _inline(path: Path, name: str, python: str) -> Iterator[Requirement]:
    metadata = _metadata(_text(path, name), name)
    versions, dependencies = metadata.get("requires-python", ""), metadata.get("dependencies", [])
    try:
        fits = SpecifierSet(str(versions)).contains(python)
    except InvalidSpecifier:
        raise SiteProblem(
            f"{name}: requires-python is a version specifier such as '>=3.11', not {versions!r}"
        ) from None
    if not fits:
        raise SiteProblem(f"{name} requires Python {versions}, and a browser's is {python}")
    if not (isinstance(dependencies, list) and all(isinstance(text, str) for text in dependencies)):
        raise SiteProblem(f"{name}: dependencies is a list of strings")
    for text in dependencies:
        yield _requirement(text, name)


def _metadata(source: str, name: str) -> dict[str, object]:
    """The TOML of the block `# /// script` … `# ///`; nothing where there is none."""
    blocks: list[list[str]] = []
    inside = False
    for line in source.splitlines():
        if not inside and _START.fullmatch(line):
            inside = True
            blocks.append([])
        elif inside and _END.fullmatch(line):
            inside = False
        elif inside and line.startswith("#"):
            blocks[-1].append(line[1:].removeprefix(" "))
        elif inside:
            break
    if inside:
        raise SiteProblem(f"{name}: the block '# /// script' has no end '# ///'")
    if len(blocks) > 1:
        raise SiteProblem(f"{name} has more than one block '# /// script'")
    try:
        return tomllib.loads("\n".join(blocks[0])) if blocks else {}
    except tomllib.TOMLDecodeError as error:
        raise SiteProblem(f"{name}: the block '# /// script' is not TOML: {error}") from None


def _requirement(text: str, where: str) -> Requirement:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise SiteProblem(
            f"{where}: {text!r} is not the name of a package with a version, such as 'msgspec>=0.20'"
        ) from None
    if requirement.url is not None:
        raise SiteProblem(f"{where}: {requirement.name} is asked for by address, and a build takes wheels by name only")
    return requirement


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SiteProblem(f"{name} is not UTF-8 text") from None
