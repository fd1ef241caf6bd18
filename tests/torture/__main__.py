"""python -m tests.torture --backend postgres --runs 10000 --seed 1"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

from tests.torture.databases import BACKENDS, DURABILITY
from tests.torture.plan import Plan
from tests.torture.torture import torture

# So many complaints are printed.
SHOWN = 50


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, default="sqlite")
    parser.add_argument("--keep", type=Path, help="an empty folder for the files of all who take part")
    parser.add_argument("--calm", action="store_true", help="nothing goes wrong: how fast are the workers?")
    for name, value in Plan(1)._asdict().items():
        if name != "calm":
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.set_defaults(durability=None)
    given = vars(parser.parse_args())
    backend, keep = given.pop("backend"), given.pop("keep")
    given["durability"] = given["durability"] or DURABILITY[backend]
    plan = Plan(**given)
    if plan.calm:
        plan = plan.calmed()
    tell(f"{backend}: {plan}")
    with contextlib.ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = keep.resolve()
            folder.mkdir(parents=True, exist_ok=True)
        database = stack.enter_context(BACKENDS[backend](folder))
        figures, wrong = asyncio.run(torture(folder, plan, database))
    tell(str(figures))
    for line in wrong[:SHOWN]:
        tell(line)
    tell(f"{len(wrong)} things are wrong" if wrong else "nothing is wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
