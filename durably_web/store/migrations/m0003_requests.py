"""Version 3: what was asked for, where the journal does not tell.

A pause and its end leave no entry, since only the owner of a lease writes into the journal of a run that executes; and
a request about many runs ends with a count. `subject` is the run, or "job:" and a job's name, or '' for the request as
a whole, with its `count`. Kept for some days, in case the request comes again.
"""

REQUESTS = """
CREATE TABLE durably_requests (
    request_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    count INTEGER,
    PRIMARY KEY (request_id, subject)
) STRICT, WITHOUT ROWID
"""

STATEMENTS = (REQUESTS,)
