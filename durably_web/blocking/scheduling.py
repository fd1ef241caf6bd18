"""Schedules, from sync code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durably_web.arguments import Duration
from durably_web.blocking.handing import Handing
from durably_web.blocking.handle import RunHandle
from durably_web.jobs import Job
from durably_web.records import Missed, Overlap, Schedule


class Scheduling(Handing):
    """What keeps schedules. Each is as the engine's, `request_id` too."""

    def schedule(
        self,
        job: Job[Any, Any] | str,
        *,
        name: str | None = None,
        cron: str | None = None,
        every: Duration | None = None,
        timezone: str = "UTC",
        input: Any = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        missed: Missed = "skip",
        overlap: Overlap = "skip",
        catch_up_window: Duration | None = None,
        request_id: str | None = None,
    ) -> Schedule:
        """Let a job run at each tick of `cron` or `every`. The same again changes nothing, so call it at each start."""
        return self._ask(
            lambda engine: engine.schedule(
                job,
                name=name,
                cron=cron,
                every=every,
                timezone=timezone,
                input=input,
                labels=labels,
                priority=priority,
                missed=missed,
                overlap=overlap,
                catch_up_window=catch_up_window,
                request_id=request_id,
            )
        )

    def get_schedule(self, name: str) -> Schedule | None:
        """The schedule, or `None` where there is none of that name."""
        return self._ask(lambda engine: engine.get_schedule(name))

    def get_schedules(self) -> list[Schedule]:
        """All schedules, by their names."""
        return self._ask(lambda engine: engine.get_schedules())

    def pause_schedule(self, name: str, *, request_id: str | None = None) -> Schedule:
        """Let a schedule tick no more until `resume_schedule`. Its runs go on. Raises `NotFound`."""
        return self._ask(lambda engine: engine.pause_schedule(name, request_id=request_id))

    def resume_schedule(self, name: str, *, request_id: str | None = None) -> Schedule:
        """Let a paused schedule tick again from now on. Raises `NotFound`."""
        return self._ask(lambda engine: engine.resume_schedule(name, request_id=request_id))

    def trigger_schedule(self, name: str, *, request_id: str | None = None) -> RunHandle[Any]:
        """Ask for a run of a schedule now. Raises `NotFound`, or `Conflict` where an active run is in the way."""
        return self._handle(lambda engine: engine.trigger_schedule(name, request_id=request_id))

    def remove_schedule(self, name: str, *, request_id: str | None = None) -> None:
        """Delete a schedule. Its runs stay, and go on. Raises `NotFound`."""
        self._ask(lambda engine: engine.remove_schedule(name, request_id=request_id))
