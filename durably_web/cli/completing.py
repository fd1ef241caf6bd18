"""What a shell offers while somebody types: run ids, names of jobs and schedules, statuses.

It only looks, and says nothing where it finds nothing: an error would come between what is being typed.
"""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path
from typing import Any

import typer

from durably_web.cli.database import DEFAULT
from durably_web.cli.looking import look
from durably_web.records import STATUSES

# Newest first: who types an id mostly means one of these.
_MOST = 50

# Only what the command can be done to is offered.
_ACTIVE = ("pending", "leased", "waiting")
_TERMINAL = ("completed", "failed", "cancelled")
_FITTING: dict[str, tuple[str, ...]] = {
    "retry": ("failed", "cancelled"),
    "cancel": _ACTIVE,
    "pause": _ACTIVE,
    "resume": _ACTIVE,
    "signal": _ACTIVE,
    "delete": _TERMINAL,
}

Offer = list[tuple[str, str]]


def run_ids(context: typer.Context, incomplete: str) -> Offer:
    """Ids of runs, with job and status."""
    statuses = _FITTING.get(context.info_name or "", STATUSES)
    marks = ", ".join("?" * len(statuses))
    rows = _asked(
        context,
        f"SELECT id, job_name, status FROM durably_runs WHERE status IN ({marks}) AND id >= ? AND id < ? "
        f"ORDER BY id DESC LIMIT {_MOST}",
        *statuses,
        incomplete,
        incomplete + "~",
    )
    return [(run_id, f"{job}, {status}") for run_id, job, status in rows]


def job_names(context: typer.Context, incomplete: str) -> Offer:
    """Names of jobs that the database has runs of."""
    rows = _asked(context, "SELECT job_name, count(*) FROM durably_runs GROUP BY job_name ORDER BY job_name")
    return [(name, f"{count:,} runs") for name, count in rows if name.startswith(incomplete)]


def schedule_names(context: typer.Context, incomplete: str) -> Offer:
    rows = _asked(context, "SELECT name, job_name FROM durably_schedules ORDER BY name")
    return [(name, f"of {job}") for name, job in rows if name.startswith(incomplete)]


def statuses_like(incomplete: str) -> list[str]:
    return [status for status in STATUSES if status.startswith(incomplete)]


def jobs_of_file(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the jobs in the file that was typed before, which is read and not executed."""
    with contextlib.suppress(Exception):
        target = str(context.params.get("target") or context.params.get("file") or "")
        path = Path(target if target.endswith(".py") else f"{target.replace('.', '/')}.py")
        functions = [node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.AsyncFunctionDef)]
        names = [_name_of(one) for one in functions if any(map(_is_job, one.decorator_list))]
        return [name for name in names if name.startswith(incomplete)]
    return []


def _is_job(decorator: ast.expr) -> bool:
    made = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (made.attr if isinstance(made, ast.Attribute) else getattr(made, "id", "")) == "job"


def _name_of(function: ast.AsyncFunctionDef) -> str:
    """`@job(name="other")` may give it another one."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call):
            for keyword in decorator.keywords:
                if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                    return str(keyword.value.value)
    return function.name


def _asked(context: typer.Context, sql: str, *values: Any) -> list[Any]:
    database = context.params.get("database") or DEFAULT
    # Nobody waits for long between two keys.
    with contextlib.suppress(Exception), look(str(database), patience=0.3) as connection:
        return connection.execute(sql, values).fetchall()
    return []
