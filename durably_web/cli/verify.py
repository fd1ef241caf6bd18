"""`durably-web verify`: exported runs against the code that is there now, for CI."""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from durably_web.cli.asking import Json
from durably_web.cli.display import print_json
from durably_web.cli.jobfile import load_jobs
from durably_web.cli.mistakes import FAILURE, Mistake
from durably_web.errors import InvalidInput
from durably_web.jobs import Job
from durably_web.replay import Replay, replay


def verify(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Exported runs; of a folder, all its .json files.")
    ],
    jobs: Annotated[
        str, typer.Option("--jobs", metavar="FILE|MODULE", help="The job file, or the module, as it is now.")
    ],
    timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds that a job may wait for something that is no step.")
    ] = 10.0,
    json: Json = False,
) -> None:
    """Replay exported runs with the jobs as they are now, and print what differs. Exits with 1 if anything does.

    No step is executed and nothing is stored. Export runs with `durably-web runs export`, and keep the files beside
    the tests.
    """
    exports = [(path, _read(path)) for path in _found(files)]
    known = list(load_jobs(jobs).values())
    replays = asyncio.run(_replay(exports, known, timeout))
    differ = sum(bool(one.differences) for _, one in replays)
    if json:
        print_json([{"file": str(path), **one.to_wire()} for path, one in replays])
    else:
        for path, one in replays:
            _print(path, one)
        total = f"{len(replays)} run{'s' if len(replays) != 1 else ''}"
        print(f"{total}, {differ} differ{'s' if differ == 1 else ''}")
    if differ:
        raise typer.Exit(FAILURE)


async def _replay(
    exports: list[tuple[Path, Any]], jobs: list[Job[Any, Any]], timeout: float
) -> list[tuple[Path, Replay]]:
    replays = []
    for path, export in exports:
        try:
            replays.append((path, await replay(export, jobs, timeout=timeout)))
        except InvalidInput as error:
            raise Mistake(f"{path}: {error}") from None
    return replays


def _print(path: Path, one: Replay) -> None:
    print(f"{path}: {one.job_name} {one.run_id}, {one.status}: ", end="")
    if one.differences:
        print("differs")
        for difference in one.differences:
            print(f"  {difference.message}")
    elif one.goes_on_with:
        print(f"would go on with {', '.join(one.goes_on_with)}")
    else:
        print("the same")


def _found(files: list[Path]) -> Iterator[Path]:
    for path in files:
        if not path.exists():
            raise Mistake(f"{path} does not exist")
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.rglob("*.json"))
        if not found:
            # Nothing to verify is no proof of anything.
            raise Mistake(f"there is no exported run in {path}: no file ends with .json")
        yield from found


def _read(path: Path) -> Any:
    try:
        return json_module.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Mistake(f"{path} is no exported run: {error}") from None
