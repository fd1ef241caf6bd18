"""python -m tests.torture --runs 50000 --processes 8 --kills 200 --seed 1 --durability full"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from tests.torture.torture import Plan, torture


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    for name, value in Plan(1, seconds=3600)._asdict().items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    plan = Plan(**vars(parser.parse_args()))
    print(plan)  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(torture(Path(folder), plan)))  # noqa: T201


if __name__ == "__main__":
    main()
