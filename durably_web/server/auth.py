"""Who may do what: everything that a caller asks for goes through here, once there is an `auth`.

Who is let in by `authenticate` may do what the other hooks leave open: what is outside of `scope_runs` does not exist
for the caller, and what concerns everybody needs `on_admin`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from durably_web.arguments import checked_labels
from durably_web.errors import Conflict, NotFound
from durably_web.server.asked import RunFilter, TriggerRequest

if TYPE_CHECKING:
    from durably_web.engine import Durably
    from durably_web.records import Run
    from durably_web.store.operations.taking import TakenRun

_HOOKS = (
    "authenticate",
    "on_trigger",
    "on_run_access",
    "on_admin",
    "on_import",
    "on_export",
    "scope_runs",
    "scope_runs_subscribe",
)


class Guard:
    """The `auth` of an application, or none: then everything is allowed.

    Raises `TypeError` for one without `authenticate`, for one that protects streams alone, and for a hook that there is
    not: a misspelt one would protect nothing.
    """

    def __init__(self, durably: Durably, auth: object | None) -> None:
        self._durably = durably
        self._auth = auth
        if auth is None:
            return
        if not callable(getattr(auth, "authenticate", None)):
            raise TypeError("auth needs a method authenticate(request)")
        for name in dir(auth):
            if name.startswith(("on_", "scope_")) and name not in _HOOKS:
                raise TypeError(f"auth has {name}, which nobody calls; there are {', '.join(_HOOKS)}")
        has = {name for name in _HOOKS if getattr(auth, name, None) is not None}
        if "scope_runs_subscribe" in has and not has & {"scope_runs", "on_run_access"}:
            raise TypeError("auth has scope_runs_subscribe alone, so that all runs could still be read: add scope_runs")

    async def admit(self, request: HttpRequest) -> Caller:
        """Whoever sends this request. Raises what `authenticate` raises."""
        if self._auth is None:
            return Caller(self._durably)
        context = await _called(self._auth.authenticate, request)  # type: ignore[attr-defined]
        return Restricted(self._durably, self._auth, context)


class Caller:
    """Somebody who sends requests, and may do everything."""

    is_restricted = False

    def __init__(self, durably: Durably) -> None:
        self._durably = durably

    async def check_run(self, run_id: str, operation: str, request_id: str | None) -> None:
        """Raises `NotFound` for a run that there is not for this caller, or what `on_run_access` raises."""

    async def check_admin(self, operation: str) -> None:
        """Raises `HTTPException` unless the caller may do what concerns everybody."""

    async def allowed(self, asked: TriggerRequest) -> TriggerRequest:
        """The run that the caller gets for this one. Raises `HTTPException`."""
        return asked

    async def check_leaving(self, run_id: str, operation: str) -> None:
        """Raises `HTTPException` unless the caller may have all of a run, or let it go on elsewhere."""

    async def check_arriving(self) -> None:
        """Raises `HTTPException` unless the caller may let runs come here."""

    async def check_id(self, run_id: str) -> None:
        """Raises `Conflict`, or `HTTPException`, for the id of a run that is here, and is somebody else's."""

    async def importable(self, run: TakenRun) -> TakenRun:
        """The run that the caller may let come here for this one. Raises `HTTPException`, or `Conflict`."""
        return run

    async def scope(self, asked: RunFilter, subscribe: bool = False) -> RunFilter:
        """Those of the runs that are asked for which the caller may see."""
        return asked

    async def sees(self, run_id: str | None, operation: str) -> bool:
        """Of a run that is within the scope: whether the caller may see it."""
        return True


