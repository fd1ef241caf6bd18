"""The order of events that a reader can trust who reads on from the last seq he saw.

Seqs come from a sequence, and transactions commit in another order than they draw: a reader that has seen seq 6 would
miss seq 5, whose transaction commits later. So whoever writes registers first, under the sequence's last value of that
moment: what he draws is larger. Whoever reads takes the sequence's last value, then looks who is registered, and then,
with a snapshot that is younger still, reads only up to the least of these: his horizon. A number up to there that he
does not see will never be seen: who drew it had registered before, and is off the list only when his commit is visible
to all, or will not come.

A registration is a shared advisory lock of the transaction: nobody waits for it, and it ends with the transaction,
also where the client or the server dies. Ids of transactions would do the same, but any long transaction of any
database on the server would then hold up every reader.
"""

from __future__ import annotations

from durably_web.backends.postgres.locks import key

HORIZON_NAME = "durably_web.horizon"

HORIZON = f"current_setting('{HORIZON_NAME}')::bigint"
"""In a statement that reads events of all runs: the greatest seq that it may read."""

# The name is the one that the server gives to the sequence of such a column. Where there is none yet, so is no event.
_LAST = "coalesce(pg_sequence_last_value(to_regclass('durably_journal_seq_seq')), 0)"


def registration(schema: str) -> str:
    """The expression that registers a write."""
    return f"pg_advisory_xact_lock_shared({_class_of(schema)}, {_LAST}::bit(32)::int4)"


def look(schema: str) -> tuple[str, str]:
    """The two statements before one with `HORIZON` in it, each with a snapshot of its own (READ COMMITTED)."""
    # Of the last value a lock has only 32 bits: how far behind it is tells the rest. Who is ahead came later.
    behind = f"({HORIZON} - objid::bigint) & 4294967295"
    behind = f"CASE WHEN {behind} < 2147483648 THEN {behind} END"
    return (
        f"SELECT set_config('{HORIZON_NAME}', {_LAST}::text, true)",
        f"SELECT set_config('{HORIZON_NAME}', ({HORIZON} - coalesce(max({behind}), 0))::text, true) FROM pg_locks "
        "WHERE locktype = 'advisory' AND objsubid = 2 AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        f"AND classid = ({_class_of(schema)})::oid",
    )


def _class_of(schema: str) -> int:
    return key(f"order {schema}")
