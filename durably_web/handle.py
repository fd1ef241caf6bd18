"""What `trigger` gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Generic

from durably_web.events import Event
from durably_web.jobs import Job, Output
from durably_web.records import Disposition, Run

if TYPE_CHECKING:
    from durably_web.engine.control import Control


class RunHandle(Generic[Output]):
    """A run that is stored.

    `disposition` is `"created"`, or `"idempotent"` when an earlier run had the same idempotency key.
    """

    __slots__ = ("_durably", "_job", "disposition", "id")

    def __init__(
        self, durably: Control, job: Job[object, Output] | None, run_id: str, disposition: Disposition
    ) -> None:
        self._durably = durably
        self._job = job
        self.id = run_id
        self.disposition = disposition

    def __repr__(self) -> str:
        return f"<RunHandle {self.id} {self.disposition}>"

    async def result(self, timeout: float | None = None) -> Output:
        """Wait for the run's end and give its output.

        Raises `RunFailed`, `RunCancelled`, or `TimeoutError` after `timeout` seconds (the run goes on).
        """
        return await self._durably.output_of(self.id, self._job, timeout)

    async def run(self) -> Run | None:
        """The run as it is now; `None` once it is deleted."""
        return await self._durably.get_run(self.id)

    def events(self) -> AsyncIterator[Event]:
        """The run's events from its beginning to its end."""
        return self._durably.subscribe(self.id)

    async def cancel(self) -> None:
        """As `Durably.cancel`."""
        await self._durably.cancel(self.id)
