"""Connections that only look, where what answers is no database."""

from __future__ import annotations

import httpx
import pytest

from durably_web.cli.looking_at_libsql import LibsqlLook
from durably_web.cli.mistakes import Mistake


@pytest.mark.parametrize(
    "body", ["<html>Welcome</html>", "[]", "{}", '{"results": []}', '{"results": [{"type": "ok"}]}']
)
def test_a_web_server_that_is_no_database_is_a_mistake(body: str) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=body))
    with httpx.Client(transport=transport) as client, pytest.raises(Mistake, match="is not the URL of a libSQL server"):
        LibsqlLook(client, "http://here").execute("SELECT 1")
