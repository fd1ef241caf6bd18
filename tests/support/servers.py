"""The database servers of the tests: PostgreSQL, PgBouncer before it, and libSQL's `sqld` with its replicas.

All of them listen on loopback only, at ports chosen by chance, and keep their files in a folder of their own under the
system's temporary one, or `where` they are told. The fixtures `postgres`, `pgbouncer` and `sqld` share one of each
between the tests of a process; who kills a server starts one of their own. What `durability="full"` relies on is on: a
commit is flushed.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
from pathlib import Path
from typing import LiteralString, TypeVar

import httpx
import psycopg
from psycopg import sql

from scripts import databases
from tests.support.guarded import SECONDS, Guarded, ServerFailed, accepts, environment, free_port, unprivileged

USER = "durably"
PASSWORD = "not-to-be-printed"
"""Of the addresses of databases. Nobody asks for it, and it must appear nowhere."""

_INITDB = ("--auth=trust", "--no-sync", "--encoding=UTF8", "--no-locale")
# As at most who offer PostgreSQL: text is sorted as people do it, not by its bytes. Since version 15.
_SORTING = ("--locale-provider=icu", "--icu-locale=en-US")
_SETTINGS = """
fsync = on
synchronous_commit = on
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
# Nothing of it is left in /dev/shm by a server that is killed.
dynamic_shared_memory_type = mmap
max_connections = 200
shared_buffers = 64MB
log_line_prefix = '%m [%p] %d '
"""

AnyServer = TypeVar("AnyServer", bound=Guarded)


class Postgres(Guarded):
    """A PostgreSQL server with no databases of ours yet."""

    # "Fast": connections are broken, and the log is written out.
    STOP = signal.SIGINT
    # "Immediate": it ends all its children, too.
    AT_ONCE = signal.SIGQUIT

    def __init__(self, *settings: str, primary: Postgres | None = None, where: Path | None = None) -> None:
        """`settings`: lines of postgresql.conf."""
        self._programs = databases.postgres()
        super().__init__("postgres", where, **unprivileged())
        self.port = free_port()
        self._data = self.folder / "data"
        if primary is not None:
            self._copy(primary)
            return
        done = self._run("initdb", "--pgdata", str(self._data), "--username", USER, *_INITDB, *_SORTING)
        if "unrecognized option" in done.stderr:
            done = self._run("initdb", "--pgdata", str(self._data), "--username", USER, *_INITDB)
        if done.returncode:
            raise ServerFailed(done.stderr)
        with (self._data / "postgresql.conf").open("a") as file:
            file.write("\n".join([_SETTINGS, *settings, ""]))

    def _copy(self, primary: Postgres) -> None:
        copied = ("--pgdata", str(self._data), "--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
        done = self._run("pg_basebackup", *copied, "--write-recovery-conf", "--dbname", primary.url())
        if done.returncode:
            raise ServerFailed(done.stderr)

    def command(self) -> list[str | Path]:
        return [self._programs / "postgres", "-D", self._data, "-p", str(self.port)]

    def ready(self) -> bool:
        # Of the one that was killed before, the file may still be there.
        lines = self._status()
        return lines[:1] == [str(self.pid)] and lines[7:8] in (["ready"], ["standby"])

    def url(self, database: str = "postgres") -> str:
        """The address of a database, be it there or not."""
        return _url(self.port, database)

    def create_database(self, *settings: LiteralString) -> str:
        """Make an empty database with a name that no other has; its address. `settings` are for who connects to it."""
        name = f"test_{secrets.token_hex(6)}"
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        for setting in settings:
            self._execute(sql.SQL("ALTER DATABASE {} SET {}").format(sql.Identifier(name), sql.SQL(setting)))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, of whatever address; connections to it are broken. Safe to repeat."""
        name = url.rpartition("/")[2].partition("?")[0]
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def standby(self) -> Postgres:
        """Start another server that follows this one, and without which nothing is committed here any more. Close it
        before this one."""
        standby = _started(Postgres(primary=self))
        self._execute(sql.SQL("ALTER SYSTEM SET synchronous_standby_names = '*'"))
        self._execute(sql.SQL("SELECT pg_reload_conf()"))
        return standby

    def promote(self) -> None:
        """Let this standby be the primary. The one it followed must be gone."""
        self._execute(sql.SQL("SELECT pg_promote()"))

    def close(self) -> None:
        if self._process is None and (status := self._status()):
            # A server that was killed has left a segment of System V shared memory; the next start would remove it.
            subprocess.run(["ipcrm", "-m", status[6].split()[1]], check=False, stderr=subprocess.DEVNULL)
        super().close()

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [self._programs / program, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=SECONDS, **self._user
        )

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=SECONDS) as connection:
            connection.execute(statement)

    def _status(self) -> list[str]:
        try:
            return [line.strip() for line in (self._data / "postmaster.pid").read_text().splitlines()]
        except FileNotFoundError:
            return []


