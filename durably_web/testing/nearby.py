"""Offloaded functions in tests: in a thread of this process, and with all that must be pickled on the way pickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from durably_web import calls, failures
from durably_web.clock import Clock
from durably_web.errors import InvalidInput, NotSerializable
from durably_web.offloading import place_of


class Nearby:
    """Stands in for an `Offloader`. What cannot be killed here is abandoned when its time is over."""

    def __init__(self, caller: calls.Caller) -> None:
        self._caller = caller

    async def call(
        self, fn: Callable[..., Any], args: tuple[Any, ...], clock: Clock, seconds: float | None, what: str
    ) -> Any:
        place_of(fn, what)
        try:
            copies = pickle.loads(pickle.dumps(args))
        except Exception as error:
            raise InvalidInput(f"the arguments of {what} cannot be pickled: {failures.describe(error)}") from error
        if seconds is None:
            result = await calls.call(self._caller, fn, copies)
        else:
            result = await calls.call_within(seconds, clock, self._caller, fn, copies, what)
        try:
            return pickle.loads(pickle.dumps(result))
        except Exception as error:
            raise NotSerializable(f"it cannot be pickled: {failures.describe(error)}") from error

    def close(self) -> None:
        """Threads end by themselves."""
