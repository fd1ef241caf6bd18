"""Asking pip, which knows the user's index, proxies and credentials."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from durably_web.site.pip_for_target import NO_PIP, OTHER_PIP
from durably_web.site.problem import SiteProblem
from durably_web.site.target import Target

PATIENCE = 600.0
"""Seconds until pip is given up."""


class PipFailed(Exception):
    """What pip complained about."""

    def __init__(self, complaint: str) -> None:
        super().__init__(complaint)
        self.complaint = complaint

    @property
    def offline(self) -> bool:
        """Whether no index could be reached."""
        return (
            re.search(r"connection broken by|NewConnectionError|Could not connect|ConnectTimeout", self.complaint)
            is not None
        )

    @property
    def errors(self) -> list[str]:
        return [
            line.removeprefix("ERROR: ").strip() for line in self.complaint.splitlines() if line.startswith("ERROR: ")
        ]


def run_pip(target: Target, command: str, *arguments: str | Path, only_wheels: bool = True) -> str:
    """Run pip for the target, and return what it printed.

    Raises `PipFailed` when it fails, and `SiteProblem` where there is no pip, or one that does not do.
    """
    wheels = (
        *("--only-binary=:all:", f"--python-version={target.minor}", "--implementation=cp"),
        *(f"--abi=cp{target.minor.replace('.', '')}", f"--platform={target.platform}"),
    )
    line = [sys.executable, "-m", "durably_web.site.pip_for_target", json.dumps(target.markers()), command]
    line += ["--disable-pip-version-check", "--no-input", "--no-color", "--retries=2", *(wheels if only_wheels else ())]
    line += map(str, arguments)
    # What one person's settings say about installing is not meant for a site.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PIP_REQUIRE_VIRTUALENV", "PIP_USER")
    }
    try:
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise SiteProblem(
            f"pip did not find and fetch what the jobs require within {PATIENCE:g} s: try again"
        ) from None
    if done.returncode == NO_PIP:
        raise SiteProblem("pip is needed to find what the jobs require: run `python -m ensurepip`, or install pip")
    if done.returncode == OTHER_PIP:
        raise SiteProblem(
            "this version of pip cannot be told to look for Pyodide's packages: install durably-web's newest version"
        )
    if done.returncode:
        raise PipFailed(f"{done.stdout}\n{done.stderr}")
    return done.stdout
