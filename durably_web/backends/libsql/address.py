"""Where a libSQL database is, and the token that opens it, from one URL."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from durably_web.errors import InvalidInput

TOKEN_VARIABLE = "TURSO_AUTH_TOKEN"
"""The environment variable with the token of a database whose URL has none."""

_TOKEN_PARAMETERS = ("authToken", "auth_token")
_PORTS = {"https": 443, "http": 80}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
# The scheme, the host and the port. What stands elsewhere, or is longer than a port, could be a token.
_SHOWN = re.compile(r"([A-Za-z]*:)//(?:[^/?#]*@)?(\[[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]*)(:[0-9]{1,5}(?![^/?#]))?")


class Address(NamedTuple):
    """`url` is `http(s)://host[:port][/path]`, without a secret, so that it can be shown."""

    url: str
    token: str | None

    def __repr__(self) -> str:
        return f"Address({self.url!r}, {'with' if self.token else 'without'} a token)"


def parse(database: str, environment: Mapping[str, str]) -> Address:
    """The address that a URL names: `libsql://`, `https://` or `http://`. Raises `InvalidInput`, without the token."""
    scheme, shown = database.partition(":")[0], _shown(database)
    try:
        host, port = host_and_port(database)
    except ValueError as error:
        raise InvalidInput(f"{shown} is not a URL: {error}") from None
    if not host:
        raise InvalidInput(f"{shown} names no host: a libSQL database looks like libsql://name-owner.turso.io")
    parts = urlsplit(database)
    if parts.username is not None or parts.fragment:
        raise InvalidInput(f"{shown}: a user, a password or a fragment is of no use; a token goes into ?authToken=")
    if set(parts.path) & set("@=&"):
        raise InvalidInput(
            f"{shown}: its path has an @, a = or a &, as no path has here; a token goes into ?authToken="
        )
    token, tls = _parameters(parts.query, scheme, shown)
    if scheme == "libsql":
        scheme = "https" if tls else "http"
    elif scheme == "http" and tls:
        scheme = "https"
    elif scheme == "https" and tls is False:
        raise InvalidInput(f"{shown} has ?tls=0: write http:// for a server without TLS")
    name = f"[{host}]" if ":" in host else host
    at = "" if port is None or port == _PORTS[scheme] else f":{port}"
    url = f"{scheme}://{name}{at}{quote(parts.path.rstrip('/'), safe='/%')}"
    plain = is_plain(url)
    if token and plain:
        raise InvalidInput(
            f"{shown}: the token would travel readable for everybody between here and there; "
            "use libsql:// or https://, or no token"
        )
    if token is None and not plain:
        token = environment.get(TOKEN_VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidInput(f"{shown}: the token has characters that no token has; was it cut, or quoted?")
    return Address(url, token)


def _shown(database: str) -> str:
    """What of a URL can be printed, however wrong it is: no token is in it, wherever that was written."""
    found = _SHOWN.match(database)
    return database.partition(":")[0] + ":" if found is None else f"{found[1]}//{found[2]}{found[3] or ''}"


def host_and_port(url: str) -> tuple[str, int | None]:
    """Where a URL leads; the host is empty where it names none. Raises `ValueError`, with nothing of the URL in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("its host is in brackets, and no address") from None
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port is no number up to 65535") from None
    host = parts.hostname or ""
    if host and not _is_host(host):
        raise ValueError(
            "its host has a part that is empty, too long, or not of a-z, 0-9, - and _; other letters stand as xn--…"
        )
    return host, port


def _is_host(host: str) -> bool:
    if ":" not in host and not re.fullmatch(r"[0-9.]+", host):
        return _NAME.fullmatch(host) is not None
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _parameters(query: str, scheme: str, shown: str) -> tuple[str | None, bool | None]:
    token, tls = None, None
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _TOKEN_PARAMETERS:
            token = value or None
        elif name == "tls" and value in ("0", "1"):
            tls = value == "1"
        else:
            # Not which one: it may be a token without its name.
            raise InvalidInput(f"{shown} has another parameter than authToken=…, and tls=0 or tls=1")
    # libsql:// means TLS unless it says otherwise.
    return token, (True if tls is None and scheme == "libsql" else tls)


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host stays on this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_plain(url: str) -> bool:
    """Whether anybody on the way can read what is sent there: no token is."""
    return url.startswith("http://") and not is_loopback(urlsplit(url).hostname or "")


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
