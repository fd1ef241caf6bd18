"""Where it is measured: a server of the benchmark's own, or one that has a URL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import psycopg

from tests.support import servers

Backend = Literal["postgres", "libsql"]

# As a small server of one's own is set up; everything that keeps commits is on. The last counts what claims cost.
_SETTINGS = ("shared_buffers = 1GB", "max_wal_size = 4GB", "shared_preload_libraries = pg_stat_statements")


class Place(NamedTuple):
    backend: Backend
    name: str
    server: servers.Postgres | servers.Sqld

    def database(self) -> str:
        """The URL of a new database."""
        if isinstance(self.server, servers.Sqld):
            return self.server.namespace()
        return self.server.create_database()


@contextlib.contextmanager
def place(backend: Backend) -> Iterator[Place]:
    """A server on this machine, for as long as it is needed."""
    if backend == "libsql":
        with contextlib.closing(servers.sqld_server()) as sqld:
            yield Place(backend, "libSQL", sqld)
        return
    with contextlib.closing(servers.postgres_server(*_SETTINGS)) as postgres:
        with psycopg.connect(postgres.url()) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        assert row is not None
        yield Place(backend, f"PostgreSQL {row[0].split()[0]}", postgres)
