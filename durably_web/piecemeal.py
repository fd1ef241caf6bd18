"""Takes up runs of which more is stored than the database says in one answer: one by one, and each in pieces.

ADR 57 says what becomes of a run with a value that fits into no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any

from durably_web import codec
from durably_web.errors import LeaseLost, ResponseTooLarge, StoreError
from durably_web.failures import describe
from durably_web.journal import Awaited, Draft, RunJournal
from durably_web.store import operations
from durably_web.store.batch import Rows
from durably_web.store.changes import RUNNABLE
from durably_web.store.paging import Pages
from durably_web.store.rows import Lease, StoredEntry

if TYPE_CHECKING:
    from durably_web.worker import Worker

# How long a run waits of which a value cannot be read.
PAUSE_MS = 60_000

# What a replay needs, as `SELECT_CLAIMED_ENTRIES` has it.
_REPLAYED = frozenset(
    {
        *("step:complete", "step:fail", "step:retry", "step:wait", "step:unasked", "log:write"),
        *("run:retry", "run:undo", "run:restart", "run:patched"),
    }
)


async def claim_one_by_one(worker: Worker, limit: int, patient: bool) -> list[asyncio.Task[object]]:
    """Begin up to `limit` runs that are due. Raises `StoreError` when none has begun; otherwise the worker meets it
    again at its next claim."""
    begun: list[asyncio.Task[object]] = []
    stops = worker._stops
    try:
        while len(begun) < limit and worker.room > 0 and stops == worker._stops and not worker.is_leaving:
            leases, now = await worker._lease(1, patient, bare=True)
            if not leases:
                break
            lease = await _read(worker, leases[0])
            if lease is not None:
                begun.append(worker._begin(lease, now))
    except StoreError:
        if not begun:
            raise
    return begun


async def _read(worker: Worker, bare: Lease) -> Lease | None:
    """The lease with all that an execution needs; `None` when the run is not ours any more, or waits now.

    A lease that cannot be completed is given back, or ends by time where that cannot be stored either.
    """
    try:
        return await _complete(worker, bare)
    except ResponseTooLarge as error:
        worker._emitter.error(error, "reading a run that was claimed", bare.run_id)
        await _put_off(worker, bare, error)
        return None
    except BaseException:
        with contextlib.suppress(StoreError):
            await worker._store.write(operations.release_run(bare.run_id, bare.generation))
        raise


async def _complete(worker: Worker, bare: Lease) -> Lease | None:
    input_ = await worker._store.read(operations.get_input(bare.run_id))
    if input_ is None or not await _keep(worker, bare):
        return None
    entries: list[StoredEntry] = []
    if bare.attempt > 1 or bare.is_fork:
        async for page in _pages(worker, bare):
            # That took its time.
            if not await _keep(worker, bare):
                return None
            for _, _, type_, step_name, kind, data, _, created_at, calls, _ in page:
                if type_ == "run:restart":
                    entries.clear()
                if type_ in _REPLAYED:
                    entries.append(StoredEntry(type_, step_name, data, created_at, calls, kind))
    return bare._replace(input=input_, entries=entries)


async def _pages(worker: Worker, lease: Lease) -> AsyncIterator[list[Any]]:
    """The journal as the claim found it. Only who has the lease appends to it, so that pages fit together."""

    def ask(after: int, size: int) -> Awaitable[Rows]:
        return worker._store.read(operations.journal_page(lease.run_id, after, size))

    pages, number = Pages(), 0
    while number < lease.number:
        page: list[Any] = await pages.read(ask, number, lease.number - number)
        if not page:
            return
        yield page
        number = page[-1][0]


async def _keep(worker: Worker, lease: Lease) -> bool:
    """Renew the lease; whether it still was one that an execution may begin with."""
    held = [(lease.run_id, lease.generation)]
    expires_at = worker._expiry(worker._clock.now())
    found = await worker._store.write(operations.renew_leases(held, expires_at))
    return any(run.status == "leased" and run.generation == lease.generation for run in found)


async def _put_off(worker: Worker, lease: Lease, error: ResponseTooLarge) -> None:
    """Let the run wait, and tell why: others are not to wait for it, and the database may say more later."""
    environment = worker._environment
    now = environment.clock.now()
    until = now + PAUSE_MS
    detail = {"until": until, "error": describe(error)}
    draft = Draft("run:waiting", None, codec.encode(detail), detail, lease.started_at, now)
    journal = RunJournal(environment, lease)
    try:
        await journal.suspend(Awaited(until), draft)
    except LeaseLost:
        return
    finally:
        journal.close()
    environment.store.changes.notify(RUNNABLE)
