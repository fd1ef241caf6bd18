"""What tables and indexes a database has, whichever it is."""

from __future__ import annotations

from typing import LiteralString

from durably_web.store.batch import Batch, Executor, Row, Statement

_SQLITE: LiteralString = """
SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name GLOB '*durably*' ORDER BY 1, 2
"""

# A row for each table, with all its columns, and for each index.
_POSTGRES: LiteralString = """
SELECT 'table', table_name, table_name, string_agg(concat_ws(' ', column_name, data_type, collation_name, is_nullable,
       is_identity, column_default), ', ' ORDER BY ordinal_position)
FROM information_schema.columns WHERE table_schema = current_schema() GROUP BY table_name
UNION ALL SELECT 'index', indexname, tablename, indexdef FROM pg_indexes WHERE schemaname = current_schema()
UNION ALL SELECT 'check', conname, CAST(conrelid AS regclass)::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = CAST(current_schema() AS regnamespace) AND contype = 'c'
ORDER BY 1, 2
"""


def is_postgres(executor: Executor) -> bool:
    """Whether it is PostgreSQL that executes what this is given, through whatever wrappers."""
    while (inner := getattr(executor, "inner", getattr(executor, "_inner", None))) is not None:
        executor = inner
    return ".postgres" in type(executor).__module__


async def catalog(executor: Executor) -> list[Row]:
    """What there is: its kind, its name, the table that it belongs to, and its definition."""
    sql = _POSTGRES if is_postgres(executor) else _SQLITE
    [rows] = await executor.run(Batch("read", (Statement(sql),)))
    return rows


async def tables(executor: Executor) -> list[str]:
    """The names of the tables."""
    return [str(row[1]) for row in await catalog(executor) if row[0] == "table"]


async def integrity(executor: Executor) -> list[Row]:
    """What the database finds wrong with itself; PostgreSQL has no such look."""
    if is_postgres(executor):
        return []
    [rows] = await executor.run(Batch("read", (Statement("PRAGMA integrity_check"),)))
    return [row for row in rows if row != ("ok",)]
