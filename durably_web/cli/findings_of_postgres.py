"""What there is to see in a PostgreSQL, and what it means."""

from __future__ import annotations

from collections.abc import Iterator

from durably_web.cli import findings_of_runs as of_runs
from durably_web.cli import findings_of_servers as of_servers
from durably_web.cli.looking import Look
from durably_web.cli.patient import Check, Finding, Patient, amount, examined, many_runs
from durably_web.cli.times import readable

OLDEST = 13
"""The oldest major version that durably_web works with."""

# A transaction that writes for so long keeps who follows events waiting.
_LONG_SECONDS = 10.0
_FULL = 0.8
# The server refuses everything at two thousand million; long before that it should have frozen old rows.
_OLD_TRANSACTIONS = 1_000_000_000
_MANY_DEAD = 10_000

_AWAITED = "json_array_elements_text(CAST(coalesce(w.awaits, '[]') AS json)) AS awaited (value)"


def examine(look: Look, name: str, late: float) -> list[Finding]:
    """Everything that can be found out, in the order in which it matters. `late` is seconds."""
    patient = Patient(look, name, round(of_servers.now() * 1000), late, awaited=_AWAITED)
    checks: list[Check] = [
        *(_server, of_runs.schema, _durability, _clocks, of_runs.clock, of_runs.leases, of_runs.pending),
        *(of_runs.waiting, of_runs.blocked, of_runs.schedules),
        *(_connections, _writers, _locks, _tables, _vacuum, _transactions, _indexes, _slots),
    ]
    return examined(patient, checks, "restore a backup")


# -- the server --------------------------------------------------------------------------------------------


def _server(patient: Patient) -> Iterator[Finding]:
    # With the transaction's begin and its end.
    _, took = of_servers.round_trip(patient, "SELECT 1", trips=3)
    [(version, number, standby, read_only, encoding)] = patient.ask(
        "SELECT current_setting('server_version'), CAST(current_setting('server_version_num') AS int), "
        "pg_is_in_recovery(), current_setting('default_transaction_read_only'), current_setting('server_encoding')"
    )
    [(runs,)] = patient.ask("SELECT count(*) FROM durably_runs")
    data = {"version": version, "roundTripMs": round(took * 1000, 1), "runs": runs, "standby": standby}
    message = f"{patient.name}: PostgreSQL {version.split()[0]}, {took * 1000:.1f} ms away, {many_runs(runs)}"
    if number < OLDEST * 10_000:
        yield Finding("database", "problem", message, f"durably_web needs PostgreSQL {OLDEST} or newer", data)
    else:
        yield Finding("database", "ok", message, data=data)
    if standby or read_only == "on":
        what = "a standby that follows another server" if standby else "set to only read"
        advice = "give the address of the primary; of several hosts, ?target_session_attrs=read-write finds it"
        yield Finding("standby", "problem", f"this server is {what}: no worker can use it", advice)
    if encoding != "UTF8":
        message = f"the database keeps texts as {encoding}, which has not all characters"
        yield Finding("encoding", "problem", message, "make the database with ENCODING 'UTF8'", {"encoding": encoding})


_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")


def _durability(patient: Patient) -> Iterator[Finding]:
    values = dict(
        patient.ask(
            f"SELECT name, setting FROM pg_settings WHERE name IN ({', '.join('?' * len(_SETTINGS))})", *_SETTINGS
        )
    )
    data = {"settings": values}
    off = [name for name in ("fsync", "full_page_writes") if values.get(name) == "off"]
    if off:
        message = f"{' and '.join(off)} off: a crash of the machine can damage the whole database"
        yield Finding("durability", "problem", message, f"set {off[0]} = on in postgresql.conf", data)
    elif values.get("synchronous_commit") == "off":
        message = (
            "synchronous_commit is off: a crash of the server takes the last commits, though they were acknowledged"
        )
        yield Finding("durability", "warning", message, "set it to on, for this database or this user", data)
    else:
        standbys = values.get("synchronous_standby_names")
        message = "commits are flushed" + (
            ", here and on a standby" if standbys else "; a failover to an asynchronous standby may lose the last ones"
        )
        yield Finding("durability", "ok", message, data=data)


def _clocks(patient: Patient) -> Iterator[Finding]:
    return of_servers.clocks(patient, "SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")


def _connections(patient: Patient) -> Iterator[Finding]:
    [(used, most, ours)] = patient.ask(
        "SELECT count(*), CAST(current_setting('max_connections') AS int) - "
        "CAST(current_setting('superuser_reserved_connections') AS int), "
        "count(CASE WHEN datname = current_database() THEN 1 END) "
        "FROM pg_stat_activity WHERE backend_type = 'client backend'"
    )
    data = {"used": used, "most": most, "ofThisDatabase": ours}
    message = f"{used:,} of {most:,} in use, {ours:,} of them by this database"
    if used > _FULL * most:
        yield Finding("connections", "warning", message, "put PgBouncer in between, or raise max_connections", data)
    else:
        yield Finding("connections", "ok", message, data=data)


