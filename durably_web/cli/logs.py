"""What a process that runs for long says on stderr: lines for a person, or for a program."""

from __future__ import annotations

import contextlib
import enum
import logging
import sys
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from durably_web.cli.mistakes import Mistake, exit_code_of
from durably_web.errors import DurablyError
from durably_web.logs import LEVELS, JsonFormatter
from durably_web.redaction import redacted

supervisor = logging.getLogger("durably_web.supervisor")
process = logging.getLogger("durably_web.process")

# It tells of every request, and a worker on a libSQL server asks once a second.
_CHATTY = logging.getLogger("httpx")

_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "bold red"}


class LogFormat(enum.StrEnum):
    text = "text"
    json = "json"


class LogLevel(enum.StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="DURABLY_WEB_LOG_FORMAT",
        help="Lines for a person, or one JSON object a line for a program.",
    ),
]
LogLevelOption = Annotated[
    LogLevel, typer.Option("--log-level", envvar="DURABLY_WEB_LOG_LEVEL", help="Nothing below this is said.")
]


class Lines(NamedTuple):
    """How a process was asked to talk."""

    format: LogFormat = LogFormat.text
    level: LogLevel = LogLevel.info

    def options(self) -> list[str]:
        """For a process that is to talk alike."""
        return ["--log-format", self.format.value, "--log-level", self.level.value]

    @contextlib.contextmanager
    def on_stderr(self) -> Iterator[None]:
        """Write log records to stderr while the context lasts. What ends a command is a line like the others.

        Where the application's code has set up logging by itself, its handlers stay as they are, and hear of
        its own loggers alone.
        """
        handler = _handler(self.format)
        root, own = logging.getLogger(), logging.getLogger("durably_web")
        target = own if root.handlers else root
        target.addHandler(handler)
        before = own.propagate, own.level, root.level, _CHATTY.level
        own.propagate = target is root
        own.setLevel(LEVELS[self.level.value])
        if target is root:
            # Libraries say little at this level that anybody wants to read.
            root.setLevel(max(LEVELS[self.level.value], logging.INFO))
            _CHATTY.setLevel(max(_CHATTY.level, logging.WARNING))
        if self.format is LogFormat.json:
            logging.captureWarnings(True)
        try:
            yield
        except (Mistake, DurablyError) as error:
            if self.format is LogFormat.text:
                raise
            process.error("%s", error, extra={"error": f"{type(error).__name__}: {error}"})
            raise typer.Exit(exit_code_of(error)) from None
        finally:
            if self.format is LogFormat.json:
                logging.captureWarnings(False)
            target.removeHandler(handler)
            own.propagate = before[0]
            own.setLevel(before[1])
            root.setLevel(before[2])
            _CHATTY.setLevel(before[3])


def _handler(format: LogFormat) -> logging.Handler:
    if format is LogFormat.text:
        return _Lines()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    return handler


class _Lines(logging.Handler):
    """One line a record: the run, the level where it is not the usual one, and the message. On a terminal also the
    time, in colours."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False)
        self._exceptions = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            run_id = getattr(record, "run_id", None)
            about = "" if run_id is None else f"{run_id} "
            level = "" if not _has_level(record) else f"{record.levelname.lower():<7} "
            text = redacted(record.getMessage())
            if record.exc_info:
                text += "\n" + redacted(self._exceptions.formatException(record.exc_info))
            if self._console.is_terminal:
                style = _STYLES.get(record.levelname.lower(), "")
                moment = self._exceptions.formatTime(record, "%H:%M:%S ")
                line = Text.assemble(
                    (moment, "dim"), (about, "dim cyan"), (level, style), (text, _style(record, style))
                )
                self._console.print(line, soft_wrap=True)
            else:
                # As it is: a log file has no width. In one piece: other processes may write there too.
                sys.stderr.write(f"{about}{level}{text}\n")
                sys.stderr.flush()
        except Exception:
            self.handleError(record)


def _has_level(record: logging.LogRecord) -> bool:
    """A line of a job always has one; of what is said of processes, the words are enough."""
    if record.name == "durably_web.jobs":
        return True
    return record.levelno != logging.INFO and record.name != supervisor.name


def _style(record: logging.LogRecord, style: str) -> str:
    return "green" if getattr(record, "event", None) == "run:complete" else style
