"""The SQL, one named constant per statement.

`IS_OWNED` is the fence of every write of a worker: the run is leased, and by the generation that writes.
Writes that follow a user's request carry its `request_id`, by which a second send recognises the first.
"""

from __future__ import annotations

from typing import LiteralString

# -- schema ----------------------------------------------------------------------------------------------

FIND_SCHEMA: LiteralString = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'durably_schema'"

CREATE_SCHEMA_TABLE: LiteralString = """
CREATE TABLE IF NOT EXISTS durably_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT
"""

READ_SCHEMA_VERSION: LiteralString = "SELECT coalesce(max(version), 0) FROM durably_schema"

# Fails when another process was faster: the whole migration is then rolled back.
RECORD_MIGRATION: LiteralString = "INSERT INTO durably_schema (version, applied_at) VALUES (?, ?)"

# -- triggering ------------------------------------------------------------------------------------------

INSERT_RUN: LiteralString = """
INSERT INTO durably_runs (id, job_name, status, input, labels, idempotency_key, created_at)
VALUES (?, ?, 'pending', ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

INSERT_RUN_LIKE: LiteralString = """
INSERT INTO durably_runs (id, job_name, status, input, labels, created_at)
SELECT ?, job_name, 'pending', input, labels, ?
FROM durably_runs WHERE id = ? AND status IN ('completed', 'failed', 'cancelled')
ON CONFLICT DO NOTHING
"""

INSERT_LABELS: LiteralString = """
INSERT INTO durably_labels (key, value, run_id)
SELECT label.key, label.value, r.id FROM durably_runs r, json_each(r.labels) AS label WHERE r.id = ?
ON CONFLICT DO NOTHING
"""

INSERT_TRIGGER_ENTRY: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, created_at)
SELECT id, 1, 0, 'run:trigger', created_at FROM durably_runs WHERE id = ?
ON CONFLICT DO NOTHING
"""

SELECT_TRIGGERED: LiteralString = """
SELECT r.id, j.seq FROM durably_runs r JOIN durably_journal j ON j.run_id = r.id AND j.number = 1 WHERE r.id = ?
"""

SELECT_BY_IDEMPOTENCY_KEY: LiteralString = """
SELECT id FROM durably_runs WHERE job_name = ? AND idempotency_key = ?
"""

# -- leases ----------------------------------------------------------------------------------------------

FREE_EXPIRED: LiteralString = """
UPDATE durably_runs SET status = 'pending', lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
WHERE status = 'leased' AND lease_expires_at <= ? AND id NOT IN (SELECT value FROM json_each(?))
"""

# The token makes a second send find the leases of the first instead of taking more.
CLAIM: LiteralString = """
UPDATE durably_runs
SET status = 'leased', generation = generation + 1, attempt = attempt + 1,
    lease_owner = ?, lease_token = ?, lease_expires_at = ?, started_at = coalesce(started_at, ?)
WHERE id IN (
    SELECT id FROM durably_runs
    WHERE status = 'pending' AND run_at <= ? AND job_name IN (SELECT value FROM json_each(?))
      AND id NOT IN (SELECT value FROM json_each(?))
    ORDER BY priority DESC, run_at, id LIMIT ?
)
AND NOT EXISTS (SELECT 1 FROM durably_runs WHERE status = 'leased' AND lease_token = ?)
"""

INSERT_LEASED_ENTRIES: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at)
SELECT r.id, (SELECT max(number) + 1 FROM durably_journal WHERE run_id = r.id), r.generation, 'run:leased',
       json_object('workerId', r.lease_owner, 'attempt', r.attempt), ?
FROM durably_runs r
WHERE r.status = 'leased' AND r.lease_token = ? AND NOT EXISTS (
    SELECT 1 FROM durably_journal j
    WHERE j.run_id = r.id AND j.generation = r.generation AND j.type = 'run:leased'
)
"""

SELECT_CLAIMED: LiteralString = """
SELECT r.id, r.job_name, r.input, r.labels, r.generation, r.attempt, r.started_at,
       (SELECT max(number) FROM durably_journal WHERE run_id = r.id) AS number,
       (SELECT seq FROM durably_journal WHERE run_id = r.id ORDER BY number DESC LIMIT 1) AS seq
