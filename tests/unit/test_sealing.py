"""What a sealing executor seals: the values of users, all of them, and nothing else."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

from durably_web.backends.sqlite import SqliteExecutor
from durably_web.encryption import AesGcmCodec
from durably_web.errors import DecryptionFailed, StoreError
from durably_web.store import operations
from durably_web.store.batch import Batch, Executor, Statement, Value
from durably_web.store.operations import queueing
from durably_web.store.operations.private import USER_DATA
from durably_web.store.sealing import SealingExecutor, sealing

KEY, OTHER = b"\1" * 32, b"\2" * 32

PRIVATE = {
    "durably_runs": {"input", "output", "error", "progress"},
    "durably_journal": {"data"},
    "durably_signals": {"payload"},
    "durably_schedules": {"input"},
}


def statements() -> Iterator[tuple[str, str]]:
    """Every SQL constant of the operations, by its name."""
    for found in pkgutil.iter_modules(operations.__path__):
        module = importlib.import_module(f"{operations.__name__}.{found.name}")
        for name, value in vars(module).items():
            if isinstance(value, str) and re.match(r"\s*(INSERT|UPDATE|WITH|DELETE)\b", value):
                yield f"{found.name}.{name}", value


def parts(text: str) -> Iterator[tuple[int, str]]:
    """The expressions of a list that ends with the text, or with a word that ends it; and where each begins."""
    depth, start = 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        over = depth < 0 or (depth == 0 and re.match(r"\s(FROM|WHERE|ON CONFLICT|RETURNING)\s", text[at:]))
        if over or (character == "," and depth == 0):
            yield start, text[start:at].strip()
            start = at + 1
        if over:
            return
    yield start, text[start:].strip()


def written(sql: str) -> Iterator[tuple[str, str, int]]:
    """Column, expression and position of its first parameter, for each private column that a statement writes."""
    for found in re.finditer(r"INSERT INTO (\w+) \(([^)]*)\)\s*(?:VALUES \(|SELECT )", sql):
        columns = [column.strip() for column in found[2].split(",")]
        for column, (start, expression) in zip(columns, parts(sql[found.end() :]), strict=True):
            if column in PRIVATE.get(found[1], ()):
                yield column, expression, sql[: found.end() + start].count("?")
    for found in re.finditer(r"UPDATE (\w+)(?: AS \w+)?\s+SET ", sql):
        for start, assignment in parts(sql[found.end() :]):
            column, _, expression = assignment.partition(" = ")
            if column in PRIVATE.get(found[1], ()):
                yield column, expression, sql[: found.end() + start].count("?")


def test_every_statement_that_writes_a_value_of_a_user_is_in_the_table() -> None:
    found: dict[str, tuple[int, ...]] = {}
    # By their text: a module may have a statement of another one.
    for sql, name in {sql: name for name, sql in statements()}.items():
        for column, expression, position in written(sql):
            if expression == "?":
                found[sql] = (*found.get(sql, ()), position)
            else:
                # Made by the database of what may be seen, copied as it is, or emptied.
                seen = ("json_object(", "'handed over to ' ||", "CASE WHEN EXISTS (SELECT 1 FROM durably_undos")
                assert expression in ("NULL", column, "''") or expression.startswith(seen), (name, expression)
    assert found == USER_DATA
    assert len(found) >= 10


def test_the_table_names_statements_that_exist() -> None:
    assert USER_DATA.keys() <= {sql for _, sql in statements()}


SIGNAL = queueing.INSERT_SIGNAL
TABLE = "CREATE TABLE durably_runs (id INTEGER PRIMARY KEY, input TEXT)"


class Recording:
    """Answers each statement with its parameters, as they came."""

    def __init__(self) -> None:
        self.inner = SqliteExecutor(":memory:")
        self.seen: list[tuple[Value, ...]] = []
        self.answer: list[list[tuple[Value, ...]]] = []

    def executor(self) -> Executor:
        recording = self

        class Fake(SqliteExecutor):
            async def run(self, batch: Batch) -> list[list[tuple[Value, ...]]]:
                recording.seen = [params for _, params in batch.statements]
                return recording.answer

        return Fake(":memory:")


async def test_the_values_of_users_go_in_sealed_and_come_out_open() -> None:
    recording = Recording()
    executor = SealingExecutor(recording.executor(), AesGcmCodec(KEY))
    params = ("name", '"canary"', 5, "request", "run", "request")
    recording.answer = [[]]
    await executor.run(Batch("write", (Statement("SELECT ?", ("word",)), Statement(SIGNAL, params))))
    assert recording.seen[0] == ("word",)
    sealed = recording.seen[1][1]
    assert isinstance(sealed, str) and sealed.startswith("sealed:1:") and "canary" not in sealed
    assert recording.seen[1] == ("name", sealed, 5, "request", "run", "request")
    recording.answer = [[(1, sealed, None), ("plain", b"sealed:", 1.5)], [], [(sealed,)]]
    assert await executor.run(Batch("read", ())) == [
        [(1, '"canary"', None), ("plain", b"sealed:", 1.5)],
        [],
        [('"canary"',)],
    ]


async def test_a_name_that_looks_sealed_is_refused() -> None:
    recording = Recording()
    executor = SealingExecutor(recording.executor(), AesGcmCodec(KEY))
    with pytest.raises(StoreError, match="sealed:"):
        await executor.run(Batch("write", (Statement(SIGNAL, ("sealed:1:", '"a"', 5, "request", "run", "request")),)))
    assert recording.seen == []


async def test_the_wrong_key_is_noticed_when_the_database_is_opened() -> None:
    database = SqliteExecutor(":memory:")
    await database.open()
    try:
        await sealing(database, AesGcmCodec(KEY)).open()
        [text] = await AesGcmCodec(KEY).seal(['"a"'])
        insert = Statement("INSERT INTO durably_runs (input) VALUES (?)", ("sealed:" + text,))
        await database.run(Batch("write", (Statement(TABLE), insert)))
        await sealing(database, AesGcmCodec(KEY)).open()
        await sealing(database, AesGcmCodec([OTHER, KEY])).open()
        with pytest.raises(DecryptionFailed, match="pass that key too"):
            await sealing(database, AesGcmCodec(OTHER)).open()
    finally:
        await database.close()


def test_only_a_codec_that_asks_for_it_is_sealed_with() -> None:
    class Half:
        async def seal(self, texts: list[str]) -> list[str]:
            return texts

    database = SqliteExecutor(":memory:")
    assert sealing(database, object()) is database
    assert type(sealing(database, AesGcmCodec(KEY))) is SealingExecutor
    with pytest.raises(TypeError, match=r"Half has one of seal\(\) and unseal\(\)"):
        sealing(database, Half())
