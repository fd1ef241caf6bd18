"""The command line: `durably-web`, or `python -m durably_web`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from durably_web.cli import runs, schedules
from durably_web.cli.build import build
from durably_web.cli.demo import demo
from durably_web.cli.deploy import deploy
from durably_web.cli.dev import dev
from durably_web.cli.doctor import doctor
from durably_web.cli.migrate import migrate
from durably_web.cli.mistakes import MISTAKE, Mistake, exit_code_of
from durably_web.cli.new import new
from durably_web.cli.run import run
from durably_web.cli.serve import serve
from durably_web.cli.sql import sql
from durably_web.cli.stats import stats
from durably_web.cli.verify import verify
from durably_web.cli.worker import worker
from durably_web.errors import DurablyError
from durably_web.site.problem import SiteProblem

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Run Python jobs that survive: each step is stored before the next begins, and a killed run goes on there.",
)
app.command()(new)
app.command()(dev)
app.command()(build)
app.command()(demo)
app.command()(deploy)
app.command()(run)
app.command()(worker)
app.command()(serve)
app.command()(stats)
app.command()(doctor)
app.command()(migrate)
app.command()(sql)
app.command()(verify)
app.add_typer(runs.app, name="runs")
app.add_typer(schedules.app, name="schedules")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 the run failed, 2 a mistake, which is told in one line on stderr."""
    try:
        result = app(
            list(sys.argv[1:] if arguments is None else arguments), prog_name="durably-web", standalone_mode=False
        )
    except (Mistake, DurablyError, SiteProblem) as error:
        _exit(str(error), exit_code_of(error))
    except (KeyboardInterrupt, typer.Abort):
        # The latter is a Ctrl-C, or the end of the input, where a question was asked.
        _exit("stopped", 130)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Nothing may be written to it at exit.
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        # What Typer raises for a wrong option or a missing argument; its class has moved between versions.
        if getattr(error, "exit_code", None) != MISTAKE or not hasattr(error, "format_message"):
            raise
        message = str(error.format_message()).rstrip(".")
        if not message:  # it has shown the help already
            sys.exit(MISTAKE)
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "durably-web"
        _exit(f"{message} (see {command} --help)", MISTAKE)
    sys.exit(result if isinstance(result, int) else 0)


def _exit(message: str, code: int) -> NoReturn:
    print(f"durably-web: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