FROM durably_runs r WHERE r.status = 'leased' AND r.lease_token = ?
ORDER BY r.priority DESC, r.run_at, r.id
"""

# What a replay needs, in one range scan for each run. Not a join: ordered by run, SQLite would walk through every
# run there ever was to spare itself a sort.
SELECT_CLAIMED_ENTRIES: LiteralString = """
SELECT run_id, type, step_name, data FROM durably_journal
WHERE run_id IN (SELECT id FROM durably_runs WHERE status = 'leased' AND lease_token = ? AND attempt > 1)
  AND type IN ('step:complete', 'step:fail', 'log:write', 'run:retry')
ORDER BY run_id, number
"""

RENEW_LEASES: LiteralString = """
UPDATE durably_runs SET lease_expires_at = ?
WHERE status = 'leased' AND (id, generation) IN (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)
)
"""

SELECT_OWNERSHIP: LiteralString = """
SELECT id, generation, status FROM durably_runs
WHERE id IN (SELECT json_extract(value, '$[0]') FROM json_each(?))
"""

SELECT_OTHER_OWNERS: LiteralString = """
SELECT DISTINCT lease_owner FROM durably_runs WHERE status = 'leased' AND lease_owner <> ?
"""

FREE_LEASES_OF: LiteralString = """
UPDATE durably_runs SET status = 'pending', lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
WHERE status = 'leased' AND lease_owner IN (SELECT value FROM json_each(?))
"""

# -- executing -------------------------------------------------------------------------------------------

# Returns its seq on every send, and no row when the fence does not hold. The entry before it must be there: when a
# write of the owner did not arrive, none that it sent behind it may leave a gap.
INSERT_ENTRY: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, step_name, data, started_at, created_at)
SELECT id, ?, generation, ?, ?, ?, ?, ? FROM durably_runs WHERE id = ? AND generation = ? AND status = 'leased'
AND EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND number = ?)
ON CONFLICT (run_id, number) DO UPDATE SET number = excluded.number
RETURNING seq
"""

UPDATE_PROGRESS: LiteralString = """
UPDATE durably_runs SET progress = ? WHERE id = ? AND generation = ? AND status = 'leased'
AND EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND number = ?)
"""

FINISH_RUN: LiteralString = """
UPDATE durably_runs
SET status = ?, output = ?, error = ?, completed_at = ?,
    lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
WHERE id = ? AND generation = ? AND status = 'leased'
AND EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND number = ?)
"""

RELEASE_RUN: LiteralString = """
UPDATE durably_runs SET status = 'pending', lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
WHERE id = ? AND generation = ? AND status = 'leased'
"""

# The types tell its own entries from the one that another wrote in their place, such as a cancellation.
SELECT_ENTRIES: LiteralString = """
SELECT seq, type FROM durably_journal WHERE run_id = ? AND number BETWEEN ? AND ? AND generation = ? ORDER BY number
"""

# -- requests about a run --------------------------------------------------------------------------------

# A request that comes a second time, however late, finds its own entry and makes no other; and what follows in the
# batch is done only while that entry is the run's last.
_LAST_REQUEST: LiteralString = """
(SELECT request_id FROM durably_journal WHERE run_id = durably_runs.id ORDER BY number DESC LIMIT 1)
"""

INSERT_CANCEL_ENTRY: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, created_at, request_id)
SELECT id, (SELECT max(number) + 1 FROM durably_journal WHERE run_id = ?), generation, 'run:cancel', ?, ?
FROM durably_runs WHERE id = ? AND status IN ('pending', 'leased', 'waiting')
AND NOT EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND request_id = ?)
"""

CANCEL_RUN: LiteralString = f"""
UPDATE durably_runs
SET status = 'cancelled', completed_at = ?, lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
WHERE id = ? AND status IN ('pending', 'leased', 'waiting') AND {_LAST_REQUEST} = ?
"""

INSERT_RETRY_ENTRY: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, created_at, request_id)
SELECT id, (SELECT max(number) + 1 FROM durably_journal WHERE run_id = ?), generation, 'run:retry', ?, ?
FROM durably_runs WHERE id = ? AND status IN ('failed', 'cancelled')
AND NOT EXISTS (SELECT 1 FROM durably_journal WHERE run_id = ? AND request_id = ?)
"""