class Restricted(Caller):
    """Somebody who may do what the `auth` of the application allows."""

    is_restricted = True

    def __init__(self, durably: Durably, auth: object, context: object) -> None:
        super().__init__(durably)
        self._auth = auth
        self._context = context

    async def check_run(self, run_id: str, operation: str, request_id: str | None) -> None:
        run = await self._durably.get_run(run_id)
        scope = await self.scope(RunFilter())
        if run is None:
            # Whoever has deleted it may ask once more, without knowing that it was done.
            if operation == "delete" and request_id is not None and await self._was_within(scope, run_id):
                return
            raise _no_run(run_id)
        scopes = [scope]
        if operation == "subscribe":
            scopes.append(await self.scope(RunFilter(), subscribe=True))
        if not all(one.admits(run.job_name, run.labels, run.status) for one in scopes):
            raise _no_run(run_id)
        await self._check_access(run, operation)

    async def _was_within(self, scope: RunFilter, run_id: str) -> bool:
        try:
            events = (await self._durably.get_events(run_id)).events
        except NotFound:
            return False
        return any(event.type == "run:delete" and scope.admits(event.job_name, event.labels) for event in events)

    async def _check_access(self, run: Run, operation: str) -> None:
        if (hook := self._hook("on_run_access")) is not None:
            await _called(hook, self._context, run, operation)

    async def check_admin(self, operation: str) -> None:
        hook = self._hook("on_admin")
        if hook is None:
            raise HTTPException(403, f"{operation} concerns all runs, and this server lets nobody do that over HTTP")
        await _called(hook, self._context, operation)

    async def check_leaving(self, run_id: str, operation: str) -> None:
        hook = self._hook("on_export")
        if hook is None:
            raise HTTPException(403, f"{operation} needs an on_export of auth, and this server has none")
        run = await self._durably.get_run(run_id)
        if run is None:
            raise _no_run(run_id)
        await _called(hook, self._context, run, operation)

    async def check_arriving(self) -> None:
        if self._hook("on_import") is None:
            raise HTTPException(403, "imports need an on_import of auth, and this server has none")

    async def check_id(self, run_id: str) -> None:
        scope, run = await self.scope(RunFilter()), await self._durably.get_run(run_id)
        if run is not None and not scope.admits(run.job_name, run.labels, run.status):
            raise Conflict(f"the id {run_id} is that of another run: nothing was stored")
        if run is not None:
            await self._check_access(run, "handover")

    async def importable(self, run: TakenRun) -> TakenRun:
        await self.check_id(run.run_id)
        scope = await self.scope(RunFilter())
        # One that was here before has its keys as they were made here.
        idempotency_key, concurrency_key = (
            _foreign_key(scope.labels, key) for key in (run.idempotency_key, run.concurrency_key)
        )
        value = self._durably._codec.decode(run.input)
        options = {"priority": run.priority}
        given = TriggerRequest(run.job_name, value, dict(run.labels), idempotency_key, concurrency_key, options)
        asked = await self.allowed(given)
        asked = await _called(self._hook("on_import"), self._context, asked) or asked  # type: ignore[arg-type]
        if not isinstance(asked, TriggerRequest):
            raise TypeError(f"on_import returns a TriggerRequest or None, not {asked!r}")
        if asked.job_name != run.job_name or asked.input != value or set(asked.options) != {"priority"}:
            raise TypeError("on_trigger, or on_import, gave a run from elsewhere another job, input or option")
        if not scope.admits(asked.job_name, asked.labels):
            raise HTTPException(403, "this run would be outside of what you may see: another job, or another label")
        return run._replace(
            labels=checked_labels(asked.labels),
            idempotency_key=asked.idempotency_key,
            concurrency_key=asked.concurrency_key,
            priority=asked.options["priority"],
        )

    async def allowed(self, asked: TriggerRequest) -> TriggerRequest:
        given = {asked.idempotency_key, asked.concurrency_key} - {None}
        if (hook := self._hook("on_trigger")) is not None:
            asked = await _called(hook, self._context, asked) or asked
            if not isinstance(asked, TriggerRequest):
                raise TypeError(f"on_trigger returns a TriggerRequest or None, not {asked!r}")
        scope = await self.scope(RunFilter())
        asked.labels = {**scope.labels, **asked.labels}
        if not scope.admits(asked.job_name, asked.labels):
            raise HTTPException(403, "this run would be outside of what you may see: another job, or another label")
        if scope.labels:
            # Otherwise one could join, replace, or wait for the runs of others, by guessing their keys.
            asked.idempotency_key = _own_key(scope.labels, asked.idempotency_key)
            asked.concurrency_key = _own_key(scope.labels, asked.concurrency_key)
        elif given & {asked.idempotency_key, asked.concurrency_key} and (
            self._hook("on_run_access") is not None or scope.statuses is not None
        ):
            raise HTTPException(
                403, "a key could be that of somebody else's run: it needs a scope_runs with labels, or an on_trigger"
            )
        return asked

    async def scope(self, asked: RunFilter, subscribe: bool = False) -> RunFilter:
        hook = self._hook("scope_runs_subscribe") if subscribe else None
        hook = hook or self._hook("scope_runs")
        if hook is None:
            return asked
        scoped = await _called(hook, self._context, asked)
        if not isinstance(scoped, RunFilter):
            raise TypeError(f"{hook.__name__} returns a RunFilter, not {scoped!r}")
        return scoped

    async def sees(self, run_id: str | None, operation: str) -> bool:
        if self._hook("on_run_access") is None or self._hook("scope_runs") is not None:
            return True
        # Lists have no scope here, so each run of them is asked for as if it were by its id.
        run = None if run_id is None else await self._durably.get_run(run_id)
        if run is None:
            return False
        try:
            await self._check_access(run, operation)
        except Exception as error:
            if rejection_of(error) is None:
                raise
            return False
        return True

    def _hook(self, name: str) -> Callable[..., Any] | None:
        hook = getattr(self._auth, name, None)
        if hook is not None and not callable(hook):
            raise TypeError(f"{name} of auth is not a method")
        return hook


def rejection_of(error: Exception) -> HTTPException | None:
    """The HTTP exception that an error is, of whichever framework."""
    if isinstance(error, HTTPException):
        return error
    status, detail = getattr(error, "status_code", None), getattr(error, "detail", None)
    if not isinstance(status, int) or not 400 <= status <= 599:
        return None
    headers = getattr(error, "headers", None)
    return HTTPException(status, str(detail or ""), dict(headers) if isinstance(headers, Mapping) else None)


def _no_run(run_id: str) -> NotFound:
    # Word for word what is said of a run that there never was.
    return NotFound(f"there is no run {run_id!r}")


def _own_key(labels: Mapping[str, str], key: str | None) -> str | None:
    if key is None:
        return None
    return f"{_prefix(labels)}{key}"


def _foreign_key(labels: Mapping[str, str], key: str | None) -> str | None:
    """The key that `_own_key` made this one of, if it did."""
    return None if key is None else key.removeprefix(_prefix(labels)) or key


def _prefix(labels: Mapping[str, str]) -> str:
    return f"{json.dumps(labels, sort_keys=True, separators=(',', ':'))} "


async def _called(hook: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a hook, sync or async."""
    result = hook(*arguments)
    return await result if inspect.isawaitable(result) else result
