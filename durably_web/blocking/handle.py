"""What `trigger` gives to sync code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic

from durably_web.events import Event
from durably_web.handle import RunHandle as EngineHandle
from durably_web.jobs import Output
from durably_web.records import Disposition, Run

if TYPE_CHECKING:
    from durably_web.blocking.control import Control


class RunHandle(Generic[Output]):
    """A run that is stored: what `trigger` gives. `disposition` is as in `durably_web.RunHandle`."""

    __slots__ = ("_durably", "_handle", "disposition", "id")

    def __init__(self, durably: Control, handle: EngineHandle[Output]) -> None:
        self._durably = durably
        self._handle = handle
        self.id: str = handle.id
        self.disposition: Disposition = handle.disposition

    def __repr__(self) -> str:
        return f"<RunHandle {self.id} {self.disposition}>"

    def result(self, timeout: float | None = None) -> Output:
        """Wait for the run's end and give its output.

        Raises `RunFailed`, `RunCancelled`, or `TimeoutError` after `timeout` seconds (the run goes on).
        """
        job = self._handle._job
        return self._durably._ask(lambda engine: engine.output_of(self.id, job, timeout))

    def run(self) -> Run | None:
        """The run as it is now; `None` once it is deleted."""
        return self._durably.get_run(self.id)

    def events(self) -> Iterator[Event]:
        """The run's events from its beginning to its end."""
        return self._durably.subscribe(self.id)

    def cancel(self) -> None:
        """As `Durably.cancel`."""
        self._durably.cancel(self.id)
