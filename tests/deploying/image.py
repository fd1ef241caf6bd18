"""Builds an image without Docker, in a plain directory, by the steps of its Dockerfile, and runs its processes.

The directory is the image's root: /app and /data are in it, and paths in commands are led there. What the image has
from its base, a Python and Debian's tools, is this machine's; the Python is a fresh virtual environment. Users are real
where the tests run as root: what is written to the volume is written as the image's user.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SECONDS = 60
"""The longest that a process may take to become well, or to end."""
BUILDING = 300

IS_ROOT = os.geteuid() == 0

# The folders of a container that are led into the directory.
_PLACES = re.compile(r"(?<![\w.])/(app|data)(?=[/\s\"']|$)")


class Instruction(NamedTuple):
    name: str
    rest: str

    def words(self) -> list[str]:
        """Of the exec form. Fails for the shell form."""
        words = json.loads(self.rest)
        assert isinstance(words, list) and all(isinstance(word, str) for word in words)
        return words


def instructions(text: str) -> list[Instruction]:
    """A Dockerfile's instructions, with lines that are continued put together."""
    found = []
    pending = ""
    for line in text.splitlines():
        if not pending and (not line.strip() or line.startswith("#")):
            continue
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        name, _, rest = pending.strip().partition(" ")
        found.append(Instruction(name, rest.strip()))
        pending = ""
    assert not pending, "the last line is continued"
    return found


def ignored(patterns: list[str], path: str) -> bool:
    """Whether a .dockerignore keeps a path of the context out, or a folder that it is in."""
    parts = Path(path).parts
    for pattern in patterns:
        for depth in range(1, len(parts) + 1):
            if pattern.startswith("**/"):
                if fnmatch.fnmatch(parts[depth - 1], pattern[3:]):
                    return True
            elif depth == len(Path(pattern).parts) and fnmatch.fnmatch("/".join(parts[:depth]), pattern):
                return True
    return False


class Image:
    """A built image; `command` is what it runs, `user` whom it runs it as."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            "PATH": f"{root}/bin:{root}/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.folder = root
        self.user: int | None = None
        self.entrypoint: list[str] = []
        self.command: list[str] = []
        self.health: list[str] = []

    def lead(self, text: str) -> str:
        """Paths of the container, as they are here."""
        return _PLACES.sub(lambda found: f"{self.root}/{found[1]}", text)

    def run(self, step: str) -> None:
        done = subprocess.run(
            ["sh", "-c", self.lead(step)],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=BUILDING,
            check=False,
        )
        assert done.returncode == 0, f"{step}:\n{done.stdout}{done.stderr}"

    @contextmanager
    def started(self, command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A process of the image; it is killed at the end, if it is still there."""
        process = self._begin([*self.entrypoint, *command], environment)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=SECONDS)

    def is_well(self, check: list[str]) -> bool:
        """What a health check says."""
        process = self._begin(check, {})
        process.communicate(timeout=SECONDS)
        return process.returncode == 0

    def _begin(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        words = [self.lead(word) for word in command]
        if self.user is not None and IS_ROOT:
            # With this one word more than the container's user has, so that it may read where our Python is.
            become = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
            words = [f"{self.root}/bin/setpriv", *become, *words]
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def built(context: Path, packages: Path) -> Iterator[Image]:
    """The image of the Dockerfile in a folder; `packages` has wheels that no index has yet."""
    # Not pytest's, whose folders only their owner may enter.
    root = Path(tempfile.mkdtemp(prefix="image-"))
    root.chmod(0o755)
    try:
        image = Image(root)
        image.environment["PIP_FIND_LINKS"] = str(packages)
        _stand_ins(image)
        for instruction in instructions((context / "Dockerfile").read_text()):
            _follow(image, instruction, context)
        yield image
    finally:
        shutil.rmtree(root)


def _follow(image: Image, instruction: Instruction, context: Path) -> None:
    name, rest = instruction
    if name == "FROM":
        # A tag with a version; what it has is made here.
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", rest), rest
        subprocess.run([sys.executable, "-m", "venv", image.root / "venv"], check=True, timeout=BUILDING)
    elif name == "ENV":
        for word in shlex.split(rest):
            key, _, value = word.partition("=")
            image.environment[key] = image.lead(value)
    elif name == "WORKDIR":
        image.folder = Path(image.lead(rest))
        image.folder.mkdir()
    elif name == "COPY":
        _copy(image, rest.split(), context)
    elif name == "RUN":
        image.run(rest)
    elif name == "USER":
        user, group = rest.split(":")
        assert user == group
        image.user = int(user)
    elif name == "ENTRYPOINT":
        image.entrypoint = instruction.words()
    elif name == "CMD":
        image.command = instruction.words()
    elif name == "HEALTHCHECK":
        image.health = Instruction("CMD", rest.partition("CMD ")[2]).words()
    else:
        assert name == "EXPOSE", f"what is {name}?"


def _copy(image: Image, words: list[str], context: Path) -> None:
    *sources, target = words
    assert target in (".", "./")
    patterns = [line for line in (context / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for source in sources:
        if source != ".":
            assert not ignored(patterns, source), f"{source} is kept out of the image"
            shutil.copy(context / source, image.folder / source)
            continue
        for path in sorted(context.rglob("*")):
            relative = path.relative_to(context).as_posix()
            if path.is_file() and not ignored(patterns, relative):
                (image.folder / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, image.folder / relative)
                if path.suffix == ".sh":
                    (image.folder / relative).write_text(image.lead(path.read_text()))


def _stand_ins(image: Image) -> None:
    """Tools of Debian that would change this machine, or could not get at our Python."""
    (image.root / "bin").mkdir()
    (image.root / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        (image.root / "etc" / name).touch()
    capability = "+dac_read_search"
    tools = {
        # The real one, with the users of the image.
        "useradd": f'exec /usr/sbin/useradd --prefix {image.root} "$@"',
        # Our Python may be where only root gets, which in an image it is not.
        "setpriv": f'exec /usr/bin/setpriv --inh-caps={capability} --ambient-caps={capability} "$@"',
    }
    for name, line in tools.items():
        path = image.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{line if IS_ROOT else 'true'}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