def _writers(patient: Patient) -> Iterator[Finding]:
    rows = patient.ask(
        "SELECT pid, coalesce(nullif(application_name, ''), usename, 'somebody'), "
        "CAST(extract(epoch FROM clock_timestamp() - xact_start) AS double precision), state FROM pg_stat_activity "
        "WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start"
    )
    prepared = patient.ask(
        "SELECT gid, CAST(extract(epoch FROM clock_timestamp() - prepared) AS double precision) FROM pg_prepared_xacts "
        "ORDER BY prepared"
    )
    old = [row for row in rows if row[2] is not None and row[2] > _LONG_SECONDS]
    data = {"writing": len(rows), "prepared": len(prepared), "old": [{"pid": row[0], "seconds": row[2]} for row in old]}
    if old:
        pid, who, seconds, state = old[0]
        message = (
            f"process {pid} of the server ({who}, {state}) has been writing in one transaction for {readable(seconds)}"
        )
        advice = f"events that were stored meanwhile are not seen before it ends: SELECT pg_terminate_backend({pid})"
        yield Finding("writers", "warning", message, advice, data)
    elif prepared and prepared[0][1] > _LONG_SECONDS:
        message = f"the prepared transaction {prepared[0][0]} is {readable(prepared[0][1])} old"
        advice = "events that were stored meanwhile are not seen before it ends: COMMIT PREPARED or ROLLBACK PREPARED"
        yield Finding("writers", "warning", message, advice, data)
    else:
        yield Finding("writers", "ok", "no transaction has been writing for long", data=data)


def _locks(patient: Patient) -> Iterator[Finding]:
    rows = patient.ask(
        "SELECT pid, CAST(pg_blocking_pids(pid) AS text), "
        "CAST(extract(epoch FROM clock_timestamp() - state_change) AS double precision) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database() ORDER BY state_change"
    )
    waiting = [row for row in rows if row[2] is not None and row[2] > _LONG_SECONDS]
    if waiting:
        pid, blockers, seconds = waiting[0]
        message = f"process {pid} of the server has been waiting for a lock for {readable(seconds)}, held by {blockers}"
        yield Finding("locks", "warning", message, "look what that does: pg_stat_activity", {"waiting": len(waiting)})


# -- what it keeps -----------------------------------------------------------------------------------------

_OURS = "relname LIKE 'durably%' AND schemaname = current_schema()"


def _tables(patient: Patient) -> Iterator[Finding]:
    rows = patient.ask(
        "SELECT relname, CAST(pg_total_relation_size(relid) AS bigint), CAST(pg_indexes_size(relid) AS bigint) "
        f"FROM pg_stat_user_tables WHERE {_OURS} ORDER BY 2 DESC"
    )
    total = sum(row[1] for row in rows)
    largest = ", ".join(f"{name} {amount(size)}" for name, size, _ in rows[:2])
    data = {"bytes": total, "tables": {name: {"bytes": size, "indexBytes": indexes} for name, size, indexes in rows}}
    yield Finding("size", "ok", f"{amount(total)} with indexes: {largest}", data=data)


def _vacuum(patient: Patient) -> Iterator[Finding]:
    [(autovacuum, counts)] = patient.ask("SELECT current_setting('autovacuum'), current_setting('track_counts')")
    if "off" in (autovacuum, counts):
        which = "autovacuum" if autovacuum == "off" else "track_counts"
        message = f"{which} is off: what was changed or deleted is never cleared up, and every claim gets slower"
        yield Finding("vacuum", "problem", message, f"set {which} = on in postgresql.conf", {"autovacuum": False})
        return
    rows = patient.ask(
        "SELECT relname, n_live_tup, n_dead_tup, "
        "CAST(extract(epoch FROM greatest(last_autovacuum, last_vacuum)) * 1000 AS bigint) "
        f"FROM pg_stat_user_tables WHERE {_OURS} ORDER BY n_dead_tup DESC"
    )
    dead = {name: {"live": live, "dead": gone, "last": last} for name, live, gone, last in rows}
    late = [row for row in rows if row[2] > max(_MANY_DEAD, row[1])]
    if late:
        name, live, gone, last = late[0]
        message = f"{name} has {gone:,} dead rows beside {live:,} live ones, " + (
            f"last cleared up {patient.age(last)} ago" if last is not None else "never cleared up yet"
        )
        advice = f"VACUUM {name}; look for old transactions and replication slots that keep it from its work"
        yield Finding("vacuum", "warning", message, advice, {"tables": dead})
    else:
        worst = f"at most {rows[0][2]:,} dead rows, in {rows[0][0]}" if rows else "no tables"
        yield Finding("vacuum", "ok", worst, data={"tables": dead})


def _transactions(patient: Patient) -> Iterator[Finding]:
    [(age,)] = patient.ask(
        "SELECT CAST(age(datfrozenxid) AS bigint) FROM pg_database WHERE datname = current_database()"
    )
    if age > _OLD_TRANSACTIONS:
        message = f"the oldest row has not been frozen for {age:,} transactions; at two thousand million all stops"
        yield Finding(
            "transactions", "warning", message, "VACUUM FREEZE, and find what keeps autovacuum from it", {"age": age}
        )


def _indexes(patient: Patient) -> Iterator[Finding]:
    rows = patient.ask(
        "SELECT CAST(indexrelid::regclass AS text) FROM pg_index JOIN pg_stat_user_tables ON relid = indrelid "
        f"WHERE NOT indisvalid AND {_OURS}"
    )
    for (name,) in rows:
        yield Finding("indexes", "warning", f"{name} is not valid, and costs without use", f"REINDEX INDEX {name}")


def _slots(patient: Patient) -> Iterator[Finding]:
    rows = patient.ask(
        "SELECT CAST(slot_name AS text), CAST(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) AS bigint) "
        "FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL AND NOT pg_is_in_recovery() "
        "ORDER BY 2 DESC"
    )
    if rows:
        name, behind = rows[0]
        message = f"the replication slot {name} is used by nobody, and keeps {amount(behind)} of log"
        advice = f"it fills the disk: start its standby, or SELECT pg_drop_replication_slot('{name}')"
        yield Finding("slots", "warning", message, advice, {"slots": [row[0] for row in rows]})
