"""The store's SQL as PostgreSQL reads it: each statement that there is, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from durably_web.backends.postgres.dialect import translate
from durably_web.store import migrations
from durably_web.store.batch import Statement
from durably_web.store.operations import schema
from tests.support.servers import Postgres
from tests.support.store_registry import REGISTRY

_TYPES: dict[type, str] = {int: "BIGINT", float: "DOUBLE PRECISION", str: "TEXT", bytes: "BYTEA", type(None): "UNKNOWN"}


@pytest.fixture(scope="module")
def connection(postgres: Postgres) -> Iterator[psycopg.Connection]:
    url = postgres.create_database()
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(translate(schema.CREATE_SCHEMA_TABLE).encode())
        for version in range(1, migrations.LATEST + 1):
            for sql in migrations.statements(version):
                connection.execute(translate(sql).encode())
        yield connection
    postgres.drop_database(url)


def _statements() -> list[Statement]:
    found = {}
    for name, ways in REGISTRY.items():
        for way in ways if name != "create_schema_table" else ():
            for statement in way().batch.statements:
                kinds = tuple(map(type, statement.params))
                found[statement.sql, kinds] = statement
    return list(found.values())


def test_each_statement_can_be_prepared_with_each_kind_of_parameters(connection: psycopg.Connection) -> None:
    wrong = []
    for sql, params in _statements():
        types = ", ".join(_TYPES[type(value)] for value in params)
        prepare = f"PREPARE one{f' ({types})' if types else ''} AS {translate(sql)}"
        try:
            connection.execute(prepare.encode())
            connection.execute(b"DEALLOCATE one")
        except psycopg.Error as error:
            wrong.append(f"{error}\n{sql}\n{translate(sql)}")
    assert not wrong, "\n".join(wrong[:12]) + f"\n{len(wrong)}"
