"""What it means that a batch failed: to be sent again, or an error with a name."""

from __future__ import annotations

import re

from durably_web.backends.postgres.address import Address
from durably_web.backends.postgres.wire import ServerError
from durably_web.errors import ConstraintViolated, StorageFull, StoreBusy, StoreError, StoreUnavailable

_BUSY = {
    "40001": "others wrote the same",
    "40P01": "it waited for others in a circle",
    "55P03": "others write",
    "57014": "a statement took too long",
}
# What may pass: a standby may become the primary, and two clients have changed the same table at once.
_AWAY = frozenset({"25006", "XX000"})
_AWAY_CLASSES = ("53", "57")
# Of what was prepared: the tables have changed, or somebody has thrown it away.
_STALE = frozenset({"0A000", "26000", "42P05"})

# The server says these to who connects, by no code that the driver would pass on.
_NO_SECOND_TIME = re.compile(
    "password|(?<!canceling )authentication|pg_hba|no encryption|role .* does not exist|database .* does not exist"
    "|permission denied|certificate|invalid .*value|invalid port|SSL was required|does not support SSL|root.crt"
    "|not permitted to log in|unsupported startup parameter"
)
# Names of hosts, roles and databases, in which any word may be.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


class Again(Exception):
    """The operation may be sent again, and should be. `kind` is the error to raise when the time for that is up."""

    def __init__(self, message: str, kind: type[StoreError] = StoreUnavailable, code: str = "NO_REPLY") -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


def of_server(error: ServerError, where: str, index: int | None, *, prepares: bool) -> Again | StoreError:
    """What the server said of a batch; `index` is that of the statement, where it is one of the batch's."""
    code, said = error.code, str(error)
    if code in _BUSY:
        return Again(f"{_BUSY[code]}: {said}", StoreBusy, code)
    if code.startswith("23") and error.of_catalog:
        # Two made the same table at once.
        return Again(said, StoreBusy, code)
    if code in _STALE and (prepares or code != "0A000"):
        return Again(said, StoreError, code)
    kind: type[StoreError] = StoreError
    message = f"{where}: {said} ({code})"
    if code == "53100":
        kind = StorageFull
        message = f"there is no room left for {where}: delete runs, or make room on the server's disk"
    elif error.fatal or code in _AWAY or code.startswith(_AWAY_CLASSES):
        return Again(f"{said} ({code})", code=code)
    elif code.startswith("23"):
        kind, message = ConstraintViolated, said
    elif code == "22P05" or (code == "22021" and "0x00" in said):
        message += ": PostgreSQL stores no text with the character U+0000 in it"
    elif code == "42501":
        message += ": GRANT this role what it needs, or name a schema of its own, as ?schema=durably"
    elif code.startswith(("58", "XX")):
        kind = StoreUnavailable
    return kind(message, code=code, statement_index=index)


def of_connecting(said: str, address: Address) -> Again | StoreError:
    """Why there is no connection, as the driver says it."""
    shown = address.hide(said)
    if _NO_SECOND_TIME.search(_QUOTED.sub("", said)):
        return StoreUnavailable(f"{address.shown} refused access: {shown}", code="CONNECTION_REFUSED")
    return Again(shown, code="25006" if "hot standby" in said else "NO_CONNECTION")
