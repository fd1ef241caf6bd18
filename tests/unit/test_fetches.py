"""What a job in a browser hears of a request that failed, with JavaScript's side made up."""

from __future__ import annotations

import sys
import types
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest

from durably_web import fetches
from durably_web.errors import CrossOriginRefused, Offline, Unreachable


class JsException(Exception):
    """As Pyodide's: an error of JavaScript's with its name and message."""

    def __init__(self, name: str, message: str, **more: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name, self.message = name, message
        vars(self).update(more)


class Array(list[Any]):
    def to_py(self) -> list[Any]:
        return list(self)


class JavaScript(types.ModuleType):
    """The module `durably_network`."""

    def __init__(self) -> None:
        super().__init__("durably_network")
        self.is_online = True
        self.home = True
        self.at_once: tuple[Any, ...] = ("Unreachable", "one or the other", True)
        self.looked = ("CrossOriginRefused", "it was the one")
        self.looks = 0

    def online(self) -> bool:
        return self.is_online

    def place(self, url: str) -> str:
        return url.partition("?")[0]

    def explain_at_once(self, url: str) -> Array:
        return Array(self.at_once)

    async def explain(self, url: str) -> Array:
        self.looks += 1
        return Array(self.looked)

    async def reaches_home(self) -> bool:
        self.looks += 1
        return self.home


@pytest.fixture
def javascript(monkeypatch: pytest.MonkeyPatch) -> Iterator[JavaScript]:
    module = JavaScript()
    monkeypatch.setitem(sys.modules, "durably_network", module)
    yield module


def blocking(error: JsException) -> Exception:
    """What `urlopen` raises when the browser refuses to send."""

    def send(request: Any, stream: bool) -> Any:
        raise error

    ffi: Any = types.ModuleType("pyodide.ffi")
    ffi.JsException = JsException
    request = types.SimpleNamespace(url="https://h/x?key=hush", headers={})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(urllib.error.URLError) as raised:
        patch.setitem(sys.modules, "pyodide", types.ModuleType("pyodide"))
        patch.setitem(sys.modules, "pyodide.ffi", ffi)
        fetches._sending(send, urllib.error.URLError)(request)
    return raised.value


async def test_an_explained_error_is_one_of_ours(javascript: JavaScript) -> None:
    found = await fetches.explained(JsException("CrossOriginRefused", "no", url="https://h/x"))
    assert (type(found), str(found)) == (CrossOriginRefused, "no")
    assert isinstance(found, CrossOriginRefused) and found.url == "https://h/x"
    for error in (JsException("TypeError", "x is not a function"), JsException("AbortError", "stop"), ValueError("no")):
        assert await fetches.explained(error) is error
    assert javascript.looks == 0


async def test_an_answer_that_breaks_off(javascript: JavaScript) -> None:
    broken = JsException("TypeError", "network error")
    assert type(await fetches.explained(broken)) is Unreachable
    javascript.is_online = False
    assert type(await fetches.explained(broken)) is Offline


async def test_a_blocking_request_is_looked_after_when_its_step_is_over(javascript: JavaScript) -> None:
    error: Any = blocking(JsException("NetworkError", "Failed to load 'https://h/x?key=hush'"))
    assert isinstance(error.reason, Unreachable) and str(error.reason) == "one or the other"
    found: Any = await fetches.explained(error)
    assert found is error, "what a job catches stays of its class"
    assert isinstance(found.reason, CrossOriginRefused) and "it was the one" in str(error)
    assert error.__cause__ is error.reason and error.reason.url == "https://h/x"
    await fetches.explained(error)
    assert javascript.looks == 1, "once"


async def test_a_blocking_request_whose_failure_is_certain(javascript: JavaScript) -> None:
    javascript.at_once = ("Offline", "the browser is offline", False)
    error: Any = blocking(JsException("NetworkError", "no"))
    await fetches.explained(error)
    assert isinstance(error.reason, Offline) and javascript.looks == 0
    late: Any = blocking(JsException("TimeoutError", "no"))
    assert isinstance(late.reason, TimeoutError) and "hush" not in str(late)


async def test_the_server_is_not_blamed_when_the_own_site_is_gone_too(javascript: JavaScript) -> None:
    network = fetches.BrowserNetwork()
    assert not await network.is_missing(ValueError("no")) and javascript.looks == 0
    assert not await network.is_missing(Unreachable()), "the own site answers"
    javascript.home = False
    assert await network.is_missing(Unreachable())
    assert await network.is_missing(Offline()) and javascript.looks == 2
