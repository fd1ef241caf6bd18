"""`/process`: where nobody works all the time, a call from outside now and then does, such as one of a cron job."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from durably_web.api import parsing
from durably_web.api.parsing import BadRequest
from durably_web.server.answers import json_response
from durably_web.server.limits import Limits, body_of, check_query, query_of
from durably_web.server.openapi import WHOLE, object_of, ref, responses

if TYPE_CHECKING:
    from starlette.responses import Response

    from durably_web.engine import Durably

FIELDS = ("maxRuns", "maxMs")


class Processing:
    """Executes what is due, for whoever knows the secret: `Authorization: Bearer <secret>`.

    Vercel Cron sends a GET, crontabs and schedulers a POST. Raises `ValueError` for a secret that is none.
    """

    paths = ("/process",)
    methods = ("GET", "POST")

    def __init__(self, durably: Durably, secret: str, limits: Limits) -> None:
        if not secret or secret != secret.strip():
            # Also the "" of an environment without it: everybody would know that one.
            raise ValueError("cron_secret must be a text that is not empty, without white space around it")
        self._durably = durably
        self._secret = secret.encode()
        self._limits = limits

    async def admit(self, request: HttpRequest) -> None:
        """Raises `HTTPException` for who does not know the secret, before anything of the request is looked at."""
        # Starlette reads headers as latin-1; these are the bytes that were sent.
        scheme, _, given = request.headers.get("authorization", "").encode("latin-1").partition(b" ")
        if not (hmac.compare_digest(given.strip(), self._secret) and scheme.lower() == b"bearer"):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "send the header Authorization: Bearer, with the secret", challenge)
        if request.method == "HEAD":
            raise HTTPException(405, "a HEAD changes nothing, so there is none here", {"Allow": "GET, POST"})

    async def answer(self, request: HttpRequest) -> Response:
        query = query_of(request)
        check_query(query, self._limits)
        parsing.check_query(query, FIELDS, (), "/process")
        body = None if request.method == "GET" else await body_of(request, "/process", self._limits)
        fields = {} if body is None else parsing.fields(body, "the body", FIELDS)
        if twice := query.keys() & fields.keys():
            raise BadRequest(f"{', '.join(sorted(twice))} is in the path and in the body: give it once")
        limits = self._limits
        max_runs = self._up_to("maxRuns", query, fields, limits.process_runs)
        max_ms = self._up_to("maxMs", query, fields, int(limits.process_seconds * 1000))
        found = await self._durably.process(max_runs=max_runs, max_seconds=max_ms / 1000)
        return json_response(found.to_wire())

    def refused(self, error: Exception) -> Response | None:
        return None

    def operations(self) -> dict[str, Any]:
        limits = self._limits
        fields = {
            "maxRuns": WHOLE | {"maximum": limits.process_runs},
            "maxMs": WHOLE | {"maximum": int(limits.process_seconds * 1000)},
        }
        body = {"schema": object_of("", **fields) | {"additionalProperties": False}}

        def operation(method: str) -> dict[str, Any]:
            return {
                "operationId": f"{method}Process",
                "summary": "Execute what is due, and tell what is left",
                "security": [{"cronSecret": []}],
                "parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()],
                "responses": responses(ref("Processed")),
            }

        post = operation("post") | {"requestBody": {"required": False, "content": {"application/json": body}}}
        return {"/process": {"get": operation("get"), "post": post}}

    def keys(self) -> dict[str, Any]:
        return {"cronSecret": {"type": "http", "scheme": "bearer"}}

    def _up_to(self, name: str, query: dict[str, Any], fields: dict[str, Any], most: int) -> int:
        given = parsing.count(fields[name], name) if name in fields else parsing.whole(query, name)
        if given is None:
            return most
        if given > most:
            raise BadRequest(f"{name} must be at most {most}: the limit of this server")
        return given
