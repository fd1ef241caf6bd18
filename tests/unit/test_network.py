"""Which exceptions say that a request got no answer, and what an engine hears of the network."""

from __future__ import annotations

import errno
import pickle
import socket
import urllib.error
import urllib.request
from contextlib import closing
from email.message import Message

import pytest

from durably_web.errors import (
    CrossOriginRefused,
    DurablyError,
    Fatal,
    MixedContent,
    NetworkError,
    Offline,
    StoreUnavailable,
    Unreachable,
)
from durably_web.network import Network, is_network_failure, is_refusal, says_no_network
from durably_web.retry import Retry


def of(module: str, name: str, *bases: type[Exception]) -> type[Exception]:
    """A class of a library that is not installed here."""
    return type(name, bases or (Exception,), {"__module__": module})


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


NO_ROUTE = OSError(errno.ENETUNREACH, "Network is unreachable")
NO_NAME_SERVER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
HTTPX_BASE = of("httpx", "NetworkError")
REQUESTS = of("requests.exceptions", "ConnectionError", OSError)
AIOHTTP = of("aiohttp.client_exceptions", "ClientConnectionError")


@pytest.mark.parametrize(
    "error",
    [
        NetworkError(),
        Unreachable("no"),
        ConnectionRefusedError(),
        ConnectionResetError(),
        BrokenPipeError(),
        NO_ROUTE,
        NO_NAME_SERVER,
        NO_SUCH_NAME,
        OSError(errno.EHOSTUNREACH, "No route to host"),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
        urllib.error.URLError(NO_ROUTE),
        REQUESTS("HTTPSConnectionPool(…)"),
        of("requests.exceptions", "ConnectTimeout", REQUESTS)(),
        of("httpx", "ConnectError", HTTPX_BASE)(),
        of("httpx", "ConnectTimeout")(),
        of("aiohttp.client_exceptions", "ClientConnectorError", AIOHTTP)(),
        of("urllib3.exceptions", "MaxRetryError")(),
        caused(RuntimeError("the order was not sent"), ConnectionResetError()),
    ],
)
def test_no_answer(error: Exception) -> None:
    assert is_network_failure(error)
    assert Retry(retry_on=(NetworkError,)).covers(error, 1)
    assert not Retry(give_up_on=(NetworkError,)).covers(error, 1)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        TimeoutError("the step took longer than 10 s"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        urllib.error.HTTPError("http://h/", 404, "Not Found", Message(), None),
        of("requests.exceptions", "ReadTimeout")(),
        of("requests.exceptions", "HTTPError")(),
        of("httpx", "HTTPStatusError")(),
        of("mine", "ConnectionError")(),
        StoreUnavailable(),
        Fatal("no"),
    ],
)
def test_something_else(error: Exception) -> None:
    assert not is_network_failure(error)
    assert not Retry(retry_on=(NetworkError,)).covers(error, 1)


def test_what_the_system_says_of_the_network() -> None:
    pool = REQUESTS(of("urllib3.exceptions", "MaxRetryError")("with url: /"))
    pool.args[0].reason = caused(of("urllib3.exceptions", "NewConnectionError")(), NO_NAME_SERVER)
    several = OSError("All connection attempts failed")
    several.__cause__ = ExceptionGroup("all", [ConnectionRefusedError(errno.ECONNREFUSED, "no"), NO_ROUTE])
    for error in (NO_ROUTE, NO_NAME_SERVER, urllib.error.URLError(NO_ROUTE), pool, several, Offline()):
        assert says_no_network(error), error
    round_trip = caused(ValueError(), ValueError())
    assert round_trip.__cause__ is not None
    round_trip.__cause__.__cause__ = round_trip
    for error in (NO_SUCH_NAME, ConnectionRefusedError(), Unreachable(), REQUESTS("no"), round_trip):
        assert not says_no_network(error), error
    assert is_refusal(caused(REQUESTS(), CrossOriginRefused())) and is_refusal(MixedContent())
    assert not is_refusal(Unreachable())


def test_the_real_urllib() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(urllib.error.URLError) as raised:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/?key=1", timeout=5)
    assert is_network_failure(raised.value) and not says_no_network(raised.value)


async def test_whoever_nobody_has_told_anything_believes_in_the_network() -> None:
    network = Network()
    assert network.online and await network.is_missing(NO_ROUTE)
    assert not await network.is_missing(ConnectionRefusedError()) and not await network.is_missing(ValueError())


def test_listeners_hear_what_is_told() -> None:
    network = Network(online=False)
    heard: list[bool] = []
    deaf = network.listen(lambda: heard.append(network.online))
    for online in (True, True, False):
        network.tell(online)
    deaf()
    deaf()
    network.tell(True)
    assert heard == [True, True, False] and network.returns == 3


@pytest.mark.parametrize("kind", [NetworkError, Offline, Unreachable, CrossOriginRefused, MixedContent])
def test_an_error_goes_to_another_process_as_it_is(kind: type[NetworkError]) -> None:
    error = kind("it is gone", url="http://h/")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.url) == (kind, "it is gone", "http://h/")
    assert {DurablyError, OSError} < set(kind.__mro__)
