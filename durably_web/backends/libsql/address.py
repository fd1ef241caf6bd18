"""Where a libSQL database is, and the token that opens it, from one URL."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from durably_web.errors import InvalidInput

TOKEN_VARIABLE = "TURSO_AUTH_TOKEN"
"""The environment variable with the token of a database whose URL has none."""

_TOKEN_PARAMETERS = ("authToken", "auth_token")
_PORTS = {"https": 443, "http": 80}


class Address(NamedTuple):
    """`url` is `http(s)://host[:port][/path]`, without a secret, so that it can be shown."""

    url: str
    token: str | None

    def __repr__(self) -> str:
        return f"Address({self.url!r}, {'with' if self.token else 'without'} a token)"


def parse(database: str, environment: Mapping[str, str]) -> Address:
    """The address that a URL names: `libsql://`, `https://` or `http://`. Raises `InvalidInput`, without the token."""
    scheme, _, rest = database.partition("://")
    shown = f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
    try:
        parts = urlsplit(database)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"{shown} is not a URL: {error}") from None
    if not host:
        raise InvalidInput(f"{shown} names no host: a libSQL database looks like libsql://name-owner.turso.io")
    if parts.username is not None or parts.fragment:
        raise InvalidInput(f"{shown}: a user, a password or a fragment is of no use; a token goes into ?authToken=")
    token, tls = _parameters(parts.query, shown)
    if scheme == "libsql":
        scheme = "https" if tls else "http"
    elif scheme == "http" and tls:
        scheme = "https"
    elif scheme == "https" and tls is False:
        raise InvalidInput(f"{shown} has ?tls=0: write http:// for a server without TLS")
    plain = scheme == "http" and not is_loopback(host)
    if token and plain:
        raise InvalidInput(
            f"{shown}: the token would travel readable for everybody between here and there; "
            "use libsql:// or https://, or no token"
        )
    if token is None and not plain:
        token = environment.get(TOKEN_VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidInput(f"{shown}: the token has characters that no token has; was it cut, or quoted?")
    name = f"[{host}]" if ":" in host else host
    at = "" if port is None or port == _PORTS[scheme] else f":{port}"
    return Address(f"{scheme}://{name}{at}{quote(parts.path.rstrip('/'), safe='/%')}", token)


def _parameters(query: str, shown: str) -> tuple[str | None, bool | None]:
    token, tls = None, None
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _TOKEN_PARAMETERS:
            token = value or None
        elif name == "tls" and value in ("0", "1"):
            tls = value == "1"
        else:
            raise InvalidInput(f"{shown} has a parameter {name!r}; it may have authToken, and tls=0 or tls=1")
    # libsql:// means TLS unless it says otherwise.
    return token, (True if tls is None and shown.startswith("libsql:") else tls)


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host stays on this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_follow(origin: str, target: str) -> bool:
    """Whether a request to `origin` that has a token may go on to `target`: the same host, and not less safe."""
    one, other = urlsplit(origin), urlsplit(target)
    if one.hostname != other.hostname:
        return False
    if one.scheme == other.scheme:
        return _port(origin) == _port(target)
    return one.scheme == "http" and other.scheme == "https"


def _port(url: str) -> int | None:
    parts = urlsplit(url)
    return parts.port or _PORTS.get(parts.scheme)


def file_of(database: str) -> str:
    """The path that a `file:` URL of libSQL names: `file:app.db`, `file:///var/app.db`, `file::memory:`."""
    path, mark, _ = database.removeprefix("file:").partition("?")
    if path.startswith("//"):
        host, slash, rest = path[2:].partition("/")
        if host not in ("", "localhost") or not slash:
            raise InvalidInput(f"a file's URL looks like file:app.db or file:///var/app.db, not {database!r}")
        path = f"/{rest}"
    if not path or mark:
        raise InvalidInput(f"a file's URL looks like file:app.db or file:///var/app.db, without ?…, not {database!r}")
    return unquote(path)
