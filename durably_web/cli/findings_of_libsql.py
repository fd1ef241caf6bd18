"""What there is to see in a database of a libSQL server, as far as one may ask."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from durably_web.cli import findings_of_runs as of_runs
from durably_web.cli.looking import Look, NotTold
from durably_web.cli.patient import Check, Finding, Patient, amount, many_runs
from durably_web.cli.times import readable

_FAR_SECONDS = 5.0
_FULL = 2


def examine(look: Look, name: str, late: float, *, integrity: bool) -> list[Finding]:
    """Everything that can be found out, in the order in which it matters. `late` is seconds."""
    patient = Patient(look, name, round(_now() * 1000), late)
    checks: list[Check] = [
        *(_server, of_runs.schema, _durability, _clocks, of_runs.clock, of_runs.leases, of_runs.pending),
        *(of_runs.waiting, of_runs.blocked, of_runs.schedules, _size),
    ]
    if integrity:
        checks.append(_integrity)
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(patient)
        except NotTold as error:
            # A table or a column that this schema does not have, or what this server tells nobody.
            found.append(Finding(check.__name__.strip("_"), "note", f"cannot be told: {error}"))
    return found


def _now() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def _server(patient: Patient) -> Iterator[Finding]:
    began = _now()
    [(version,)] = patient.ask("SELECT sqlite_version()")
    took = (_now() - began) / 2
    [(runs,)] = patient.ask("SELECT count(*) FROM durably_runs")
    data = {"version": version, "roundTripMs": round(took * 1000, 1), "runs": runs}
    message = f"{patient.name}: libSQL, of SQLite {version}, {took * 1000:.1f} ms away, {many_runs(runs)}"
    yield Finding("database", "ok", message, data=data)


def _durability(patient: Patient) -> Iterator[Finding]:
    [(level,)] = patient.ask("PRAGMA synchronous")
    data = {"synchronous": level}
    if level < _FULL:
        message = "the server answers before its disk has flushed: a power cut of its machine may take the last commits"
        yield Finding("durability", "note", message, data=data)
    else:
        yield Finding("durability", "ok", "commits are flushed before they are acknowledged", data=data)


def _clocks(patient: Patient) -> Iterator[Finding]:
    began = _now()
    [(there,)] = patient.ask("SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)")
    ended = _now()
    there /= 1000
    difference = 0.0 if began - 0.001 <= there <= ended else there - (began + ended) / 2
    data = {"aheadSeconds": round(difference, 3)}
    if abs(difference) > _FAR_SECONDS:
        way = "ahead of" if difference > 0 else "behind"
        message = f"the server's clock is {readable(abs(difference))} {way} this one"
        yield Finding("clocks", "warning", message, "let both keep the time with NTP", data)
    else:
        yield Finding("clocks", "ok", f"the server's clock and this one are {abs(difference):.1f} s apart", data=data)


def _size(patient: Patient) -> Iterator[Finding]:
    [(pages,)] = patient.ask("PRAGMA page_count")
    [(page,)] = patient.ask("PRAGMA page_size")
    yield Finding("size", "ok", amount(pages * page), data={"bytes": pages * page})


def _integrity(patient: Patient) -> Iterator[Finding]:
    lines = [line for (line,) in patient.ask("PRAGMA quick_check(20)")]
    if lines == ["ok"]:
        yield Finding("integrity", "ok", "quick_check finds nothing")
    else:
        message = f"the database is damaged: {lines[0]}"
        yield Finding("integrity", "problem", message, "restore a backup of the server", {"lines": lines})
