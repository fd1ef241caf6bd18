"""What there is to see in a database of a libSQL server, as far as one may ask."""

from __future__ import annotations

from collections.abc import Iterator

from durably_web.cli import findings_of_runs as of_runs
from durably_web.cli import findings_of_servers as of_servers
from durably_web.cli.looking import Look
from durably_web.cli.patient import Check, Finding, Patient, amount, examined, many_runs
from durably_web.cli.patient import integrity as found_damage

_FULL = 2


def examine(look: Look, name: str, late: float, *, integrity: bool) -> list[Finding]:
    """Everything that can be found out, in the order in which it matters. `late` is seconds."""
    patient = Patient(look, name, round(of_servers.now() * 1000), late)
    checks: list[Check] = [
        *(_server, of_runs.schema, _durability, _clocks, of_runs.clock, of_runs.leases, of_runs.pending),
        *(of_runs.waiting, of_runs.blocked, of_runs.schedules, _size),
    ]
    if integrity:
        checks.append(_integrity)
    return examined(patient, checks, _RESTORE)


_RESTORE = "restore a backup of the server"


def _server(patient: Patient) -> Iterator[Finding]:
    version, took = of_servers.round_trip(patient, "SELECT sqlite_version()", trips=2)
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
    return of_servers.clocks(patient, "SELECT (julianday('now') - 2440587.5) * 86400")


def _size(patient: Patient) -> Iterator[Finding]:
    [(pages,)] = patient.ask("PRAGMA page_count")
    [(page,)] = patient.ask("PRAGMA page_size")
    yield Finding("size", "ok", amount(pages * page), data={"bytes": pages * page})


def _integrity(patient: Patient) -> Iterator[Finding]:
    return found_damage(patient, _RESTORE)
