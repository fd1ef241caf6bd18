"""A durably_web of tomorrow: it knows one version of the schema more, whose migration does what every one has to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import LiteralString

from durably_web.store import migrations
from durably_web.store.migrations.m0004_months import REVOKED

_TOMORROW: tuple[LiteralString, ...] = (
    "ALTER TABLE durably_runs ADD COLUMN tomorrow TEXT NOT NULL DEFAULT ''",
    "CREATE TABLE durably_tomorrows (run_id TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID",
    REVOKED,
)


@contextlib.contextmanager
def newer() -> Iterator[int]:
    """An engine that is made meanwhile is one of tomorrow. Gives the version that it knows."""
    latest, statements = migrations.LATEST, migrations.statements
    migrations.LATEST = latest + 1
    migrations.statements = lambda version: _TOMORROW if version > latest else statements(version)
    try:
        yield latest + 1
    finally:
        migrations.LATEST, migrations.statements = latest, statements
