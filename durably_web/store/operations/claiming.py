"""Leases: who may execute which run, and for how long."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, LiteralString, NamedTuple, cast

from durably_web.records import Status
from durably_web.store import rows
from durably_web.store.batch import Operation, Rows, Value
from durably_web.store.operations.building import ACTIVE, NO_LEASE, READY, nothing, operation, texts
from durably_web.store.rows import Lease, StoredEntry

# A lease that ends like this was not given back: its worker died, or slept. What the run has stored since the claim
# tells whether it got anywhere.
_CRASHES: LiteralString = """
CASE WHEN EXISTS (
    SELECT 1 FROM durably_journal j
    WHERE j.run_id = durably_runs.id AND j.generation = durably_runs.generation AND j.type LIKE 'step:%'
) THEN 0 ELSE crashes END
"""

FREE_EXPIRED: LiteralString = f"""
UPDATE durably_runs SET status = 'pending', crashes = 1 + {_CRASHES}, {NO_LEASE}
WHERE status = 'leased' AND lease_expires_at <= ? AND id NOT IN (SELECT value FROM json_each(?))
"""

FREE_LEASES_OF: LiteralString = f"""
UPDATE durably_runs SET status = 'pending', {NO_LEASE},
    crashes = {_CRASHES} + CASE WHEN ? IS NULL OR id IN (SELECT value FROM json_each(?)) THEN 1 ELSE 0 END
WHERE status = 'leased' AND lease_owner IN (SELECT value FROM json_each(?))
"""

# All whose time has come, whatever they wait for.
WAKE_DUE: LiteralString = "UPDATE durably_runs SET status = 'pending', wake_at = NULL WHERE wake_at <= ?"

# The same, before a claim by limits: where many of one key wake, all but the first few stand behind those.
WAKE_DUE_IN_LINE: LiteralString = """
UPDATE durably_runs SET status = 'pending', wake_at = NULL, blocked = (
    concurrency_key IS NOT NULL AND holds_key = 0 AND paused = 0 AND (
        SELECT count(*) FROM (
            SELECT 1 FROM durably_runs a
            WHERE a.concurrency_key = durably_runs.concurrency_key AND a.job_name = durably_runs.job_name
              AND a.status IN ('pending', 'leased', 'waiting') AND a.blocked = 0
              AND (a.holds_key = 1 OR (a.wake_at IS NULL AND a.paused = 0 AND (-a.priority, a.run_at, a.id)
                   < (-durably_runs.priority, durably_runs.run_at, durably_runs.id)))
            LIMIT ?)) >= coalesce(
        (SELECT json_extract(value, '$.perKey') FROM json_each(?) WHERE json_extract(value, '$.name') = job_name), 1e9)
)
WHERE wake_at <= ?
"""

# A run that has stored nothing yet is executed by whatever code is there.
_LEASE: LiteralString = """
UPDATE durably_runs
SET status = 'leased', generation = generation + 1, attempt = attempt + 1,
    lease_owner = ?, lease_token = ?, lease_expires_at = ?, started_at = coalesce(started_at, ?),
    code = CASE WHEN code IS NULL OR NOT EXISTS (
        SELECT 1 FROM durably_journal j WHERE j.run_id = durably_runs.id AND j.type LIKE 'step:%'
    ) THEN (SELECT value FROM json_each(?) WHERE key = job_name) ELSE code END
"""

# The token makes a second send find the leases of the first instead of taking more.
_NOT_YET: LiteralString = "NOT EXISTS (SELECT 1 FROM durably_runs WHERE status = 'leased' AND lease_token = ?)"

# Job by job, so that the index leads to the first of each, and nothing else is looked at.
CLAIM: LiteralString = f"""
{_LEASE}
WHERE id IN (
    SELECT r.id FROM json_each(?) AS job CROSS JOIN durably_runs r
    WHERE job.value NOT IN (SELECT job_name FROM durably_paused_jobs) AND r.id IN (
        SELECT id FROM durably_runs
        WHERE job_name = job.value AND {READY} AND concurrency_key IS NULL
          AND id NOT IN (SELECT value FROM json_each(?))
        ORDER BY priority DESC, run_at, id LIMIT ?
    )
    ORDER BY r.priority DESC, r.run_at, r.id LIMIT ?
)
AND {_NOT_YET}
"""

# The first run that one job may begin, or go on with. Where the job's rate is used up, only those that have begun are
# looked at, by an index of their own.
_FIRST_OF_JOB: LiteralString = f"""
SELECT id FROM durably_runs c
WHERE job_name = jobs.name AND {READY} AND id NOT IN (SELECT value FROM json_each(?))
  AND (concurrency_key IS NULL OR holds_key = 1 OR jobs.per_key > (
    SELECT count(*) FROM durably_runs h WHERE h.concurrency_key = c.concurrency_key AND h.holds_key = 1))
