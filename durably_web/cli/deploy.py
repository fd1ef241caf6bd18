"""`durably-web deploy`: the files that a platform needs to run the jobs."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from durably_web.cli.deploying import PLATFORMS
from durably_web.cli.deploying.github_pages import github_pages
from durably_web.cli.deploying.looking import EXTRAS, look_at
from durably_web.cli.deploying.project import READY, Database, Plan, Web
from durably_web.cli.deploying.writing import write
from durably_web.cli.display import output_console, print_json
from durably_web.cli.mistakes import Mistake

PAGES = "github-pages"
NAMES = [*PLATFORMS, PAGES]
_DATABASES: dict[str, Database] = {name: name for name in EXTRAS}


def _help() -> str:
    told = {name: (inspect.getdoc(platform) or "").splitlines()[0] for name, platform in PLATFORMS.items()}
    told[PAGES] = (inspect.getdoc(github_pages) or "").splitlines()[0]
    lines = "\n".join(f"- `{name}`: {line}" for name, line in told.items())
    return f"""\
Write what PLATFORM needs to run the jobs of TARGET: small files with comments, which are yours from then on.

{lines}

TARGET is an engine, as MODULE:NAME, that asks DATABASE_URL for its database; or a job file. For {PAGES} it is the
folder of the site. Without --auth, --anybody or --app there is no web process, only one that executes runs.

Call it in the root of the project. It asks nothing, overwrites nothing, and says what to type next.
"""


def deploy(
    platform: Annotated[str, typer.Argument(metavar="PLATFORM", help=f"{', '.join(NAMES)}.")],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The engine, as MODULE:NAME; or a job file; or the site's folder.")
    ] = ".",
    database: Annotated[
        str, typer.Option("--database", metavar="KIND", help="sqlite (a file on a volume), postgresql or libsql.")
    ] = "sqlite",
    auth: Annotated[
        str | None,
        typer.Option("--auth", metavar="MODULE:NAME", help="Answer requests, and ask this who may do what."),
    ] = None,
    anybody: Annotated[bool, typer.Option("--anybody", help="Answer requests of whoever reaches the port.")] = False,
    app: Annotated[
        str | None,
        typer.Option("--app", metavar="MODULE:NAME", help="Serve this ASGI application, which has create_app mounted."),
    ] = None,
    health: Annotated[
        str | None, typer.Option("--health", metavar="PATH", help=f"With --app: the path that is {READY} there.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The name of the application; else the folder's.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    only_print: Annotated[bool, typer.Option("--print", help="Print the files, and write nothing.")] = False,
    load: Annotated[bool, typer.Option(help="Load TARGET, to see that it works.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as one line of JSON.")] = False,
) -> None:
    plan = _plan(platform, target, _kind(database), _web(auth, anybody, app, health), name, load)
    written = [] if only_print else write(plan.files, output, force=force)
    if json:
        print_json({"files": plan.files, "written": written, "next": plan.next, "notes": plan.notes})
    elif only_print:
        for path, text in plan.files.items():
            print(f"--- {path}\n{text}")
    else:
        _say(plan, written, output)


deploy.__doc__ = _help()


def _plan(platform: str, target: str, database: Database, web: Web | None, name: str | None, load: bool) -> Plan:
    line = _line(platform, target, database, web, name)
    if platform == PAGES:
        if web is not None or database != "sqlite":
            raise Mistake(f"{PAGES} has no server: its jobs run in the browser, without --auth, --app or --database")
        return github_pages(target, line)
    if platform not in PLATFORMS:
        raise Mistake(f"there is no platform {platform!r}; there is {', '.join(NAMES)}")
    if target == ".":
        raise Mistake(f"what is to be deployed? Give MODULE:NAME, as durably-web deploy {platform} app:durably")
    return PLATFORMS[platform](look_at(target, database, web, name, line, load))


def _kind(database: str) -> Database:
    if database not in _DATABASES:
        # What was given may have a password in it.
        raise Mistake(f"--database is one of {', '.join(_DATABASES)}; the URL itself is a secret, and in no file")
    return _DATABASES[database]


def _web(auth: str | None, anybody: bool, app: str | None, health: str | None) -> Web | None:
    if (auth is not None) + anybody + (app is not None) > 1:
        raise Mistake("--auth, --anybody and --app are three ways to answer requests: give one of them")
    if health is not None and app is None:
        raise Mistake("--health belongs to --app: durably-web serve has its own")
    if health is not None and not health.startswith("/"):
        raise Mistake(f"--health is a path, as {READY}, and not {health!r}")
    for option, value in (("--auth", auth), ("--app", app)):
        if value is not None and not all(value.rpartition(":")[::2]):
            raise Mistake(f"{option} is MODULE:NAME, and not {value!r}")
    if app is not None:
        return Web(app=app, health=health or READY)
    return Web(auth=auth) if auth is not None or anybody else None


def _line(platform: str, target: str, database: Database, web: Web | None, name: str | None) -> str:
    """The command line that makes the same files, for their first line."""
    words = ["durably-web", "deploy", platform, *([] if target == "." else [target])]
    if database != "sqlite":
        words += ["--database", database]
    if web is not None and web.app is not None:
        words += ["--app", web.app, *([] if web.health == READY else ["--health", web.health])]
    elif web is not None:
        words += ["--anybody"] if web.auth is None else ["--auth", web.auth]
    return shlex.join([*words, *([] if name is None else ["--name", name])])


def _say(plan: Plan, written: list[str], folder: Path) -> None:
    console = output_console()
    console.print(Text(f"Written: {', '.join(written)}" if written else "All files are there already."))
    if folder.resolve() != Path.cwd():
        console.print(Text(f"They belong into the root of the project, and are in {folder} now."))
    console.print(Text("\nNext:"))
    for line in plan.next:
        console.print(Text(f"  {line}"), soft_wrap=True)
    for number, note in enumerate(plan.notes):
        console.print(Text(f"{'' if number else chr(10)}Note: {note}."), soft_wrap=True)
