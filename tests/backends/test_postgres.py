"""The contract suites on PostgreSQL: a database of a real server for each case, plain, behind PgBouncer, and one whose
transactions are serializable unless they say otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract import SUITES, Backend, Case, cases, run_case
from tests.support.postgres import Postgres
from tests.support.servers import Postgres as Server

SECONDS = 120

_PLAIN = Postgres("")

_WITH_NULLS = ("a_text_with_a_null_in_it_comes_back",)
"""PostgreSQL stores no such text; the tests of failures have what is said then."""


def _bindings() -> list[object]:
    return [
        pytest.param("plain", case, id=f"{suite}-{name}-plain")
        for suite in SUITES
        for name, case in cases(suite, _PLAIN.has)
        if name not in _WITH_NULLS
    ]


@pytest.fixture
def backend(kind: str, postgres: Server) -> Iterator[Backend]:
    url = postgres.create_database()
    yield Postgres(url)
    postgres.drop_database(url)


@pytest.mark.parametrize(("kind", "case"), _bindings())
async def test_contract(backend: Backend, case: Case) -> None:
    await run_case(case, backend, SECONDS)
