"""Ids that sort by the time they were made."""

from __future__ import annotations

import os
from collections.abc import Callable

from durably_web.clock import Clock

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


class IdMaker:
    """Makes ULIDs (https://github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, as 26 characters.

    Ids of one maker increase strictly, also within a millisecond and when the clock goes back: the random
    part is then counted up by one.
    """

    def __init__(self, clock: Clock, random: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random = random
        self._last_time = -1
        self._last_random = 0

    def __call__(self) -> str:
        now = self._clock.now()
        if now > self._last_time:
            self._last_time = now
            # The top bit stays free, so that counting up cannot overflow into the time.
            self._last_random = int.from_bytes(self._random(10), "big") >> 1
        else:
            self._last_random += 1
        number = (self._last_time << _RANDOM_BITS) | self._last_random
        return "".join([_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)])
