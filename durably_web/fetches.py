"""Requests of jobs in a browser: libraries that need sockets are patched, and failures say what has happened.

A browser says no more than "Failed to fetch". `durably_network`, from `web/network.js`, looks why, and its errors have
the names of ours: asynchronously for `fetch`, and so for `pyfetch`. The blocking requests of `requests` and `urllib`
cannot wait for that look, so what they raise says what is known at once, and more once their step is over.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

from durably_web import errors
from durably_web.network import Network, is_network_failure

_KINDS = {kind.__name__: kind for kind in (errors.Offline, errors.Unreachable)} | {
    kind.__name__: kind for kind in (errors.CrossOriginRefused, errors.MixedContent)
}

# How browsers tell of an answer that broke off: only `fetch` itself is looked after.
_BROKEN_OFF = (
    "network error",
    "Failed to fetch",
    "Load failed",
    "The network connection was lost",
    "NetworkError when",
)

# Browsers refuse them, with a line on the console; libraries send them by themselves.
_FORBIDDEN = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "cookie",
        "host",
        "keep-alive",
        "transfer-encoding",
        "user-agent",
    }
)


class BrowserNetwork(Network):
    """The network as the browser knows it. What it calls online may still lead nowhere, so that is looked at."""

    async def is_missing(self, error: Exception) -> bool:
        if await super().is_missing(error):
            return True
        # Neither the server nor this site is reached: it is not the server's fault.
        return is_network_failure(error) and not await _bridge().reaches_home()

    async def explained(self, error: Exception) -> Exception:
        return await explained(error)


async def explained(error: Exception) -> Exception:
    """What a JavaScript exception stands for; or the same error, which says more now where it could not at once."""
    told = _told(error)
    if told is not None:
        return told
    cause = error.__cause__
    url = getattr(cause, "doubtful", None)
    if url is not None:
        assert cause is not None
        # Once: it may be raised again.
        del cause.doubtful  # type: ignore[attr-defined]
        name, message = (await _bridge().explain(url)).to_py()
        better = _KINDS[name](message, url=cause.url)  # type: ignore[attr-defined]
        error.__cause__ = better
        _say(error, better)
    return error


def _bridge() -> Any:
    # Late: what JavaScript has is not there when the module is loaded, and a stored interpreter can hold none of it.
    return importlib.import_module("durably_network")


def _told(error: Any) -> errors.NetworkError | None:
    """The error of ours that one of JavaScript's stands for."""
    # By name: where this is tested there is no such class.
    if not any(kind.__name__ == "JsException" for kind in type(error).__mro__):
        return None
    kind = _KINDS.get(error.name)
    if kind is not None:
        return kind(error.message, url=getattr(error, "url", None))
    if error.name == "TypeError" and str(error.message).startswith(_BROKEN_OFF):
        if not _bridge().online():
            return errors.Offline("the connection broke off, and the browser is offline now")
        return errors.Unreachable("the connection broke off in the middle of an answer")
    return None


def _say(error: BaseException, cause: errors.NetworkError) -> None:
    """Let an error of a library tell what its cause tells."""
    if hasattr(error, "reason"):
        error.reason = cause
    else:
        error.args = (str(cause),)


def _failed_blocking(error: Any, url: str) -> Exception:
    """What is known at once of a blocking request that failed."""
    if error.name == "TimeoutError":
        return TimeoutError(f"{_bridge().place(url)} took longer than the request allows")
    if error.name != "NetworkError":
        cause: Exception = error
        return cause
    name, message, doubtful = _bridge().explain_at_once(url).to_py()
    told: errors.NetworkError = _KINDS[name](message, url=_bridge().place(url))
    if doubtful:
        told.doubtful = url  # type: ignore[attr-defined]
    return told


# -- patches -----------------------------------------------------------------------------------------------


def _sending(send: Callable[..., Any], failed: Callable[[Exception], Exception]) -> Callable[..., Any]:
    """`pyodide_http`'s sending, with headers that browsers take, and errors that say what happened."""

    def sending(request: Any, stream: bool = False) -> Any:
        from pyodide.ffi import JsException

        request.headers = {name: value for name, value in request.headers.items() if name.lower() not in _FORBIDDEN}
        try:
            response = send(request, stream)
        except JsException as error:
            cause = _failed_blocking(error, request.url)
            raise failed(cause) from (cause if cause is not error else None)
        # The browser has unpacked it.
        for name in [name for name in response.headers if name.lower() in ("content-encoding", "transfer-encoding")]:
            del response.headers[name]
        return response

    return sending