class PgBouncer(Guarded):
    """A PgBouncer in transaction mode, before all databases of one server."""

    STOP = signal.SIGINT

    def __init__(self, postgres: Postgres, *settings: str) -> None:
        """`settings`: lines of pgbouncer.ini."""
        program = databases.pgbouncer()
        super().__init__("pgbouncer", **unprivileged())
        self._program = program
        self.port = free_port()
        (self.folder / "users").write_text(f'"{USER}" ""\n')
        lines = (
            *("[databases]", f"* = host=127.0.0.1 port={postgres.port}", "[pgbouncer]"),
            *("pool_mode = transaction", "listen_addr = 127.0.0.1", f"listen_port = {self.port}", "unix_socket_dir ="),
            *("auth_type = trust", "auth_file = users", "max_client_conn = 200", "default_pool_size = 10", *settings),
        )
        (self.folder / "pgbouncer.ini").write_text("\n".join([*lines, ""]))

    def command(self) -> list[str | Path]:
        return [self._program, "pgbouncer.ini"]

    def ready(self) -> bool:
        return accepts(self.port)

    def url(self, database: str) -> str:
        """Through it, the database of this name or address."""
        return _url(self.port, database.rpartition("/")[2])


class Sqld(Guarded):
    """A libSQL server, with as many databases as asked for."""

    def __init__(self, *arguments: str, primary: Sqld | None = None, where: Path | None = None) -> None:
        """`arguments`: of `sqld`, as `--auth-jwt-key-file`."""
        program = databases.sqld()
        super().__init__("sqld", where)
        self._program = program
        self._arguments = arguments
        self._primary = primary
        self.port, self.grpc_port, self._admin_port = free_port(), free_port(), free_port()

    def command(self) -> list[str | Path]:
        role = (
            ["--grpc-listen-addr", f"127.0.0.1:{self.grpc_port}"]
            if self._primary is None
            else ["--primary-grpc-url", f"http://127.0.0.1:{self._primary.grpc_port}"]
        )
        return [
            *(self._program, "--no-welcome", "--enable-namespaces", "--db-path", self.folder / "data"),
            # With more, writers wait for each other inside of SQLite, and this version can wait for ever.
            *(() if "--max-concurrent-connections" in self._arguments else ("--max-concurrent-connections", "1")),
            *("--http-listen-addr", f"127.0.0.1:{self.port}", "--admin-listen-addr", f"127.0.0.1:{self._admin_port}"),
            *(*role, *self._arguments),
        ]

    def ready(self) -> bool:
        return accepts(self.port) and accepts(self._admin_port)

    def start(self) -> None:
        super().start()
        if self._primary is None:
            # It takes the first word of the request's host for a name, and finds 127 there.
            self._create("127")

    @property
    def url(self) -> str:
        """The address of a database that everybody shares."""
        return f"http://127.0.0.1:{self.port}"

    def namespace(self) -> str:
        """Make an empty database with a name that no other has; its address."""
        name = f"test-{secrets.token_hex(6)}"
        self._create(name)
        return f"{self.url}/dev/{name}"

    def drop_namespace(self, url: str) -> None:
        """Remove a database. Safe to repeat."""
        path = f"http://127.0.0.1:{self._admin_port}/v1/namespaces/{url.rpartition('/')[2]}"
        with httpx.Client(verify=False, trust_env=False, timeout=SECONDS) as client:
            response = client.delete(path)
        if response.status_code not in (200, 404):
            raise ServerFailed(f"{path}: {response.status_code} {response.text}")

    def replica(self) -> Sqld:
        """Start another server that follows this one, and passes writes on to it. Close it before this one.

        For the database at `url` only: writes to another one it would pass on to that, too.
        """
        return _started(Sqld(*self._arguments, primary=self))

    def _create(self, name: str) -> None:
        path = f"http://127.0.0.1:{self._admin_port}/v1/namespaces/{name}/create"
        with httpx.Client(verify=False, trust_env=False, timeout=SECONDS) as client:
            response = client.post(path, json={})
        if response.status_code != 200 and "already exists" not in response.text:
            raise ServerFailed(f"{path}: {response.status_code} {response.text}")


def postgres_server(*settings: str, where: Path | None = None) -> Postgres:
    """A PostgreSQL of one's own, started. Whoever asks closes it. Raises `databases.ServerMissing`."""
    return _started(Postgres(*settings, where=where))


def pgbouncer(postgres: Postgres, *settings: str) -> PgBouncer:
    """A PgBouncer of one's own, started."""
    return _started(PgBouncer(postgres, *settings))


def sqld_server(*arguments: str, where: Path | None = None) -> Sqld:
    """A libSQL server of one's own, started."""
    return _started(Sqld(*arguments, where=where))


def _started(server: AnyServer) -> AnyServer:
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def _url(port: int, database: str) -> str:
    return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}"
