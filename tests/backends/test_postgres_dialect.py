"""The store's SQL as PostgreSQL reads it: every statement there is, on a real server, means what it means to SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from durably_web.backends.postgres import edits
from durably_web.backends.postgres.dialect import translate
from durably_web.backends.postgres.order import HORIZON
from durably_web.store import migrations
from durably_web.store.batch import Operation, Statement, Value
from durably_web.store.operations import reading, schema
from tests.support import store_scene
from tests.support.servers import Postgres
from tests.support.store_registry import REGISTRY
from tests.support.store_sent import LATE, TOUCHED

_TYPES: dict[type, str] = {int: "BIGINT", float: "DOUBLE PRECISION", str: "TEXT", type(None): "UNKNOWN"}

Rows = list[tuple[Any, ...]]
Execute = Callable[[str, tuple[Value, ...]], Rows]

_ON_THE_WAY = [
    schema.CREATE_SCHEMA_TABLE,
    *[sql for n in range(migrations.LATEST) for sql in migrations.statements(n + 1)],
]


@pytest.fixture(scope="module")
def connection(postgres: Postgres) -> Iterator[psycopg.Connection]:
    url = postgres.create_database()
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.adapters.register_dumper(str, StrDumper)
        connection.execute("SELECT set_config('durably_web.horizon', '1000000000', false)")
        for sql in _ON_THE_WAY:
            connection.execute(translate(sql).encode())
        yield connection
    postgres.drop_database(url)


def _on(connection: psycopg.Connection) -> Execute:
    def execute(sql: str, params: tuple[Value, ...] = ()) -> Rows:
        cursor = connection.execute(translate(sql).encode(), params)
        return cursor.fetchall() if cursor.description is not None else []

    return execute


@pytest.fixture
def sqlite() -> Iterator[Execute]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for sql in _ON_THE_WAY:
        connection.execute(sql)

    def execute(sql: str, params: tuple[Value, ...] = ()) -> Rows:
        return connection.execute(sql, params).fetchall()

    yield execute
    connection.close()


def _statements() -> list[Statement]:
    """Each with each kind of parameters."""
    found = {}
    for name, ways in REGISTRY.items():
        # The others are definitions, which cannot be prepared.
        for way in ways if name != "create_schema_table" else ():
            for statement in way().batch.statements:
                found[statement.sql, tuple(map(type, statement.params))] = statement
    return list(found.values())


def _prepared(connection: psycopg.Connection, sql: str, types: Iterable[str]) -> str | None:
    """What the server says against it."""
    given = ", ".join(types)
    try:
        connection.execute(f"PREPARE one{f' ({given})' if given else ''} AS {translate(sql)}".encode())
        connection.execute("DEALLOCATE one")
    except psycopg.Error as error:
        return f"{error}\n{sql}\n{translate(sql)}"
    return None


def test_each_statement_can_be_prepared_with_each_kind_of_parameters(connection: psycopg.Connection) -> None:
    wrong = [_prepared(connection, sql, [_TYPES[type(value)] for value in params]) for sql, params in _statements()]
    assert not any(wrong), "\n".join(filter(None, wrong))


def test_any_parameter_may_be_null(connection: psycopg.Connection) -> None:
    """Nobody but the statement itself tells the type of a `None`."""
    wrong = []
    for sql, params in dict(_statements()).items():
        types = [_TYPES[type(value)] for value in params]
        wrong += [
            _prepared(connection, sql, [*types[:index], "UNKNOWN", *types[index + 1 :]]) for index in range(len(types))
        ]
    assert not any(wrong), "\n".join(filter(None, wrong))


# -- the same meaning ----------------------------------------------------------------------------------------


def _operations() -> list[Operation[Any]]:
    asked = [way() for name, ways in REGISTRY.items() for way in ways if name != "create_schema_table"]
    asked += [operation for operation, _ in TOUCHED]
    return asked + [operation for operation, _ in LATE]


_JOURNAL = list(store_scene.TABLES).index("durably_journal")


def _plain(value: Any, new: dict[int, str]) -> Any:
    """Without what may differ: the seqs of new entries, and where there are spaces in a JSON."""
    if isinstance(value, str) and value[:1] == "{":
        return ("JSON", repr(json.loads(value)))
    return new.get(value, value) if isinstance(value, int) and value > 9 else value


def _told(execute: Execute, operation: Operation[Any]) -> list[list[tuple[Any, ...]]]:
    """The rows of each statement of an operation that is sent twice, and then those of each table."""
    [[before]] = execute("SELECT max(seq) FROM durably_journal", ())
    results = []
    for _ in range(2):
        results += [execute(*statement) for statement in operation.batch.statements]
    tables = [execute(f"SELECT * FROM {name}", ()) for name in store_scene.TABLES]
    entries = sorted(row[:3] for row in tables[_JOURNAL] if row[0] > before)
    new = {seq: f"{run_id} {number}" for seq, run_id, number in entries}
    plain = [[tuple(_plain(value, new) for value in row) for row in rows] for rows in [*results, *tables]]
    sqls = [statement.sql for statement in operation.batch.statements] * 2
    ordered = [sql.rstrip().rpartition("ORDER BY")[2].count(")") == 0 and "ORDER BY" in sql for sql in sqls]
    ordered += [False] * len(tables)
    return [rows if kept else sorted(rows, key=repr) for rows, kept in zip(plain, ordered, strict=True)]


def test_each_operation_does_and_tells_the_same(connection: psycopg.Connection, sqlite: Execute) -> None:
    postgres = _on(connection)
    connection.execute("ALTER SEQUENCE durably_journal_seq_seq RESTART")
    for execute in (sqlite, postgres):
        execute("BEGIN", ())
        for statement in store_scene.SCENE.statements:
            execute(*statement)
    wrong = []
    for operation in _operations():
        found = []
        for execute in (sqlite, postgres):
            execute("SAVEPOINT one", ())
            try:
                found.append(_told(execute, operation))
            except (sqlite3.IntegrityError, psycopg.IntegrityError):
                found.append([[("refused",)]])
            execute("ROLLBACK TO SAVEPOINT one", ())
        about = [statement.sql for statement in operation.batch.statements] * 2 + list(store_scene.TABLES)
        for where, there, here in zip(about, *found, strict=False):
            if there != here:
                few = [row for row in there if row not in here], [row for row in here if row not in there]
                wrong.append(f"{operation.name}: {where}\nSQLite {few[0] or there}\nPostgreSQL {few[1] or here}\n")
    for execute in (sqlite, postgres):
        execute("ROLLBACK", ())
    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong[:10])


_TEXTS = [
    "",
    " ",
    "a",
    "A",
    "ä",
    "Z",
    "z",
    "-",
    "_",
    "a b",
    "ab",
    "\x7f",
    "é",
    "漢",
    "🦆",
    "\uffff",
    '"q"',
    "\\",
    "\n\t\x01",
]


def test_text_is_sorted_by_its_bytes(connection: psycopg.Connection, sqlite: Execute) -> None:
    """The server's own order is another one."""
    orders = []
    for execute in (sqlite, _on(connection)):
        execute("BEGIN", ())
        for text in _TEXTS:
            execute("INSERT INTO durably_paused_jobs (job_name) VALUES (?)", (text,))
        orders.append(execute(reading.SELECT_PAUSED_JOBS, ()))
        orders.append(execute("SELECT max(job_name) FROM durably_paused_jobs WHERE job_name < ?", ("é",)))
        execute("ROLLBACK", ())
    assert orders[0] == orders[2]
    assert orders[1] == orders[3]
    assert connection.execute("SELECT 'a' < 'Z'").fetchone() == (True,)


