"""Calling the function of a step, once or as often as its policy asks for, and storing what it comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from durably_web import calls, codec, failures, shapes
from durably_web.context import current_step
from durably_web.errors import NotSerializable
from durably_web.journal import Draft
from durably_web.retry import Retry

if TYPE_CHECKING:
    from durably_web.execution import Execution
    from durably_web.offline import Watch


class TryAgain(Exception):
    """A try failed, and another one follows at `until`, in milliseconds; without a network it does not count."""

    def __init__(self, until: int, counts: bool = True) -> None:
        self.until = until
        self.counts = counts


async def until_done(
    execution: Execution,
    key: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    retry: Retry | None,
    timeout: float | None,
    offload: bool = False,
) -> Any:
    """The result of `fn(*args)`, tried as often as `retry` asks for. Goes on where an earlier execution was."""
    attempt = 1
    watch = None
    if retry is not None and retry.when_offline == "wait":
        # Not at the top: few steps need it, and in a browser each module costs a millisecond at the start.
        from durably_web.offline import Watch

        watch = Watch(execution, key, retry)
    tries = execution.history.tries.get(key)
    with execution.waits.branch():
        if tries is not None:
            attempt = tries.failed + 1
            await execution.until(tries.until)
        while True:
            try:
                if watch is None:
                    return await once(execution, key, fn, args, attempt, retry, timeout, offload)
                await watch.online()
                return await once(execution, key, fn, args, attempt, retry, timeout, offload, watch)
            except TryAgain as again:
                until, counts = again.until, again.counts
            if counts:
                attempt += 1
                await execution.until(until)
            elif watch is not None:
                await watch.back(until)


async def once(
    execution: Execution,
    key: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    attempt: int = 1,
    retry: Retry | None = None,
    timeout: float | None = None,
    offload: bool = False,
    watch: Watch | None = None,
) -> Any:
    """The result of `fn(*args)`, stored. Raises its exception, stored too, or `TryAgain`."""
    started_at = execution.begin_at_once()
    if started_at is None:
        started_at = await execution.begin(key)
    clock, own_codec = execution.environment.clock, execution.environment.codec
    token = current_step.set(key)
    parallel = execution.enter(key)
    try:
        try:
            if timeout is None and not offload and execution.around_step is None:
                result = await calls.call(execution.caller, fn, args)
            else:
                result = await _call(execution, key, fn, args, attempt, timeout, offload)
            load = execution.loader_of(fn)
            if load is None:
                text, value = codec.store(result, own_codec)
            else:
                text, value = codec.store(shapes.plain(result, load), own_codec)
        except NotSerializable as error:
            execution.check_storing()
            error = NotSerializable(f"the result of step {key!r} cannot be stored: {error}")
            await execution.store_failure(key, error, started_at, attempt)
            raise error from None
        except Exception as error:
            execution.check_storing()
            explained = await execution.environment.network.explained(error)
            execution.check_storing()
            if retry is not None:
                try:
                    again, waits = retry.covers(explained, attempt), watch is not None and retry.wants(explained)
                except Exception as own:
                    # The policy's.
                    await execution.store_failure(key, own, started_at, attempt)
                    raise
                if waits and watch is not None and await watch.is_missing(explained):
                    execution.check_storing()
                    raise TryAgain(await watch.store(explained, started_at), counts=False) from error
                if again:
                    if watch is not None:
                        watch.counted()
                    raise await _store_try(execution, key, explained, started_at, attempt, retry) from error
            await execution.store_failure(key, explained, started_at, attempt)
            if explained is not error:
                raise explained from error
            raise
        execution.check_storing()
        undo = execution.undos.get(key) if execution.undos else None
        effects = None
        if undo is not None:
            execution.keeps_undos, effects = True, undo.effects
        await execution.append(Draft("step:complete", key, text, value, started_at, clock.now(), effects, kind="run"))
    except asyncio.CancelledError:
        execution.tell_of_cancellation(key)
        raise
    finally:
        current_step.reset(token)
        execution.leave(key, parallel)
    execution.go_on()
    return value if load is None else load(value, f"the result of step {key!r}")


async def _call(
    execution: Execution,
    key: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    attempt: int,
    timeout: float | None,
    offload: bool,
) -> Any:
    around = execution.around_step
    if around is not None:
        with around(execution.lease, key, attempt):
            return await _call_in_time(execution, key, fn, args, timeout, offload)
    return await _call_in_time(execution, key, fn, args, timeout, offload)


async def _call_in_time(
    execution: Execution, key: str, fn: Callable[..., Any], args: tuple[Any, ...], timeout: float | None, offload: bool
) -> Any:
    caller, clock, what = execution.caller, execution.environment.clock, f"step {key!r}"
    if offload:
        return await caller.offloader.call(fn, args, clock, timeout, what)
    if timeout is None:
        return await calls.call(caller, fn, args)
    return await calls.call_within(timeout, clock, caller, fn, args, what)


async def _store_try(
    execution: Execution, key: str, error: Exception, started_at: int, attempt: int, retry: Retry
) -> TryAgain:
    environment = execution.environment
    now = environment.clock.now()
    until = now + round(retry.delay(attempt, environment.random) * 1000)
    detail = {**failures.dump(error), "attempt": attempt, "until": until}
    await execution.append(Draft("step:retry", key, codec.encode(detail), detail, started_at, now, kind="run"))
    return TryAgain(until)
