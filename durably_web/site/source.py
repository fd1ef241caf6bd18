"""The folder that a user writes: a page and job files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from durably_web.site.files import is_junk
from durably_web.site.problem import SiteProblem

RUNTIME_FOLDER = "durably-web"


class Source(NamedTuple):
    """A folder with an `index.html` and at least one file that declares a job."""

    folder: Path
    job_files: tuple[Path, ...]
    python_files: tuple[Path, ...]


def read_source(folder: Path, *, without: Path | None = None) -> Source:
    """Look at a folder, but not below `without`. Raises `SiteProblem` with the first thing that is missing or wrong."""
    require_page(folder)
    if (folder / RUNTIME_FOLDER).exists():
        raise SiteProblem(f"{folder} has a {RUNTIME_FOLDER}/, where the build puts the runtime: remove or rename it")
    python_files = list(_python_files(folder, without))
    job_files = [path for path in python_files if _declares_job(path, folder)]
    if not job_files:
        where = "jobs.py has no @job" if folder / "jobs.py" in python_files else f"there is no job file in {folder}"
        raise SiteProblem(f"{where}: a job is an async function with @job above it")
    return Source(folder, tuple(job_files), tuple(python_files))


def require_page(folder: Path) -> None:
    """Raises `SiteProblem` unless it is a folder with an `index.html`."""
    if not folder.is_dir():
        raise SiteProblem(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}")
    if not (folder / "index.html").is_file():
        raise SiteProblem(f"there is no index.html in {folder}: `durably-web new` writes a site to start from")


def _python_files(folder: Path, without: Path | None) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if is_junk(path.name) or (without is not None and path.resolve() == without.resolve()):
            continue
        if path.is_dir():
            yield from _python_files(path, without)
        elif path.suffix == ".py":
            yield path


def _declares_job(path: Path, folder: Path) -> bool:
    name = path.relative_to(folder).as_posix()
    try:
        tree = ast.parse(path.read_bytes(), filename=name)
    except SyntaxError as error:
        raise SiteProblem(f"{name}, line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # a null byte
        raise SiteProblem(f"{name} is not Python: {error}") from None
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.AsyncFunctionDef, ast.FunctionDef)))
    return any(_is_job(decorator) for function in functions for decorator in function.decorator_list)


def _is_job(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(called, ast.Attribute):
        return called.attr == "job"
    return isinstance(called, ast.Name) and called.id == "job"