def test_json_is_the_same_text(connection: psycopg.Connection, sqlite: Execute) -> None:
    asked = "SELECT json_object('text', ?, 'number', CASE WHEN ? = 0 THEN 7 END, 'word', 'offered')"
    for text in [*_TEXTS, None]:
        for number in (0, 1):
            assert _on(connection)(asked, (text, number)) == sqlite(asked, (text, number))


# -- rules and edits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("SELECT '?' || ? -- ?\n, ?", "SELECT '?' || $1, $2"),
        ("WHERE a = ? AND b IS NOT ?", "WHERE a = $1 AND b IS DISTINCT FROM $2"),
        ("WHERE b IS ?", "WHERE b IS NOT DISTINCT FROM $1"),
        ("WHERE ? IS NULL OR b IS NULL", "WHERE $1::TEXT IS NULL OR b IS NULL"),
        ("SELECT max(a), max(a, min(b, c))", "SELECT max(a), greatest(a, least(b, c))"),
        ("LIMIT ? OFFSET ?", "LIMIT nullif($1::BIGINT, -1) OFFSET $2"),
        ("LIMIT 1", "LIMIT 1"),
        ("FROM (SELECT 1) WHERE true", "FROM (SELECT 1) AS unnamed WHERE true"),
        ("FROM (SELECT 1) AS one", "FROM (SELECT 1) AS one"),
        ("CREATE TABLE t (a TEXT, b INTEGER) STRICT, WITHOUT ROWID", 'CREATE TABLE t (a TEXT COLLATE "C", b BIGINT)'),
        ("ALTER TABLE t ADD COLUMN a TEXT", 'ALTER TABLE t ADD COLUMN a TEXT COLLATE "C"'),
        ("SELEC )(", "SELEC ) ("),
    ],
)
def test_a_rule(given: str, expected: str) -> None:
    assert translate(given) == expected


def test_an_edit_without_its_piece_is_an_error() -> None:
    with pytest.raises(AssertionError, match="finds nothing"):
        edits.applied((edits.Edit((reading.SELECT_EVENTS,), "no such piece", ""),))


def test_who_reads_on_keeps_to_the_horizon() -> None:
    for sql in (reading.SELECT_EVENTS, reading.SELECT_LAST_SEQ):
        assert HORIZON in translate(sql)
    assert HORIZON not in translate(reading.SELECT_EVENTS_OF_RUN)
