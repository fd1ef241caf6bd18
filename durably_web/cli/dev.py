"""`durably-web dev`: serve a folder while somebody works on it."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from durably_web.cli.display import Watch
from durably_web.cli.sites import HERE, FolderArgument, PyodideCdnOption
from durably_web.site.runtime import find_runtime

# A browser keeps a site's storage by its address, port included: at another one, yesterday's runs would be missing.
USUAL_PORT = 8173


def dev(
    folder: FolderArgument = HERE,
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
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    pyodide_cdn: PyodideCdnOption = None,
) -> None:
    """Serve a folder on this machine, and load its page again when a job file, the page or a requirement changes.

    What goes wrong in a job file or on the page is shown here as well. Ctrl-C ends it.
    """
    # Not at the top: no other command needs a server.
    from durably_web.site.dev import Workshop
    from durably_web.site.serving import address, listen, serve

    with Watch() as watch:
        workshop = Workshop(folder, find_runtime(), watch.say, pyodide_cdn)
        workshop.prepare()
        listening = listen(port, USUAL_PORT)
        watch.say(f"{folder} is at {address(listening)}", "bold")
        if open_:
            webbrowser.open(address(listening))
        serve(workshop.app(), listening, workshop.watching)
        watch.say("stopped")
