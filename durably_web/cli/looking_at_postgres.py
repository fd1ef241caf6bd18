"""A connection to PostgreSQL that only looks: each question is a transaction that may only read."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from durably_web.cli.database import shown
from durably_web.cli.looking import NotTold
from durably_web.cli.mistakes import Mistake
from durably_web.errors import RequirementFailed

_PATIENCE = 10


class PostgresLook:
    """It works through PgBouncer too: nothing is prepared, and nothing set for longer than a transaction."""

    def __init__(self, connection: Any, schema: str | None = None) -> None:
        self.connection = connection
        self._schema = schema

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Rows:
        """Raises `NotTold`."""
        return self.stream(sql.replace("%", "%%").replace("?", "%s"), list(values), None)

    def stream(self, sql: str, values: Sequence[Any] | None, most: int | None) -> Rows:
        """Of a statement with `%s` for its parameters, `most` rows at most. Exactly one statement; raises `NotTold`."""
        import psycopg

        try:
            if self._schema is not None:
                self.connection.execute("SELECT set_config('search_path', quote_ident(%s), true)", (self._schema,))
            with self.connection.cursor() as cursor:
                # Never the simple protocol, which would take several statements, and among them the transaction's end.
                with contextlib.closing(cursor.stream(sql, values)) as streamed:
                    rows = list(itertools.islice(streamed, most))
                names = cursor.description
            if not rows:
                # What streams nothing has no names either.
                with self.connection.pipeline(), self.connection.cursor() as cursor:
                    cursor.execute(sql, values)
                    rows = cursor.fetchall()
                    names = cursor.description
            return Rows(names, rows)
        except psycopg.ProgrammingError as error:
            if "didn't produce a result" in str(error):
                return Rows(None, [])
            raise NotTold(_first_line(error)) from None
        except psycopg.Error as error:
            raise NotTold(_first_line(error)) from None
        finally:
            self.connection.rollback()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


class Rows:
    def __init__(self, description: Any, rows: list[Any]) -> None:
        self.description = description
        self._rows = rows

    def fetchall(self) -> list[Any]:
        return self._rows

    def fetchmany(self, size: int, /) -> list[Any]:
        return self._rows[:size]


@contextlib.contextmanager
def look_at_postgres(database: str) -> Iterator[PostgresLook]:
    """Connect, to read. Raises `Mistake`."""
    try:
        import psycopg
    except ImportError:
        raise RequirementFailed('PostgreSQL needs the driver psycopg: pip install "durably-web[postgres]"') from None
    from durably_web.backends.postgres.address import parse

    address = parse(database)
    try:
        connection = psycopg.connect(
            address.conninfo, connect_timeout=_PATIENCE, prepare_threshold=None, application_name="durably-web"
        )
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise Mistake(f"{shown(database)} cannot be reached: {address.hide(shown(reason))}") from None
    with contextlib.closing(connection):
        connection.read_only = True
        yield PostgresLook(connection, address.schema)
