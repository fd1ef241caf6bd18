"""HTTP for a process, through httpx."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

import httpx

from durably_web.backends.libsql.address import is_loopback
from durably_web.backends.libsql.transport import NoReply, Reply

# As many requests at once as an engine has runs, some times over; and how long an idle connection is kept.
_LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=30.0)
_CONNECT_SECONDS = 5.0


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Reading the certificates of authorities takes longer than many requests."""
    return httpx.create_ssl_context()


class HttpxTransport:
    """One pool of connections."""

    def __init__(self, url: str) -> None:
        # A proxy of the environment is of no use for a server on this machine.
        near = is_loopback(urlsplit(url).hostname or "")
        self._client = httpx.AsyncClient(verify=_trusted(), limits=_LIMITS, trust_env=not near)
        self._under_way: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
        url, headers = _resolved(url, headers)
        try:
            # What is slow byte by byte is slow as well.
            async with asyncio.timeout(seconds) as limit:
                self._under_way.add(limit)
                try:
                    response = await self._client.post(
                        url,
                        content=body,
                        headers={"content-type": "application/json", **headers},
                        timeout=httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
                    )
                finally:
                    self._under_way.discard(limit)
                    self._idle.set()
        except TimeoutError:
            raise NoReply(f"no answer within {seconds:.0f} seconds", late=True) from None
        except httpx.HTTPError as error:
            late = isinstance(error, httpx.ReadTimeout)
            raise NoReply(f"{type(error).__name__}: {error}".rstrip(": "), late=late) from error
        except RuntimeError as error:
            # Closed meanwhile.
            raise NoReply(str(error)) from error
        return Reply(response.status_code, response.headers, response.content)

    async def close(self) -> None:
        # httpx leaves alone what is under way, and its connections with it.
        while self._under_way:
            for limit in self._under_way:
                if not limit.expired():
                    limit.reschedule(0)
            self._idle.clear()
            await self._idle.wait()
        await self._client.aclose()


def _resolved(url: str, headers: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """`name.localhost` is this machine, also where the system's resolver does not know it, as in every browser: sqld
    tells its namespaces apart by that name."""
    parts = urlsplit(url)
    if not (parts.hostname or "").endswith(".localhost"):
        return url, headers
    near = "127.0.0.1" if parts.port is None else f"127.0.0.1:{parts.port}"
    return urlunsplit(parts._replace(netloc=near)), {**headers, "host": parts.netloc}
