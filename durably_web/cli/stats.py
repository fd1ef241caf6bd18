"""`durably-web stats`: how many runs there are."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from durably_web.cli.asking import Json, ask
from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.display import output_console, print_json, status_text
from durably_web.engine import Durably
from durably_web.records import STATUSES, Stats


def stats(database: DatabaseOption = DEFAULT, json: Json = False) -> None:
    """Count the runs of a database by job and status."""

    async def read(durably: Durably) -> Stats:
        return await durably.stats()

    counted = ask(database, read)
    if json:
        print_json(counted.to_wire())
        return
    names = sorted({*counted.by_job, *counted.paused_jobs})
    if not names:
        print("no runs")
        return
    there = [status for status in STATUSES if counted.by_status.get(status)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=len(names) > 1)
    table.add_column("job", Text("all", style="bold"))
    for status in there:
        table.add_column(status_text(status), Text(f"{counted.by_status[status]:,}"), justify="right")
    table.add_column("runs", Text(f"{counted.total:,}", style="bold"), justify="right")
    for name in names:
        runs = counted.by_job.get(name, {})
        job = Text(name)
        if name in counted.paused_jobs:
            job.append(" (paused)", style="yellow")
        cells = (
            Text(f"{runs[status]:,}" if status in runs else "·", style="" if status in runs else "dim")
            for status in there
        )
        table.add_row(job, *cells, Text(f"{sum(runs.values()):,}"))
    output_console().print(table)
