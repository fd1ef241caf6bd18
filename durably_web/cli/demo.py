"""`durably-web demo`: the demo site, on this machine."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from durably_web.cli.display import Watch
from durably_web.site.build import build_site
from durably_web.site.runtime import find_runtime

USUAL_PORT = 8137

TEXT = """\
The demo is at {address}

Start the import, and take the tab away while it runs: reload it, close it, or kill its process.
Open it again: the run goes on with the first chunk that is not stored. Ctrl-C stops this server."""


def demo(
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help=f"Where to serve.  [default: {USUAL_PORT}, or a free one]",
            show_default=False,
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser, or only serve it.")] = True,
) -> None:
    """Build the demo site, serve it on this machine, and open it: an import that survives the tab that runs it."""
    # Not at the top: no other command needs a server.
    from starlette.routing import Mount

    from durably_web.site.serving import Files, address, application, listen, serve

    runtime = find_runtime()
    with tempfile.TemporaryDirectory() as scratch, Watch() as watch:
        site = build_site(runtime.demo, Path(scratch) / "demo", runtime)
        listening = listen(port, USUAL_PORT)
        watch.say(TEXT.format(address=address(listening)))
        if open_:
            webbrowser.open(address(listening))
        serve(application([Mount("/", Files(directory=site.folder, html=True))]), listening)
        watch.say("stopped")
