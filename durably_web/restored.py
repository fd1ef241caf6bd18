"""Python in a browser goes on from a memory that was made with the site. What it learned then of its surroundings, or
drew by lot, it learns and draws again here.

Not the seed of string hashes: every dictionary in that memory is laid out by it (docs/adr/0028).
"""

from __future__ import annotations

import locale
import logging
import os
import random
import sys
import time


def settle(language: str) -> None:
    """Before anything else runs. `language` is what the browser prefers, such as `de-CH`."""
    random.seed()
    os.environ["LANG"] = f"{language.replace('-', '_')}.UTF-8"
    locale.setlocale(locale.LC_CTYPE, "")
    _learn_zone()
    # Log records count from here.
    logging._startTime = time.time_ns()  # type: ignore[attr-defined]
    # Pyodide puts it there at each start.
    while sys.path[:2] == ["", ""]:
        del sys.path[0]


def _learn_zone() -> None:
    """Correct what the module `time` says of the zone. It has no `tzset` here; its functions ask the browser anyway."""
    now = time.time()
    year = 365 * 24 * 3600
    # Summer in one half of the world is winter in the other: standard time is that of the smaller offset.
    zones = {local.tm_gmtoff: local.tm_zone for local in (time.localtime(now + year * part / 4) for part in range(4))}
    standard, summer = min(zones), max(zones)
    vars(time).update(
        timezone=-standard, altzone=-summer, daylight=int(standard != summer), tzname=(zones[standard], zones[summer])
    )
