"""Pictures for tests, written by hand."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

Pixel = tuple[int, int, int]


def png(width: int, height: int, colour: Callable[[float, float], Pixel]) -> bytes:
    """A picture as PNG; `colour` is asked for each pixel, by its place between 0 and 1."""
    rows = (b"\0" + bytes(part for x in range(width) for part in colour(x / width, y / height)) for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def bands(x: float, y: float) -> Pixel:
    """Three colours, of which red takes half and blue a sixth."""
    return (200, 30, 30) if x < 0.5 else (240, 240, 240) if y < 2 / 3 else (20, 40, 180)


def waves(x: float, y: float) -> Pixel:
    """Something else altogether."""
    return int(127 + 127 * ((7 * x * y) % 1)), int(255 * ((5 * y) % 1)), int(255 * ((3 * x) % 1))
