"""python -m tests.torture --backend postgres --runs 10000 --seed 1; --keep FOLDER keeps the files of all who took part"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

from tests.torture.databases import BACKENDS
from tests.torture.plan import Plan
from tests.torture.torture import torture

# So many complaints are printed.
SHOWN = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, default="sqlite")
    parser.add_argument("--keep", type=Path, help="an empty folder for the files")
    for name, value in Plan(1)._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args())
    backend, keep = given.pop("backend"), given.pop("keep")
    plan = Plan(**given)
    print(f"{backend}: {plan}", flush=True)
    with contextlib.ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = keep.resolve()
            folder.mkdir(parents=True, exist_ok=True)
        database = stack.enter_context(BACKENDS[backend](folder))
        figures, wrong = asyncio.run(torture(folder, plan, database))
    print(figures)
    for line in wrong[:SHOWN]:
        print(line)
    print(f"{len(wrong)} things are wrong" if wrong else "nothing is wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
