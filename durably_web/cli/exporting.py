"""`durably-web runs export`: a run as a file, for `durably-web verify` and for whoever wants to read it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from durably_web.cli.asking import RunId, ask
from durably_web.cli.database import DEFAULT, DatabaseOption
from durably_web.cli.mistakes import Mistake
from durably_web.engine import Durably


def export(
    run_id: RunId,
    database: DatabaseOption = DEFAULT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there; otherwise it is printed.")
    ] = None,
    hand_over_to: Annotated[
        str | None,
        typer.Option(
            "--hand-over-to",
            metavar="NAME",
            help="Hold the run back, and let `runs import` of another database go on with it. NAME is for people.",
        ),
    ] = None,
) -> None:
    """Export all that is stored of a run, as JSON: for `durably-web verify`, or to hand it over.

    A run that is handed over waits until `runs confirm` or `runs withdraw`. Safe to repeat with the same NAME.
    """

    async def read(durably: Durably) -> dict[str, Any]:
        if hand_over_to is None:
            return await durably.export_run(run_id)
        offer = await durably.offer_run(run_id, hand_over_to)
        if offer.document is None:
            raise Mistake(f"run {run_id} was handed over to {hand_over_to} already")
        return offer.document

    text = json.dumps(ask(database, read), indent=1) + "\n"
    if output is None:
        print(text, end="")
    else:
        try:
            output.write_text(text, "utf-8")
        except OSError as error:
            offered = "" if hand_over_to is None else f"; run {run_id} is offered all the same, so give another FILE"
            raise Mistake(f"{output} cannot be written: {error.strerror}{offered}") from None
    if hand_over_to is not None:
        print(
            f"durably-web: run {run_id} waits for {hand_over_to}. There: `runs import {output or 'FILE'}`; then here: "
            f"`runs confirm {run_id}`",
            file=sys.stderr,
        )
