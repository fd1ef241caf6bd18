"""Ids that sort by the time they were made."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

from durably_web.clock import Clock

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHARACTERS = frozenset(_ALPHABET)
_LENGTH = 26
_BITS = 128
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
        return _text((self._last_time << _RANDOM_BITS) | self._last_random)


def is_id(text: str) -> bool:
    """Whether a text is a ULID: 26 characters of the alphabet that stand for at most 128 bits."""
    return len(text) == _LENGTH and text[0] <= "7" and set(text) <= _CHARACTERS


def counted_up(start: str, by: int) -> str:
    """The ULID `by` behind another one. Raises `ValueError` where none is left."""
    number = 0
    for character in start:
        number = number << 5 | _ALPHABET.index(character)
    if (number := number + by) >> _BITS:
        raise ValueError(f"there is no id {by} behind {start}")
    return _text(number)


def first_id(moment: int) -> str:
    """The lowest ULID of a moment, in milliseconds since the epoch: all from before sort in front of it."""
    return _text(max(moment, 0) << _RANDOM_BITS)


def _text(number: int) -> str:
    return "".join([_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)])


def new_worker_id(unique: str) -> str:
    """Tells a person which process it is, and is never given out twice."""
    if sys.platform == "emscripten":
        return f"tab-{unique}"
    return f"{socket.gethostname()}-{os.getpid()}-{unique}"
