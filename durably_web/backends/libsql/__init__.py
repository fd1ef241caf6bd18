"""libSQL and Turso: a database on a server, reached over HTTP, from a server's process and from a browser."""

from durably_web.backends.libsql.executor import LibsqlExecutor

__all__ = ["LibsqlExecutor"]
