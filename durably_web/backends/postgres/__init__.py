"""PostgreSQL: a database on a server, for many machines."""

from durably_web.backends.postgres.executor import PostgresExecutor

__all__ = ["PostgresExecutor"]
