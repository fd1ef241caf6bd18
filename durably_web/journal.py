"""The journal of one leased run, as its owner writes it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from durably_web import codec
from durably_web.clock import Timer
from durably_web.environment import Environment
from durably_web.errors import LeaseLost
from durably_web.records import Kind, Progress, Status
from durably_web.store import operations
from durably_web.store.batch import Operation
from durably_web.store.changes import JOURNAL
from durably_web.store.operations import Entry
from durably_web.store.rows import Lease, entry_event

# Logs and progress travel with the next step's result; without one they wait this long.
FLUSH_SECONDS = 0.1

Effects = Callable[[int], tuple[Any, ...]]


class Awaited(NamedTuple):
    """What a run waits for: an instant in milliseconds, signals by name and deadline, runs by id, and the network: how
    often that had come back when the wait began.

    The first that comes wakes it.
    """

    until: int | None
    signals: tuple[tuple[str, int | None], ...] = ()
    children: tuple[str, ...] = ()
    network: int | None = None


class Draft:
    """An entry that is on its way; `seq` is set by the commit that stored it.

    `effects` makes the statements that hold only together with it, once its number is known.
    """

    __slots__ = ("calls", "created_at", "data", "detail", "effects", "kind", "seq", "started_at", "step_name", "type")

    def __init__(
        self,
        type_: str,
        step_name: str | None,
        data: str | None,
        detail: Any,
        started_at: int | None,
        created_at: int,
        effects: Effects | None = None,
        kind: Kind | None = None,
    ) -> None:
        self.type = type_
        self.step_name = step_name
        self.data = data
        self.detail = detail
        self.started_at = started_at
        self.created_at = created_at
        self.effects = effects
        self.kind = kind
        self.calls: int | None = None
        self.seq: int | None = None


class RunJournal:
    """Appends entries to a run, in order and without a gap, for as long as its lease holds.

    The owner alone appends while it holds the lease, so it counts the entries itself. Several writes may be on
    their way at once; when one of them does not arrive, the fence of the next one does not hold.
    """

    def __init__(self, environment: Environment, lease: Lease) -> None:
        self._store = environment.store
        self._clock = environment.clock
        self._emitter = environment.emitter
        self._codec = environment.codec
        self._empty_results = not environment.preserve_steps
        self._lease = lease
        self._number = lease.number
        self._drafts: list[Draft] = []
        self._progress: Progress | None = None
        self._timer: Timer | None = None
        self._flushes: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._heard: Progress | None = None
        self._heard_lock = threading.Lock()
        self._closed = False
        self._told = Counter(entry.data for entry in lease.entries if entry.type == "log:write" and not entry.step_name)
        # What the next write says of the code that the run is executed with, which may be `None`; nothing if empty.
        self.code: tuple[str | None] | None = None
        self.on_failure: Callable[[BaseException], object] = lambda error: None

    # -- what a job says ---------------------------------------------------------------------------------

    def log(self, step_name: str | None, data: str) -> None:
        """Take a log line, to be written with what comes next. May be called from a step's thread."""
        draft = Draft("log:write", step_name, data, None, None, self._clock.now())
        if threading.get_ident() == self._thread:
            self._take_line(draft)
        else:
            # Drafts are numbered on the loop's thread, and must not change meanwhile. The loop keeps the order:
            # a line comes before the result of the step that wrote it.
            self._loop.call_soon_threadsafe(self._take_line, draft)

    def note(self, draft: Draft) -> None:
        """Take an entry, to be written with what comes next."""
        self._drafts.append(draft)
        self._flush_later()

    def progress(self, progress: Progress) -> None:
        """Take a progress; only the last one before a write is stored. May be called from a step's thread."""
        if threading.get_ident() == self._thread:
            self._progress = progress
            self._flush_later()
            return
        with self._heard_lock:
            first, self._heard = self._heard is None, progress
        if first:
            self._loop.call_soon_threadsafe(self._take_heard)

    def _take_line(self, draft: Draft) -> None:
        if draft.step_name is None and self._told[draft.data] > 0:
            # A replay says again what an earlier execution has stored.
            self._told[draft.data] -= 1
            return
        self._drafts.append(draft)
        self._flush_later()

    def _take_heard(self) -> None:
        with self._heard_lock:
            self._progress, self._heard = self._heard, None
        self._flush_later()

    def forget(self) -> None:
        """What earlier executions have logged is said again."""
        self._told.clear()

    # -- writing -----------------------------------------------------------------------------------------

    async def append(self, draft: Draft) -> None:
        """Store `draft` and all that came before it. Raises `LeaseLost`, or `StoreError`."""
        self._drafts.append(draft)
        await self._store.submit(self._write, patient=True)
        if draft.seq is None:
            # It shared a write with another entry of this run, which learned why.
            raise LeaseLost

    async def flush(self) -> None:
        """Store what waits. Raises `LeaseLost`, or `StoreError`."""
        if (self._drafts or self._progress) and not await self._store.submit(self._write, patient=True):
            raise LeaseLost

    async def finish(self, status: Status, output: str | None, error: str | None, last: Draft) -> None:
        """Give the run its end, in one transaction with all that waits. Raises `LeaseLost`, or `StoreError`."""

        def build() -> Operation[bool]:
            # Only now: a background flush that is sent before must not take the last entry with it.
            drafts, entries, progress = self._take(last)
            lease = self._lease
            operation = operations.finish_run(
                *self._fence,
                status,
                output,
                error,
                entries,
                progress,
                last.created_at,
                queue=None if lease.concurrency_key is None else (lease.concurrency_key, lease.job_name),
                parent=lease.parent_run_id,
                empty_results=self._empty_results and status == "completed",
            )
            return operation.then(lambda seqs: self._stored(drafts, entries, seqs, output))

        if not await self._store.submit(build, patient=True):
            raise LeaseLost

    async def suspend(self, awaited: Awaited, last: Draft) -> None:
        """Give the lease back until something of `awaited` comes, in one transaction with all that waits.

        Raises `LeaseLost`, or `StoreError`.
        """

        def build() -> Operation[bool]:
            drafts, entries, progress = self._take(last)
            operation = operations.suspend_run(
                *self._fence,
                entries,
                progress,
                awaited.until,
                awaited.signals,
                awaited.children,
                awaited.network is not None,
            )
            return operation.then(lambda seqs: self._stored(drafts, entries, seqs))

        if not await self._store.submit(build, patient=True):
            raise LeaseLost

    async def release(self) -> None:
        """Give the lease back. Raises `StoreError`."""
        await self._store.write(operations.release_run(*self._fence), patient=True)

    def close(self) -> None:
        """Nothing more is written."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._flushes:
            task.cancel()

    # -- inside ------------------------------------------------------------------------------------------

    @property
    def _fence(self) -> tuple[str, int]:
        return self._lease.run_id, self._lease.generation

    def _take(self, last: Draft | None = None) -> tuple[list[Draft], list[Entry], str | None]:
        """All that waits, and `last`, numbered; and the progress, if there is a new one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        drafts, self._drafts = self._drafts, []
        if last is not None:
            drafts.append(last)
        progress, self._progress = self._progress, None
        text = None
        if progress is not None:
            wire = progress.to_wire()
            text = codec.encode(wire)
            draft = Draft("run:progress", None, text, wire, None, self._clock.now())
            # Before the result that it was said with, and before the run's end.
            drafts.insert(-1 if drafts and drafts[-1].type != "log:write" else len(drafts), draft)
        number = self._number
        # Used up now, and for ever: several writes of a run may be on their way at once.
        self._number += len(drafts)
        entries = [
            Entry(
                number + index,
                draft.type,
                draft.step_name,
                draft.data,
                draft.started_at,
                draft.created_at,
                () if draft.effects is None else draft.effects(number + index),
                draft.calls,
                draft.kind,
            )
            for index, draft in enumerate(drafts, 1)
        ]
        if self.code is not None and entries:
            [code], self.code = self.code, None
            effects = operations.set_code(*self._fence, entries[0].number, code)
            entries[0] = entries[0]._replace(effects=(*entries[0].effects, *effects))
        return drafts, entries, text

    def _write(self) -> Operation[bool]:
        drafts, entries, progress = self._take()
        operation = operations.write_entries(*self._fence, entries, progress)
        return operation.then(lambda seqs: self._stored(drafts, entries, seqs))

    def _stored(
        self, drafts: list[Draft], entries: list[Entry], seqs: list[int] | None, output: str | None = None
    ) -> bool:
        """Tell of what was stored; false when the lease was lost and nothing was."""
        if seqs is None:
            return False
        emitter, lease = self._emitter, self._lease
        for draft, entry, seq in zip(drafts, entries, seqs, strict=True):
            draft.seq = seq
            if emitter.hears(draft.type):
                value = self._codec.decode(output) if draft.type == "run:complete" and output is not None else None
                # A log line as it was stored, not as it was said.
                detail = codec.decode(draft.data or "null") if draft.type == "log:write" else draft.detail
                emitter.emit(
                    entry_event(
                        draft.type,
                        seq,
                        entry.number,
                        lease.run_id,
                        lease.job_name,
                        lease.labels,
                        draft.step_name,
                        detail,
                        draft.started_at,
                        draft.created_at,
                        value,
                    )
                )
        self._store.changes.notify(JOURNAL)
        return True

    def _flush_later(self) -> None:
        # A thread that nobody waits for any more may still talk.
        if self._timer is None and not self._closed:
            self._timer = self._clock.call_later(FLUSH_SECONDS, self._start_flush)

    def _start_flush(self) -> None:
        self._timer = None
        task = self._loop.create_task(self._flush_in_background())
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _flush_in_background(self) -> None:
        try:
            await self.flush()
        except (Exception, LeaseLost) as error:
            self.on_failure(error)
