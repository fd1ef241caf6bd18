"""What sync code asks of runs that exist: one at a time, or all that a filter finds."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import Any

from durably_web.arguments import Duration
from durably_web.blocking.handle import RunHandle
from durably_web.blocking.reading import Reading
from durably_web.engine import Durably as Engine
from durably_web.handle import RunHandle as EngineHandle
from durably_web.jobs import Job


class Control(Reading):
    """What changes runs from outside. Each is as the engine's, `request_id` too."""

    def cancel(self, run_id: str, *, request_id: str | None = None) -> None:
        """End a run that is not terminal, and all that it has started. Raises `NotFound` or `Conflict`."""
        self._ask(lambda engine: engine.cancel(run_id, request_id=request_id))

    def retry(self, run_id: str, *, request_id: str | None = None) -> None:
        """Let the same failed or cancelled run go on from its first step without a stored result."""
        self._ask(lambda engine: engine.retry(run_id, request_id=request_id))

    def delete_run(self, run_id: str, *, request_id: str | None = None) -> None:
        """Delete a terminal run with its steps and logs. Raises `NotFound` or `Conflict`."""
        self._ask(lambda engine: engine.delete_run(run_id, request_id=request_id))

    def retrigger(self, run_id: str, *, request_id: str | None = None) -> RunHandle[Any]:
        """Ask for a new run with the same job, input, labels, key and priority as a terminal one."""
        return self._handle(lambda engine: engine.retrigger(run_id, request_id=request_id))

    def fork(self, run_id: str, *, from_step: str | None = None, request_id: str | None = None) -> RunHandle[Any]:
        """Ask for a new run like another that goes on where that one was, or before `from_step`."""
        return self._handle(lambda engine: engine.fork(run_id, from_step=from_step, request_id=request_id))

    def pause(self, run_id: str, *, request_id: str | None = None) -> None:
        """Let nobody begin or go on with a run until `resume`. Safe to repeat."""
        self._ask(lambda engine: engine.pause(run_id, request_id=request_id))

    def resume(self, run_id: str, *, request_id: str | None = None) -> None:
        """Take `pause` back. Safe to repeat."""
        self._ask(lambda engine: engine.resume(run_id, request_id=request_id))

    def pause_job(self, job: Job[Any, Any] | str, *, request_id: str | None = None) -> None:
        """Let no worker claim a run of this job until `resume_job`. What executes goes on. Safe to repeat."""
        self._ask(lambda engine: engine.pause_job(job, request_id=request_id))

    def resume_job(self, job: Job[Any, Any] | str, *, request_id: str | None = None) -> None:
        """Take `pause_job` back. Safe to repeat."""
        self._ask(lambda engine: engine.resume_job(job, request_id=request_id))

    def pause_worker(self) -> None:
        """Claim nothing more in this engine until `resume_worker`. What executes goes on."""
        self._do(Engine.pause_worker)

    def resume_worker(self) -> None:
        """Take `pause_worker` back."""
        self._do(Engine.resume_worker)

    def cancel_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """Cancel every run that is not terminal and meets the conditions; tells how many."""
        return self._ask(lambda engine: engine.cancel_runs(request_id=request_id, **which))

    def retry_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """`retry` every failed or cancelled run that meets the conditions of `cancel_runs`; tells how many."""
        return self._ask(lambda engine: engine.retry_runs(request_id=request_id, **which))

    def delete_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """Delete every terminal run that meets the conditions of `cancel_runs`; tells how many."""
        return self._ask(lambda engine: engine.delete_runs(request_id=request_id, **which))

    def pause_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """`pause` every active run that meets the conditions of `cancel_runs`; tells how many."""
        return self._ask(lambda engine: engine.pause_runs(request_id=request_id, **which))

    def resume_runs(self, *, request_id: str | None = None, **which: Any) -> int:
        """`resume` every paused run that meets the conditions of `cancel_runs`; tells how many."""
        return self._ask(lambda engine: engine.resume_runs(request_id=request_id, **which))

    def purge_runs(
        self, *, older_than: Duration | datetime.datetime, limit: int = 500, request_id: str | None = None
    ) -> int:
        """Delete at most `limit` terminal runs that ended more than `older_than` ago, oldest first; tells how many."""
        return self._ask(lambda engine: engine.purge_runs(older_than=older_than, limit=limit, request_id=request_id))

    def _handle(self, question: Callable[[Engine], Awaitable[EngineHandle[Any]]]) -> RunHandle[Any]:
        return RunHandle(self, self._ask(question))
