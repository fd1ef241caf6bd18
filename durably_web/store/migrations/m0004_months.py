"""Version 4: what keeps runs right for months: schedules, the code that a run was executed with, and undo.

`code` is the fingerprint of the job's code, as of the last execution that may have stored something. `undoing` is set
while the steps of a run that has failed or was cancelled are undone, and says how it will end. `schedule` and
`scheduled_at` are the schedule that asked for a run, and the tick; a run that was asked for by hand has no tick.

`restarted` is the number of the entry that tells of the last restart; what was stored before it counts no more. `kind`
is what a step is: `run`, `sleep`, `signal`, `call` or `trigger`, and `NULL` in entries from before.

`durably_undos` lists the steps that have a result and can be undone, oldest first by `number`, their journal entry's.

Every lease ends here, and nobody who holds one can store anything more: an older version of the code would not know
what to do about the rest.
"""

COLUMNS = (
    "ALTER TABLE durably_runs ADD COLUMN code TEXT",
    "ALTER TABLE durably_runs ADD COLUMN restarted INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE durably_runs ADD COLUMN undoing TEXT",
    "ALTER TABLE durably_runs ADD COLUMN schedule TEXT",
    "ALTER TABLE durably_runs ADD COLUMN scheduled_at INTEGER",
    "ALTER TABLE durably_journal ADD COLUMN kind TEXT",
)

# One run for each tick, whoever asks for it and however often.
TICKS = """
CREATE UNIQUE INDEX durably_runs_ticks ON durably_runs (schedule, scheduled_at) WHERE schedule IS NOT NULL
"""

# Of a schedule that lets no run begin beside another one. Runs that nobody scheduled are not in it.
ACTIVE = """
CREATE INDEX durably_runs_scheduled ON durably_runs (schedule)
WHERE schedule IS NOT NULL AND status IN ('pending', 'leased', 'waiting')
"""

# `next_at` is the next tick, `NULL` where there is none any more. `cron` and `timezone`, or `every` in milliseconds,
# say when; `input` and `labels` are JSON. `updated_at` grows with whatever a user changes. `last_at` is the last tick
# that got a run; `fired_by` is who moved `next_at` on, a new name each time.
SCHEDULES = """
CREATE TABLE durably_schedules (
    name TEXT PRIMARY KEY NOT NULL,
    job_name TEXT NOT NULL,
    cron TEXT,
    timezone TEXT,
    every INTEGER,
    input TEXT NOT NULL,
    labels TEXT NOT NULL,
    priority INTEGER NOT NULL DEFAULT 0,
    missed TEXT NOT NULL CHECK (missed IN ('skip', 'one', 'all')),
    overlap TEXT NOT NULL CHECK (overlap IN ('skip', 'queue', 'allow')),
    catch_up_window INTEGER,
    paused INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER,
    last_at INTEGER,
    fired_by TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT
"""

DUE = """
CREATE INDEX durably_schedules_due ON durably_schedules (next_at) WHERE paused = 0 AND next_at IS NOT NULL
"""

UNDOS = """
CREATE TABLE durably_undos (
    run_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    step_name TEXT NOT NULL,
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID
"""

REVOKED = """
UPDATE durably_runs SET status = 'pending', lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
WHERE status = 'leased'
"""

STATEMENTS = (*COLUMNS, TICKS, ACTIVE, SCHEDULES, DUE, UNDOS, REVOKED)
