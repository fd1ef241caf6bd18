"""Handing runs over to other databases, and taking them in, as sync code asks for it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from durably_web.blocking.control import Control
from durably_web.blocking.handle import RunHandle
from durably_web.engine.handing import Offer


class Taker(Protocol):
    """What a run can be handed over to: another `durably_web.blocking.Durably`, or something that asks an engine."""

    def import_run(self, document: Any, /) -> Any: ...

    def decline_handover(self, run_id: str, handover_id: str, /) -> bool: ...


class Handing(Control):
    """What moves runs between databases. Each is as the engine's."""

    def hand_over(self, run_id: str, to: Taker, *, target: str = "another engine", timeout: float | None = None) -> str:
        """Let a run go on in another engine, with all that is stored of it; gives the id of the handover.

        Asked again with the same `target`, it brings to its end whatever had begun.
        """
        return self._ask(lambda engine: engine.hand_over(run_id, _InThreads(to), target=target, timeout=timeout))

    def offer_run(
        self, run_id: str, target: str, *, timeout: float | None = None, request_id: str | None = None
    ) -> Offer:
        """Hold a run back, and give the document by which `import_run` takes it, once."""
        return self._ask(lambda engine: engine.offer_run(run_id, target, timeout=timeout, request_id=request_id))

    def confirm_handover(self, run_id: str, handover_id: str) -> None:
        """The run was taken where it was offered to: it never goes on here. Safe to repeat."""
        self._ask(lambda engine: engine.confirm_handover(run_id, handover_id))

    def withdraw_handover(self, run_id: str, handover_id: str) -> None:
        """The run was not taken, and never will be: it goes on here. Safe to repeat."""
        self._ask(lambda engine: engine.withdraw_handover(run_id, handover_id))

    def import_run(self, document: Any) -> RunHandle[Any]:
        """Take in a run that `offer_run` has given a document of, a dict or JSON text. Safe to repeat."""
        return self._handle(lambda engine: engine.import_run(document))

    def decline_handover(self, run_id: str, handover_id: str) -> bool:
        """See to it that a handover is never taken here. `False` when it was taken before."""
        return self._ask(lambda engine: engine.decline_handover(run_id, handover_id))


class _InThreads:
    """A sync taker, as the engine asks it: beside its event loop."""

    def __init__(self, to: Taker) -> None:
        self._to = to

    async def import_run(self, document: Any) -> Any:
        return await asyncio.to_thread(self._to.import_run, document)

    async def decline_handover(self, run_id: str, handover_id: str) -> bool:
        return await asyncio.to_thread(self._to.decline_handover, run_id, handover_id)
