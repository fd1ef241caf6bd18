"""Handing runs over to other databases, and taking them in: a run that began in one place goes on in another one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from durably_web.arguments import check_request_id, check_text
from durably_web.engine.base import no_run
from durably_web.engine.control import Control
from durably_web.errors import Conflict, ResponseTooLarge
from durably_web.handle import RunHandle
from durably_web.records import TERMINAL
from durably_web.store import operations
from durably_web.store.changes import RUNNABLE, end_of
from durably_web.store.operations.building import part_of

if TYPE_CHECKING:
    from durably_web.store.operations import Whole
    from durably_web.store.operations.handing import Offered, Settled
    from durably_web.store.operations.taking import Taken, TakenRun


class Offer(NamedTuple):
    """A run that was offered, as `document`, to whoever is called `target`. `state` is `"given"` when it was taken
    there already; then there is no document."""

    run_id: str
    handover_id: str
    target: str
    state: str
    document: dict[str, Any] | None


class Taker(Protocol):
    """What a run can be handed over to: an engine, or something that asks one."""

    async def import_run(self, document: Any, /) -> Any: ...

    async def decline_handover(self, run_id: str, handover_id: str, /) -> bool: ...


class Handing(Control):
    """What moves runs between databases. `docs/export.md` describes the document, and ADR 47 why a run has one owner
    at most, whatever is lost on the way."""

    async def hand_over(
        self, run_id: str, to: Taker, *, target: str = "another engine", timeout: float | None = None
    ) -> str:
        """Let a run go on in another engine, with all that is stored of it; gives the id of the handover.

        Here it is `"cancelled"` then, and its error says that it went to `target`. A run that is executed here is
        paused first; after `timeout` seconds of its current steps it goes on here, and this raises `TimeoutError`.

        Raises what `offer_run` raises, and what `import_run` raises over there: then the run goes on here. When the
        answer of the other side is lost, that error is raised and the run stays offered: nobody executes it here.
        Call this again, with the same `target`: it asks again, and brings to its end whatever had begun.
        """
        while True:
            own = self._make_id()
            offer = await self.offer_run(run_id, target, timeout=timeout, request_id=own)
            if offer.document is None or await self._is_taken(offer, to, may_raise=offer.handover_id == own):
                break
            # One that had begun earlier was declined by now. It is over, and this is another one.
        if offer.document is not None:
            await self.confirm_handover(run_id, offer.handover_id)
        return offer.handover_id

    async def _is_taken(self, offer: Offer, to: Taker, *, may_raise: bool) -> bool:
        """Whether the other side has the run now. If not, it goes on here, and with `may_raise` that is an error."""
        try:
            await to.import_run(offer.document)
        except Exception as error:
            # It may have been refused, or have arrived without an answer. Only who is asked knows, and from now on
            # does not take it any more.
            try:
                declined = await to.decline_handover(offer.run_id, offer.handover_id)
            except Exception:
                raise error from None
            if declined:
                await self.withdraw_handover(offer.run_id, offer.handover_id)
                if may_raise:
                    raise
                return False
        return True

    # -- where it leaves ---------------------------------------------------------------------------------

    async def offer_run(
        self, run_id: str, target: str, *, timeout: float | None = None, request_id: str | None = None
    ) -> Offer:
        """Hold a run back, and give the document by which `import_run` takes it, once.

        From now on it is nobody's to execute or change here, until `confirm_handover` or `withdraw_handover`: it waits,
        it is `paused`, and what it waited for stays as it was. One that is executed is paused, and offered when its
        current steps are done; after `timeout` seconds it goes on, and `TimeoutError` is raised. `target` tells people
        where it went. A run that is offered to the same one already gives the same offer.

        Raises `NotFound`, and `Conflict` for a run that has ended, is offered to somebody else, was started by a run
        that goes on here, or has itself started one that does.
        """
        check_text(target, "a target")
        handover_id = self._request_id(request_id)
        held = False
        limit = None if timeout is None else asyncio.get_running_loop().time() + timeout
        try:
            while True:
                mark = self._store.changes.mark(RUNNABLE)
                offered = await self._offer(run_id, handover_id, target)
                if offered is not None:
                    held = False
                    return offered
                if not held:
                    held = True
                    await self._pause([run_id], part_of(handover_id, "hold"), held=True)
                # Only this is given up: what was offered must be told.
                async with asyncio.timeout_at(limit):
                    await self._store.changes.wait(RUNNABLE, self._environment.polling_interval, mark)
        finally:
            if held:
                await self._resume([run_id], part_of(handover_id, "let-go"), held=True)

    async def confirm_handover(self, run_id: str, handover_id: str) -> None:
        """The run was taken where it was offered to: it is `"cancelled"` here, and never goes on. Safe to repeat.

        Raises `NotFound`, and `Conflict` when it is not offered by this handover.
        """
        await self._settle(run_id, handover_id, given=True)

    async def withdraw_handover(self, run_id: str, handover_id: str) -> None:
        """The run was not taken, and never will be: it goes on here. Safe to repeat.

        Only for whoever knows that: because `decline_handover` has said so over there, or no document has ever left.
        Otherwise it might be executed twice. Raises `NotFound`, and `Conflict` when it is not offered by this handover.
        """
        await self._settle(run_id, handover_id, given=False)

    async def _offer(self, run_id: str, handover_id: str, target: str) -> Offer | None:
        """The offer; `None` while the run is executed."""
        now = self._clock.now()
        try:
            offered = await self._store.write(operations.offer_run(run_id, handover_id, target, now))
        except ResponseTooLarge:
            offered = await self._store.write(operations.offer_run(run_id, handover_id, target, now, bare=True))
        if offered is None:
            raise no_run(run_id)
        handover = offered.handover
        if handover.get("state") in ("offered", "given"):
            if handover["target"] != target:
                is_open = handover["state"] == "offered"
                state = "is offered" if is_open else "was handed over"
                raise Conflict(f"run {run_id} {state} to {handover['target']}, so it cannot be handed over")
            if handover["state"] == "given":
                return Offer(run_id, handover["handover"], target, "given", None)
            self._notify(RUNNABLE)
            await self._tell_of(run_id, "run:handover", offered.seq)
            whole = offered.whole or await self._read_whole(run_id)
            return Offer(run_id, handover["handover"], target, "offered", self._document(handover, whole))
        _check_offered(run_id, handover_id, offered)
        return None

    def _document(self, offered: dict[str, Any], whole: Whole) -> dict[str, Any]:
        from durably_web.export import exported

        handover: dict[str, Any] = {"id": offered["handover"], "target": offered["target"]}
        if hasattr(self._codec, "seal"):
            handover["sealed"] = True
        return {**exported(whole, self._codec), "handover": handover}

    async def _read_whole(self, run_id: str) -> Whole:
        from durably_web.store.paging import read_whole

        # While it is offered, nothing of it changes.
        whole = await read_whole(self._store.read, run_id)
        if whole is None:
            raise no_run(run_id)
        return whole

    async def _settle(self, run_id: str, handover_id: str, *, given: bool) -> None:
        check_request_id(handover_id)
        settling = operations.settle_handover(run_id, handover_id, given, self._clock.now())
        settled: Settled | None = await self._store.write(settling)
        if settled is None:
            raise no_run(run_id)
        wanted = "given" if given else "withdrawn"
        if settled.ended != wanted:
            state = "not open" if settled.ended is None else f"{settled.ended} already"
            raise Conflict(f"handover {handover_id} of run {run_id} cannot be {wanted}: it is {state}")
        self._notify(RUNNABLE, end_of(run_id))
        if settled.seq is not None:
            await self._tell_of(run_id, "run:handover", settled.seq)

    # -- where it comes to -------------------------------------------------------------------------------

    async def import_run(self, document: Any) -> RunHandle[Any]:
        """Take in a run that `offer_run` has given a document of, as a dict or as its JSON text; it goes on here.

        With its id, its finished steps, none of which is executed again, what it waits for, its signals, logs and
        progress. All of it is stored when this returns, or, when this raises, nothing. Safe to repeat: the same
        handover is taken once, and the answer is the same.

        Raises `InvalidInput` for a document that is damaged, that a newer durably_web has made, or whose values cannot
        be kept here; `NotFound` for a job that is not registered; `Conflict` for a run that is here already, unless it
        was given away from here and comes back, and for a handover that was declined.
        """
        from durably_web.importing import read

        return await self._take_in(read(document, self._codec))

    async def decline_handover(self, run_id: str, handover_id: str) -> bool:
        """See to it that this handover is never taken here, however late its document comes; safe to repeat.

        `False` when it was taken before: then the run belongs here. Whoever has offered it learns so what became of it.
        """
        check_text(run_id, "a run's id")
        check_request_id(handover_id)
        return await self._store.write(operations.decline_handover(run_id, handover_id))

    async def _take_in(self, run: TakenRun, *, is_known: bool = True) -> RunHandle[Any]:
        """`import_run` of a document that was read. Whoever executes nothing need not know its job: not `is_known`."""
        job, per_key = None, 1
        if is_known:
            job = self._environment.known_job(run.job_name)
            # What does not fit is better refused while the run is still where it was.
            job.encode_input(self._codec.decode(run.input), self._codec)
            per_key = job.options.max_concurrent_per_key
        taken = await self._store.write(operations.import_run(run, per_key, self._clock.now()))
        if taken.seq is None:
            raise _refused(run, taken)
        self._notify(RUNNABLE, end_of(run.run_id))
        await self._tell_of(run.run_id, "run:handover", taken.seq)
        return RunHandle(self, job, run.run_id, "created")


def _check_offered(run_id: str, handover_id: str, offered: Offered) -> None:
    """Raises `Conflict` unless the run is only executed, and can be offered when that is over."""
    if offered.status in TERMINAL:
        why = f"is {offered.status}"
    elif offered.parent is not None:
        why = f"was started by run {offered.parent}, which goes on here: hand it over when that has ended"
    elif offered.child is not None:
        why = f"has started run {offered.child}, which goes on here: hand it over when that has ended"
    elif offered.call is not None:
        why = f"has called a run in step {offered.call!r}, and has not seen what that came to: let it see that first"
    elif offered.status == "leased":
        return
    else:
        why = f"is {offered.status}, and handover {handover_id} of it is over: begin another one"
    raise Conflict(f"run {run_id} {why}, so it cannot be handed over")


def _refused(run: TakenRun, taken: Taken) -> Conflict:
    run_id = run.run_id
    if taken.declined:
        why = f"handover {run.handover_id} of run {run_id} was declined here, since nobody knew whether it would come"
    elif taken.status is not None and taken.job_name == run.job_name:
        why = f"run {run_id} is here already, {taken.status}, and was not given away from here by this handover"
    elif taken.status is not None:
        why = f"the id {run_id} is that of a run of another job here"
    elif taken.known:
        why = f"run {run_id} was here before, and was deleted"
    elif taken.same_key is not None:
        why = f"run {taken.same_key} of job {run.job_name!r} has the same idempotency key here"
    elif taken.same_tick is not None:
        why = f"run {taken.same_tick} here is that of the same tick of the schedule {run.schedule!r}"
    else:
        why = f"run {run_id} could not be stored"
    return Conflict(f"{why}: nothing was stored")
