"""A few hundred seeds, each time the same. `make simulate` plays as many as you have time for.

They are played in processes of their own, because sets of texts must have the same order each time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SEEDS = 200


def play(root: Path, *arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_whatever_happens_the_engines_agree(root: Path) -> None:
    result = play(root, "--seeds", str(SEEDS))
    assert result.returncode == 0, result.stdout + result.stderr
    # And much has happened: no feature and no fault is left out.
    counts = {
        what: int(count.replace(",", "")) for count, what in re.findall(r"^ +([\d,]+)  (.+)$", result.stdout, re.M)
    }
    wanted = (
        "engines killed", "engines stopped", "processes stopped for a while", "links cut", "clock jumps",
        "replies lost", "batches repeated", "late copies", "batches refused", "slow batches",
        "steps undone", "undos failed", "undone to be failed", "undone to be cancelled",
        "ticks with a run", "runs of schedules by hand", "networks gone", "waits for the network",
        "step:complete", "step:fail", "step:retry", "step:wait", "run:waiting", "run:retry", "run:cancel", "run:delete",
        "run:coalesced", "run:progress", "run:patched", "log:write", "claims with a key", "children started",
        "runs forked", "signals received", "signals timed out", "runs followed to their end", "events read",
        "triggers acknowledged (idempotent)", "triggers acknowledged (coalesced)",
    )  # fmt: skip
    assert {what: counts.get(what, 0) for what in wanted if counts.get(what, 0) < 10} == {}


def test_a_seed_is_the_same_each_time(root: Path) -> None:
    for seed in ("7", "30"):
        first, second = (play(root, "--seed", seed, hash_seed=hash_seed) for hash_seed in ("0", "1"))
        assert "hash " in first.stdout, first.stderr
        assert first.stdout == second.stdout
