"""Routes with a key of their own: they are there for an author who gave one, and do not ask `auth` who may come in."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response


class Door(Protocol):
    """One such route, on one path or several."""

    @property
    def paths(self) -> tuple[str, ...]: ...

    @property
    def methods(self) -> tuple[str, ...]: ...

    async def admit(self, request: Request) -> None:
        """Raises `HTTPException` for who has not the key, before anything else of the request is looked at."""

    async def answer(self, request: Request) -> Response:
        """Carry it out. Raises what the engine raises, and `BadRequest`."""
        ...

    def refused(self, error: Exception) -> Response | None:
        """The answer to a request that raised; `None` where it is that of any other route."""
        ...

    def operations(self) -> dict[str, Any]:
        """Its paths, as the OpenAPI document has them."""
        ...

    def keys(self) -> dict[str, Any]:
        """What is needed to come in, as the OpenAPI document has it."""
        ...
