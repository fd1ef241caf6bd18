"""`durably-web build`: a folder of static files from job files and a page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from durably_web.cli.display import output_console, print_json
from durably_web.cli.sites import HERE, FolderArgument, PyodideCdnOption
from durably_web.site.build import Site, build_site
from durably_web.site.files import Size, sizes, total
from durably_web.site.runtime import find_runtime


def build(
    folder: FolderArgument = HERE,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to put it.  [default: dist in DIR]")
    ] = None,
    cdn: Annotated[
        bool,
        typer.Option(
            "--cdn", help="Let browsers get Pyodide from its makers' CDN (or --pyodide-cdn); they verify what they get."
        ),
    ] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Look for newer versions of what the jobs require, and pin those.")
    ] = False,
    pyodide_cdn: PyodideCdnOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was built as one line of JSON.")] = False,
) -> None:
    """Turn a folder with index.html and job files into static files, for any host and below any path.

    Python, SQLite and all that the jobs require are in it. A build that fails leaves the older one as it was.
    """
    start = time.perf_counter()
    site = build_site(folder, out or folder / "dist", find_runtime(), cdn=cdn, upgrade=upgrade, pyodide_cdn=pyodide_cdn)
    if json:
        print_json(_described(site))
    else:
        _show(site, time.perf_counter() - start)


def _described(site: Site) -> dict[str, Any]:
    everything = total(sizes(site.folder).values())
    return {
        "folder": str(site.folder),
        "jobFiles": list(site.job_files),
        "packages": site.packages,
        "files": everything.files,
        "bytes": everything.plain,
        "gzipBytes": everything.packed,
    }


def _show(site: Site, seconds: float) -> None:
    rows = sizes(site.folder)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("folder", "files", "kB", "kB gzip"):
        table.add_column(heading, justify="left" if heading == "folder" else "right")
    for name, row in rows.items():
        table.add_row(Text("the page" if name == "." else name), *_cells(row))
    table.add_section()
    table.add_row(Text("in all"), *_cells(total(rows.values())), style="bold")
    console = output_console()
    console.print(table)
    console.print(Text(f"{site.folder} is ready after {seconds:.1f} s: put it on any static host, below any path."))
    console.print(Text(f"To look at it: python -m http.server --bind 127.0.0.1 --directory {site.folder}", style="dim"))


def _cells(size: Size) -> tuple[str, str, str]:
    return str(size.files), f"{size.plain / 1000:,.0f}", f"{size.packed / 1000:,.0f}"
