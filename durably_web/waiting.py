"""Steps that wait: for an instant, or for a signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from durably_web import codec
from durably_web.errors import SignalTimeout
from durably_web.journal import Draft
from durably_web.records import Kind
from durably_web.store import operations
from durably_web.store.operations import OpenSignal
from durably_web.waits import Wait

if TYPE_CHECKING:
    from durably_web.execution import Execution


async def sleep(execution: Execution, key: str, moment: Callable[[int], int]) -> None:
    """Wait until `moment(now)`, reckoned once: later executions wait for the same instant."""
    now = await execution.begin()
    begun = execution.history.waits.get(key)
    if begun is not None:
        until, started_at = begun.detail["until"], begun.at
    else:
        until, started_at = moment(now), now
        if until > now:
            execution.journal.note(_wait_entry(key, {"until": until}, now, "sleep"))
    await execution.until(until)
    await _complete(execution, key, None, started_at)


async def wait_for_signal(execution: Execution, key: str, name: str, timeout: int | None) -> Any:
    """The payload of the oldest signal of this name that no wait has taken. `timeout` is in milliseconds."""
    now = await execution.begin()
    begun = execution.history.waits.get(key)
    if begun is not None:
        deadline, started_at = begun.detail["until"], begun.at
    else:
        deadline, started_at = None if timeout is None else now + timeout, now
    noted = begun is not None
    while True:
        signal = await _next_signal(execution, name, deadline)
        if signal is not None:
            value = execution.environment.codec.decode(signal.payload)
            await _complete(execution, key, value, started_at, signal)
            return value
        if deadline is not None and execution.environment.clock.now() >= deadline:
            error = SignalTimeout(f"no signal {name!r} came within {(deadline - started_at) / 1000:g} s")
            await execution.store_failure(key, error, started_at, kind="signal")
            raise error
        if not noted:
            noted = True
            execution.journal.note(_wait_entry(key, {"signal": name, "until": deadline}, started_at, "signal"))
        await execution.park(Wait(deadline, signal=name))


async def _next_signal(execution: Execution, name: str, deadline: int | None) -> OpenSignal | None:
    """The signal for this wait, which no other branch takes from now on. One that came too late is left alone."""
    # A database may answer the second who asks before the first.
    async with execution.taking:
        found = await execution.read(operations.open_signals(execution.lease.run_id))
        for signal in found:
            if signal.name == name and signal.number not in execution.taken:
                if deadline is not None and signal.created_at > deadline:
                    continue
                execution.taken.add(signal.number)
                return signal
    return None


async def _complete(
    execution: Execution, key: str, value: Any, started_at: int, signal: OpenSignal | None = None
) -> None:
    lease = execution.lease
    text = signal.payload if signal is not None else execution.environment.codec.encode(value)

    def effects(number: int) -> tuple[Any, ...]:
        assert signal is not None
        return operations.take_signal(lease.run_id, lease.generation, number, key, signal.number)

    now = execution.environment.clock.now()
    draft = Draft("step:complete", key, text, value, started_at, now, kind="sleep")
    if signal is not None:
        draft.effects, draft.kind = effects, "signal"
    await execution.append(draft)


def _wait_entry(key: str, detail: dict[str, Any], now: int, kind: Kind) -> Draft:
    return Draft("step:wait", key, codec.encode(detail), detail, now, now, kind=kind)
