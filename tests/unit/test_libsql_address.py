"""URLs of libSQL databases, as people write them."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably_web.backends import open_executor
from durably_web.backends.libsql import LibsqlExecutor
from durably_web.backends.libsql.address import Address, file_of, is_loopback, may_follow, parse
from durably_web.errors import InvalidInput


@pytest.mark.parametrize(
    ("database", "url", "token"),
    [
        ("libsql://app-me.turso.io", "https://app-me.turso.io", None),
        ("libsql://app-me.turso.io/", "https://app-me.turso.io", None),
        ("libsql://app-me.turso.io?authToken=abc.def-_", "https://app-me.turso.io", "abc.def-_"),
        ("https://app-me.turso.io?auth_token=abc", "https://app-me.turso.io", "abc"),
        ("libsql://app-me.turso.io?tls=1&authToken=abc", "https://app-me.turso.io", "abc"),
        ("libsql://host:8443", "https://host:8443", None),
        ("libsql://host:443", "https://host", None),
        ("libsql://sqld:8080?tls=0", "http://sqld:8080", None),
        ("libsql://127.0.0.1:8080?tls=0&authToken=abc", "http://127.0.0.1:8080", "abc"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", None),
        ("http://[::1]:8080", "http://[::1]:8080", None),
        ("http://localhost:8080?authToken=abc", "http://localhost:8080", "abc"),
        ("http://app.localhost:8080/dev/app", "http://app.localhost:8080/dev/app", None),
        ("http://host?tls=1&authToken=abc", "https://host", "abc"),
    ],
)
def test_what_a_url_means(database: str, url: str, token: str | None) -> None:
    assert parse(database, {}) == Address(url, token)


@pytest.mark.parametrize(
    ("database", "advice"),
    [
        ("libsql://", "names no host"),
        ("libsql:///app.db", "names no host"),
        ("libsql://me:SECRET@host", "authToken="),
        ("libsql://host:SECRET", "the port is no number"),
        ("libsql://host:70000", "the port is no number"),
        ("libsql://[SECRET", "not a URL"),
        ("libsql://[SECRET]", "not a URL"),
        ("libsql://host?SECRET", "authToken"),
        ("libsql://host?SECRET==", "authToken"),
        ("libsql://host#authToken=SECRET", "fragment"),
        ("libsql://host#?authToken=SECRET", "fragment"),
        ("libsql://host&authToken=SECRET", "host"),
        ("libsql://host/&authToken=SECRET", "path"),
        ("libsql://me:a/SECRET@host", "port"),
        ("libsql://me/SECRET@host", "path"),
        ("libsql:host?authToken=SECRET", "names no host"),
        ("libsql:SECRET@host", "names no host"),
        ("libsql://name….turso.io", "xn--"),
        ("libsql://name..turso.io", "empty"),
        (f"libsql://{'a' * 64}.turso.io", "too long"),
        ("https://…", "xn--"),
        ("http://127.0.0.256", "host"),
        ("libsql://host?token=SECRET", "authToken"),
        ("libsql://host?tls=yes", "tls=0"),
        ("https://host?tls=0", "http://"),
        ("http://10.0.0.5:8080?authToken=SECRET", "https://"),
        ("libsql://host?tls=0&authToken=SECRET", "https://"),
        ("libsql://host?authToken=SECRET%0Ax", "characters"),
        ("libsql://host?authToken=a%20SECRET", "characters"),
        ("libsql://host#part", "fragment"),
    ],
)
def test_mistakes_are_told_without_the_token(database: str, advice: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(database, {})
    assert advice in str(caught.value)
    assert "SECRET" not in str(caught.value)


@given(
    st.sampled_from(["libsql:", "https:", "http:"]),
    st.lists(st.sampled_from([*":/?#@&=[];.", "//", "host", "8080", "authToken=", "tls=0", "SECRET"]), max_size=12),
)
def test_whatever_is_mistyped_a_token_is_printed_nowhere(scheme: str, parts: list[str]) -> None:
    database = scheme + "".join(parts)
    try:
        address = parse(database, {})
    except InvalidInput as error:
        text = str(error)
        # Where the host or a user's name stands, anything may be one.
        assert "SECRET" not in text or re.search(r"//([^/?#]*@)?[a-zA-Z0-9.]*SECRET", database), text
    else:
        assert httpx.URL(address.url).host


def test_the_token_of_the_environment_is_for_databases_without_one_and_never_sent_in_the_clear() -> None:
    environment = {"TURSO_AUTH_TOKEN": "of-environment"}
    assert parse("libsql://host", environment).token == "of-environment"
    assert parse("libsql://host?authToken=own", environment).token == "own"
    assert parse("http://127.0.0.1:8080", environment).token == "of-environment"
    assert parse("http://sqld:8080", environment).token is None
    assert parse("libsql://host", {"TURSO_AUTH_TOKEN": ""}).token is None


def test_nothing_shows_the_token() -> None:
    assert "SECRET" not in repr(parse("libsql://host?authToken=SECRET", {}))
    assert "SECRET" not in repr(LibsqlExecutor("libsql://host?authToken=SECRET"))


@pytest.mark.parametrize(
    ("origin", "target", "may"),
    [
        ("https://host/v3/pipeline", "https://host/other", True),
        ("https://host/v3/pipeline", "https://host:443/other", True),
        ("https://host", "https://HOST/other", True),
        ("https://host", "https://other", False),
        ("https://host", "https://host.evil", False),
        ("https://host", "https://host:8443", False),
        ("https://host", "http://host", False),
        ("http://localhost:8080", "https://localhost:8443", True),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8081", False),
    ],
)
def test_where_a_token_may_follow(origin: str, target: str, may: bool) -> None:
    assert may_follow(origin, target) is may


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("localhost", True),
        ("app.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("localhost.evil", False),
        ("127.0.0.1.evil", False),
    ],
)
def test_what_stays_on_this_machine(host: str, near: bool) -> None:
    assert is_loopback(host) is near


@pytest.mark.parametrize(
    ("database", "path"),
    [
        ("file:app.db", "app.db"),
        ("file:./data/app.db", "./data/app.db"),
        ("file:/var/app.db", "/var/app.db"),
        ("file:///var/app.db", "/var/app.db"),
        ("file://localhost/var/app.db", "/var/app.db"),
        ("file:my%20app.db", "my app.db"),
        ("file::memory:", ":memory:"),
    ],
)
def test_files(database: str, path: str) -> None:
    assert file_of(database) == path


@pytest.mark.parametrize("database", ["file:", "file://", "file://host/app.db", "file:app.db?mode=ro", "file://app.db"])
def test_urls_that_name_no_file(database: str) -> None:
    with pytest.raises(InvalidInput, match="looks like"):
        file_of(database)


async def test_a_local_file_is_one_of_sqlite(tmp_path: Path) -> None:
    executor = open_executor(f"file://{tmp_path}/app.db", "full")
    assert type(executor).__name__ == "SqliteExecutor"
    await executor.open()
    await executor.close()
    assert (tmp_path / "app.db").exists()


def test_which_urls_are_libsqls() -> None:
    for url in ("libsql://host", "https://host", "http://127.0.0.1:1"):
        assert isinstance(open_executor(url, "full"), LibsqlExecutor)
