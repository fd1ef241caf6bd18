"""What there is to see in the tables of ours, whichever database keeps them."""

from __future__ import annotations

from collections.abc import Iterator

from durably_web.cli.patient import Finding, Patient, many, many_runs
from durably_web.cli.times import readable
from durably_web.store import migrations

# A clock that is so much behind what was written with it has jumped.
_JUMP_SECONDS = 60


def schema(patient: Patient) -> Iterator[Finding]:
    [(version,)] = patient.ask("SELECT coalesce(max(version), 0) FROM durably_schema")
    data = {"version": version, "known": migrations.LATEST}
    if version > migrations.LATEST:
        message = f"version {version} is newer than this durably_web, which knows {migrations.LATEST} and only reads it"
        yield Finding("schema", "problem", message, "update durably_web", data)
    elif version < migrations.LATEST:
        message = f"version {version}; this durably_web has {migrations.LATEST}"
        yield Finding("schema", "warning", message, "durably-web migrate brings it up to date", data)
    else:
        yield Finding("schema", "ok", f"version {version}, the newest", data=data)


# -- time --------------------------------------------------------------------------------------------------


def clock(patient: Patient) -> Iterator[Finding]:
    [(newest,)] = patient.ask(
        "SELECT max(created_at) FROM (SELECT created_at FROM durably_journal ORDER BY seq DESC LIMIT 100) AS newest"
    )
    if newest is None:
        yield Finding("clock", "ok", "nothing was written yet")
        return
    ahead = (newest - patient.now) / 1000
    data = {"newestEntry": newest, "now": patient.now}
    if ahead > _JUMP_SECONDS:
        message = (
            f"the newest entry is {readable(ahead)} in the future: this clock was set back, or a writer's is ahead"
        )
        yield Finding("clock", "problem", message, "set the clocks; leases and delays end late until then", data)
    else:
        yield Finding("clock", "ok", f"the newest entry is {patient.age(newest)} old", data=data)


# -- runs --------------------------------------------------------------------------------------------------


def leases(patient: Patient) -> Iterator[Finding]:
    rows = patient.ask("SELECT id, lease_owner, lease_expires_at FROM durably_runs WHERE status = 'leased'")
    workers = {owner for _, owner, _ in rows}
    dead = set(patient.dead(workers))
    over = [run_id for run_id, owner, end in rows if end <= patient.now or owner in dead]
    data = {"leased": len(rows), "workers": sorted(workers), "dead": sorted(dead), "stuck": over[:100]}
    if over:
        message = f"{many_runs(len(over))} of {len(rows):,} leased belong to workers that are gone"
        yield Finding("leases", "warning", message, "start a worker: it takes them up at once", data)
    elif rows:
        yield Finding("leases", "ok", f"{many_runs(len(rows))} executing, by {many(len(workers), 'worker')}", data=data)
    else:
        yield Finding("leases", "ok", "no run is executing", data=data)


_PENDING = """
SELECT job_name, count(*), min(CASE WHEN run_at > 0 THEN run_at ELSE created_at END),
       EXISTS (SELECT 1 FROM durably_paused_jobs p WHERE p.job_name = r.job_name)
FROM durably_runs r WHERE status = 'pending' AND wake_at IS NULL AND paused = 0 AND blocked = 0
GROUP BY job_name ORDER BY 3
"""

# Held back until it is known whether they were taken.
_OFFERED = """
SELECT count(*), min(created_at) FROM durably_runs w
WHERE status = 'waiting' AND paused = 1 AND EXISTS (SELECT 1 FROM {awaited} WHERE substr(value, 1, 9) = 'handover:')
"""


def pending(patient: Patient) -> Iterator[Finding]:
    rows = patient.ask(_PENDING)
    if not rows:
        yield Finding("pending", "ok", "no run is due")
    for job, count, oldest, paused in rows:
        late = patient.now - oldest > patient.late * 1000
        data = {"job": job, "count": count, "oldest": oldest, "paused": bool(paused)}
        message = f"{many_runs(count)} of {job} due, the oldest for {patient.age(oldest)}"
        if paused:
            yield Finding("pending", "note", f"{message}; the job is paused", data=data)
        elif late:
            advice = f"is there a worker that knows {job}, and does it keep up?"
            yield Finding("pending", "warning", message, advice, data)
        else:
            yield Finding("pending", "ok", message, data=data)
    [(delayed, paused_runs)] = patient.ask(
        "SELECT count(CASE WHEN status = 'pending' AND wake_at > ? THEN 1 END), count(CASE WHEN paused = 1 THEN 1 END) "
        "FROM durably_runs WHERE status IN ('pending', 'leased', 'waiting')",
        patient.now,
    )
    [(offered, since)] = patient.ask(_OFFERED.format(awaited=patient.awaited))
    if delayed:
        yield Finding("delayed", "ok", f"{many_runs(delayed)} begin later", data={"count": delayed})
    if paused_runs > offered:
        count = paused_runs - offered
        yield Finding("paused", "note", f"{many_runs(count)} paused", "durably-web runs resume", {"count": count})
    if offered:
        message = f"{many_runs(offered)} offered to another database, the oldest made {patient.age(since)} ago"
        advice = (
            "durably-web runs confirm when they were taken there, durably-web runs withdraw when they never will be"
        )
        yield Finding("offered", "note", message, advice, {"count": offered, "oldest": since})


