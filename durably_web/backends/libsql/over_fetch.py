"""HTTP for a browser's tab or worker, through its own `fetch`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from durably_web.backends.libsql.transport import RECEIVING_SECONDS, NoReply, Reply


class FetchTransport:
    """The browser keeps the connections, follows redirects, and takes the token off where they lead elsewhere."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
        from js import AbortController, Object, fetch
        from pyodide.ffi import JsException, to_js

        controller = AbortController.new()
        options = {
            "method": "POST",
            "headers": {"content-type": "application/json", **headers},
            "body": body.decode(),
            "cache": "no-store",
            "credentials": "omit",
            "signal": controller.signal,
        }
        late = False

        def abort() -> None:
            nonlocal late
            late = True
            controller.abort()

        timer = asyncio.get_running_loop().call_later(seconds, abort)
        try:
            response: Any = await fetch(url, to_js(options, dict_converter=Object.fromEntries))
            timer.cancel()
            timer = asyncio.get_running_loop().call_later(RECEIVING_SECONDS, abort)
            text: str = await response.text()
        except JsException as error:
            message = f"no answer within {seconds:.0f} seconds" if late else _explained(error, url)
            raise NoReply(message, late=late) from None
        except BaseException:
            controller.abort()
            raise
        finally:
            timer.cancel()
        found = {name: value for name in ("retry-after",) if (value := response.headers.get(name))}
        return Reply(response.status, found, text.encode())

    async def close(self) -> None:
        """The browser closes what is idle."""


def _explained(error: BaseException, url: str) -> str:
    from js import location

    where = f"{error}; is there a network, and does the server let {location.origin} read its answers (CORS)?"
    return f"{where} A page of https cannot ask over http." if url.startswith("http:") else where
