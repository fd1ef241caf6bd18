"""Asking for runs, and sending them signals."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from durably_web import codec
from durably_web.arguments import (
    Duration,
    check_priority,
    check_signal_name,
    check_text,
    checked_labels,
    due_at,
    milliseconds_of,
)
from durably_web.engine.base import no_run
from durably_web.engine.reading import Reading
from durably_web.errors import Conflict, ConstraintViolated, InvalidInput, NotSerializable
from durably_web.handle import RunHandle
from durably_web.jobs import Job
from durably_web.records import LogEntry, Progress
from durably_web.retry import Debounce
from durably_web.store import operations
from durably_web.store.changes import RUNNABLE
from durably_web.store.operations import Coalesce, Trigger, Triggered
from durably_web.store.operations.triggering import refused_item
from durably_web.store.rows import entry_event
from durably_web.waits import WAITS

if TYPE_CHECKING:
    from durably_web.engine.control import Control

Input = TypeVar("Input")
Output = TypeVar("Output")

# In this order they stand in messages.
_OPTIONS = dict.fromkeys(
    "idempotency_key concurrency_key coalesce labels priority delay run_at debounce".split(),
)
_COALESCE = (None, "skip", "replace", "queue")


class Triggering(Reading):
    """What makes runs."""

    @overload
    async def trigger(
        self,
        job: Job[Input, Output],
        input: Input | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        concurrency_key: str | None = None,
        coalesce: Coalesce | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        delay: Duration | None = None,
        run_at: datetime.datetime | None = None,
        debounce: Debounce | Duration | None = None,
        request_id: str | None = None,
    ) -> RunHandle[Output]: ...

    @overload
    async def trigger(
        self,
        job: str,
        input: Any = None,
        *,
        idempotency_key: str | None = None,
        concurrency_key: str | None = None,
        coalesce: Coalesce | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        delay: Duration | None = None,
        run_at: datetime.datetime | None = None,
        debounce: Debounce | Duration | None = None,
        request_id: str | None = None,
    ) -> RunHandle[Any]: ...

    async def trigger(
        self, job: Job[Any, Any] | str, input: Any = None, *, request_id: str | None = None, **options: Any
    ) -> RunHandle[Any]:
        """Ask for a run. It is stored when this returns, and will be executed, whatever happens to this process.

        An `idempotency_key` that the job has had before gives the first run.

        Runs of one `concurrency_key` never overlap (`@job(max_concurrent_per_key=…)` allows more). What if one of
        the job and key is pending already, and has never begun: `coalesce=None` raises `Conflict`, `"skip"` gives
        that run, `"replace"` gives it the new input, `"queue"` lets any number wait in order.
        `debounce`, seconds or a `Debounce`, makes one run of all triggers of a key in a burst: the last input,
        that long after the last trigger.

        `priority`: higher first, then older first. The run is due after `delay` seconds, or at `run_at` (a datetime
        with a time zone), or at once. Raises `NotFound` for a job that is not registered, and `InvalidInput`; then
        there is no run.

        `request_id`, a ULID, becomes the new run's id, and asking again with it has the effect of asking once.
        """
        if unknown := options.keys() - _OPTIONS:
            raise TypeError(f"trigger() has no {', '.join(sorted(unknown))}; it has {', '.join(_OPTIONS)}")
        return await self.trigger_at(self._clock.now(), job, input, request_id=request_id, **options)

    async def trigger_at(
        self, moment: int, job: Job[Any, Any] | str, input: Any, *, request_id: str | None, **options: Any
    ) -> RunHandle[Any]:
        """`trigger`, as if at a moment that has passed, in milliseconds."""
        found = self._environment.known_job(job)
        asked = self._asked(found, input, self._request_id(request_id), moment, **options)
        return await self._trigger(found, asked)

    async def _trigger(self, job: Job[Any, Any], asked: Trigger) -> RunHandle[Any]:
        triggered = await self._store.write(operations.trigger(asked))
        if triggered.taken:
            raise Conflict(_taken(triggered.run_id))
        if triggered.disposition is None:
            raise self._conflict(triggered.run_id, asked)
        await self._tell_of_trigger(asked, triggered)
        return RunHandle(cast("Control", self), job, triggered.run_id, triggered.disposition)

    @overload
    async def trigger_many(
        self, job: Job[Input, Output], items: Iterable[Mapping[str, Any]], *, request_id: str | None = None
    ) -> list[RunHandle[Output]]: ...

    @overload
    async def trigger_many(
        self, job: str, items: Iterable[Mapping[str, Any]], *, request_id: str | None = None
    ) -> list[RunHandle[Any]]: ...

    async def trigger_many(
        self, job: Job[Any, Any] | str, items: Iterable[Mapping[str, Any]], *, request_id: str | None = None
    ) -> list[RunHandle[Any]]:
        """Ask for runs in one transaction: all are stored when this returns, or none.

        Each item is `{"input": …}` with any of `trigger`'s options beside it, but `debounce`. Raises what `trigger`
        raises. The ids of the new runs are `request_id`, where one is given, and those behind it.
        """
        return await self.trigger_many_at(self._clock.now(), job, items, request_id=request_id)

    async def trigger_many_at(
        self, moment: int, job: Job[Any, Any] | str, items: Iterable[Mapping[str, Any]], *, request_id: str | None
    ) -> list[RunHandle[Any]]:
        """`trigger_many`, as if at a moment that has passed, in milliseconds."""
        found = self._environment.known_job(job)
        asked = []
        if isinstance(items, Mapping | str) or not isinstance(items, Iterable):
            raise InvalidInput(f'items is a list of {{"input": …}}, not {items!r}')
        given: Iterable[object] = items
        for number, item in enumerate(given):
            if not isinstance(item, Mapping) or "debounce" in item:
                raise InvalidInput(f'items[{number}] is {{"input": …}} with options of trigger, not {item!r}')
            options = {name: value for name, value in item.items() if name != "input"}
            if unknown := sorted(map(str, options.keys() - _OPTIONS)):
                raise InvalidInput(f"items[{number}] has {', '.join(unknown)}; known: input, {', '.join(_OPTIONS)}")
            run_id = self._request_id(request_id, number)
            asked.append(self._asked(found, item.get("input"), run_id, moment, **options))
        return await self._trigger_many(found, asked)

    async def _trigger_many(self, job: Job[Any, Any], asked: list[Trigger]) -> list[RunHandle[Any]]:
        try:
            triggered = await self._store.write(operations.trigger_many(asked))
        except ConstraintViolated as error:
            refused = refused_item(asked, error.statement_index)
            if refused is None:
                raise
            key = cast(str, asked[refused].concurrency_key)
            pending = await self._store.read(operations.pending_of(job.name, key))
            which = f"run {pending}" if pending is not None else "another one of these runs"
            raise Conflict(
                f"items[{refused}]: {which} of job {job.name!r} and key {key!r} is pending already, so none was "
                'stored: choose coalesce="skip", "replace" or "queue"'
            ) from error
        for number, result in enumerate(triggered):
            if result.taken:
                raise Conflict(f"items[{number}]: {_taken(result.run_id)}; those of the others are stored")
        handles: list[RunHandle[Any]] = []
        for one, result in zip(asked, triggered, strict=True):
            assert result.disposition is not None
            await self._tell_of_trigger(one, result)
            handles.append(RunHandle(cast("Control", self), job, result.run_id, result.disposition))
        return handles

    async def trigger_and_wait(
        self,
        job: Job[Input, Output] | str,
        input: Any = None,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[LogEntry], None] | None = None,
        **options: Any,
    ) -> Output:
        """Trigger, wait for the end, and give the output. `options` are those of `trigger`.

        Raises what `trigger` raises, `RunFailed`, `RunCancelled`, or `TimeoutError` after `timeout` seconds
        (the run goes on).
        """
        found = cast("Job[Any, Output]", self._environment.known_job(job))
        handle = await self.trigger(found, input, **options)
        return await self.output_of(handle.id, found, timeout, on_progress=on_progress, on_log=on_log)

    async def signal(self, run_id: str, name: str, payload: Any = None, *, request_id: str | None = None) -> None:
        """Send a signal to a run: to its next `step.wait_for_signal(name)`, now or later. Stored when this returns.

        Sent again with the same `request_id`, a ULID, it is the same signal, and not another one.
        Raises `NotFound`, `Conflict` for a terminal run, and `NotSerializable`.
        """
        check_signal_name(name)
        try:
            text = codec.store(payload, self._codec)[0]
        except NotSerializable as error:
            raise NotSerializable(f"the payload of signal {name!r} cannot be stored: {error}") from None
        asked = self._request_id(request_id)
        signalled = await self._store.write(operations.signal(run_id, name, text, asked, self._clock.now()))
        if not signalled.stored:
            if signalled.status is None:
                raise no_run(run_id)
            raise Conflict(f"run {run_id} is {signalled.status}, so it waits for no signal any more")
        self._notify(RUNNABLE, WAITS)

    # -- inside ------------------------------------------------------------------------------------------

    def _asked(
        self,
        job: Job[Any, Any],
        input: Any,
        run_id: str,
        now: int,
        *,
        idempotency_key: str | None = None,
        concurrency_key: str | None = None,
        coalesce: Coalesce | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        delay: Duration | None = None,
        run_at: datetime.datetime | None = None,
        debounce: Debounce | Duration | None = None,
    ) -> Trigger:
        text = job.encode_input(input, self._codec)
        moment = None if delay is None and run_at is None else due_at(delay, run_at, now)
        checked = {} if labels is None else checked_labels(labels)
        if idempotency_key is not None:
            check_text(idempotency_key, "an idempotency key")
        if priority != 0 or type(priority) is not int:
            check_priority(priority)
        asked = Trigger(run_id, job.name, text, checked, now, idempotency_key, priority, moment)
        if (origin := self._environment.origin()) is not None:
            asked = asked._replace(origin=origin)
        if concurrency_key is None:
            for name, value in (("coalesce", coalesce), ("debounce", debounce)):
                if value is not None:
                    raise InvalidInput(f"{name} needs a concurrency_key, which says which runs belong together")
            return asked
        check_text(concurrency_key, "a concurrency key")
        if coalesce not in _COALESCE:
            raise InvalidInput(f'coalesce is None, "skip", "replace" or "queue", not {coalesce!r}')
        asked = asked._replace(
            concurrency_key=concurrency_key, per_key=job.options.max_concurrent_per_key, coalesce=coalesce
        )
        if debounce is None:
            return asked
        if coalesce is not None or moment is not None:
            raise InvalidInput("debounce decides by itself what is replaced and when: no coalesce, delay or run_at")
        policy = debounce if isinstance(debounce, Debounce) else Debounce(debounce)
        longest = policy.max_delay
        return asked._replace(
            coalesce="replace",
            debounce=True,
            run_at=now + milliseconds_of(policy.delay, "delay"),
            longest_wait=None if longest is None else milliseconds_of(longest, "max_delay"),
        )

    def _conflict(self, pending: str, asked: Trigger) -> Conflict:
        return Conflict(
            f"run {pending} of job {asked.job_name!r} and key {asked.concurrency_key!r} is pending already: "
            'choose coalesce="skip", "replace" or "queue"'
        )

    async def _tell_of_trigger(self, asked: Trigger, triggered: Triggered) -> None:
        seq, disposition = triggered.seq, triggered.disposition
        if seq is not None and disposition == "coalesced":
            await self._tell_of(triggered.run_id, "run:coalesced", seq)
        elif seq is not None and self._emitter.hears("run:trigger") and self._is_new(seq):
            value = self._codec.decode(asked.input)
            self._emitter.emit(
                entry_event(
                    "run:trigger",
                    seq,
                    1,
                    asked.run_id,
                    asked.job_name,
                    asked.labels,
                    None,
                    None,
                    None,
                    asked.now,
                    value,
                )
            )
        if disposition != "idempotent":
            self._notify(RUNNABLE)


def _taken(run_id: str) -> str:
    return f"the request's id {run_id} is that of another run, so no run was made: give each request its own"
