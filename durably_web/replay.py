"""Replays an exported run against the code of a job, without executing anything new: what differs, and where the run
would go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Literal, NamedTuple, TypeVar

from durably_web import calls, failures
from durably_web.clock import SystemClock
from durably_web.codec import Codec, JsonCodec
from durably_web.context import Shutdown, current_run, ended, shutdown
from durably_web.emitter import Emitter
from durably_web.environment import Environment, Hooks
from durably_web.errors import InvalidInput, RunSuspended, StoreUnavailable
from durably_web.execution import Execution
from durably_web.export import Exported, is_json, read
from durably_web.jobs import Job
from durably_web.journal import RunJournal
from durably_web.network import Network
from durably_web.records import Kind
from durably_web.store.batch import Batch, Rows
from durably_web.store.rows import Lease, StoredEntry
from durably_web.store.store import Store

T = TypeVar("T")

Difference = Literal["unasked", "new", "kind", "output", "error", "job", "stuck"]

# How many turns of the event loop nothing must happen before a replay is over; and how many seconds, where something
# is missing that may still come.
_QUIET_TURNS = 64
_QUIET_SECONDS = 0.2


class Different(NamedTuple):
    """One way in which the code does not do what the run has stored.

    `"unasked"`: a stored step that the code does not ask for. `"new"`: a step that it asks for before stored ones, and
    that the run does not have. `"kind"`: a step that is stored as another kind. `"output"`: a completed run gives
    another one. `"error"`: it raises. `"job"`: there is no such job. `"stuck"`: it waits for something that is no step.
    """

    what: Difference
    step: str | None
    message: str

    def to_wire(self) -> dict[str, Any]:
        return {"what": self.what, "step": self.step, "message": self.message}


class Replay(NamedTuple):
    """What a replay came to. `goes_on_with` are the steps that the run would execute next; none when it has ended."""

    run_id: str
    job_name: str
    status: str
    differences: list[Different]
    goes_on_with: list[str]

    def to_wire(self) -> dict[str, Any]:
        return {
            "runId": self.run_id,
            "jobName": self.job_name,
            "status": self.status,
            "differences": [one.to_wire() for one in self.differences],
            "goesOnWith": self.goes_on_with,
        }


async def replay(
    export: Any,
    jobs: Job[Any, Any] | Iterable[Job[Any, Any]],
    *,
    codec: Codec | None = None,
    timeout: float = 10.0,
) -> Replay:
    """Call the job with what `durably.export_run` gave, and compare.

    `jobs` is the job, or all that there are: it may call others by name. No step is executed and nothing is stored;
    what the job does outside of steps, it does. A run that has not completed may go on with steps that it does not
    have, and that is no difference. `codec` is needed where the run was not stored as tagged JSON. `timeout`, in
    seconds, is how long the job may wait for something that is no step. Raises `InvalidInput` for what is not an
    export, or cannot be replayed: the results of the run's steps were emptied (`preserve_steps=False`).
    """
    exported = read(export)
    if exported.values == "text" and (codec is None or is_json(codec)):
        raise InvalidInput(f"run {exported.run_id} was stored by a codec of its own: pass it")
    if exported.status == "completed" and any(
        entry.type == "step:complete" and entry.data is None for entry in exported.entries
    ):
        raise InvalidInput(f"the results of run {exported.run_id} were emptied (preserve_steps=False)")
    known = {job.name: job for job in ([jobs] if isinstance(jobs, Job) else jobs)}
    if exported.job_name not in known:
        there_is = ", ".join(sorted(known)) or "none"
        lost = Different("job", None, f"there is no job {exported.job_name!r}; there is {there_is}")
        return Replay(exported.run_id, exported.job_name, exported.status, [lost], [])
    caller = calls.caller(1)
    try:
        return await _Replay(exported, known, caller, codec or JsonCodec()).compare(timeout)
    finally:
        caller.close()


class _NoDatabase:
    """Nothing is read or written."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def run(self, batch: Batch) -> list[Rows]:
        raise StoreUnavailable("a replay has no database")

    def version(self) -> int | None:
        return None

    def announce(self, worker_id: str) -> None: ...

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        return []


class _Known(Environment):
    """Also knows a job that nobody has named."""

    def known_job(self, job: Job[Any, Any] | str) -> Job[Any, Any]:
        return job if isinstance(job, Job) else super().known_job(job)


