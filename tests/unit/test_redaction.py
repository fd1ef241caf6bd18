"""What is stored and told of an exception has no secrets in it, and is otherwise what it was."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durably_web.failures import describe, dump
from durably_web.redaction import redacted, redacted_trace

SECRET = "s3cr3t-Hush.99"

HIDDEN = [
    "https://ann:s3cr3t-Hush.99@api.example.org/v1",
    "https://s3cr3t-Hush.99@api.example.org/v1/items",
    "https://api.example.org/v1?api_key=s3cr3t-Hush.99&page=2#top",
    "https://api.example.org/v1?page=2&X-Amz-Signature=s3cr3t-Hush.99.",
    "GET https://api.example.org/cb#access_token=s3cr3t-Hush.99&state=x failed",
    "postgresql://app:s3cr3t-Hush.99@db.example.org:5432/app",
    "wss://u:s3cr3t-Hush.99@[::1]:8080/socket",
    # The password has what a URL should have escaped.
    "https://ann:p@s3cr3t-Hush.99@api.example.org/",
    "404 Client Error: Not Found for url: http://127.0.0.1:8000/x?token=s3cr3t-Hush.99",
    "HTTPConnectionPool(host='127.0.0.1', port=1): Max retries exceeded with url: /v1/me?k=s3cr3t-Hush.99 (Caused by"
    " NewConnectionError('refused'))",
    "Client error '401 Unauthorized' for url 'https://example.org/?q=s3cr3t-Hush.99'\nFor more information check: x",
    "ClientConnectorError(https://example.org/?a=1&sig=s3cr3t-Hush.99)",
    "Authorization: Bearer s3cr3t-Hush.99",
    "refused {'Authorization': 'Bearer s3cr3t-Hush.99', 'Accept': '*/*'}",
    '{"authorization": "s3cr3t-Hush.99"}',
    "Proxy-Authorization: Basic s3cr3t-Hush.99",
    "the header was Bearer s3cr3t-Hush.99, and it was refused",
    "Cookie: a=b; session=s3cr3t-Hush.99",
    "Set-Cookie: sid=s3cr3t-Hush.99; HttpOnly",
    "X-Api-Key: s3cr3t-Hush.99",
    "bad token=s3cr3t-Hush.99",
    "login(user='ann', password='s3cr3t-Hush.99')",
    "password=s3cr3t-Hush.99, retrying",
    "api_key=s3cr3t-Hush.99&page=3",
    "OPENAI_API_KEY=s3cr3t-Hush.99",
    "{'client_secret': 's3cr3t-Hush.99', 'grant': 'code'}",
    '{"access_token":"s3cr3t-Hush.99","expires_in":3600}',
    "aws_secret_access_key=s3cr3t-Hush.99",
]

UNTOUCHED = [
    "",
    "no such file: /srv/a?b",
    "row 7: expected 3 columns, got 4",
    "step 'save#2' took longer than 10 s",
    "there is no job 'echo'; registered: none",
    "invalid literal for int() with base 10: 'x=1'",
    "SQLITE_IOERR: disk I/O error (10)",
    "Expecting value: line 1 column 1 (char 0)",
    "https://api.example.org/v1/items/7 answered 500",
    "see https://api.example.org/docs#errors.",
    "what? a/b=c",
    "unsupported operand type(s) for +: 'int' and 'str'",
    "the token was refused",
    "Token expected, found '}'",
    "a basic mistake: the password is too short",
    "bearer of bad news",
    "KeyError: 'token'",
    "unexpected keyword argument 'password'",
    "x == y, a=1, tokens=12, total_tokens: 12",
    "the secret of success: practice",
    "mail to ann@example.org",
    "12:30:45 and C:\\data\\ann",
    "größe=12 🦆",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_a_secret_is_hidden(text: str) -> None:
    found = redacted(text)
    assert SECRET not in found and "***" in found
    assert redacted(found) == found


@pytest.mark.parametrize("text", UNTOUCHED)
def test_ordinary_text_stays(text: str) -> None:
    assert redacted(text) == text


def test_what_tells_where_it_was_stays() -> None:
    url = "https://ann:pw@api.example.org:8443/v1/items?api_key=abc&page=2#part"
    assert redacted(f"GET {url}: refused") == (
        "GET https://***@api.example.org:8443/v1/items?api_key=***&page=***#part: refused"
    )
    assert redacted("('https://h/?a=b', 'https://h/?c=d')") == "('https://h/?a=***', 'https://h/?c=***')"
    assert redacted("(see https://h/?a=b).") == "(see https://h/?a=***)."


_PART = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
_SECRETS = st.text(st.sampled_from("abcXYZ0189-._~"), min_size=10, max_size=40).filter(lambda text: text[-1].isalnum())


@given(_PART, _PART, _SECRETS, st.sampled_from(["https", "http", "ftp", "redis", "mongodb+srv"]), st.booleans())
def test_users_and_queries_of_any_url(host: str, path: str, secret: str, scheme: str, in_query: bool) -> None:
    secret = f"{secret}Zz9"
    where = f"{host}.example/{path}"
    url = f"{scheme}://{where}?k={secret}" if in_query else f"{scheme}://u:{secret}@{where}"
    for text in (url, f"failed: {url}", f"<{url}>", f"'{url}'", f"({url}), then", f"{url}\n{url}"):
        found = redacted(text)
        assert secret not in found and where in found, (text, found)


@given(
    st.sampled_from(["token", "api_key", "API-KEY", "password", "client_secret", "my_access_token", "pwd"]), _SECRETS
)
def test_any_value_behind_such_a_name(name: str, secret: str) -> None:
    secret = f"{secret}Zz9"
    for text in (
        f"{name}={secret}",
        f"x({name}='{secret}', b=2)",
        f"{{'{name}': '{secret}', 'b': 2}}",
        f'"{name}": "{secret}"',
    ):
        assert secret not in redacted(text), text


@given(st.text(max_size=200))
@example("://")
@example("a://?=&=#=@")
@example("http://[::1]?")
@example("?=/?=/?=")
def test_any_text_is_read(text: str) -> None:
    found = redacted(text)
    assert redacted(found) == found
    if not set(text) & set("=:?") and "earer" not in text.lower():
        assert len(found) <= len(text) + 3 * len(text)


@given(st.text(st.sampled_from("/?=a& #:@'\"\n."), max_size=3000))
def test_it_takes_no_time(text: str) -> None:
    """No pattern that walks back and forth: hypothesis has a deadline for each example."""
    redacted(text)


def test_what_is_stored_of_an_exception() -> None:
    error = ConnectionError("https://u:p4ssw0rd@h.example/?key=abcdef12")
    assert describe(error) == "ConnectionError: https://***@h.example/?key=***"
    assert "p4ssw0rd" not in str(dump(error)) and "abcdef12" not in str(dump(error))
    assert "p4ssw0rd" in str(error), "the job's own exception is as it was"


def test_a_trace_keeps_its_lines() -> None:
    def ask(token: str) -> None:
        raise ValueError(f"token={token} was refused by https://h.example/?token={token}")

    with pytest.raises(ValueError) as raised:
        ask(token="abc123def")
    found = redacted_trace(traceback.format_exception(raised.value))
    assert "raise ValueError" in found and 'File "' in found and "line " in found
    assert found.rstrip().endswith("ValueError: token=*** was refused by https://h.example/?token=***")
