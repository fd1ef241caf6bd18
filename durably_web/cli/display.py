"""What a person sees: events on stderr while a run executes, values and tables on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from durably_web.events import Event
from durably_web.logs import message_of

MOST_ROWS = 20

_LEVEL_STYLES = {"debug": "dim", "warning": "yellow", "error": "red"}
_STATUS_STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "dim",
    "leased": "cyan",
    "pending": "yellow",
    "waiting": "blue",
    "retrying": "yellow",
    "undone": "yellow",
}


def output_console() -> Console:
    """The console on stdout. What goes to a file or to another program is not cut to a terminal's width."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def status_text(status: str, *, paused: bool = False, undoing: bool = False) -> Text:
    told = [status, *["undoing"] * undoing, *["paused"] * paused]
    return Text(", ".join(told), style=_STATUS_STYLES.get(status, ""))


def data_text(data: dict[str, Any]) -> str:
    return " ".join(f"{key}={value if isinstance(value, str) else _compact(value)}" for key, value in data.items())


class Bar:
    """The progress of a run, below all other lines of a terminal while the context lasts. Elsewhere there is none."""

    def __init__(self, console: Console) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
            self._progress = Progress(*columns, console=console, transient=True)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def shows(self, event: Event) -> bool:
        """Show the progress that an event tells of; `False` where there is no bar, or nothing to show in it."""
        told = event.progress
        if self._progress is None or told is None:
            return False
        if self._task is None:
            self._task = self._progress.add_task("")
        description = told.message or event.job_name or ""
        self._progress.update(self._task, description=description, completed=told.current, total=told.total)
        return True


class Watch:
    """Shows the events of runs: log lines and, on a terminal, a progress bar; a line per progress elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Bar(self._console)

    def __enter__(self) -> Watch:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def say(self, text: str, style: str = "") -> None:
        if self._console.is_terminal:
            self._console.print(Text(text, style=style))
        else:
            # As it is: a log file has no width. In one piece: other workers write to the same file.
            print(f"{text}\n", end="", file=sys.stderr, flush=True)

    def hear(self, event: Event) -> None:
        """Show an event, if it is one that a person wants to see."""
        if event.type == "log:write":
            level = event.level or "info"
            self.say(f"{level:<7} {message_of(event)}", _LEVEL_STYLES.get(level, ""))
        elif event.type == "run:progress" and event.progress is not None:
            if not self._bar.shows(event):
                self.say(message_of(event))
        elif event.type == "worker:error":
            self.say(f"error   {message_of(event)}", "red")
        elif event.type in ("step:retry", "run:retry") and event.error is not None:
            self.say(f"warning {message_of(event)}", "yellow")
        elif event.type == "step:wait":
            self.say(message_of(event), "blue")


def print_json(value: Any) -> None:
    """One line of JSON on stdout, for other programs."""
    print(_compact(value))


def print_value(value: Any) -> None:
    """A value for a person: an object as lines, its lists of objects as tables, anything else as JSON."""
    console = output_console()
    if not isinstance(value, dict):
        console.print_json(json.dumps(value))
        return
    facts = Table(box=None, show_header=False, pad_edge=False)
    tables: list[Table] = []
    for key, item in value.items():
        if isinstance(item, list) and item and all(isinstance(row, dict) for row in item):
            tables.append(_rows_table(key, item))
        else:
            facts.add_row(Text(key, style="bold"), Text(item if isinstance(item, str) else _compact(item)))
    console.print(facts)
    for table in tables:
        console.print()
        console.print(table)


def _rows_table(title: str, rows: list[dict[str, Any]]) -> Table:
    title += f": the first {MOST_ROWS} of {len(rows)}" if len(rows) > MOST_ROWS else ""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        numbers = all(isinstance(row.get(column), (int, float)) for row in rows)
        table.add_column(
            column, justify="right" if numbers else "left", no_wrap=True, overflow="ellipsis", max_width=60
        )
    for row in rows[:MOST_ROWS]:
        cells = (row.get(column, "") for column in columns)
        table.add_row(*(Text(cell if isinstance(cell, str) else _compact(cell)) for cell in cells))
    return table


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
