"""The job files of a browser's Python, and the network as they know it."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

from durably_web.errors import InvalidInput
from durably_web.jobs import Job

JOBS_FOLDER = "/home/pyodide/jobs"


class JobFileError(Exception):
    """A job file cannot be used. Its own error's name is kept, because it says more than ours."""


def write_files(files: list[dict[str, str]]) -> None:
    """Put each file `{"name", "source"}` where it can be imported under its own name."""
    os.makedirs(JOBS_FOLDER, exist_ok=True)
    # At the end: a job file must not hide a module that others import.
    sys.path.append(JOBS_FOLDER)
    for file in files:
        name = file["name"]
        module = name.removesuffix(".py")
        if not (name.endswith(".py") and module.isidentifier()):
            raise InvalidInput(f"a job file is called like a Python module, such as jobs.py: {name!r}")
        if module in sys.stdlib_module_names or module in sys.modules or os.path.exists(f"{JOBS_FOLDER}/{name}"):
            raise InvalidInput(f"another module has the name of the job file {name}: call it something else")
        with open(f"{JOBS_FOLDER}/{name}", "w", encoding="utf-8") as target:
            target.write(file["source"])
    importlib.invalidate_caches()


def load_jobs(files: list[dict[str, str]]) -> list[Job[Any, Any]]:
    """Import each file `{"name", "source"}` under its own name; the jobs that their namespaces hold."""
    write_files(files)
    jobs: dict[int, Job[Any, Any]] = {}
    for file in files:
        for value in vars(_import(file["name"])).values():
            if isinstance(value, Job):
                jobs[id(value)] = value
    if not jobs:
        raise InvalidInput(f"there is no @job in {', '.join(file['name'] for file in files) or 'no job file'}")
    return list(jobs.values())


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name.removesuffix(".py"))
    except Exception as error:
        kind = type(type(error).__name__, (JobFileError,), {})
        raise kind(f"{_where(error, name)}: {_what(error)}") from error


def _where(error: Exception, name: str) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{os.path.basename(error.filename)}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == f"{JOBS_FOLDER}/{name}"]
    return f"{name}, line {lines[-1]}" if lines else name


def _what(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


_PATCHES = {"urllib.request": "patch_urllib", "requests": "patch_requests"}


class _PatchAfterImport:
    """Makes blocking HTTP work when a job first imports a library that uses it, and costs nothing before.

    A browser has no sockets; pyodide_http routes these libraries through XMLHttpRequest.
    """

    def __init__(self, wheel: str) -> None:
        self.wheel = wheel

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _PATCHES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec = find(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Patching(spec.loader, self.wheel, _PATCHES[name])
                return spec
        return None


class _Patching:
    """A loader that patches once the module it loads is complete."""

    def __init__(self, loader: Any, wheel: str, patch: str) -> None:
        self.loader = loader
        self.wheel = wheel
        self.patch = patch

    def create_module(self, spec: Any) -> Any:
        return self.loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.loader.exec_module(module)
        # The import system does this only after us, and the patch looks the module up by its full name.
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
        if self.wheel not in sys.path:
            sys.path.append(self.wheel)
        getattr(importlib.import_module("pyodide_http"), self.patch)()

    def __getattr__(self, name: str) -> Any:
        # Whatever else is asked of a loader: its sources, its files.
        return getattr(self.loader, name)


def patch_network_when_imported(wheel: str) -> None:
    sys.meta_path.insert(0, _PatchAfterImport(wheel))
