"""Finding the jobs of a file or a module."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from durably_web.cli.database import DEFAULT
from durably_web.cli.mistakes import Mistake
from durably_web.engine import Durably
from durably_web.jobs import Job


def load_jobs(target: str) -> dict[str, Job[Any, Any]]:
    """The jobs of `path/to/file.py` or of `package.module`, by name. Raises `Mistake`, also when there are none."""
    module = load_module(target)
    found: dict[str, Job[Any, Any]] = {}
    for value in vars(module).values():
        if isinstance(value, Job):
            if found.setdefault(value.name, value) is not value:
                raise Mistake(f"{target} has two jobs with the name {value.name}")
    if not found:
        raise Mistake(f"there is no job in {target}: a job is a function with @job above it")
    return found


def load_module(target: str) -> ModuleType:
    """The module of `path/to/file.py` or of `package.module`. Raises `Mistake`."""
    is_file = target.endswith(".py") or os.sep in target
    try:
        return _load_file(Path(target)) if is_file else _load_module(target)
    except Mistake:
        raise
    except (Exception, SystemExit) as error:
        raise Mistake(f"{target} cannot be loaded: {_explain(error, target)}") from error


def is_engine(target: str) -> bool:
    """Whether the target names something in a module, as an engine is named, and not a module as a whole."""
    module, _, name = target.rpartition(":")
    return module != "" and name.isidentifier()


def load_engine(target: str, database: str = DEFAULT) -> Durably:
    """The engine that has a name in a module; or, of a target without a name, one for its jobs. Raises `Mistake`."""
    if not is_engine(target):
        return Durably(database, jobs=list(load_jobs(target).values()))
    found = load_named(target)
    if not isinstance(found, Durably):
        raise Mistake(f"{target} is no engine: {target.rpartition(':')[2]} = Durably(…) would be one")
    if database != DEFAULT:
        raise Mistake(f"{target} has its database already: leave --database out")
    return found


def load_named(target: str) -> object:
    """What has a name in a module, as `package.module:name` or `path/to/file.py:name`. Raises `Mistake`."""
    module, _, name = target.rpartition(":")
    if not module:
        raise Mistake(f"{target} names nothing in a module: give MODULE:NAME")
    loaded = load_module(module)
    if not hasattr(loaded, name):
        raise Mistake(f"there is no {name} in {module}")
    found: object = getattr(loaded, name)
    return found


def choose(jobs: dict[str, Job[Any, Any]], name: str, target: str) -> Job[Any, Any]:
    """The job with this name. Raises `Mistake` with the names that there are."""
    try:
        return jobs[name]
    except KeyError:
        raise Mistake(f"there is no job {name!r} in {target}; there is {', '.join(sorted(jobs))}") from None


def _load_file(path: Path) -> ModuleType:
    if not path.exists():
        raise Mistake(f"{path} does not exist")
    if not path.is_file():
        raise Mistake(f"{path} is not a file")
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"job_file_{name}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise Mistake(f"{path} is not a Python file")
    # At the end: a file beside the job file must not hide a module that others import.
    sys.path.append(str(path.resolve().parent))
    module = importlib.util.module_from_spec(spec)
    # Annotations of its classes are looked up here by the name of their module.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    if os.path.exists(f"{name}.py"):
        return _load_file(Path(f"{name}.py"))
    sys.path.append(os.getcwd())
    if not all(part.isidentifier() for part in name.split(".")):
        raise Mistake(f"{name!r} is neither a Python file nor a module")
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the package is there, and something that it imports is not
        found = None
    if found is None:
        raise Mistake(f"there is no file and no module {name}")
    return importlib.import_module(name)


def _explain(error: BaseException, target: str) -> str:
    """What went wrong and in which line, as one line."""
    if isinstance(error, SyntaxError):
        return f"{os.path.basename(error.filename or target)}, line {error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    ours = [frame for frame in frames if not frame.filename.startswith(os.path.dirname(os.path.dirname(__file__)))]
    where = f"{os.path.basename(ours[-1].filename)}, line {ours[-1].lineno}: " if ours else ""
    message = str(error).partition("\n")[0]
    return f"{where}{type(error).__name__}: {message}" if message else f"{where}{type(error).__name__}"
