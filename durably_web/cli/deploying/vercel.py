"""Vercel: functions and a cron job, no worker."""

from __future__ import annotations

from durably_web.cli.deploying.project import Plan, Project, Web, made_by, variables
from durably_web.cli.jobfile import is_engine
from durably_web.cli.mistakes import Mistake

# A call executes for so long, and then waits for the steps that are under way: together less than a function may take.
MAX_DURATION = 60
PROCESS_SECONDS = 45

_VERCEL_JSON = f"""\
{{
  "$schema": "https://openapi.vercel.sh/vercel.json",
  "functions": {{
    "api/index.py": {{ "maxDuration": {MAX_DURATION} }}
  }},
  "rewrites": [{{ "source": "/api/(.*)", "destination": "/api/index" }}],
  "crons": [{{ "path": "/api/process", "schedule": "* * * * *" }}]
}}
"""


def vercel(project: Project) -> Plan:
    """A vercel.json and a function: it answers requests, and a cron job lets it execute what is due."""
    if project.on_disk:
        raise Mistake("a function's disk is gone with it: say --database postgresql, or libsql")
    if project.web is None:
        raise Mistake("nothing lives there that could be a worker, only requests: say --auth MODULE:NAME, or --anybody")
    if project.web.app is not None:
        raise Mistake("your application is a function already: the guide's page on Vercel says what it needs beside it")
    files = {"vercel.json": _VERCEL_JSON, "api/index.py": _function(project, project.web)}
    if project.missing is not None:
        files["requirements.txt"] = f"{project.missing}\n"
    lines = [
        "vercel link",
        "vercel env add DATABASE_URL production",
        "openssl rand -hex 32 | vercel env add CRON_SECRET production",
        "vercel deploy --prod",
    ]
    notes = [
        variables("`vercel env add NAME production`"),
        "on the Hobby plan crons come once a day, and vercel.json is refused with more: change its schedule, or let "
        "something else call /api/process",
        f"a step has {MAX_DURATION - PROCESS_SECONDS} s, since a function has {MAX_DURATION} s: raise maxDuration for "
        "longer ones, as far as your plan goes",
        "there is no worker, and no SQLite file",
    ]
    return Plan(files, lines, notes)


def _function(project: Project, web: Web) -> str:
    wanted = _imports(project.target, web.auth)
    access = ""
    if web.auth is not None:
        name = web.auth.rpartition(":")[2]
        # A class is made an object of, as `durably-web serve` does.
        access = f"\n    auth={name}{'()' if name[:1].isupper() else ''},"
    engine = project.target.rpartition(":")[2]
    return f"""\
{made_by(project)}
import os

{wanted}
from durably_web.server import Limits, create_app, lifespan
from starlette.applications import Starlette
from starlette.routing import Mount

api = create_app(
    {engine},{access}
    # Vercel sends it with each call of the cron job, which vercel.json tells of; nobody else may call /api/process.
    cron_secret=os.environ["CRON_SECRET"],
    # And the longest step more: together less than maxDuration in vercel.json.
    limits=Limits(process_seconds={PROCESS_SECONDS}),
)

# Vercel looks for this name. Nothing is executed beside the requests: what does is stopped with the function.
app = Starlette(routes=[Mount("/api", api)], lifespan=lifespan({engine}, work=False))
"""


def _imports(*targets: str | None) -> str:
    """What makes the names of targets known, a line for each module."""
    names: dict[str, list[str]] = {}
    for target in filter(None, targets):
        assert is_engine(target)
        module, _, name = target.rpartition(":")
        names.setdefault(module.removesuffix(".py").replace("/", "."), []).append(name)
    return "\n".join(f"from {module} import {', '.join(sorted(found))}" for module, found in sorted(names.items()))
