"""What there is to see of any database on a server: how far away it is, and how its clock differs from this one."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from durably_web.cli.patient import Finding, Patient
from durably_web.cli.times import readable

# A difference of clocks that leases, which last half a minute, are too short for.
_FAR_SECONDS = 5.0
# A server may tell no more than the millisecond in which it is.
_UNCERTAIN_SECONDS = 0.001


def now() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def round_trip(patient: Patient, sql: str, *, trips: int) -> tuple[Any, float]:
    """The one value that `sql` gives, and the seconds of one of the `trips` that a question takes."""
    began = now()
    [(value,)] = patient.ask(sql)
    return value, (now() - began) / trips


def clocks(patient: Patient, sql: str) -> Iterator[Finding]:
    """`sql` asks the server for its time, in seconds since 1970."""
    began = now()
    [(there,)] = patient.ask(sql)
    ended = now()
    difference = 0.0 if began - _UNCERTAIN_SECONDS <= there <= ended else there - (began + ended) / 2
    data = {"aheadSeconds": round(difference, 3)}
    if abs(difference) > _FAR_SECONDS:
        way = "ahead of" if difference > 0 else "behind"
        message = f"the server's clock is {readable(abs(difference))} {way} this one"
        advice = "let both keep the time with NTP; between workers, such a difference shortens leases"
        yield Finding("clocks", "warning", message, advice, data)
    else:
        yield Finding("clocks", "ok", f"the server's clock and this one are {abs(difference):.1f} s apart", data=data)
