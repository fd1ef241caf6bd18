"""The schema and its versions."""

from __future__ import annotations

from typing import LiteralString, cast

from durably_web.store import migrations
from durably_web.store.batch import Operation, Statement
from durably_web.store.operations.building import nothing, operation

FIND_SCHEMA: LiteralString = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'durably_schema'"

CREATE_SCHEMA_TABLE: LiteralString = """
CREATE TABLE IF NOT EXISTS durably_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT
"""

READ_SCHEMA_VERSION: LiteralString = "SELECT coalesce(max(version), 0) FROM durably_schema"

# Fails when another process was faster: the whole migration is then rolled back.
RECORD_MIGRATION: LiteralString = "INSERT INTO durably_schema (version, applied_at) VALUES (?, ?)"

# Breaks the table's key, and with it the whole transaction, where a newer version has been applied.
REFUSE_NEWER: LiteralString = """
INSERT INTO durably_schema (version, applied_at) SELECT version, applied_at FROM durably_schema WHERE version > ?
"""

# Each of these holds only under a lease, and with a newer version every lease has ended.
FENCED = frozenset(["write_entries", "finish_run", "suspend_run", "release_run", "renew_leases"])


def has_schema() -> Operation[bool]:
    return operation("has_schema", "read", lambda results: bool(results[0]), (FIND_SCHEMA, ()))


def schema_version() -> Operation[int]:
    return operation("schema_version", "read", lambda results: cast(int, results[0][0][0]), (READ_SCHEMA_VERSION, ()))


def unless_newer(known: int) -> Statement:
    """The last statement of every write that no lease fences: where the schema is newer, nothing of it is done."""
    return Statement(REFUSE_NEWER, (known,))


def create_schema_table() -> Operation[None]:
    return operation("create_schema_table", "write", nothing, (CREATE_SCHEMA_TABLE, ()))


def apply_migration(version: int, now: int) -> Operation[None]:
    """Lead the schema from `version - 1` to `version`.

    Raises `ConstraintViolated`, and changes nothing, when it has been applied already: the one operation
    whose second send has another outcome, because DDL has no fence.
    """
    steps = [(statement, ()) for statement in migrations.statements(version)]
    return operation("apply_migration", "write", nothing, (RECORD_MIGRATION, (version, now)), *steps)
