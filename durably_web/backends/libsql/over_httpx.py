"""HTTP for a process, through httpx."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx

from durably_web.backends.libsql.address import is_loopback
from durably_web.backends.libsql.transport import RECEIVING_SECONDS, NoReply, Reply

# As many requests at once as an engine has runs, some times over; and how long an idle connection is kept.
_CONNECTIONS = 64
_IDLE_CONNECTIONS = 16
_IDLE_SECONDS = 30.0
_CONNECT_SECONDS = 5.0


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Reading the certificates of authorities takes longer than many requests."""
    return httpx.create_ssl_context()


class HttpxTransport:
    """One pool of connections.

    A task that is cancelled inside of httpx can leave its connection taken for ever, while it waits for one or while it
    closes one (httpcore 1.0.9). So each request has a task that nobody cancels, which a scope of anyio ends; httpx
    knows how to clean up after those. And no more of them get in than there are connections: none waits in there.
    """

    def __init__(self, url: str, *, connections: int = _CONNECTIONS) -> None:
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=_IDLE_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS
        )
        self._client = httpx.AsyncClient(verify=_trusted(), limits=limits, trust_env=uses_environment(url))
        self._gate = asyncio.Semaphore(connections)
        self._under_way: dict[asyncio.Task[httpx.Response | None], anyio.CancelScope] = {}

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
        url, headers = resolved(url, headers)
        scope = anyio.CancelScope(deadline=anyio.current_time() + seconds)
        task = asyncio.create_task(self._ask(scope, url, body, headers, seconds))
        self._under_way[task] = scope
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            scope.cancel()
            raise
        try:
            response = task.result()
        # What breaks inside of TLS is an OSError.
        except (httpx.HTTPError, OSError) as error:
            late = isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout)
            raise NoReply(f"{type(error).__name__}: {error}".rstrip(": "), late=late) from error
        except RuntimeError as error:
            # Closed meanwhile.
            raise NoReply(str(error)) from error
        if response is None:
            raise NoReply(f"no answer within {seconds:.0f} seconds", late=True)
        return Reply(response.status_code, response.headers, response.content)

    async def _ask(
        self, scope: anyio.CancelScope, url: str, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> httpx.Response | None:
        """The answer, or None where the scope has ended first."""
        with scope:
            async with self._gate:
                async with self._client.stream(
                    "POST",
                    url,
                    content=body,
                    headers={"content-type": "application/json", **headers},
                    timeout=httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
                ) as response:
                    scope.deadline = anyio.current_time() + RECEIVING_SECONDS
                    await response.aread()
                    return response
        return None

    def _ended(self, task: asyncio.Task[httpx.Response | None]) -> None:
        del self._under_way[task]
        if not task.cancelled():
            # Whoever was cancelled does not ask for it; asyncio would tell of it.
            task.exception()

    async def close(self) -> None:
        # httpx leaves alone what is under way, and its connections with it.
        while self._under_way:
            for scope in self._under_way.values():
                scope.cancel()
            await asyncio.wait(list(self._under_way))
        await self._client.aclose()


def uses_environment(url: str) -> bool:
    """Whether the environment's proxies are asked: they are of no use for a server on this machine."""
    return not is_loopback(urlsplit(url).hostname or "")


def resolved(url: str, headers: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """`name.localhost` is this machine, also where the system's resolver does not know it, as in every browser: sqld
    tells its namespaces apart by that name."""
    parts = urlsplit(url)
    if not (parts.hostname or "").endswith(".localhost"):
        return url, headers
    near = "127.0.0.1" if parts.port is None else f"127.0.0.1:{parts.port}"
    return urlunsplit(parts._replace(netloc=near)), {**headers, "host": parts.netloc}
