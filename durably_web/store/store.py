"""The only caller of `Executor.run`: schema, and writes that share a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

from durably_web.clock import Clock
from durably_web.errors import (
    ConstraintViolated,
    ResponseTooLarge,
    SchemaTooNew,
    StorageFull,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from durably_web.store import migrations, operations
from durably_web.store.batch import Batch, Executor, Operation, Rows
from durably_web.store.changes import Changes
from durably_web.store.operations import schema
from durably_web.store.room import Room

T = TypeVar("T")

# Bounds one shared transaction, so that no step waits long for the others' bytes.
MAX_SHARED = 64


class _Waiting:
    """An operation that waits to be sent with others; made into a batch as late as possible, and once."""

    __slots__ = ("future", "make", "operation", "patient")

    def __init__(self, make: Callable[[], Operation[Any]], future: asyncio.Future[Any], patient: bool) -> None:
        self.make = make
        self.future = future
        self.patient = patient
        self.operation: Operation[Any] | None = None

    @property
    def is_pointless(self) -> bool:
        """Whether nobody waits, and nothing that was made has to arrive: a run's entries are numbered when made."""
        return self.operation is None and self.future.done()

    def build(self) -> Operation[Any]:
        if self.operation is None:
            self.operation = self.make()
        return self.operation

    def answer(self, operation: Operation[Any], results: list[Rows]) -> None:
        try:
            result = operation.decode(results)
        except Exception as error:
            self.fail(error)
        else:
            # Who asked may have been cancelled; what was written is written.
            if not self.future.done():
                self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Store:
    """Sends operations to an executor, one transaction at a time.

    While `writers` is at most one, a write is sent at once. With more, the writes of one turn of the event
    loop, and those that come in while a transaction is under way, share the next transaction.

    `too_new` is set while the schema is newer than this code: then everything can be read, and nothing be written.
    """

    def __init__(self, executor: Executor, clock: Clock) -> None:
        self._known = migrations.LATEST
        self._unless_newer = schema.unless_newer(self._known)
        self.too_new: SchemaTooNew | None = None
        self.on_too_new: Callable[[SchemaTooNew], None] | None = None
        self._executor = executor
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._turn = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None
        self._open = False
        self.writers = 0
        self.room = Room(clock)
        self.changes = Changes(clock, executor.version)

    # -- life --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and bring the schema up to date, or find it too new. Safe to call again. Closed when it raises."""
        try:
            await self._executor.open()
            await self.migrate()
        except BaseException:
            if not self._open:
                await self._executor.close()
            raise
        self._open = True

    async def close(self, *, at_once: bool = False) -> None:
        """Let go of the database once what is to be written is written; or `at_once`, which fails what still waits."""
        if at_once:
            self._open = False
            await self._executor.close()
        while self._flusher is not None:
            await asyncio.wait([self._flusher])
            await asyncio.sleep(0)
        self._open = False
        await self._executor.close()

    async def abandon(self) -> None:
        """Close without waiting for what is under way. Safe to call again."""
        self._open = False
        await self._executor.close()

    async def migrate(self) -> None:
        """Apply the migrations that are missing, each in a transaction of its own.

        Where a newer durably_web has been here, nothing is written, now and later.
        """
        version = 0
        if await self.read(operations.has_schema()):
            version = await self.read(operations.schema_version())
        else:
            await self._apply(operations.create_schema_table())
        if version > self._known:
            self._refuse(version)
            return
        while version < self._known:
            try:
                await self._apply(operations.apply_migration(version + 1, self._clock.now()))
            except ConstraintViolated:
                # Another process applied it first; what is there now says how to go on.
                version = await self.read(operations.schema_version())
            else:
                version += 1
        self.too_new = None

    async def _apply(self, operation: Operation[None]) -> None:
        async with self._turn:
            await self._executor.run(operation.batch)

    def _refuse(self, version: int) -> SchemaTooNew:
        if self.too_new is None:
            self.too_new = SchemaTooNew(
                f"the database has schema version {version}, and this durably_web knows versions up to {self._known}: "
                "this process only reads, and has written nothing since; update durably_web"
            )
            if self.on_too_new is not None:
                self.on_too_new(self.too_new)
        return self.too_new

    def announce(self, worker_id: str) -> None:
        self._executor.announce(worker_id)

    def gone(self, worker_ids: list[str]) -> list[str]:
        return self._executor.gone(worker_ids)

    # -- operations --------------------------------------------------------------------------------------

    async def read(self, operation: Operation[T]) -> T:
        try:
            return operation.decode(await self._executor.run(operation.batch))
        except ResponseTooLarge:
            if operation.in_pages is None:
                raise
            return await operation.in_pages(self.read)

    async def write(self, operation: Operation[T], *, patient: bool = False) -> T:
        return await self.submit(lambda: operation, patient=patient)

    async def submit(self, build: Callable[[], Operation[T]], *, patient: bool = False) -> T:
        """Send the operation that `build` makes; `build` is called when its turn has come.

        Returns after the commit. Operations are sent in the order of the calls. Raises `StoreError`. One that is
        `patient` waits while the disk is full, and those that are behind it with it, until there is room.
        """
        holds = patient and self.room.is_full
        if self.writers <= 1 and self._flusher is None and not self._turn.locked() and not holds:
            operation = build()
            try:
                result = await self._send(operation)
            except StorageFull as error:
                if not patient or not self.room.patient:
                    raise
                item = self._waiting_for(build, patient)
                item.operation = operation
                self._hold(item, error)
                return cast(T, await item.future)
            if self.room.is_full:
                # It may have made room.
                self.room.try_now()
            return result
        item = self._waiting_for(build, patient)
        if holds:
            self._hold(item)
        else:
            self._waiting.append(item)
            if self._flusher is None:
                self._flusher = asyncio.get_running_loop().create_task(self._flush())
        return cast(T, await item.future)

    def _waiting_for(self, build: Callable[[], Operation[Any]], patient: bool) -> _Waiting:
        return _Waiting(build, asyncio.get_running_loop().create_future(), patient)

    def _hold(self, item: _Waiting, error: StorageFull | None = None) -> None:
        """Let it wait for room; because of `error`, or because others do."""

        async def attempt() -> None:
            async with self._turn:
                if item.is_pointless:
                    return
                try:
                    operation = item.build()
                    item.answer(operation, await self._run(operation))
                except StorageFull:
                    raise
                except Exception as other:
                    item.fail(other)

        if error is None:
            self.room.queue(attempt, item.fail)
        else:
            self.room.lack(error, attempt, item.fail)

    async def _send(self, operation: Operation[T]) -> T:
        async with self._turn:
            if operation.name in schema.FENCED:
                return operation.decode(await self._executor.run(operation.batch))
            return operation.decode(await self._run_guarded(operation.batch))

    async def _run(self, operation: Operation[Any]) -> list[Rows]:
        if operation.name in schema.FENCED:
            return await self._executor.run(operation.batch)
        return await self._run_guarded(operation.batch)

    async def _run_guarded(self, batch: Batch) -> list[Rows]:
        """Run a batch that must do nothing where the schema is newer than this code. Raises `SchemaTooNew`."""
        if self.too_new is not None:
            raise SchemaTooNew(str(self.too_new))
        try:
            results = await self._executor.run(batch._replace(statements=(*batch.statements, self._unless_newer)))
        except ConstraintViolated:
            version = await self.read(operations.schema_version())
            if version > self._known:
                raise SchemaTooNew(str(self._refuse(version))) from None
            raise
        # That of the guard.
        return results[:-1]

    async def _flush(self) -> None:
        """Send what waits until nothing does. A task of its own, so that a cancelled caller harms no other."""
        try:
            while self._waiting:
                async with self._turn:
                    shared, self._waiting = self._waiting[:MAX_SHARED], self._waiting[MAX_SHARED:]
                    behind = len(self._waiting)
                    away = await self._send_shared([item for item in shared if not item.is_pointless])
                    if away is not None:
                        # Those that were there before have waited as long, and would only wait for their turns.
                        late, self._waiting = self._waiting[:behind], self._waiting[behind:]
                        for item in late:
                            item.fail(away)
        finally:
            # Those who have their answers now go on first, and tell of it, before anybody writes past the others.
            asyncio.get_running_loop().call_soon(self._rest)

    def _rest(self) -> None:
        self._flusher = asyncio.get_running_loop().create_task(self._flush()) if self._waiting else None

    async def _send_shared(self, items: list[_Waiting]) -> StoreError | None:
        """One transaction for all. Whatever goes wrong, no item is left without an answer.

        Gives the error of a database that cannot be reached.
        """
        built: list[tuple[_Waiting, Operation[Any]]] = []
        if self.room.is_full:
            for item in items:
                if item.patient:
                    self._hold(item)
            items = [item for item in items if not item.patient]
        if not items:
            return None
        try:
            for item in items:
                try:
                    built.append((item, item.build()))
                except Exception as error:
                    item.fail(error)
            statements = tuple(statement for _, operation in built for statement in operation.batch.statements)
            try:
                # One alone keeps what its batch says of itself.
                shared = built[0][1].batch if len(built) == 1 else Batch("write", statements)
                if all(operation.name in schema.FENCED for _, operation in built):
                    results = await self._executor.run(shared)
                else:
                    results = await self._run_guarded(shared)
            except StoreError as error:
                if isinstance(error, StoreBusy | StoreUnavailable):
                    raise
                # One of them is to blame; alone, each gets its own answer.
                for item, operation in built:
                    await self._send_alone(item, operation, error if len(built) == 1 else None)
                return None
            position = 0
            for item, operation in built:
                end = position + len(operation.batch.statements)
                item.answer(operation, results[position:end])
                position = end
            if self.room.is_full:
                # It may have made room.
                self.room.try_now()
        except BaseException as error:
            for item in items:
                item.fail(error)
            if not isinstance(error, Exception):
                raise
            return error if isinstance(error, StoreBusy | StoreUnavailable) else None
        return None

    async def _send_alone(self, item: _Waiting, operation: Operation[Any], error: StoreError | None) -> None:
        """One that did not go through with others; or `error` is what it met already."""
        if item.patient and self.room.is_full:
            # One before it waits.
            self._hold(item)
            return
        try:
            if error is not None:
                raise error
            results = await self._run(operation)
        except StorageFull as own:
            if item.patient and self.room.patient:
                self._hold(item, own)
            else:
                item.fail(own)
        except StoreError as own:
            item.fail(own)
        else:
            item.answer(operation, results)
