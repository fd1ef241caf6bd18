"""Version 1: runs, their labels, and the journal.

Instants are milliseconds since the epoch. `input`, `output`, `labels`, `progress` and `data` are JSON.
"""

RUNS = """
CREATE TABLE durably_runs (
    id TEXT PRIMARY KEY NOT NULL,
    job_name TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'leased', 'waiting', 'completed', 'failed', 'cancelled')),
    input TEXT NOT NULL,
    output TEXT,
    error TEXT,
    labels TEXT NOT NULL,
    progress TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT,
    concurrency_key TEXT,
    priority INTEGER NOT NULL DEFAULT 0,
    run_at INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    generation INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    lease_token TEXT,
    lease_expires_at INTEGER
) STRICT
"""

IDEMPOTENCY = """
CREATE UNIQUE INDEX durably_runs_idempotency ON durably_runs (job_name, idempotency_key)
WHERE idempotency_key IS NOT NULL
"""

# Only what a worker looks for is in these two, so that finished runs cost it nothing.
PENDING = """
CREATE INDEX durably_runs_pending ON durably_runs (priority DESC, run_at, id) WHERE status = 'pending'
"""

LEASED = """
CREATE INDEX durably_runs_leased ON durably_runs (lease_expires_at) WHERE status = 'leased'
"""

LABELS = """
CREATE TABLE durably_labels (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (key, value, run_id)
) STRICT, WITHOUT ROWID
"""

# seq orders everything; number counts a run's own entries from 1. The entry that a deleted run leaves behind
# keeps the highest seq from being given out twice.
JOURNAL = """
CREATE TABLE durably_journal (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    type TEXT NOT NULL,
    step_name TEXT,
    data TEXT,
    started_at INTEGER,
    created_at INTEGER NOT NULL,
    request_id TEXT
) STRICT
"""

JOURNAL_OF_RUN = """
CREATE UNIQUE INDEX durably_journal_run ON durably_journal (run_id, number)
"""

STATEMENTS = (RUNS, IDEMPOTENCY, PENDING, LEASED, LABELS, JOURNAL, JOURNAL_OF_RUN)
