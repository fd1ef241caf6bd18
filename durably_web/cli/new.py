"""`durably-web new`: a site to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from durably_web.cli.display import output_console, print_json
from durably_web.site.starter import write_starter


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet, or empty.")],
    json: Annotated[bool, typer.Option("--json", help="Print what was written as one line of JSON.")] = False,
) -> None:
    """Write a small site to start from: a job, a page that runs it, and what publishes it on GitHub Pages."""
    written = write_starter(folder)
    if json:
        print_json({"folder": str(folder), "files": written})
        return
    console = output_console()
    console.print(Text(f"{folder} has {', '.join(written)}."))
    console.print(Text(f"To see it: durably-web dev {folder}"))
