"""The contract suites on libSQL: a namespace of a real `sqld` for each case, plain and behind one with a bad habit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract import BARE, SUITES, Backend, Case, cases, run_case
from tests.support.backends import Through
from tests.support.executors import FAULT_BY_FAULT, OF_DOCUMENTS, OF_ONE_TURN, RepeatingExecutor
from tests.support.libsql import Libsql
from tests.support.servers import Sqld

SECONDS = 400
"""For a case: some send thousands of requests."""

_TWICE = ("flow",)
"""A suite whose every batch is sent twice as well. That of the store does so with each operation by itself."""

_TOO_LARGE = ("a_large_result_is_stored_and_read",)
"""A server takes values of a few megabytes; the tests of failures have what it says to more."""


def _bindings() -> list[object]:
    found: list[object] = []
    for suite in SUITES:
        for kind in ("plain", "repeating") if suite in _TWICE and suite not in BARE else ("plain",):
            found += [
                pytest.param(kind, case, id=f"{suite}-{name}-{kind}")
                for name, case in cases(suite, Libsql.has)
                if name not in (*_TOO_LARGE, *OF_DOCUMENTS, *OF_ONE_TURN)
                and (kind == "plain" or name not in FAULT_BY_FAULT)
            ]
    return found


@pytest.fixture
def backend(kind: str, sqld: Sqld) -> Iterator[Backend]:
    found = Libsql(sqld)
    yield found if kind == "plain" else Through(found, RepeatingExecutor)
    found.drop()


@pytest.mark.parametrize(("kind", "case"), _bindings())
async def test_contract(backend: Backend, case: Case) -> None:
    await run_case(case, backend, SECONDS)
