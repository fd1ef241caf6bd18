"""A history of finished runs with all their entries, made inside of the database and not by executing them."""

from __future__ import annotations

import httpx
import psycopg

# FIRST and LAST are the numbers of the runs.
_POSTGRES = """
INSERT INTO durably_runs
    (id, job_name, status, input, output, labels, attempt, created_at, started_at, completed_at, generation)
SELECT '00H' || lpad(n::text, 23, '0'), 'grown', 'completed', '{}', '{"saved":true}', '{}', 1, n, n, n, 1
FROM generate_series(FIRST, LAST) AS n;
INSERT INTO durably_journal (run_id, number, generation, type, step_name, data, started_at, created_at)
SELECT '00H' || lpad(n::text, 23, '0'), kind.number, least(kind.number - 1, 1),
       kind.type, kind.step_name, kind.data, n, n
FROM generate_series(FIRST, LAST) AS n CROSS JOIN (VALUES
    (1, 'run:trigger', NULL, NULL),
    (2, 'run:leased', NULL, '{"workerId":"benchmark","attempt":1}'),
    (3, 'step:complete', 'save', '{"saved":true}'),
    (4, 'run:complete', NULL, NULL)
) AS kind (number, type, step_name, data)
ORDER BY n, kind.number
"""

_LIBSQL = (
    """
WITH RECURSIVE numbers(n) AS (SELECT FIRST UNION ALL SELECT n + 1 FROM numbers WHERE n < LAST)
INSERT INTO durably_runs
    (id, job_name, status, input, output, labels, attempt, created_at, started_at, completed_at, generation)
SELECT printf('00H%023d', n), 'grown', 'completed', '{}', '{"saved":true}', '{}', 1, n, n, n, 1 FROM numbers
""",
    """
WITH RECURSIVE numbers(n) AS (SELECT FIRST UNION ALL SELECT n + 1 FROM numbers WHERE n < LAST),
kind(number, type, step_name, data) AS (VALUES
    (1, 'run:trigger', NULL, NULL), (2, 'run:leased', NULL, '{"workerId":"benchmark","attempt":1}'),
    (3, 'step:complete', 'save', '{"saved":true}'), (4, 'run:complete', NULL, NULL))
INSERT INTO durably_journal (run_id, number, generation, type, step_name, data, started_at, created_at)
SELECT printf('00H%023d', n), number, min(number - 1, 1), type, step_name, data, n, n FROM numbers CROSS JOIN kind
""",
)
# So that one request takes seconds, not minutes.
_CHUNK = 50_000


async def fill(url: str, there: int, wanted: int) -> None:
    """Add finished runs until there are `wanted`. No engine may be open meanwhile."""
    if url.startswith("postgresql:"):
        with psycopg.connect(url) as connection:
            connection.execute("SET LOCAL synchronous_commit = off")
            connection.execute(_of(_POSTGRES, there + 1, wanted).encode())
            connection.commit()
            connection.autocommit = True
            # As autovacuum would do it within a minute.
            connection.execute("VACUUM ANALYZE durably_runs, durably_journal")
        return
    async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
        for first in range(there + 1, wanted + 1, _CHUNK):
            for text in _LIBSQL:
                sql = _of(text, first, min(first + _CHUNK - 1, wanted))
                execute = {"type": "execute", "stmt": {"sql": sql, "want_rows": False}}
                answer = await client.post(f"{url}/v2/pipeline", json={"requests": [execute, {"type": "close"}]})
                assert answer.status_code == 200 and answer.json()["results"][0]["type"] == "ok", answer.text


def _of(text: str, first: int, last: int) -> str:
    return text.replace("FIRST", str(first)).replace("LAST", str(last))
