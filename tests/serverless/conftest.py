"""The functions of examples/serverless, loaded as their platforms load them, and a database for each."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.pages import ROOT

EXAMPLES = ROOT / "examples" / "serverless"
SECRETS = {"API_KEY": "of the clients", "CRON_SECRET": "only the cron job knows it"}

Load = Callable[..., ModuleType]


ON_EACH = pytest.mark.parametrize("database", ["sqlite", "libsql", "postgres"], indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database: a file, or, as a function would have it, that of a server."""
    kind = getattr(request, "param", "sqlite")
    if kind == "sqlite":
        yield str(tmp_path / "function.db")
    elif kind == "libsql":
        sqld = request.getfixturevalue("sqld")
        url = sqld.namespace()
        yield url
        sqld.drop_namespace(url)
    else:
        postgres = request.getfixturevalue("postgres")
        url = postgres.create_database()
        yield url
        postgres.drop_database(url)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, database: str) -> Iterator[Load]:
    """Import a module of an example, whose folder is the project's root, as a new instance does."""
    before = set(sys.modules)

    def load(example: str, module: str, **environment: str | None) -> ModuleType:
        for name, value in {**SECRETS, "DATABASE_URL": database, **environment}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        monkeypatch.syspath_prepend(EXAMPLES / example)
        forget(before)
        return importlib.import_module(module)

    yield load
    forget(before)


def forget(before: set[str]) -> None:
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(EXAMPLES)):
            del sys.modules[name]
