"""Pages of other sites, which a browser lets send some requests with the cookies of this one."""

from __future__ import annotations

from collections.abc import Set
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

_READING = ("GET", "HEAD", "OPTIONS")


def _asks_first(request: Request) -> bool:
    """Whether a browser sends this to another site only after asking, and then without the visitor's cookies."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return "idempotency-key" in request.headers or "authorization" in request.headers or kind == "application/json"


def check_origin(request: Request, allowed: Set[str]) -> None:
    """Raises `HTTPException` for a request that changes something and comes from a page of another origin.

    Browsers say where a request comes from; what is no browser has no visitor's cookies. From any origin, if `*` is
    allowed, comes only what a form could not send.
    """
    if request.method in _READING:
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin in allowed or ("*" in allowed and _asks_first(request)):
        return
    if site is not None:
        is_other = site not in ("same-origin", "none")
    else:
        is_other = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if is_other:
        raise HTTPException(
            403,
            f"a page of {origin or 'another origin'} may not do this: see allow_origins"
            + (", and send the header Idempotency-Key, a ULID" if "*" in allowed else ""),
        )