"""

# The same for one run, with every limit there is; sent once for each run that is wanted, so that each sees what the
# one before took, and as long as that took any. The tokens are numbered for that.
CLAIM_ONE: LiteralString = f"""
WITH jobs AS MATERIALIZED (
    SELECT name, per_key, rate, period, rate_per_key,
           rate IS NULL OR rate_per_key OR rate > (
             SELECT count(*) FROM durably_starts s WHERE s.job_name = name AND s.started_at > ? - period) AS may_begin
    FROM (
        SELECT json_extract(value, '$.name') AS name, json_extract(value, '$.runs') AS runs,
               json_extract(value, '$.perKey') AS per_key, json_extract(value, '$.rate') AS rate,
               json_extract(value, '$.period') AS period, json_extract(value, '$.ratePerKey') AS rate_per_key
        FROM json_each(?)
    )
    WHERE (? IS NULL OR EXISTS (SELECT 1 FROM durably_runs WHERE status = 'leased' AND lease_token = ?))
      AND name NOT IN (SELECT job_name FROM durably_paused_jobs)
      AND (runs IS NULL OR runs > (
        SELECT count(*) FROM durably_runs l WHERE l.status = 'leased' AND l.job_name = name))
)
{_LEASE}, holds_key = (concurrency_key IS NOT NULL)
WHERE id IN (
    SELECT r.id FROM jobs CROSS JOIN durably_runs r
    WHERE r.id = CASE WHEN jobs.may_begin THEN (
        {_FIRST_OF_JOB}
          AND (NOT coalesce(jobs.rate_per_key, 0) OR generation > 0 OR jobs.rate > (
            SELECT count(*) FROM durably_starts s
            WHERE s.job_name = jobs.name AND s.started_at > ? - jobs.period
              AND s.concurrency_key = coalesce(c.concurrency_key, '')))
        ORDER BY priority DESC, run_at, id LIMIT 1
    ) ELSE (
        {_FIRST_OF_JOB} AND generation > 0 ORDER BY priority DESC, run_at, id LIMIT 1
    ) END
    ORDER BY r.priority DESC, r.run_at, r.id LIMIT 1
)
AND {_NOT_YET}
"""

INSERT_STARTS: LiteralString = """
INSERT INTO durably_starts (job_name, concurrency_key, started_at, run_id)
SELECT r.job_name,
       CASE WHEN json_extract(job.value, '$.ratePerKey') THEN coalesce(r.concurrency_key, '') ELSE '' END, ?, r.id
FROM durably_runs r JOIN json_each(?) AS job ON json_extract(job.value, '$.name') = r.job_name
WHERE r.status = 'leased' AND r.lease_token = ? AND r.generation = 1 AND json_extract(job.value, '$.rate') IS NOT NULL
ON CONFLICT DO NOTHING
"""

DELETE_STARTS: LiteralString = "DELETE FROM durably_starts WHERE job_name = ? AND started_at <= ?"

_MINE: LiteralString = "status = 'leased' AND lease_token IN (SELECT value FROM json_each(?))"

INSERT_LEASED_ENTRIES: LiteralString = f"""
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at)
SELECT r.id, (SELECT max(number) + 1 FROM durably_journal WHERE run_id = r.id), r.generation, 'run:leased',
       json_object('workerId', r.lease_owner, 'attempt', r.attempt), ?
FROM durably_runs r
WHERE {_MINE} AND NOT EXISTS (
    SELECT 1 FROM durably_journal j
    WHERE j.run_id = r.id AND j.generation = r.generation AND j.type = 'run:leased'
)
"""

_OF_CLAIMED: LiteralString = f"""
       r.labels, r.generation, r.attempt, r.started_at, r.crashes, r.parent_run_id,
       r.concurrency_key, r.code, r.undoing, r.schedule, r.scheduled_at,
       (SELECT max(number) FROM durably_journal WHERE run_id = r.id) AS number,
       (SELECT seq FROM durably_journal WHERE run_id = r.id ORDER BY number DESC LIMIT 1) AS seq,
       r.attempt > 1 AND EXISTS (SELECT 1 FROM durably_undos WHERE run_id = r.id),
       r.forked_from IS NOT NULL
