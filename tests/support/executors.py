"""Executors around another one, for what a database only does on bad days."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NoReturn

from durably_web.errors import ConstraintViolated, ResponseTooLarge, StorageFull, StoreUnavailable
from durably_web.store.batch import Batch, Executor, Rows, Statement
from durably_web.store.operations import claiming, reading, schema


class Wrapper:
    """Passes everything on."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def run(self, batch: Batch) -> list[Rows]:
        return await self.inner.run(batch)

    def version(self) -> int | None:
        return self.inner.version()

    def announce(self, worker_id: str) -> None:
        self.inner.announce(worker_id)

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        return self.inner.gone(worker_ids)


UNDER_WAY: set[asyncio.Future[None]] = set()
"""Batches that a database across a network has not answered yet: who lets everything happen waits for them."""


OF_ONE_TURN = (
    "a_run_that_never_waits_leaves_room_for_others",
    "of_two_workers_one_takes_up_each_sleeper",
    "a_child_of_another_worker_wakes_its_parent",
    "a_family_survives_death_at_any_batch",
    "the_winner_of_a_race_wins_again",
    "branches_keep_their_results_when_a_step_before_them_is_done_again",
    "branches_of_a_fork_keep_their_results_when_a_step_before_them_is_done_again",
    "a_thousand_runs_of_a_key_go_in_their_order",
    "background_work_that_stops_the_engine_with_a_deadline_is_not_abandoned_itself",
    "a_run_comes_to_its_end_through_many_stops",
)
"""Cases that move the clock, or count turns and attempts, for a database that answers within a turn of the loop; here
the clock is ahead of the answers. Not bound: on a server they fail for that."""


OF_DOCUMENTS = (
    "whatever_stands_in_the_wrong_place_is_refused_or_harmless",
    "whatever_is_missing_is_missed",
)
"""Cases of a thousand documents that a store sees as any other, or never. Not bound on a server, for their time."""


FAULT_BY_FAULT = (
    "a_family_survives_a_failure_before_any_batch",
    "a_family_survives_the_loss_of_any_reply",
    "the_same_engine_takes_a_family_on_after_a_fault",
    "a_crash_at_any_batch_loses_no_tick_and_doubles_none",
)
"""Cases that meet a fault at each batch already, lost replies among them: thousands of requests each. On a server they
are not bound to an executor that repeats."""


class Remote(Wrapper):
    """Tells of what is under way to a database that takes its time."""

    async def open(self) -> None:
        with _under_way():
            await self.inner.open()

    async def run(self, batch: Batch) -> list[Rows]:
        with _under_way():
            return await self.inner.run(batch)


@contextlib.contextmanager
def _under_way() -> Iterator[None]:
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    UNDER_WAY.add(over)
    try:
        yield
    finally:
        UNDER_WAY.discard(over)
        over.cancel()


class CountingExecutor(Wrapper):
    """Keeps the batches that crossed."""

    def __init__(self, inner: Executor) -> None:
        super().__init__(inner)
        self.batches: list[Batch] = []

    async def run(self, batch: Batch) -> list[Rows]:
        self.batches.append(batch)
        return await self.inner.run(batch)

    def writes_of(self, sql: str) -> list[int]:
        """How often `sql` occurs in each write batch that has it."""
        counts = [sum(statement.sql == sql for statement in batch.statements) for batch in self.batches]
        return [count for count in counts if count]


class RepeatingExecutor(Wrapper):
    """Sends every batch twice, as after a lost reply, and gives the second reply.

    A migration is sent once: DDL has no fence, and its second send says so with an error.
    """

    async def run(self, batch: Batch) -> list[Rows]:
        if all(statement.sql != schema.RECORD_MIGRATION for statement in batch.statements):
            await self.inner.run(batch)
        return await self.inner.run(batch)


class SuspendingExecutor(Wrapper):
    """Lets the event loop turn before and after each batch, as a database across a network does."""

    async def run(self, batch: Batch) -> list[Rows]:
        await _turn()
        results = await self.inner.run(batch)
        await _turn()
        return results


class HeldExecutor(Wrapper):
    """Lets batches wait at the door while it is held; counts them."""

    def __init__(self, inner: Executor) -> None:
        super().__init__(inner)
        self.arrived = 0
        self._door: asyncio.Event = asyncio.Event()
        self._door.set()

    def hold(self) -> None:
        self._door.clear()

    def release(self) -> None:
        self._door.set()

    async def run(self, batch: Batch) -> list[Rows]:
        self.arrived += 1
        await self._door.wait()
        return await self.inner.run(batch)


Fault = Literal["before", "after", "dead"]