RETRY_RUN: LiteralString = f"""
UPDATE durably_runs SET status = 'pending', error = NULL, completed_at = NULL
WHERE id = ? AND status IN ('failed', 'cancelled') AND {_LAST_REQUEST} = ?
"""

INSERT_DELETE_ENTRY: LiteralString = """
INSERT INTO durably_journal (run_id, number, generation, type, data, created_at, request_id)
SELECT id, (SELECT max(number) + 1 FROM durably_journal WHERE run_id = ?), generation, 'run:delete',
       json_object('jobName', job_name, 'labels', json(labels)), ?, ?
FROM durably_runs WHERE id = ? AND status IN ('completed', 'failed', 'cancelled')
"""

DELETE_LABELS: LiteralString = """
DELETE FROM durably_labels WHERE (key, value, run_id) IN (
    SELECT label.key, label.value, r.id FROM durably_runs r, json_each(r.labels) AS label
    WHERE r.id = ? AND r.status IN ('completed', 'failed', 'cancelled')
)
"""

DELETE_RUN: LiteralString = """
DELETE FROM durably_runs WHERE id = ? AND status IN ('completed', 'failed', 'cancelled')
"""

DELETE_JOURNAL: LiteralString = """
DELETE FROM durably_journal WHERE run_id = ? AND type <> 'run:delete'
AND NOT EXISTS (SELECT 1 FROM durably_runs WHERE id = ?)
"""

# (the run's status or NULL, the seq of the entry that this request made or NULL)
SELECT_REQUEST_OUTCOME: LiteralString = """
SELECT (SELECT status FROM durably_runs WHERE id = ?),
       (SELECT seq FROM durably_journal WHERE run_id = ? AND request_id = ?)
"""

# -- reading ---------------------------------------------------------------------------------------------

SELECT_RUNS: LiteralString = """
SELECT r.id, r.job_name, r.status, r.input, r.output, r.error, r.labels, r.progress, r.attempt, r.idempotency_key,
       r.concurrency_key, r.priority, r.created_at, r.run_at, r.started_at, r.completed_at,
       (SELECT count(DISTINCT step_name) FROM durably_journal WHERE run_id = r.id AND type = 'step:complete')
FROM durably_runs r
"""

SELECT_STATUS: LiteralString = "SELECT status FROM durably_runs WHERE id = ?"

SELECT_STEPS: LiteralString = """
SELECT type, step_name, data, generation, started_at, created_at
FROM durably_journal WHERE run_id = ? AND type IN ('step:complete', 'step:fail') ORDER BY number
"""

SELECT_LOGS: LiteralString = """
SELECT data, step_name, created_at FROM durably_journal WHERE run_id = ? AND type = 'log:write' ORDER BY number
"""

_EVENT_COLUMNS: LiteralString = """
SELECT j.seq, j.number, j.run_id, j.type, j.step_name, j.data, j.started_at, j.created_at, r.job_name, r.labels,
       CASE j.type WHEN 'run:trigger' THEN r.input WHEN 'run:complete' THEN r.output END
FROM durably_journal j LEFT JOIN durably_runs r ON r.id = j.run_id
"""

SELECT_EVENTS: LiteralString = _EVENT_COLUMNS + "WHERE j.seq > ? ORDER BY j.seq LIMIT ?"

# An `after` that is one of the run's own events leads to its number, and the scan starts there.
SELECT_EVENTS_OF_RUN: LiteralString = (
    _EVENT_COLUMNS
    + """
WHERE j.run_id = ? AND j.seq > ?
  AND j.number > coalesce((SELECT number FROM durably_journal WHERE seq = ? AND run_id = ?), 0)
ORDER BY j.number LIMIT ?
"""
)
