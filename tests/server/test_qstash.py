"""Messages of Upstash QStash: signed as QStash does it, and all that somebody else could send."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably_web import Durably
from durably_web.server import Limits, QStash, create_app

URL = "https://app.example/api/durably"
CURRENT, NEXT = "sig_current_0123456789abcdefghijklmno", "sig_next_0123456789abcdefghijklmnopqr"
OTHER = "sig_other_0123456789abcdefghijklmnopq"
HOPELESS = "upstash-nonretryable-error"

Direct = Callable[..., httpx.AsyncClient]


def qstash(url: str = URL, **options: Any) -> QStash:
    return QStash(url, **{"current_signing_key": CURRENT, "next_signing_key": NEXT, **options})


def signature(content: bytes, *, path: str = "/qstash", key: str = CURRENT, age: int = 0, **claims: Any) -> str:
    """As the documentation of QStash has it: HS256, five minutes, the hash of the body in base64 for URLs."""
    now = int(time.time()) - age
    payload = {
        "iss": "Upstash",
        "sub": URL + path,
        "exp": now + 300,
        "nbf": now,
        "iat": now,
        "jti": f"jwt_{time.perf_counter_ns()}",
        "body": base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode(),
        **claims,
    }
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, key, algorithm="HS256")


async def deliver(
    client: httpx.AsyncClient,
    content: Any = None,
    *,
    path: str = "/qstash",
    message: str | None = "msg_1",
    signed: str | None = None,
    **options: Any,
) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {
        "Upstash-Signature": signature(body, path=path, **options) if signed is None else signed,
        "Content-Type": "text/plain",
        "Upstash-Retried": "0",
    }
    if message is not None:
        headers["Upstash-Message-Id"] = message
    return await client.post(path, content=body, headers=headers)


ASKED = {"jobName": "echo", "input": {"n": 1}}


async def test_a_message_is_a_run(direct: Direct, durably: Durably) -> None:
    client = direct(qstash=qstash())
    answer = await deliver(client, {**ASKED, "labels": {"org": "acme"}, "priority": 3})
    assert answer.status_code == 200 and answer.json()["disposition"] == "created", answer.text
    run = await durably.wait_for_run(answer.json()["runId"], timeout=20)
    assert (run.output, run.labels, run.priority) == ({"n": 1}, {"org": "acme"}, 3)
    assert run.idempotency_key == "qstash msg_1"


async def test_the_job_may_be_in_the_path(direct: Direct, durably: Durably) -> None:
    client = direct(qstash=qstash())
    for content in ({"n": 2}, b""):
        answer = await deliver(client, content, path="/qstash/echo", message=f"msg_{content!r}")
        run = await durably.wait_for_run(answer.json()["runId"], timeout=20)
        assert (run.job_name, run.output) == ("echo", {"n": 2} if content else {})


async def test_a_message_that_comes_again_is_the_same_run(direct: Direct, durably: Durably) -> None:
    """Word for word, with the signature of another attempt, at the same time, and after its run has ended."""
    client = direct(qstash=qstash())
    signed = signature(json.dumps(ASKED).encode())
    answers = await asyncio.gather(*(deliver(client, ASKED, signed=signed) for _ in range(3)))
    answers.append(await deliver(client, ASKED))
    await durably.wait_for_run(answers[0].json()["runId"], timeout=20)
    answers.append(await deliver(client, ASKED))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["runId"] for answer in answers}) == 1
    assert len(await durably.get_runs()) == 1
    other = await deliver(client, ASKED, message="msg_2")
    assert other.json()["disposition"] == "created" and len(await durably.get_runs()) == 2


async def test_a_message_that_was_seen_cannot_be_sent_again_as_another_one(direct: Direct, durably: Durably) -> None:
    """Its id is not signed; the token that was made for it is."""
    client = direct(qstash=qstash())
    signed = signature(json.dumps(ASKED).encode())
    first = await deliver(client, ASKED, signed=signed)
    again = await deliver(client, ASKED, signed=signed, message="msg_of_somebody_else")
    assert again.json()["runId"] == first.json()["runId"]
    assert len(await durably.get_runs()) == 1


async def test_a_key_of_the_senders_own_counts(direct: Direct, durably: Durably) -> None:
    client = direct(qstash=qstash())
    for message in ("msg_1", "msg_2"):
        answer = await deliver(client, {**ASKED, "idempotencyKey": "order 7"}, message=message)
        assert answer.status_code == 200
    [run] = await durably.get_runs()
    assert run.idempotency_key == "order 7"


async def test_both_keys_count_so_that_they_can_be_rotated(direct: Direct) -> None:
    before, after = direct(qstash=qstash()), direct(qstash=qstash(current_signing_key=NEXT, next_signing_key=OTHER))
    assert (await deliver(before, ASKED, key=NEXT, message="a")).status_code == 200, "the console rotated first"
    assert (await deliver(after, ASKED, key=NEXT, message="b")).status_code == 200
    assert (await deliver(after, ASKED, key=CURRENT, message="c")).status_code == 401, "the old one is gone"


BODY = json.dumps(ASKED).encode()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"key": OTHER}, "Signature verification failed"),
        ({"age": 400}, "expired"),
        ({"age": -60}, "not yet valid"),
        ({"iss": "Somebody"}, "issuer"),
        ({"sub": "https://app.example/api/durably/trigger"}, "another address"),
        ({"sub": "https://other.example/api/durably/qstash"}, "another address"),
        ({"sub": "http://app.example/api/durably/qstash"}, "another address"),
        ({"sub": "/api/durably/qstash"}, "another address"),
        ({"path": "/qstash/echo"}, "another address"),
        ({"content": BODY + b" "}, "body hash"),
        ({"body": None}, ""),
        ({"body": 7}, ""),
        ({"nbf": None}, "nbf"),
        ({"exp": None}, "exp"),
        ({"sub": None}, "sub"),
    ],
)
async def test_what_qstash_has_not_signed_is_refused(
    direct: Direct, durably: Durably, given: dict[str, Any], why: str
) -> None:
    # With the key that is tried last: its answer is the one that is told.
    signed = signature(**{"content": BODY, "key": NEXT, **given})
    answer = await deliver(direct(qstash=qstash()), BODY, signed=signed)
    assert answer.status_code == 401 and why in answer.json()["error"], answer.text
    assert HOPELESS not in answer.headers, "keys that are wrong here can be corrected, and the message is still there"
    assert await durably.get_runs() == []


@pytest.mark.parametrize("kind", ["unsigned", "not.a.token", "x", ""])
async def test_nor_is_something_else_a_signature(direct: Direct, durably: Durably, kind: str) -> None:
    head, body, _ = signature(BODY).split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    for signed in (f"{unsigned}.{body}.", f"{head}.{body}.") if kind == "unsigned" else (kind,):
        assert (await deliver(direct(qstash=qstash()), BODY, signed=signed)).status_code == 401
    assert await durably.get_runs() == []


async def test_a_body_that_was_changed_on_the_way_is_refused(direct: Direct, durably: Durably) -> None:
    client = direct(qstash=qstash())
    signed = signature(json.dumps(ASKED).encode())
    assert (await deliver(client, {**ASKED, "input": {"n": 1000}}, signed=signed)).status_code == 401
    signed = signature(b'{"n": 1}', path="/qstash/echo")
    assert (await deliver(client, b'{"n": 1}', path="/qstash/ask", signed=signed)).status_code == 401
    assert (await client.post("/qstash", json=ASKED)).status_code == 401
    assert await durably.get_runs() == []


@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        (b"not json", {}, "not JSON"),
        (b"", {}, "must be a JSON object"),
        ([], {}, "must be a JSON object"),
        ({"input": {}}, {}, "jobName"),
        ({**ASKED, "prio": 1}, {}, "prio"),
        ({**ASKED, "input": 5}, {}, ""),
        (ASKED, {"message": None}, "Upstash-Message-Id"),
        (ASKED, {"message": "x" * 600}, "Upstash-Message-Id"),
        (b"\xff\xfe", {}, "UTF-8"),
        (b"[" * 200 + b"]" * 200, {}, "deep"),
        ({"jobName": "echo", "input": {"text": "x" * 3000}}, {}, "bytes"),
    ],
)
async def test_what_cannot_get_better_is_not_sent_again(
    direct: Direct, durably: Durably, content: Any, options: dict[str, Any], why: str
) -> None:
    answer = await deliver(direct(qstash=qstash(), limits=Limits(body=2000)), content, **options)
    assert answer.status_code == 489 and answer.headers[HOPELESS] == "true", answer.text
    assert why in answer.json()["error"]
    assert await durably.get_runs() == []


async def test_what_can_get_better_is_sent_again(direct: Direct, durably: Durably) -> None:
    client = direct(qstash=qstash())
    unknown = await deliver(client, {"jobName": "of the next release"})
    assert unknown.status_code == 404 and HOPELESS not in unknown.headers
    taken = {**ASKED, "concurrencyKey": "one", "delayMs": 60_000}
    assert (await deliver(client, taken)).status_code == 200
    conflict = await deliver(client, taken, message="msg_2")
    assert conflict.status_code == 409 and HOPELESS not in conflict.headers
    await durably.stop()
    closed = await deliver(client, ASKED, message="msg_3")
    assert closed.status_code == 503 and HOPELESS not in closed.headers


async def test_it_is_there_for_an_author_who_gave_keys_and_does_not_ask_auth(direct: Direct) -> None:
    class Nobody:
        def authenticate(self, request: Any) -> None:
            raise PermissionError

    assert (await deliver(direct(), ASKED)).status_code == 404
    client = direct(qstash=qstash(), auth=Nobody())
    assert (await deliver(client, ASKED)).status_code == 200
    assert (await client.get("/qstash")).status_code == 405


@pytest.mark.parametrize(
    ("url", "options", "why"),
    [
        ("app.example/api", {}, "url"),
        ("https://app.example/api?x=1", {}, "url"),
        (URL, {"current_signing_key": ""}, "current_signing_key"),
        (URL, {"next_signing_key": " "}, "next_signing_key"),
        (URL, {"next_signing_key": None}, "next_signing_key"),
    ],
)
def test_keys_that_are_none_are_refused(url: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        qstash(url, **options)


async def test_the_address_counts_as_qstash_calls_it(direct: Direct) -> None:
    """Behind proxies the request has another one; a slash at the end, or an escape, makes no difference."""
    client = direct(qstash=qstash(f"{URL}/"))
    for number, (path, sub) in enumerate(
        [("/qstash", "/qstash/"), ("/qstash/", "/qstash"), ("/qstash/echo", "/qstash/%65cho")]
    ):
        answer = await deliver(client, ASKED, path=path, message=f"msg_{number}", sub=URL + sub)
        assert answer.status_code == 200, (path, sub, answer.text)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["jobName", "input", "labels", "priority", "delayMs", "runAt", "x"]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=10,
        ),
    )
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_signed_is_stored_or_refused(content: Any) -> None:
    async def send() -> int:
        async with Durably(":memory:", jobs=[]) as durably:
            app = create_app(durably, qstash=qstash())
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
                return (await deliver(client, content)).status_code

    assert asyncio.run(send()) in (404, 489)
