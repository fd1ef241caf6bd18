"""Who writes at once with whom: one after the other, each in its schema."""

from __future__ import annotations

import zlib


def key(name: str) -> int:
    """A number of 32 bits with a sign, for an advisory lock that everybody finds under this name."""
    number = zlib.crc32(f"durably_web {name}".encode())
    return number - 2**32 if number >= 2**31 else number


def alone(schema: str) -> str:
    """The expression that waits until nobody else writes in this schema, and keeps others from it till the end of the
    transaction."""
    return f"pg_advisory_xact_lock({key(f'write {schema}')}, 0)"