# Waits of which nothing is left: neither a moment, nor a signal or the network, nor a run that has not ended.
_ENDLESS = """
SELECT id, job_name FROM durably_runs w WHERE status = 'waiting' AND wake_at IS NULL AND paused = 0 AND NOT EXISTS (
    SELECT 1 FROM {awaited} WHERE substr(value, 1, 4) <> 'run:' OR EXISTS (
        SELECT 1 FROM durably_runs c WHERE c.id = substr(value, 5) AND c.status IN ('pending', 'leased', 'waiting')))
"""
_FOR_SIGNALS = """
SELECT job_name, count(*), min(created_at) FROM durably_runs w
WHERE status = 'waiting' AND wake_at IS NULL AND EXISTS (SELECT 1 FROM {awaited} WHERE substr(value, 1, 7) = 'signal:')
GROUP BY job_name
"""


def waiting(patient: Patient) -> Iterator[Finding]:
    [(overdue, oldest)] = patient.ask(
        "SELECT count(*), min(wake_at) FROM durably_runs WHERE wake_at <= ?", patient.now - round(patient.late * 1000)
    )
    if overdue:
        message = f"{many_runs(overdue)} should have woken, the first {patient.age(oldest)} ago"
        yield Finding("waiting", "warning", message, "start a worker", {"count": overdue, "oldest": oldest})
    endless = patient.ask(_ENDLESS.format(awaited=patient.awaited))
    if endless:
        example = f"{endless[0][0]} ({endless[0][1]})"
        message = f"{many_runs(len(endless))} waiting for nothing that can still come, such as {example}"
        advice = "cancel and retry them: durably-web runs cancel ID, then durably-web runs retry ID"
        yield Finding("waiting", "problem", message, advice, {"runs": [run_id for run_id, _ in endless[:100]]})
    for job, count, since in patient.ask(_FOR_SIGNALS.format(awaited=patient.awaited)):
        message = (
            f"{many_runs(count)} of {job} waiting for a signal without limit, the oldest made {patient.age(since)} ago"
        )
        yield Finding("waiting", "note", message, data={"job": job, "count": count, "oldest": since})
    if not overdue and not endless:
        [(count,)] = patient.ask("SELECT count(*) FROM durably_runs WHERE status = 'waiting'")
        message = f"{many_runs(count)} waiting, and each can be woken" if count else "no run is waiting"
        yield Finding("waiting", "ok", message, data={"count": count})


_BEHIND_NOBODY = """
SELECT id FROM durably_runs b WHERE blocked = 1 AND status = 'pending' AND paused = 0 AND NOT EXISTS (
    SELECT 1 FROM durably_runs o
    WHERE o.concurrency_key = b.concurrency_key AND o.job_name = b.job_name AND o.id <> b.id
      AND o.status IN ('pending', 'leased', 'waiting') AND o.blocked = 0)
"""


def blocked(patient: Patient) -> Iterator[Finding]:
    [(count,)] = patient.ask("SELECT count(*) FROM durably_runs WHERE blocked = 1 AND status = 'pending'")
    alone = [run_id for (run_id,) in patient.ask(_BEHIND_NOBODY)]
    if alone:
        message = f"{many_runs(len(alone))} behind others of their key that are not there, such as {alone[0]}"
        advice = "pause and resume them: durably-web runs pause ID, then durably-web runs resume ID"
        yield Finding("keys", "problem", message, advice, {"runs": alone[:100]})
    elif count:
        yield Finding("keys", "ok", f"{many_runs(count)} behind others of their concurrency key", data={"count": count})


def schedules(patient: Patient) -> Iterator[Finding]:
    rows = patient.ask(
        "SELECT name, next_at FROM durably_schedules WHERE paused = 0 AND next_at IS NOT NULL ORDER BY next_at"
    )
    late = [(name, at) for name, at in rows if patient.now - at > patient.late * 1000]
    data = {"schedules": len(rows), "late": [name for name, _ in late]}
    if late:
        message = f"{late[0][0]} has been due for {patient.age(late[0][1])}" + (
            f", and {len(late) - 1} more" * (len(late) > 1)
        )
        yield Finding("schedules", "warning", message, "start a worker: one that runs looks after all of them", data)
    elif rows:
        yield Finding("schedules", "ok", f"{many(len(rows), 'schedule')}, none is late", data=data)
