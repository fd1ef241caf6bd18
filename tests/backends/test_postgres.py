"""The contract suites on PostgreSQL: a schema of a real server for each case, plain, behind PgBouncer, and more."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.contract import BARE, SUITES, Backend, Case, cases, run_case
from tests.support.backends import Through
from tests.support.executors import FAULT_BY_FAULT, OF_DOCUMENTS, OF_ONE_TURN, RepeatingExecutor
from tests.support.postgres import Postgres
from tests.support.servers import Postgres as Server

SECONDS = 400
"""For a case: some send thousands of requests."""

_TWICE = ("store", "flow", "children", "schedules")
"""Suites whose every batch is sent twice as well."""

_POOLED = ("executor", "store", "engine", "leases")
"""Suites that are bound behind PgBouncer as well."""

_SERIALIZABLE = ("executor", "store", "migrations", "engine", "leases", "flow", "faults", "schedules")
"""Suites that are bound as well to a database whose transactions are serializable, with an address that says so, too:
no lock keeps writes apart, and the database takes some of them back."""

_UNSAID = ("leases", "flow")
"""Suites that are bound as well to such a database where the address says nothing of it."""

_MEANWHILE = ("one_who_changes_a_schedule_meets_others_who_do",)
"""Cases in which somebody else may write between the two sends of a batch, and the second answer tells of that."""


def _kinds(suite: str) -> Iterator[str]:
    yield "plain"
    if suite in _TWICE and suite not in BARE:
        yield "repeating"
    if suite in _POOLED:
        yield "pooled"
    if suite in _SERIALIZABLE:
        yield "serializable"
    if suite in _UNSAID:
        yield "unsaid"


def _bindings() -> list[object]:
    return [
        pytest.param(kind, case, id=f"{suite}-{name}-{kind}")
        for suite in SUITES
        for kind in _kinds(suite)
        for name, case in cases(suite, Postgres.has)
        if name not in (*OF_DOCUMENTS, *OF_ONE_TURN)
        and (kind != "repeating" or name not in (*FAULT_BY_FAULT, *_MEANWHILE))
    ]


@pytest.fixture(scope="module")
def serializable(postgres: Server) -> Iterator[str]:
    url = postgres.create_database("default_transaction_isolation = 'serializable'")
    yield url
    postgres.drop_database(url)


@pytest.fixture
def backend(kind: str, database: str, request: pytest.FixtureRequest) -> Backend:
    if kind == "pooled":
        database = request.getfixturevalue("pgbouncer").url(database)
    elif kind in ("serializable", "unsaid"):
        database = request.getfixturevalue("serializable")
    isolation = "isolation=serializable&" if kind == "serializable" else ""
    found = Postgres(f"{database}?{isolation}schema=case_{secrets.token_hex(6)}")
    return Through(found, RepeatingExecutor) if kind == "repeating" else found


@pytest.mark.parametrize(("kind", "case"), _bindings())
async def test_contract(backend: Backend, case: Case) -> None:
    await run_case(case, backend, SECONDS)
