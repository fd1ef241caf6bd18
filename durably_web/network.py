"""Whether there is a network, and which exceptions come of there being none."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator

from durably_web.errors import CrossOriginRefused, MixedContent, NetworkError, Offline

# By module and name, so that nothing is imported to be compared with. What is derived of them counts too.
_FAILURES = frozenset(
    {
        ("requests.exceptions", "ConnectionError"),
        ("urllib.error", "URLError"),
        ("urllib3.exceptions", "MaxRetryError"),
        ("urllib3.exceptions", "NewConnectionError"),
        ("urllib3.exceptions", "NameResolutionError"),
        ("urllib3.exceptions", "ProtocolError"),
        ("httpx", "NetworkError"),
        ("httpx", "ConnectTimeout"),
        ("httpx", "RemoteProtocolError"),
        ("aiohttp.client_exceptions", "ClientConnectionError"),
    }
)
# The server did answer.
_ANSWERS = frozenset({("urllib.error", "HTTPError")})

_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.ENETDOWN})
_CONNECTION = frozenset({*_NO_ROUTE, errno.EHOSTUNREACH, errno.ETIMEDOUT})

# Exceptions are made of others; nobody follows them for ever.
_DEPTH = 8


class Network:
    """What an engine is told of the network. By itself it knows nothing, and takes it for being there.

        network = Network()
        durably = Durably("app.db", jobs=[send], network=network)
        network.tell(online=False)      # steps whose policy says so begin no attempt from now on
        network.tell(online=True)       # and go on at once

    Call `tell` on the thread of the engine's event loop. One network can be given to several engines.
    """

    def __init__(self, *, online: bool = True) -> None:
        self._online = online
        self._listeners: list[Callable[[], None]] = []
        self.returns = 0
        """How often it was told that there is a network: whoever remembers the number sees whether it came back."""

    @property
    def online(self) -> bool:
        """Whether there is one, as far as anybody has said."""
        return self._online

    def tell(self, online: bool) -> None:
        """Say that there is a network from now on, or none. To say again that there is one lets what waits try."""
        self._online = online
        self.returns += online
        for listener in list(self._listeners):
            listener()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever something was told, until the result is called."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    async def is_missing(self, error: Exception) -> bool:
        """Whether an exception came of there being no network, though nobody has said so: here, what the operating
        system says of a request that found no way out, or no name server."""
        return is_network_failure(error) and says_no_network(error)

    async def explained(self, error: Exception) -> Exception:
        """What the engine takes for the exception that a step's function raised; it may know more than that says."""
        return error


def is_network_failure(error: BaseException) -> bool:
    """Whether an exception says that a request got no answer: it did not arrive, or the answer did not.

    It may be a `NetworkError`, a `ConnectionError`, or one of `requests`, `urllib`, `urllib3`, `httpx` or `aiohttp`, or
    have one of these for its cause. An answer is none, whatever its status; nor is one that took too long, unless the
    connection did.
    """
    for one in _chain(error, deep=False):
        names = {(kind.__module__, kind.__name__) for kind in type(one).__mro__}
        if names & _ANSWERS:
            return False
        if isinstance(one, NetworkError | ConnectionError | socket.gaierror) or names & _FAILURES:
            return True
        if isinstance(one, OSError) and one.errno in _CONNECTION:
            return True
    return False


def says_no_network(error: BaseException) -> bool:
    """Whether it says that there is no network at all: no route, or no name server."""
    for one in _chain(error, deep=True):
        if isinstance(one, Offline):
            return True
        if isinstance(one, socket.gaierror):
            if one.errno == socket.EAI_AGAIN:
                return True
        elif isinstance(one, OSError) and one.errno in _NO_ROUTE:
            return True
    return False


def is_refusal(error: BaseException) -> bool:
    """Whether the browser refused it: with or without a network, the same request fails again."""
    return any(isinstance(one, CrossOriginRefused | MixedContent) for one in _chain(error, deep=True))


def _chain(error: BaseException, *, deep: bool) -> Iterator[BaseException]:
    """An exception and what it says that it came of; `deep`, also what it was raised in the midst of, or made of."""
    seen: set[int] = set()
    level = [error]
    for _ in range(_DEPTH):
        following: list[BaseException] = []
        for one in level:
            if id(one) in seen:
                continue
            seen.add(id(one))
            yield one
            parts: list[object] = [one.__cause__]
            if deep:
                parts += [one.__context__, getattr(one, "reason", None), *one.args]
                parts += getattr(one, "exceptions", ())
            following += [part for part in parts if isinstance(part, BaseException)]
        level = following
