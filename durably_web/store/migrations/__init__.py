"""The schema, one numbered module per version. A version that has been released is never edited.

Each migration is applied in one transaction together with the row that records it, so a database is always at
exactly one version.

Older code may be running on the database when a migration comes: another process, or a tab with the code of last
month. Two rules let it go on reading, and keep it from writing:

- A migration only adds: tables, indexes, and columns with a default. What older code reads keeps its name and meaning.
- A migration ends every lease, as `m0004_months` does with `REVOKED`. What a lease fences is then refused by its fence,
  and every other write of older code by its last statement (`schema.unless_newer`).
"""

from __future__ import annotations

import importlib
from typing import LiteralString, cast

LATEST = 4

_MODULES = {1: "m0001_initial", 2: "m0002_waiting", 3: "m0003_requests", 4: "m0004_months"}


def statements(version: int) -> tuple[LiteralString, ...]:
    """The statements that lead from `version - 1` to `version`; imported only when they are needed."""
    module = importlib.import_module(f"{__name__}.{_MODULES[version]}")
    return cast("tuple[LiteralString, ...]", module.STATEMENTS)
