"""What PostgreSQL itself can tell of its tables and indexes."""

from __future__ import annotations

import psycopg

_CONSTRAINTS = "SELECT conrelid::regclass || '.' || conname FROM pg_constraint WHERE NOT convalidated"
_INDEXES = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive)"
_OURS = "c.relnamespace = current_schema()::regnamespace AND c.relkind = %s"
# Of the extension that comes with the server: rows, and that each is found by each index.
_ROWS = f"SELECT c.relname, v.msg FROM pg_class c, verify_heapam(c.oid) v WHERE {_OURS}"
_ENTRIES = f"""
SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree' WHERE {_OURS}
"""

_SCHEMA = """
SELECT table_name || '.' || column_name || ' ' || data_type || coalesce(' ' || collation_name, '') || ' ' || is_nullable
       || coalesce(' ' || column_default, '')
FROM information_schema.columns WHERE table_schema = current_schema()
UNION ALL
SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()
UNION ALL
SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = current_schema()::regnamespace
UNION ALL
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
"""


def damages(url: str) -> list[str]:
    """Constraints and indexes that do not hold, rows that cannot be read, index entries that are missing."""
    found = []
    with psycopg.connect(url, autocommit=True) as connection:
        for what, sql in (("constraint", _CONSTRAINTS), ("index", _INDEXES)):
            found += [f"{what} {row[0]} does not hold" for row in connection.execute(sql)]
        connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        found += [f"table {name}: {message}" for name, message in connection.execute(_ROWS, ("r",))]
        try:
            connection.execute(_ENTRIES, ("i",))
        except psycopg.errors.DataCorrupted as error:
            found.append(str(error))
    return found


def schema(url: str) -> set[str]:
    """One line for each column, index, constraint and trigger."""
    with psycopg.connect(url, autocommit=True) as connection:
        return {row[0] for row in connection.execute(_SCHEMA)}
