"""The contract suites on native SQLite: a file, memory, and a file behind executors with bad habits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from durably_web.store.batch import Executor
from tests.contract import BARE, SUITES, Backend, Case, cases, run_case
from tests.support.backends import SqliteFile, SqliteMemory, Through
from tests.support.executors import RepeatingExecutor, SuspendingExecutor

_WRAPPERS: dict[str, Callable[[Executor], Executor]] = {
    "repeating": RepeatingExecutor,
    "suspending": SuspendingExecutor,
}


def _bindings() -> list[object]:
    found: list[object] = []
    for suite in SUITES:
        for kind, has in (("file", SqliteFile.has), ("memory", SqliteMemory.has)):
            found += [pytest.param(kind, case, id=f"{suite}-{name}-{kind}") for name, case in cases(suite, has)]
        if suite not in BARE:
            for kind in _WRAPPERS:
                found += [
                    pytest.param(kind, case, id=f"{suite}-{name}-{kind}") for name, case in cases(suite, SqliteFile.has)
                ]
    return found


@pytest.fixture
async def backend(kind: str, tmp_path: Path) -> AsyncIterator[Backend]:
    if kind == "memory":
        memory = SqliteMemory()
        yield memory
        await memory.close()
    elif kind == "file":
        yield SqliteFile(tmp_path)
    else:
        yield Through(SqliteFile(tmp_path), _WRAPPERS[kind])


@pytest.mark.parametrize(("kind", "case"), _bindings())
async def test_contract(backend: Backend, case: Case) -> None:
    await run_case(case, backend)