class FaultyExecutor(Wrapper):
    """Fails at one batch: before it is executed, after it (the reply is lost), or at it and for ever.

    Counts from 1, from the moment that `at` is set; 0 never fails.
    """

    def __init__(self, inner: Executor, fault: Fault = "before", at: int = 0) -> None:
        super().__init__(inner)
        self.fault = fault
        self.at = at
        self.count = 0
        self.fell = False
        self.on_fall: Callable[[], None] = lambda: None

    async def run(self, batch: Batch) -> list[Rows]:
        if self.at:
            self.count += 1
            if self.count == self.at or (self.fault == "dead" and self.count > self.at):
                first, self.fell = not self.fell, True
                if self.fault == "after":
                    await self.inner.run(batch)
                if first:
                    self.on_fall()
                raise StoreUnavailable(f"batch {self.count} met a fault ({self.fault})", code="FAULT")
        return await self.inner.run(batch)


class FullExecutor(Wrapper):
    """A disk that is full: from the `at`-th write on, counted from 1 when that is set, until `room` is made.

    Deleting runs makes room, unless the disk is full of something else (`stays`).
    """

    def __init__(self, inner: Executor, at: int = 0) -> None:
        super().__init__(inner)
        self.at = at
        self.count = 0
        self.refused = 0
        self.stays = True

    def room(self) -> None:
        self.at = self.count = 0

    async def run(self, batch: Batch) -> list[Rows]:
        if not self.at or batch.mode == "read":
            return await self.inner.run(batch)
        self.count += 1
        if self.count < self.at:
            return await self.inner.run(batch)
        if not self.stays and any("DELETE FROM durably_runs" in statement.sql for statement in batch.statements):
            self.room()
            return await self.inner.run(batch)
        self.refused += 1
        raise StorageFull("no room left", code="SQLITE_FULL")


class NarrowExecutor(Wrapper):
    """Answers no more than `most` rows with what may be large."""

    def __init__(self, inner: Executor, most: int = 1) -> None:
        super().__init__(inner)
        self.most = most

    async def run(self, batch: Batch) -> list[Rows]:
        results = await self.inner.run(batch)
        for statement, rows in zip(batch.statements, results, strict=True):
            if len(rows) > self.most and "LIMIT ?" in statement.sql:
                raise ResponseTooLarge("the answer has too many rows", code="RESPONSE_TOO_LARGE")
        return results


# The columns with what may be large, of what is read in a batch that writes.
_LARGE: dict[str, tuple[str, ...]] = {
    claiming.SELECT_CLAIMED: ("input",),
    claiming.SELECT_CLAIMED_ENTRIES: ("data",),
    reading.SELECT_WHOLE_RUN: ("input", "output"),
    reading.SELECT_WHOLE_JOURNAL: ("data",),
    reading.SELECT_WHOLE_SIGNALS: ("payload",),
}


class BriefExecutor(Wrapper):
    """A database that says no more than `most` characters in one answer.

    A batch that writes and would answer more is rolled back by the database itself, for a statement behind all others
    that measures the answer.
    """

    def __init__(self, inner: Executor, most: int = 20_000) -> None:
        super().__init__(inner)
        self.most = most
        self.refused = 0

    async def run(self, batch: Batch) -> list[Rows]:
        if batch.mode == "read":
            results = await self.inner.run(batch)
            said = sum(len(value) for rows in results for row in rows for value in row if isinstance(value, str))
            return results if said <= self.most else self._refuse()
        measured = [statement for statement in batch.statements if statement.sql in _LARGE]
        if not measured:
            return await self.inner.run(batch)
        sums = []
        for sql, _ in measured:
            lengths = " + ".join(f"coalesce(length({name}), 0)" for name in _LARGE[sql])
            sums.append(f"coalesce((SELECT sum({lengths}) FROM ({sql}) AS answer), 0)")
        guard: Any = f"""
            INSERT INTO durably_schema (version, applied_at) SELECT version, applied_at FROM durably_schema
            WHERE version = 1 AND {" + ".join(sums)} > ?
        """
        params = (*[value for statement in measured for value in statement.params], self.most)
        try:
            results = await self.inner.run(batch._replace(statements=(*batch.statements, Statement(guard, params))))
        except ConstraintViolated:
            self._refuse()
        return results[:-1]

    def _refuse(self) -> NoReturn:
        self.refused += 1
        raise ResponseTooLarge("the answer is too large", code="RESPONSE_TOO_LARGE")


class MortalExecutor(Wrapper):
    """Reaches the database until `die`; then nothing of it arrives any more."""

    dead = False

    def die(self) -> None:
        self.dead = True

    async def run(self, batch: Batch) -> list[Rows]:
        if self.dead:
            raise StoreUnavailable("this process is dead", code="DEAD")
        return await self.inner.run(batch)


async def _turn() -> None:
    for _ in range(2):
        await asyncio.sleep(0)
