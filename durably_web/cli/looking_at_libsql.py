"""Questions to a libSQL server that change nothing: it says itself which statements only read."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from durably_web.cli.looking import NotTold
from durably_web.cli.mistakes import Mistake
from durably_web.errors import RequirementFailed

_PATIENCE = 30.0


class Rows(NamedTuple):
    description: list[tuple[str]]
    rows: list[tuple[Any, ...]]

    def fetchall(self) -> list[Any]:
        return self.rows

    def fetchmany(self, size: int, /) -> list[Any]:
        return self.rows[:size]


class LibsqlLook:
    """Each question is two requests, since what a statement does has to be known before it is done."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self.url = url

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Rows:
        """Raises `NotTold`, also for what does more than read."""
        described = self._request({"type": "describe", "sql": sql})
        if not described["is_readonly"]:
            raise NotTold("not authorized: it changes something")
        statement = {"sql": sql, "args": [_wire(value) for value in values], "want_rows": True}
        result = self._request({"type": "execute", "stmt": statement})
        rows = [tuple(_value(cell) for cell in row) for row in result["rows"]]
        return Rows([(column.get("name") or "",) for column in result["cols"]], rows)

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        import httpx

        from durably_web.backends.libsql.over_httpx import resolved

        url, headers = resolved(f"{self.url}/v2/pipeline", {})
        try:
            response = self._client.post(url, json={"requests": [request, {"type": "close"}]}, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            raise Mistake(f"{self.url} cannot be reached: {str(error) or type(error).__name__}") from None
        if response.status_code in (401, 403):
            raise Mistake(f"{self.url} does not take the token, or none was given: put it into TURSO_AUTH_TOKEN")
        if response.status_code != 200:
            raise Mistake(f"{self.url} answers {response.status_code}: {response.text[:200]}")
        try:
            result = response.json()["results"][0]
            if result["type"] == "error":
                raise NotTold(str(result["error"]["message"]))
            found: dict[str, Any] = result["response"]["result"]
        except (ValueError, LookupError, TypeError):
            raise Mistake(f"{self.url} is not the URL of a libSQL server: it answers something else") from None
        return found


def _wire(value: Any) -> dict[str, Any]:
    if value is None:
        return {"type": "null"}
    return {"type": "integer", "value": str(value)} if isinstance(value, int) else {"type": "text", "value": str(value)}


def _value(cell: dict[str, Any]) -> Any:
    match cell["type"]:
        case "null":
            return None
        case "integer":
            return int(cell["value"])
        case "blob":
            return base64.b64decode(cell["base64"] + "==")
        case _:
            return cell["value"]


@contextlib.contextmanager
def look_at_libsql(database: str) -> Iterator[LibsqlLook]:
    """Raises `Mistake` when there is no answer, at the first question."""
    try:
        import httpx
    except ImportError:
        raise RequirementFailed('libSQL needs httpx: pip install "durably-web[libsql]"') from None
    from durably_web.backends.libsql.address import parse
    from durably_web.backends.libsql.over_httpx import uses_environment

    address = parse(database, os.environ)
    headers = {} if address.token is None else {"authorization": f"Bearer {address.token}"}
    with httpx.Client(headers=headers, timeout=_PATIENCE, trust_env=uses_environment(address.url)) as client:
        yield LibsqlLook(client, address.url)
