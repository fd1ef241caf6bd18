"""Messages of Upstash QStash, each of which asks for a run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from durably_web.api import parsing, routes
from durably_web.api.parsing import BadRequest, Request
from durably_web.errors import InvalidInput, NotSerializable
from durably_web.ids import counted_up, first_id
from durably_web.server.answers import json_response
from durably_web.server.limits import Limits, TooLarge, bytes_of, check_query, parsed, query_of
from durably_web.server.openapi import ANY, TEXT, ref, responses

if TYPE_CHECKING:
    from starlette.responses import Response

    from durably_web.engine import Durably

# What sending the message again cannot mend: QStash puts it into its dead letter queue at once.
_HOPELESS = (BadRequest, InvalidInput, NotSerializable, TooLarge)
HOPELESS_STATUS = 489
HOPELESS_HEADER = {"Upstash-NonRetryable-Error": "true"}

# A ULID has so many bytes beside its time.
_BYTES_OF_AN_ID = 10


class QStash:
    """Lets QStash ask for runs: `create_app(durably, qstash=QStash("https://my.app/api/durably", …))`.

    `url` is the address at which the application is mounted, as QStash calls it: a message that was signed for another
    one is refused. The keys are the two signing keys of your account; both count, so that they can be rotated.
    A message is valid from the second in which it was sent: keep the clock in time (NTP). One that comes before that by
    this machine's clock is refused, and QStash sends it again. Needs `pip install "durably-web[qstash]"`.
    """

    def __init__(self, url: str, *, current_signing_key: str, next_signing_key: str) -> None:
        for name, key in (("current_signing_key", current_signing_key), ("next_signing_key", next_signing_key)):
            if not key or not key.strip():
                raise ValueError(f"{name} is missing: Upstash's console has it, and without it anybody could sign")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(f"url is the address of the application, such as https://my.app/api/durably, not {url!r}")
        try:
            import jwt
            from qstash import Receiver
        except ImportError as error:
            raise ImportError('messages of QStash need another package: pip install "durably-web[qstash]"') from error
        self._receiver = Receiver(current_signing_key, next_signing_key)
        self._decode = jwt.decode
        self._place = (parts.scheme, parts.netloc)
        self._path = unquote(parts.path).rstrip("/")

    def verify(self, signature: str, body: str, path: str) -> dict[str, Any]:
        """The claims of a signature of this body, for this path below the application. Raises `HTTPException`."""
        from qstash.errors import SignatureError

        try:
            self._receiver.verify(signature=signature, body=body)
        except (SignatureError, KeyError, AttributeError) as error:
            # The library trusts that what is signed right has a body, and that it is a text.
            raise HTTPException(401, f"Upstash-Signature is not valid: {error}") from None
        claims: dict[str, Any] = self._decode(signature, options={"verify_signature": False})
        # Not by the address of this request, which has been through proxies, and whose host is the sender's choice.
        asked = urlsplit(str(claims["sub"]))
        meant = unquote(asked.path).rstrip("/")
        if (asked.scheme, asked.netloc) != self._place or meant != (self._path + path).rstrip("/"):
            raise HTTPException(401, "Upstash-Signature is for another address")
        return claims


class Receiving:
    """`/qstash`, whose body is that of `/trigger`, and `/qstash/JOB`, whose body is the input of that job.

    One message is one run, however often it comes: its id is the idempotency key. It is answered with 200 once the run
    is stored; with 489 where sending it again cannot help, so that QStash does not; and otherwise with a status that
    QStash tries again after: also where the job is not known, since a deploy may be under way.
    """

    paths = ("/qstash", "/qstash/", "/qstash/{job:path}")
    methods = ("POST",)

    def __init__(self, durably: Durably, qstash: QStash, limits: Limits) -> None:
        self._durably = durably
        self._qstash = qstash
        self._limits = limits

    async def admit(self, request: HttpRequest) -> None:
        body = await bytes_of(request, self._limits)
        signature = request.headers.get("upstash-signature")
        if not signature:
            raise HTTPException(401, "the header Upstash-Signature is missing")
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise BadRequest("the body must be JSON, as UTF-8") from None
        job = request.path_params.get("job", "")
        request.state.body = body
        request.state.claims = self._qstash.verify(signature, text, f"/qstash/{job}")

    async def answer(self, request: HttpRequest) -> Response:
        query = query_of(request)
        check_query(query, self._limits)
        parsing.check_query(query, (), (), "/qstash")
        job, input, options = self._asked(request)
        message_id = request.headers.get("upstash-message-id", "")
        if not message_id or len(message_id) > self._limits.name:
            raise BadRequest("the header Upstash-Message-Id is missing, or too long")
        # A key of the message's body counts more: it is what its sender takes for the same.
        options.setdefault("idempotency_key", f"qstash {message_id}")
        handle = await self._durably.trigger(job, input, request_id=_request_id(request.state.claims), **options)
        return json_response(routes.made(handle))

    def _asked(self, request: HttpRequest) -> tuple[str, Any, dict[str, Any]]:
        body, job = request.state.body, request.path_params.get("job", "")
        if job:
            return job, parsed(body, "/qstash", self._limits) if body else None, {}
        asked = parsed(body, "/trigger", self._limits) if body else None
        return routes.trigger_asked(Request("POST", "/trigger", {}, asked))

    def refused(self, error: Exception) -> Response | None:
        if not isinstance(error, _HOPELESS):
            return None
        return json_response({"error": str(error), "name": type(error).__name__}, HOPELESS_STATUS, HOPELESS_HEADER)

    def operations(self) -> dict[str, Any]:
        def operation(name: str, body: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
            hopeless = {"description": "sending it again cannot help"}
            return {
                "operationId": name,
                "summary": "A message of Upstash QStash asks for a run",
                "security": [{"qstashSignature": []}],
                "parameters": [
                    *parameters,
                    {"name": "Upstash-Message-Id", "in": "header", "required": True, "schema": TEXT | {"minLength": 1}},
                ],
                "requestBody": {"required": False, "content": {"application/json": {"schema": body}}},
                "responses": responses(ref("Triggered")) | {str(HOPELESS_STATUS): responses(ANY)["400"] | hopeless},
            }

        job = {"name": "job", "in": "path", "required": True, "schema": TEXT | {"minLength": 1}}
        return {
            "/qstash": {"post": operation("postQstash", ref("Trigger"))},
            "/qstash/{job}": {"post": operation("postQstashJob", ANY, job)},
        }

    def keys(self) -> dict[str, Any]:
        return {"qstashSignature": {"type": "apiKey", "in": "header", "name": "Upstash-Signature"}}


def _request_id(claims: dict[str, Any]) -> str | None:
    """Of the signature, which the message's id is no part of: sent again under another id, it is the same request."""
    unique = claims.get("jti")
    if not isinstance(unique, str) or not unique:
        return None
    number = int.from_bytes(hashlib.sha256(unique.encode()).digest()[:_BYTES_OF_AN_ID], "big")
    return counted_up(first_id(int(claims["nbf"]) * 1000), number)
