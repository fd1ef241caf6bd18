"""Where a PostgreSQL database is, from one URL."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from durably_web.errors import InvalidInput

_SHOWN = ("host", "port", "dbname", "user")
_OURS = ("schema", "isolation")
_SECRET = ("password", "sslpassword")


class Address(NamedTuple):
    """`conninfo` is what libpq takes, with its secrets; `shown` has none of them. `schema` is where the tables are;
    without one they are in the first of the role's `search_path`. `serializable`: how writes keep apart, which is the
    same for all who write in a schema: the one or the other would not see the locks it does not take."""

    conninfo: str
    schema: str | None
    shown: str
    secrets: tuple[str, ...]
    serializable: bool = False

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    def hide(self, text: str) -> str:
        """What the server or the driver said, without the password, should they have repeated it."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())


def parse(database: str) -> Address:
    """The address that a URL names: what libpq takes, `?schema=` and `?isolation=`. Raises `InvalidInput`, in which is
    no password."""
    scheme = database.partition("://")[0]
    try:
        parts = urlsplit(database)
        parameters = parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True)
    except ValueError:
        raise InvalidInput(f"what begins with {scheme}:// is not a URL") from None
    login, _, host = parts.netloc.rpartition("@")
    if "@" in parts.path + parts.query + parts.fragment or parts.fragment:
        # It is not clear what of it is a password.
        raise InvalidInput(f"{scheme}://…: write @ as %40, / as %2F, ? as %3F and # as %23 in users and passwords")
    told = [f"{name}={value}" for name, value in parameters if name in _SHOWN]
    shown = f"{scheme}://{host}{parts.path}" + ("?" + "&".join(told) if told else "")
    schemas = [value for name, value in parameters if name == "schema"]
    if schemas and not _is_schema(schemas[-1]):
        raise InvalidInput(
            f"{shown} has a ?schema= that is none: name the one for the tables, as ?schema=durably, "
            "in at most 63 bytes, and not as PostgreSQL names its own"
        )
    isolations = [value for name, value in parameters if name == "isolation"]
    if not {"serializable", "read-committed"}.issuperset(isolations):
        raise InvalidInput(f"{shown} has an ?isolation= that is none: serializable, or read-committed as without it")
    secrets = [value for name, value in parameters if name in _SECRET]
    password = login.partition(":")[2]
    secrets += [unquote(password), password]
    query = "&".join(f"{name}={quote(value, safe='/,')}" for name, value in parameters if name not in _OURS)
    conninfo = f"postgresql://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")
    return Address(
        conninfo,
        schemas[-1] if schemas else None,
        shown,
        tuple(filter(None, secrets)),
        isolations[-1:] == ["serializable"],
    )


def _is_schema(name: str) -> bool:
    """A longer name would be cut off, and be that of another schema; `$user` and those of the server are no tables'."""
    given = name.encode(errors="replace")
    return 0 < len(given) < 64 and b"\0" not in given and name != "$user" and not name.startswith("pg_")