def _patch_requests(http: Any) -> None:
    http.patch_requests()
    module = importlib.import_module("pyodide_http._requests")
    requests = sys.modules["requests"]

    def failed(cause: Exception) -> Exception:
        kind = (
            requests.exceptions.ReadTimeout if isinstance(cause, TimeoutError) else requests.exceptions.ConnectionError
        )
        error: Exception = kind(str(cause))
        return error

    setattr(module, "send", _sending(module.send, failed))  # noqa: B010


def _patch_urllib(http: Any) -> None:
    """Also what `pyodide_http` leaves out there: time-outs, and statuses from 400 on as `HTTPError`."""
    http.patch_urllib()
    module = importlib.import_module("pyodide_http._urllib")
    urllib_request: Any = sys.modules["urllib.request"]
    from http.client import responses
    from urllib.error import HTTPError, URLError

    timeouts: list[float] = []
    send = _sending(module.send, URLError)

    def send_in_time(request: Any, stream: bool = False) -> Any:
        request.timeout = timeouts[-1]
        response = send(request, stream)
        # Without any header, pyodide_http puts a line before the body; and the length is that of the unpacked one.
        response.headers.pop("content-length", None)
        response.headers["Content-Length"] = str(len(response.body))
        return response

    setattr(module, "send", send_in_time)  # noqa: B010
    inner = module.urlopen

    def urlopen(url: Any, data: Any = None, timeout: Any = 0, **_: Any) -> Any:
        request = url if isinstance(url, urllib_request.Request) else urllib_request.Request(url)
        if data is not None:
            request.data = data
        if request.data is not None and not request.has_header("Content-type"):
            request.add_unredirected_header("Content-type", "application/x-www-form-urlencoded")
        timeouts.append(timeout if isinstance(timeout, int | float) else 0)
        try:
            response = inner(request)
        finally:
            timeouts.pop()
        if response.status >= 400:
            reason = response.reason or responses.get(response.status, "")
            raise HTTPError(request.full_url, response.status, reason, response.headers, response)
        return response

    urllib_request.urlopen = urlopen
    urllib_request.OpenerDirector.open = lambda self, url, data=None, timeout=0: urlopen(url, data, timeout)


def _patch_pyfetch(module: Any) -> None:
    pyfetch = _explaining(module.pyfetch, module.AbortError)
    module.pyfetch = pyfetch
    sys.modules["pyodide.http._pyfetch"].pyfetch = pyfetch  # type: ignore[attr-defined]
    for name, method in list(vars(module.FetchResponse).items()):
        # Those that read the answer.
        if hasattr(method, "__wrapped__"):
            setattr(module.FetchResponse, name, _explaining(method, module.AbortError))


def _explaining(function: Callable[..., Any], aborted: type[Exception]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def explaining(*arguments: Any, **options: Any) -> Any:
        try:
            return await function(*arguments, **options)
        except (aborted, AttributeError) as error:
            # The second is what becomes of an answer that breaks off: it looks for the reason of an abort.
            told = _told(error.__context__)
            if told is None:
                raise
            raise told from None

    return explaining


def patch_when_imported(wheel: str) -> None:
    """Make HTTP work when a job first imports a library that does it. `wheel` is where `pyodide_http` is."""
    sys.meta_path.insert(0, _PatchAfterImport(wheel))
    if "pyodide.http" in sys.modules:
        _patch_pyfetch(sys.modules["pyodide.http"])


_PATCHED = ("pyodide.http", "requests", "urllib.request")


class _PatchAfterImport:
    """Costs nothing before a library is imported.

    A browser has no sockets; pyodide_http routes these libraries through XMLHttpRequest.
    """

    def __init__(self, wheel: str) -> None:
        self.wheel = wheel

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _PATCHED:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec = find(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Patching(spec.loader, self.wheel)
                return spec
        return None


class _Patching:
    """A loader that patches once the module it loads is complete."""

    def __init__(self, loader: Any, wheel: str) -> None:
        self.loader = loader
        self.wheel = wheel

    def create_module(self, spec: Any) -> Any:
        return self.loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.loader.exec_module(module)
        # The import system does this only after us, and the patch looks the module up by its full name.
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
        if module.__name__ == "pyodide.http":
            _patch_pyfetch(module)
            return
        if self.wheel not in sys.path:
            sys.path.append(self.wheel)
        http = importlib.import_module("pyodide_http")
        (_patch_requests if module.__name__ == "requests" else _patch_urllib)(http)

    def __getattr__(self, name: str) -> Any:
        # Whatever else is asked of a loader: its sources, its files.
        return getattr(self.loader, name)