FROM durably_runs r WHERE {_MINE}
ORDER BY r.priority DESC, r.run_at, r.id
"""

SELECT_CLAIMED: LiteralString = f"SELECT r.id, r.job_name, r.input, {_OF_CLAIMED}"

# Without what may be large.
SELECT_CLAIMED_BARE: LiteralString = f"SELECT r.id, r.job_name, NULL, {_OF_CLAIMED}"

# What a replay needs, in one range scan for each run. Not a join: ordered by run, SQLite would walk through every
# run there ever was to spare itself a sort.
SELECT_CLAIMED_ENTRIES: LiteralString = f"""
SELECT run_id, type, step_name, data, created_at, calls, kind FROM durably_journal
WHERE run_id IN (SELECT id FROM durably_runs WHERE {_MINE} AND (attempt > 1 OR forked_from IS NOT NULL))
  AND type IN ('step:complete', 'step:fail', 'step:retry', 'step:wait', 'log:write', 'run:retry', 'run:undo',
               'run:restart', 'run:patched', 'step:unasked')
ORDER BY run_id, number
"""

# (the moment when the next run becomes due by time, whether there are runs with a concurrency key, the next tick of a
# schedule)
SELECT_NEXT: LiteralString = f"""
SELECT (SELECT min(wake_at) FROM durably_runs WHERE wake_at IS NOT NULL),
       EXISTS (SELECT 1 FROM durably_runs WHERE concurrency_key IS NOT NULL AND {ACTIVE}),
       (SELECT min(next_at) FROM durably_schedules WHERE paused = 0 AND next_at IS NOT NULL)
"""

SELECT_NEXT_TICK: LiteralString = """
SELECT min(next_at) FROM durably_schedules WHERE paused = 0 AND next_at IS NOT NULL
"""

# The moment when the first of the starts that count now counts no more, for jobs with runs that may wait for it.
SELECT_NEXT_START: LiteralString = f"""
SELECT min(s.started_at + json_extract(job.value, '$.period'))
FROM json_each(?) AS job JOIN durably_starts s ON s.job_name = json_extract(job.value, '$.name')
WHERE s.started_at > ? - json_extract(job.value, '$.period')
  AND EXISTS (SELECT 1 FROM durably_runs WHERE job_name = s.job_name AND {READY})
