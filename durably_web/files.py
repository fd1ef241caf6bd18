"""The job files of a browser's Python."""

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
