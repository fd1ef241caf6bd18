"""The contract suites on libSQL: a namespace of a real `sqld` for each case, plain and behind one with a bad habit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract import BARE, SUITES, Backend, Case, cases, run_case
from tests.support.backends import Through
from tests.support.executors import RepeatingExecutor
from tests.support.libsql import Libsql
from tests.support.servers import Sqld

SECONDS = 180
"""For a case: some send thousands of requests."""

_TWICE = ("store", "flow", "children", "schedules", "signals", "undo")
"""Suites whose every batch is sent twice as well: those of the operations that write most differently."""


def _bindings() -> list[object]:
    found: list[object] = []
    for suite in SUITES:
        for kind in ("plain", "repeating") if suite in _TWICE and suite not in BARE else ("plain",):
            found += [pytest.param(kind, case, id=f"{suite}-{name}-{kind}") for name, case in cases(suite, Libsql.has)]
    return found


@pytest.fixture
def backend(kind: str, sqld: Sqld) -> Iterator[Backend]:
    url = sqld.namespace()
    yield Libsql(url) if kind == "plain" else Through(Libsql(url), RepeatingExecutor)
    sqld.drop_namespace(url)


@pytest.mark.parametrize(("kind", "case"), _bindings())
async def test_contract(backend: Backend, case: Case) -> None:
    await run_case(case, backend, SECONDS)
