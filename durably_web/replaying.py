"""The half of an execution that looks back: what earlier ones have stored, and in which order the job is given it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from durably_web import codec, failures, shapes
from durably_web.arguments import check_step_name
from durably_web.context import current_step
from durably_web.environment import Environment
from durably_web.errors import ControlFlow, InvalidInput, ReplayMismatch
from durably_web.history import History
from durably_web.order import Order
from durably_web.records import Kind, undone_by
from durably_web.store.rows import Lease, StoredEntry

# An execution that never waits for anything still lets the event loop turn this often.
TURN_SECONDS = 0.01

# How the methods of a step are called, by what they leave behind.
_ASKED = {
    "run": "step.run or step.map",
    "sleep": "step.sleep",
    "signal": "step.wait_for_signal",
    "call": "step.call",
    "trigger": "step.trigger",
}


class Replaying:
    """Gives a job what is stored of its run."""

    def __init__(self, environment: Environment, lease: Lease) -> None:
        self.environment = environment
        self.lease = lease
        self.history = History(lease.entries)
        self.order = Order(self.history.outcomes.values())
        self.mismatch: ReplayMismatch | None = None
        self._before_step = environment.hooks.before_step
        # The names that `step.patched` was asked with.
        self.asked_patches: set[str] = set()
        self._clock = environment.clock
        self._codec = environment.codec
        self._decode = codec.decode if type(self._codec) is codec.JsonCodec else self._codec.decode
        self._last_fn: Any = None
        self._last_loader: Any = None
        self._last_turn = self._clock.monotonic()
        self._occurrences: dict[str, int] = {}
        self._failed: list[tuple[BaseException, str]] = []
        self._ending: ControlFlow | None = None

    def key(self, name: str) -> str:
        """The key of a step: its name, and which one of that name it is, counted in the order of the calls."""
        if type(name) is not str or not name or "#" in name or not name.isascii():
            check_step_name(name)
        if (outer := current_step.get()) is not None:
            raise InvalidInput(
                f"step {name!r} is called inside of step {outer!r}: a job calls steps, a step's function none"
            )
        self.order.calls += 1
        count = self._occurrences.get(name, 0) + 1
        self._occurrences[name] = count
        return name if count == 1 else f"{name}#{count}"

    def refused(self, key: str, kind: Kind) -> Coroutine[Any, Any, Any] | None:
        """What raises, when the step of this key has begun as one of another kind."""
        was = self.history.begun_as(key)
        return None if was is None or was == kind else self._refuse(key, was, kind)

    async def _refuse(self, key: str, was: Kind, kind: Kind) -> Any:
        error = ReplayMismatch(
            f"step {key!r} was stored by {_ASKED[was]}, and the code asks for it by {_ASKED[kind]}: give the new step "
            "another name, or keep the old one for runs that have it, with step.patched"
        )
        error.step = key
        self.mismatch = self.mismatch or error
        self._before_step = self._raise_mismatch
        raise error

    async def _raise_mismatch(self, key: str) -> NoReturn:
        """Stands before every new step from then on: what the job does with such an error is not so."""
        assert self.mismatch is not None
        # A job that tries it again and again must not stop all others.
        await self._next_turn()
        self.check()
        raise self.mismatch

    async def replay(
        self, stored: StoredEntry, kind: Kind, fn: Callable[..., Any] | None = None, in_order: bool = True
    ) -> Any:
        """The outcome of a step that an earlier execution has stored; as `fn` gave it, where its annotation tells."""
        if self._ending is not None:
            raise self._ending
        if stored.kind != kind and stored.kind is not None:
            await self._refuse(stored.step_name or "", stored.kind, kind)
        if self._clock.monotonic() - self._last_turn > TURN_SECONDS:
            await self._next_turn()
        if in_order and not self.order.passes(stored):
            await self.order.turn(stored.step_name or "")
            self.check()
        if stored.type == "step:complete":
            value = None if stored.data is None else self._decode(stored.data)
            load = None if fn is None else self.loader_of(fn)
            return value if load is None else load(value, f"the stored result of step {stored.step_name!r}")
        assert stored.data is not None
        error = failures.revive(codec.decode(stored.data))
        self._failed.append((error, stored.step_name or ""))
        raise error

    @property
    def is_at_the_end(self) -> bool:
        """Whether nothing is stored that the job came to later than it is now."""
        return not self.order.goes_on and self._has_asked_for_begun

    @property
    def has_asked_for_all(self) -> bool:
        """Whether the job has surely asked for every step of which something is stored; cheap."""
        patches = self.history.patches
        return (
            self.order.is_over
            and not self.order.has_jumped
            and self._has_asked_for_begun
            and all(answer or name in self.asked_patches for name, answer in patches.items())
        )

    @property
    def _has_asked_for_begun(self) -> bool:
        history = self.history
        return all(map(self._is_asked, (*history.tries, *history.waits)))

    def unasked(self, to_the_end: bool = True) -> list[str]:
        """Steps of which something is stored, and that the job has not asked for, in the order of their outcomes.

        Where the job did not get `to_the_end`, only those that are stored before one that it has asked for.
        """
        found, last = [], 0
        for place, key in enumerate(self.history.outcomes):
            if self._is_asked(key):
                last = place
            else:
                found.append((place, key))
        if not to_the_end:
            return [key for place, key in found if place < last]
        begun = [key for key in (*self.history.tries, *self.history.waits) if not self._is_asked(key)]
        return list(dict.fromkeys([*[key for _, key in found], *begun]))

    def _is_asked(self, key: str) -> bool:
        if undone_by(key) is not None:
            # Nobody but the engine asks for an undo.
            return True
        name, _, number = key.partition("#")
        return self._occurrences.get(name, 0) >= (int(number) if number else 1)

    def loader_of(self, fn: Callable[..., Any]) -> Any:
        """What builds the results of `fn`; loops ask for the same one again and again."""
        if fn is not self._last_fn:
            self._last_fn, self._last_loader = fn, shapes.result_loader(fn)
        return self._last_loader

    def step_of(self, error: BaseException) -> str | None:
        """The step that failed with this exception."""
        return next((key for failed, key in self._failed if failed is error), None)

    def check(self) -> None:
        """Raises what ends this execution, if something does."""
        if self._ending is not None:
            raise self._ending

    async def _next_turn(self) -> None:
        """Let others run."""
        await asyncio.sleep(0)
        self._last_turn = self._clock.monotonic()
