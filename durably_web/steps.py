"""What a job sees of its run."""

from __future__ import annotations

import asyncio
import datetime
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from durably_web import children, codec, waiting
from durably_web.arguments import (
    Duration,
    check_priority,
    check_signal_name,
    check_step_name,
    check_text,
    checked_labels,
    due_at,
    milliseconds_of,
    moment_of,
    seconds_of,
)
from durably_web.context import current_step
from durably_web.errors import InvalidInput, NotSerializable
from durably_web.jobs import Job
from durably_web.records import Kind, Level, Progress, instant
from durably_web.retry import Retry

if TYPE_CHECKING:
    from durably_web.execution import Execution

T = TypeVar("T")
Item = TypeVar("Item")
Input = TypeVar("Input")
Output = TypeVar("Output")


class Step:
    """The first argument of a job."""

    __slots__ = ("_execution", "log")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self.log = StepLog(execution)

    @overload
    def run(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        offload: bool = False,
        undo: Callable[[T], object] | None = None,
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def run(
        self,
        name: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        offload: bool = False,
        undo: Callable[[T], object] | None = None,
    ) -> Coroutine[Any, Any, T]: ...

    def run(
        self,
        name: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        offload: bool = False,
        undo: Callable[[Any], object] | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Run `fn(*args)` once, ever, and give its result.

        The result is stored before the call returns; every later execution of the run returns the stored one
        without calling `fn`. `fn` is sync (it runs in a thread, in the browser at once) or async. A name that
        is used again gets an occurrence number (`save`, `save#2`), counted in the order of the calls, so loops
        and `asyncio.gather` just work.

        With `retry`, an exception that the policy covers is stored, and `fn` is called again after the delay;
        the count and the delay survive a restart. The last exception is stored too, and raised again by later
        executions until the run is retried. With `timeout`, in seconds, each call that takes longer raises
        `TimeoutError`: an async `fn` is cancelled; a sync one is abandoned (in the browser, which has no
        threads, once it returns) and can ask `durably_web.cancelled()`.

        With `offload`, `fn` runs in another process, in the browser in another worker with a Python of its own: it
        stands at the top level of a module, otherwise `InvalidInput`, and what it is given and gives can be pickled.
        When its time is over, or its run is cancelled, the process or worker is ended, whatever it does; waiting for
        a free one and its start are not counted. `OffloadFailed` when it dies.

        With `undo`, the result is given to `undo(result)` when the run fails for good or is cancelled; those of all
        steps that have a result, the last one first. Each is a step of its own, `save#undo`, with the policies of
        the step, and the run ends when all are done. A step that fails is not undone.

        Raises `NotSerializable` when the result cannot be stored. A crash between the end of `fn` and the
        commit runs `fn` again: make its effects safe to repeat.
        """
        if retry is None and timeout is None and not offload and undo is None:
            return self._execution.step(name, fn, args)
        if undo is not None:
            from durably_web.undoing import undoable

            return undoable(self._execution, name, fn, args, _policies(name, fn, retry, timeout, offload), undo)
        return self._execution.step(name, fn, args, *_policies(name, fn, retry, timeout, offload))

    @overload
    def map(
        self,
        name: str,
        fn: Callable[[Item], Awaitable[T]],
        items: Iterable[Item],
        *,
        concurrency: int = 8,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        offload: bool = False,
        return_exceptions: bool = False,
        undo: Callable[[T], object] | None = None,
    ) -> Coroutine[Any, Any, list[T]]: ...

    @overload
    def map(
        self,
        name: str,
        fn: Callable[[Item], T],
        items: Iterable[Item],
        *,
        concurrency: int = 8,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        offload: bool = False,
        return_exceptions: bool = False,
        undo: Callable[[T], object] | None = None,
    ) -> Coroutine[Any, Any, list[T]]: ...

    def map(
        self,
        name: str,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        concurrency: int = 8,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        offload: bool = False,
        return_exceptions: bool = False,
        undo: Callable[[Any], object] | None = None,
    ) -> Coroutine[Any, Any, list[Any]]:
        """Run `fn(item)` for each item as a step of its own, `name[0]`, `name[1]`, …, at most `concurrency` at once.

        Gives the results in the order of the items. When one fails, no further one begins; those that have
        begun end, and the failure of the first of them in the order of the items is raised. With
        `return_exceptions`, all are run, and failures stand among the results. All else as `run`.
        """
        if type(concurrency) is not int or concurrency < 1:
            raise InvalidInput(f"concurrency is a whole number from 1 on, not {concurrency!r}")
        check_step_name(name)
        policies = _policies(name, fn, retry, timeout, offload)
        # All of them now, so that the names are counted in the order of the calls.
        keys = [(self._execution.key(f"{name}[{index}]"), item) for index, item in enumerate(items)]
        if undo is not None:
            from durably_web.undoing import item, keep

            for key, _ in keys:
                keep(self._execution, key, fn, policies, undo)
            return self._map(keys, fn, policies, concurrency, return_exceptions, partial(item, self._execution))
        return self._map(keys, fn, policies, concurrency, return_exceptions, self._execution.item)

    async def _map(
        self,
        keys: list[tuple[str, Any]],
        fn: Callable[..., Any],
        policies: tuple[Retry | None, float | None, bool],
        concurrency: int,
        return_exceptions: bool,
        perform: Callable[..., Coroutine[Any, Any, Any]],
    ) -> list[Any]:
        outcomes = self._execution.history.outcomes
        results: list[Any] = [None] * len(keys)
        failures: dict[int, Exception] = {}
        # One that has failed in an earlier execution is seen before anything new begins.
        order = sorted(range(len(keys)), key=lambda index: keys[index][0] not in outcomes)
        following = iter(order)
        has_failed = any(key in outcomes and outcomes[key].type == "step:fail" for key, _ in keys)

        async def work() -> None:
            for index in following:
                key, item = keys[index]
                if (failures or has_failed) and not return_exceptions and key not in outcomes:
                    continue
                try:
                    results[index] = await perform(key, fn, (item,), *policies)
                except Exception as error:
                    results[index] = failures[index] = error

        await asyncio.gather(*[work() for _ in range(min(concurrency, len(keys)))])
        # Nobody sees in which order the items were done; but the last one decides when this is.
        await self._execution.order.last_turn(key for key, _ in keys)
        if failures and not return_exceptions:
            raise failures[min(failures)]
        return results

    def sleep(self, name: str, seconds: Duration) -> Coroutine[Any, Any, None]:
        """Sleep, durably: the run gives its slot back, and goes on at the same instant whatever happens meanwhile.

        Counted from the first call, in seconds or as `timedelta`; the instant is stored.
        """
        duration = milliseconds_of(seconds, f"the duration of sleep {name!r}")
        return self._wait(name, "sleep", lambda key: waiting.sleep(self._execution, key, lambda now: now + duration))

    def sleep_until(self, name: str, when: datetime.datetime) -> Coroutine[Any, Any, None]:
        """As `sleep`, until an instant: a datetime with a time zone. One in the past is over at once."""
        moment = moment_of(when, f"the end of sleep {name!r}")
        return self._wait(name, "sleep", lambda key: waiting.sleep(self._execution, key, lambda now: moment))

    def wait_for_signal(self, name: str, *, timeout: Duration | None = None) -> Coroutine[Any, Any, Any]:
        """The payload of the oldest `durably.signal(run_id, name, payload)` that no wait of the run has taken yet.

        Also of one that was sent before the wait, or while no worker ran. Each signal is delivered once: of two
        for one wait the first wins, and a loop gets them in order. Raises `SignalTimeout` when none was sent
        within `timeout` seconds from the first call on.
        """
        check_signal_name(name)
        limit = None if timeout is None else milliseconds_of(timeout, f"the timeout of signal {name!r}")
        return self._wait(name, "signal", lambda key: waiting.wait_for_signal(self._execution, key, name, limit))

    @overload
    def call(
        self,
        job: Job[Input, Output],
        input: Input | Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        concurrency_key: str | None = None,
    ) -> Coroutine[Any, Any, Output]: ...

    @overload
    def call(
        self,
        job: str,
        input: Any = None,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        concurrency_key: str | None = None,
    ) -> Coroutine[Any, Any, Any]: ...

    def call(
        self,
        job: Job[Any, Any] | str,
        input: Any = None,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        concurrency_key: str | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Start a run of another job, and give its output when it has ended.

        Started at most once, whatever crashes; it is a step, called `name` or like the job. While the run
        waits for nothing else it gives its slot back. The child has the run's labels unless others are given,
        and is cancelled with it. Raises `RunFailed` or `RunCancelled` when the child ended so, `NotFound` for a
        job that is not registered, `InvalidInput`, and `Conflict` when the run itself, or one that waits for it, holds
        the `concurrency_key`: the child could never begin.
        """
        found, child = self._child(job, input, labels, priority, concurrency_key, None)
        key = self._execution.key(found.name if name is None else name)

        async def load() -> Output:
            raw = await self._execution.waiting_step(
                key, "call", lambda key: children.call(self._execution, key, child)
            )
            output: Output = found.load_output(raw)
            return output

        return load()

    def trigger(
        self,
        job: Job[Any, Any] | str,
        input: Any = None,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        concurrency_key: str | None = None,
        delay: Duration | None = None,
        run_at: datetime.datetime | None = None,
    ) -> Coroutine[Any, Any, str]:
        """Start a run of another job and go on; gives its id. All else as `call`.

        It is due after `delay` seconds, or at `run_at`, or at once.
        """
        now = self._execution.environment.clock.now()
        moment = due_at(delay, run_at, now)
        found, child = self._child(job, input, labels, priority, concurrency_key, moment)
        return self._wait(
            found.name if name is None else name, "trigger", lambda key: children.trigger(self._execution, key, child)
        )

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the run is. Cheap in a tight loop: only the last of many is stored, and that always."""
        # Checked here, where the job sees its mistake: later it would be in the way of a step's result.
        self._execution.journal.progress(
            Progress(
                _number(current), None if total is None else _number(total), None if message is None else str(message)
            )
        )

    def patched(self, name: str) -> bool:
        """Whether this run is executed with the code behind the change `name`.

            if step.patched("check the address"):
                await step.run("check", check, input["address"])

        True for a run that gets here with nothing stored ahead; false for one that was here before the change was
        made, as its next steps are stored. The answer is stored with the run, and stays the same for it, wherever
        it is asked again. Not in a step's function (`InvalidInput`).
        """
        from durably_web import revisions

        return revisions.patched(self._execution, name)

    @property
    def run_id(self) -> str:
        return self._execution.lease.run_id

    @property
    def attempt(self) -> int:
        """How many times the run has been taken up, from 1."""
        return self._execution.lease.attempt

    @property
    def scheduled_at(self) -> datetime.datetime | None:
        """The tick of the schedule that asked for the run, whenever it begins; `None` for any other run."""
        moment = self._execution.lease.scheduled_at
        return None if moment is None else instant(moment)

    @property
    def labels(self) -> Mapping[str, str]:
        return MappingProxyType(self._execution.lease.labels)

    # -- inside ------------------------------------------------------------------------------------------

    def _wait(self, name: str, kind: Kind, begin: Callable[[str], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]:
        return self._execution.waiting_step(self._execution.key(name), kind, begin)

    def _child(
        self,
        job: Job[Input, Output] | str,
        input: Any,
        labels: Mapping[str, str] | None,
        priority: int,
        concurrency_key: str | None,
        run_at: int | None,
    ) -> tuple[Job[Any, Output], children.Child]:
        environment = self._execution.environment
        found = environment.known_job(job)
        if concurrency_key is not None:
            check_text(concurrency_key, "a concurrency key")
        check_priority(priority)
        checked = None if labels is None else checked_labels(labels)
        text = found.encode_input(input, environment.codec)
        return found, children.Child(found, text, checked, priority, concurrency_key, run_at)


class StepLog:
    """Writes lines that are stored with the run. `data` is what JSON and its tags can keep; else its `repr` is stored.

    Outside of a step, a line that an earlier execution has stored is not stored again.
    """

    __slots__ = ("_execution",)

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def debug(self, message: str, **data: Any) -> None:
        self._write("debug", message, data)

    def info(self, message: str, **data: Any) -> None:
        self._write("info", message, data)

    def warning(self, message: str, **data: Any) -> None:
        self._write("warning", message, data)

    def error(self, message: str, **data: Any) -> None:
        self._write("error", message, data)

    def _write(self, level: Level, message: str, data: dict[str, Any]) -> None:
        detail = {"level": level, "message": str(message), "data": data}
        try:
            text = codec.store(detail)[0]
        except NotSerializable:
            # A log line must not end a run.
            detail["data"] = {key: repr(value) for key, value in data.items()}
            text = codec.encode(detail)
        self._execution.journal.log(current_step.get(), text)


def _policies(
    name: str, fn: Callable[..., Any], retry: Retry | None, timeout: Duration | None, offload: bool
) -> tuple[Retry | None, float | None, bool]:
    if retry is not None and not isinstance(retry, Retry):
        raise InvalidInput(f"retry of step {name!r} is a Retry, such as Retry(max_attempts=5), not {retry!r}")
    if offload:
        # Here, and not at the top: few jobs need it.
        from durably_web.offloading import place_of

        place_of(fn, f"step {name!r}")
    return retry, None if timeout is None else seconds_of(timeout, f"the timeout of step {name!r}"), offload


def _number(value: float) -> float:
    """A number as JSON has it, of what another library may call one."""
    if type(value) is int and abs(value) < 2**63:
        return value
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a progress must be a finite number, not {value!r}")
    return number
