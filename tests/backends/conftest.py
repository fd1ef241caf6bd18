"""What the tests of PostgreSQL share: a database for each module, and an executor on it with a schema of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.postgres_scene import Scene
    from tests.support.servers import Postgres


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[str]:
    """The address of a database on the server that everybody shares."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
async def scene(database: str) -> AsyncIterator[Scene]:
    from tests.support.postgres_scene import Scene

    scene = Scene(database)
    await scene.begin()
    yield scene
    await scene.executor.close()