class _Silent(RunJournal):
    """Takes what a job says, and writes nothing."""

    def _flush_later(self) -> None: ...


class _Replay(Execution):
    """An execution that stops at each step without a stored outcome."""

    def __init__(self, exported: Exported, jobs: dict[str, Job[Any, Any]], caller: calls.Caller, codec: Codec) -> None:
        clock = SystemClock()
        environment = _Known(
            store=Store(_NoDatabase(), clock),
            clock=clock,
            emitter=Emitter(clock.now),
            codec=codec,
            make_id=_no_id,
            random=lambda: 0.5,
            jobs=jobs,
            polling_interval=1.0,
            preserve_steps=True,
            hooks=Hooks(),
            shutdown=Shutdown(),
            network=Network(),
        )
        lease = Lease(
            run_id=exported.run_id,
            job_name=exported.job_name,
            input=exported.input,
            labels=exported.labels,
            generation=1,
            attempt=exported.attempt,
            started_at=exported.started_at,
            crashes=0,
            parent_run_id=None,
            concurrency_key=None,
            code=exported.code,
            undoing=None,
            schedule=exported.schedule,
            scheduled_at=exported.scheduled_at,
            number=0,
            seq=0,
            entries=exported.entries,
        )
        super().__init__(environment, caller, jobs[exported.job_name], lease, expires_at=2**53, renew=_no_renewal)
        self.journal = _Silent(environment, lease)
        # Its time was over long ago, perhaps.
        self._deadline = None
        self._exported = exported
        self._stopped: dict[str, asyncio.Future[None]] = {}
        # The tasks that are there.
        self._at_rest: set[asyncio.Task[Any] | None] = set()
        # How many steps had been called when each was, itself included.
        self._places: dict[str, int] = {}
        self._given = 0

    # -- the comparison ----------------------------------------------------------------------------------

    async def compare(self, timeout: float) -> Replay:
        job = asyncio.get_running_loop().create_task(self._call())
        late = await self._watch(job, timeout)
        has_ended = job.done()
        goes_on_with = [] if has_ended else list(self._stopped)
        self._ending = self._ending or RunSuspended()
        for future in self._stopped.values():
            future.cancel()
        job.cancel()
        await asyncio.wait([job])
        self.journal.close()
        exported, found = self._exported, []
        if self.mismatch is not None:
            found.append(Different("kind", self.mismatch.step, str(self.mismatch)))
        elif has_ended:
            found = [*self._new(), *self._unasked(job), *self._outcome(job)]
        elif late and not goes_on_with:
            found.append(Different("stuck", None, f"the job waits for something that is no step, {timeout:g} s so far"))
        else:
            found = self._in_the_way(goes_on_with, f" within {timeout:g} s" if late else "")
            found += [one for one in self._new() if one.step not in goes_on_with]
        return Replay(exported.run_id, exported.job_name, exported.status, found, goes_on_with)

    def _unasked(self, job: asyncio.Task[str]) -> list[Different]:
        to_the_end = not job.cancelled() and job.exception() is None
        return [
            Different("unasked", key, f"step {key!r} is stored, and the code does not ask for it")
            for key in self.unasked(to_the_end)
        ]

    def _new(self) -> list[Different]:
        """Those without an outcome that were called before a step whose outcome is older than that."""
        places, outcomes = self._places, self.history.outcomes
        last = 0
        for key, stored in outcomes.items():
            if key in places and stored.calls is not None and places[key] > stored.calls:
                last = max(last, places[key])
        return [
            Different("new", key, f"step {key!r} is not stored, and the code asks for it before steps that are")
            for key, place in places.items()
            if place < last and key not in outcomes and self.history.begun_as(key) is None
        ]

    def _in_the_way(self, goes_on_with: list[str], within: str) -> list[Different]:
        """Where the code does not get to what is stored, or to the end of a completed run; `within` its time, if that
        was over."""
        completed = self._exported.status == "completed"
        new = [key for key in goes_on_with if completed or self.history.begun_as(key) is None]
        missed = [key for key in self.unasked() if key not in goes_on_with]
        if not missed and not completed:
            return []
        if not new:
            what = f"has not got to it{within}" if within else "does not ask for it"
            return [Different("unasked", key, f"step {key!r} is stored, and the code {what}") for key in missed]
        if missed:
            more = f" and {len(missed) - 1} more" if len(missed) > 1 else ""
            does = "has not got" if within else "does not get"
            what = f"{does} to step {missed[0]!r}{more}, which the run has stored{',' if within else ''}{within}"
        elif within:
            what = f"has not come to its end{within}, as the run has without it"
        else:
            what = "the run has completed without it"
        return [
            Different("new", key, f"the code asks for step {key!r}, which is not stored, and {what}") for key in new
        ]

    def _outcome(self, job: asyncio.Task[str]) -> list[Different]:
        """Whether a completed run comes to the same end. Another may end otherwise: the code may have been mended."""
        if self._exported.status != "completed":
            return []
        error = asyncio.CancelledError() if job.cancelled() else job.exception()
        if error is not None:
            text = f"the run has completed, and the code raises {failures.describe(error)}"
            return [Different("error", self.step_of(error), text)]
        stored, output = self._exported.output or "null", job.result()
        if stored == output or (self._exported.values == "json" and _sorted(stored) == _sorted(output)):
            return []
        return [Different("output", None, f"the output was {_short(stored)}, and the code gives {_short(output)}")]

    # -- the replay --------------------------------------------------------------------------------------

    async def _call(self) -> str:
        ended.set(self._has_ended)
        current_run.set(self.lease.run_id)
        shutdown.set(self.environment.shutdown)
        return await self._call_job()

    async def _watch(self, job: asyncio.Task[str], timeout: float) -> bool:
        """Return when the job has ended, or nothing happens any more; true when it may only have been too slow."""
        clock, turns = self._clock, 0
        others = asyncio.all_tasks() - {job}
        begun = quiet = clock.monotonic()
        before: Any = None
        while not job.done():
            # Where it does something that takes longer, it is not held up.
            await asyncio.sleep(0 if turns < _QUIET_TURNS else 0.001)
            now, state = clock.monotonic(), (self.order.calls, self._given, len(self._stopped))
            if state != before:
                before, turns, quiet = state, 0, now
                continue
            turns += 1
            if turns < _QUIET_TURNS:
                continue
            if self._stopped and not self._may_go_on():
                return False
            if now - quiet > _QUIET_SECONDS and self._at_rest >= asyncio.all_tasks() - others:
                return False
            if now - begun > timeout:
                return True
        return False

    def _may_go_on(self) -> bool:
        """Whether something is missing that may come without a new step."""
        return self._exported.status == "completed" or not self.order.is_over or bool(self.unasked())

    def key(self, name: str) -> str:
        key = super().key(name)
        self._places[key] = self.order.calls
        return key

    def step(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], *policies: Any
    ) -> Coroutine[Any, Any, Any]:
        return self.item(self.key(name), fn, args, *policies, in_order=True)

    def item(
        self, key: str, fn: Callable[..., Any], args: tuple[Any, ...], *policies: Any, in_order: bool = False
    ) -> Coroutine[Any, Any, Any]:
        stored = self.history.outcomes.get(key)
        if stored is not None:
            return self.replay(stored, "run", fn, in_order)
        return self.refused(key, "run") or self._stop_at(key)

    def tried(
        self, key: str, fn: Callable[..., Any], args: tuple[Any, ...], *policies: Any
    ) -> Coroutine[Any, Any, Any]:
        return self._stop_at(key)

    def waiting_step(
        self, key: str, kind: Kind, begin: Callable[[str], Coroutine[Any, Any, T]]
    ) -> Coroutine[Any, Any, T]:
        stored = self.history.outcomes.get(key)
        if stored is not None:
            return self.replay(stored, kind)
        return self.refused(key, kind) or self._stop_at(key)

    async def replay(
        self, stored: StoredEntry, kind: Kind, fn: Callable[..., Any] | None = None, in_order: bool = True
    ) -> Any:
        try:
            return await super().replay(stored, kind, fn, in_order)
        finally:
            self._given += 1

    async def _stop_at(self, key: str) -> Any:
        self.check()
        future = self._stopped[key] = asyncio.get_running_loop().create_future()
        task = asyncio.current_task()
        self._at_rest.add(task)
        try:
            await future
        finally:
            self._at_rest.discard(task)
            del self._stopped[key]


def _no_id() -> str:
    raise NotImplementedError("a replay makes no run")


async def _no_renewal() -> None: ...


def _sorted(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:100] + "…"
