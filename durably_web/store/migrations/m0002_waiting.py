"""Version 2: runs that wait, that are held back, and that belong to others; signals; rate limits.

`wake_at` is set while time alone decides when a run becomes due: it is delayed, asleep, or waits with a limit.
`awaits` lists what else wakes a waiting run, as JSON: "signal:" and a name, "run:" and an id.
`debounced` marks the run that further triggers of a burst put off.
`blocked` is a hint that a run stands behind another one of its concurrency key, so that no claim looks at it;
`holds_key` is the truth: the run has begun, has not ended, and no other run of the key may begin.
`calls`, with a step's outcome, is how many steps the job had called by then.
`crashes` counts the workers that died under the run since it last stored a step.
"""

COLUMNS = (
    "ALTER TABLE durably_runs ADD COLUMN wake_at INTEGER",
    "ALTER TABLE durably_runs ADD COLUMN awaits TEXT",
    "ALTER TABLE durably_runs ADD COLUMN debounced INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE durably_runs ADD COLUMN paused INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE durably_runs ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE durably_runs ADD COLUMN holds_key INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE durably_runs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE durably_runs ADD COLUMN parent_run_id TEXT",
    "ALTER TABLE durably_runs ADD COLUMN forked_from TEXT",
    "ALTER TABLE durably_journal ADD COLUMN calls INTEGER",
)

# The time of a run that was retried begins with its retry.
RETRIED = """
UPDATE durably_runs SET started_at = NULL
WHERE status = 'pending' AND (
    SELECT type FROM durably_journal WHERE run_id = durably_runs.id ORDER BY number DESC LIMIT 1) = 'run:retry'
"""

# What a worker may claim, and nothing else, job by job: neither other workers' jobs nor those that wait, however
# many, are walked over.
DROP_PENDING = "DROP INDEX durably_runs_pending"
READY = """
CREATE INDEX durably_runs_ready ON durably_runs (job_name, priority DESC, run_at, id)
WHERE status = 'pending' AND wake_at IS NULL AND paused = 0 AND blocked = 0
"""

# Those of them that have begun, which no rate limit holds back.
READY_BEGUN = """
CREATE INDEX durably_runs_ready_begun ON durably_runs (job_name, priority DESC, run_at, id)
WHERE status = 'pending' AND wake_at IS NULL AND paused = 0 AND blocked = 0 AND generation > 0
"""

WAKING = """
CREATE INDEX durably_runs_waking ON durably_runs (wake_at) WHERE wake_at IS NOT NULL
"""

KEYS = """
CREATE INDEX durably_runs_keys ON durably_runs (concurrency_key, job_name, blocked, priority DESC, run_at, id)
WHERE concurrency_key IS NOT NULL AND status IN ('pending', 'leased', 'waiting')
"""

KEY_HOLDERS = """
CREATE INDEX durably_runs_key_holders ON durably_runs (concurrency_key) WHERE holds_key = 1
"""

CHILDREN = """
CREATE INDEX durably_runs_children ON durably_runs (parent_run_id) WHERE parent_run_id IS NOT NULL
"""

REQUESTS = """
CREATE INDEX durably_journal_requests ON durably_journal (request_id) WHERE request_id IS NOT NULL
"""

# `step_name` is the wait that took the signal.
SIGNALS = """
CREATE TABLE durably_signals (
    run_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    step_name TEXT,
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID
"""

PAUSED_JOBS = """
CREATE TABLE durably_paused_jobs (job_name TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID
"""

# When runs of a job with a rate limit began, for as long as it counts. `concurrency_key` is '' unless the limit
# is one per key.
STARTS = """
CREATE TABLE durably_starts (
    job_name TEXT NOT NULL,
    concurrency_key TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (job_name, concurrency_key, started_at, run_id)
) STRICT, WITHOUT ROWID
"""

STATEMENTS = (
    *COLUMNS,
    RETRIED,
    DROP_PENDING,
    READY,
    READY_BEGUN,
    WAKING,
    KEYS,
    KEY_HOLDERS,
    CHILDREN,
    REQUESTS,
    SIGNALS,
    PAUSED_JOBS,
    STARTS,
)
