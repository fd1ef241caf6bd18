"""Writes files that nobody has to regret."""

from __future__ import annotations

from pathlib import Path

from durably_web.cli.mistakes import Mistake


def write(files: dict[str, str], folder: Path, *, force: bool) -> list[str]:
    """Write them below `folder`, and give the paths of those that were not there as they are. Raises `Mistake`.

    Unless forced, nothing is written when one of them would replace a file that differs.
    """
    if folder.exists() and not folder.is_dir():
        raise Mistake(f"{folder} is a file: give the name of a folder")
    changed = [path for path, text in files.items() if _stored(folder / path) != text.encode()]
    there = [path for path in changed if (folder / path).exists()]
    if there and not force:
        raise Mistake(f"{', '.join(there)} would be overwritten: say --force, or look at it first with --print")
    for path in changed:
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files[path].encode())
        except OSError as error:
            raise Mistake(f"{target} cannot be written: {error.strerror}") from None
    return changed


def _stored(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
