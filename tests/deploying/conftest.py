"""A project to deploy, and every plan that there can be for it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import get_args

import pytest

from durably_web import __version__
from durably_web.cli.deploying import PLATFORMS
from durably_web.cli.deploying.looking import EXTRAS
from durably_web.cli.deploying.project import Database, Plan, Project, Web
from durably_web.cli.mistakes import Mistake

APP = """\
import os

from durably_web import Durably, Step, job
from starlette.exceptions import HTTPException


def began(line):
    with open(os.environ["BEGAN"], "a") as file:
        file.write(f"{line}\\n")


@job
async def order(step: Step, input: dict) -> str:
    await step.run("reserve", began, "reserve")
    paid = await step.wait_for_signal("paid")
    await step.run("ship", began, "ship")
    return f"{input['item']} for {paid}"


durably = Durably(os.environ.get("DATABASE_URL", "app.db"), jobs=[order])


class Auth:
    def authenticate(self, request):
        if request.headers.get("authorization") != "Bearer me":
            raise HTTPException(401, "who are you?")
"""
"""An order that waits for its payment, and tells a file what it does."""

ME = {"Authorization": "Bearer me"}


def project(database: Database = "sqlite", web: Web | None = None, target: str = "app:durably") -> Project:
    """What the command makes of `durably-web deploy PLATFORM app:durably`."""
    return Project(
        name="shop",
        target=target,
        database=database,
        web=web,
        requirements="requirements.txt",
        missing=f"durably-web{EXTRAS[database]}=={__version__}",
        python="3.13",
        line="durably-web deploy PLATFORM app:durably",
    )


_WEBS = {"worker": None, "auth": Web(auth="app:Auth"), "anybody": Web(), "app": Web(app="web:app", health="/api/ready")}

PROJECTS = {
    f"{database}-{name}": project(database, web)
    for database, (name, web) in itertools.product(get_args(Database), _WEBS.items())
}
"""Each database, without and with each kind of web process."""


def plans(platform: str) -> dict[str, tuple[Project, Plan]]:
    """What a platform gets, for each project that fits it."""
    found = {}
    for name, one in PROJECTS.items():
        try:
            found[name] = one, PLATFORMS[platform](one)
        except Mistake:
            # A function has no disk and no worker.
            assert platform == "vercel" and (one.on_disk or one.web is None or one.web.app is not None)
    return found


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with app.py, which is the current one."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    monkeypatch.chdir(folder)
    return folder
