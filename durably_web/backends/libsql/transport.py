"""What the executor asks of whatever speaks HTTP: one request, and its answer or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

RECEIVING_SECONDS = 120.0
"""How long an answer may take that has begun."""


class Reply(NamedTuple):
    """`headers` have small letters in their names; `body` is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoReply(Exception):
    """Nothing came back: the request may have arrived or not. `late` tells that the time was up."""

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class Transport(Protocol):
    """Sends requests, several at once. Raises `NoReply` and nothing else."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
        """Send JSON, and wait until an answer begins, for `seconds` at most; then for the rest, for `RECEIVING_SECONDS`
        at most. Redirects are answers, where they can be seen. `headers` go to the host of `url` and to no other."""
        ...

    async def close(self) -> None:
        """Give up what is open; requests under way get no reply."""
        ...
