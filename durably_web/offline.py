"""Steps that wait until the network is back: `Retry(when_offline="wait")`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durably_web import codec, failures
from durably_web.journal import Draft
from durably_web.network import is_network_failure, is_refusal
from durably_web.retry import Retry
from durably_web.waits import Wait

if TYPE_CHECKING:
    from durably_web.execution import Execution

# Where somebody has said that there is no network, and nobody says that it is back, look this often.
LOOK_MILLISECONDS = 300_000

# Where nobody says anything, an attempt is all that can tell; a policy without delays must not make a storm of them.
LEAST_DELAY = 1.0


class Watch:
    """Keeps one step from being tried while there is no network. `failed` counts the tries that failed for want of one,
    over all executions, since the last one that counted."""

    def __init__(self, execution: Execution, key: str, retry: Retry) -> None:
        self._execution = execution
        self._network = execution.environment.network
        self._key = key
        self._retry = retry
        begun = execution.history.waits.get(key)
        self._noted = begun is not None
        self.failed: int = 0 if begun is None else begun.detail["network"]
        self._returns = self._network.returns

    async def online(self) -> None:
        """Return when a try may begin."""
        execution = self._execution
        while not self._network.online:
            now = await execution.begin()
            if not self._noted:
                self._noted = True
                detail = {"network": self.failed}
                await execution.append(
                    Draft("step:wait", self._key, codec.encode(detail), detail, now, now, kind="run")
                )
            await self.back(now + LOOK_MILLISECONDS)
        self._returns = self._network.returns

    async def back(self, until: int) -> None:
        """Return when the network has come back since the last try began, or it is time to look."""
        execution = self._execution
        while self._network.returns == self._returns and execution.environment.clock.now() < until:
            await execution.park(Wait(until, network=self._returns))
        self._returns = self._network.returns

    async def is_missing(self, error: Exception) -> bool:
        """Whether a try, the last one, failed for want of a network."""
        if is_refusal(error) or not is_network_failure(error):
            return False
        network = self._network
        # It may have come back while the request failed.
        return not network.online or network.returns != self._returns or await network.is_missing(error)

    async def store(self, error: Exception, started_at: int) -> int:
        """Store why the step waits; gives the moment of the next try, in milliseconds, if nothing is heard before."""
        environment = self._execution.environment
        self.failed += 1
        self._noted = True
        now = environment.clock.now()
        delay = max(LEAST_DELAY, self._retry.delay(self.failed, environment.random))
        detail: dict[str, Any] = {"network": self.failed, "error": failures.describe(error)}
        draft = Draft("step:wait", self._key, codec.encode(detail), detail, started_at, now, kind="run")
        await self._execution.append(draft)
        return now + round(delay * 1000)

    def counted(self) -> None:
        """A try failed that counts."""
        self.failed = 0
        self._noted = False