"""

RENEW_LEASES: LiteralString = """
UPDATE durably_runs SET lease_expires_at = ?
WHERE status = 'leased' AND (id, generation) IN (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)
)
"""

SELECT_OWNERSHIP: LiteralString = """
SELECT id, generation, status, paused FROM durably_runs
WHERE id IN (SELECT json_extract(value, '$[0]') FROM json_each(?))
"""

SELECT_OTHER_OWNERS: LiteralString = """
SELECT DISTINCT lease_owner FROM durably_runs WHERE status = 'leased' AND lease_owner <> ?
"""


class JobLimits(NamedTuple):
    """What a job allows: how many runs at once, of one key, and begun within `period` milliseconds."""

    name: str
    runs: int | None = None
    per_key: int = 1
    rate: int | None = None
    period: int | None = None
    rate_per_key: bool = False

    @property
    def is_plain(self) -> bool:
        """There is nothing to count, but for runs with a key."""
        return self.runs is None and self.rate is None

    def to_json(self) -> dict[str, Value]:
        return {
            "name": self.name,
            "runs": self.runs,
            "perKey": self.per_key,
            "rate": self.rate,
            "period": self.period,
            "ratePerKey": self.rate_per_key,
        }


class Claimed(NamedTuple):
    """`next_at` is when there may be more by time alone; `keyed` tells of runs that only a claim `by_limits` takes;
    `tick_at` is the next tick of a schedule."""

    leases: list[Lease]
    next_at: int | None
    keyed: bool
    tick_at: int | None


def claim(
    *,
    owner: str,
    token: str,
    jobs: Sequence[JobLimits],
    limit: int,
    executing: Iterable[str],
    now: int,
    expires_at: int,
    codes: str = "{}",
    by_limits: bool = False,
    bare: bool = False,
) -> Operation[Claimed]:
    """Lease up to `limit` runs that are due, and read what is stored of them.

    Leases that have expired are freed first, but not those of runs that this worker is `executing` itself;
    and none of those is leased a second time, while its earlier execution comes to an end. Runs with a concurrency
    key, and jobs with limits, are claimed right only `by_limits`. `codes` is JSON: the code of each job by its name, as
    far as it is known. Leases that are `bare` have neither input nor entries: for runs that are too large to be read
    at once.
    """
    own = texts(executing)
    lease = (owner, token, expires_at, now, codes)
    statements: list[tuple[LiteralString, tuple[Value, ...]]] = [(FREE_EXPIRED, (now, own))]
    rated = json.dumps([job.to_json() for job in jobs if job.rate is not None])
    if by_limits:
        limits = json.dumps([job.to_json() for job in jobs])
        tokens = [f"{token}-{number}" for number in range(limit)]
        # For as long again as they count: by the clock of another worker they may, or when a claim comes late.
        statements += [(DELETE_STARTS, (job.name, now - 2 * job.period)) for job in jobs if job.period is not None]
        statements.append((WAKE_DUE_IN_LINE, (max([job.per_key for job in jobs], default=1), limits, now)))
        for before, one in zip([None, *tokens], tokens, strict=False):
            lease = (owner, one, expires_at, now, codes)
            statements.append((CLAIM_ONE, (now, limits, before, before, *lease, own, now, own, one)))
            if rated != "[]":
                statements.append((INSERT_STARTS, (now, rated, one)))
    else:
        tokens = [token]
        statements.append((WAKE_DUE, (now,)))
        names = texts(job.name for job in jobs)
        statements.append((CLAIM, (*lease, names, own, limit, limit, token)))
    mine = texts(tokens)
    statements += [
        (INSERT_LEASED_ENTRIES, (now, mine)),
        (SELECT_CLAIMED_BARE if bare else SELECT_CLAIMED, (mine,)),
        (SELECT_CLAIMED_ENTRIES, (texts([]) if bare else mine,)),
        (SELECT_NEXT, ()),
    ]
    if rated != "[]":
        statements.append((SELECT_NEXT_START, (rated, now)))
    position = -5 if rated != "[]" else -4

    def decode(results: list[Rows]) -> Claimed:
        _, found, stored, following, *starting = results[position:]
        entries: dict[str, list[StoredEntry]] = {}
        for row in cast("list[tuple[Any, ...]]", stored):
            if row[1] == "run:restart":
                entries[row[0]] = []
            entries.setdefault(row[0], []).append(StoredEntry._make(row[1:]))
        leases = [rows.lease(row, entries.get(cast(str, row[0]), [])) for row in found]
        moments = [cast(int, rows_[0][0]) for rows_ in (following, *starting) if rows_[0][0] is not None]
        return Claimed(leases, min(moments, default=None), bool(following[0][1]), cast("int | None", following[0][2]))

    return operation("claim", "write", decode, *statements)


class Ownership(NamedTuple):
    run_id: str
    generation: int
    status: Status
    paused: bool


def renew_leases(leases: Sequence[tuple[str, int]], expires_at: int) -> Operation[list[Ownership]]:
    """Keep the leases on these `(run id, generation)`; tells what each run is at now."""
    held = json.dumps(leases)
    return operation(
        "renew_leases",
        "write",
        lambda results: [
            Ownership(run_id, generation, status, bool(paused))
            for run_id, generation, status, paused in cast("list[tuple[Any, ...]]", results[-1])
        ],
        (RENEW_LEASES, (expires_at, held)),
        (SELECT_OWNERSHIP, (held,)),
    )


def next_tick() -> Operation[int | None]:
    """The next tick of a schedule that is not paused; it may have passed."""
    return operation("next_tick", "read", lambda results: cast("int | None", results[0][0][0]), (SELECT_NEXT_TICK, ()))


def other_owners(owner: str) -> Operation[list[str]]:
    """The workers that hold a lease, without `owner`."""
    return operation(
        "other_owners",
        "read",
        lambda results: [cast(str, row[0]) for row in results[0]],
        (SELECT_OTHER_OWNERS, (owner,)),
    )


def free_leases_of(owners: Iterable[str], blamed: Iterable[str] | None = None) -> Operation[None]:
    """Free every lease of workers that are known to be dead.

    Where it is known under which runs they died, those are the `blamed`, and all others are taken for given back.
    """
    guilty = None if blamed is None else texts(blamed)
    return operation("free_leases_of", "write", nothing, (FREE_LEASES_OF, (guilty, guilty, texts(owners))))
