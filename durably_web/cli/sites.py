"""What the commands about sites are given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HERE = Path(".")

FolderArgument = Annotated[
    Path, typer.Argument(metavar="[DIR]", help="The folder with index.html and the job files.", show_default=False)
]


def _folder_url(url: str) -> str:
    return f"{url.rstrip('/')}/"


PyodideCdnOption = Annotated[
    str | None,
    typer.Option(
        "--pyodide-cdn",
        metavar="URL",
        envvar="DURABLY_WEB_PYODIDE_CDN",
        parser=_folder_url,
        help="Where to get what only Pyodide's own packages have, such as numpy, and --cdn Pyodide itself.",
    ),
]
