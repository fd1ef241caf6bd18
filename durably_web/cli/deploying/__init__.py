"""What `durably-web deploy` writes: one module for each platform, each a function from a project to its files.

A new platform is a module with such a function, and a line in `PLATFORMS`; its name, its first line of documentation
and its files are then in the help, the command and the tests.
"""

from __future__ import annotations

from collections.abc import Callable

from durably_web.cli.deploying.docker import docker
from durably_web.cli.deploying.fly import fly
from durably_web.cli.deploying.procfile import procfile
from durably_web.cli.deploying.project import Plan, Project
from durably_web.cli.deploying.railway import railway
from durably_web.cli.deploying.render import render
from durably_web.cli.deploying.systemd import systemd
from durably_web.cli.deploying.vercel import vercel

PLATFORMS: dict[str, Callable[[Project], Plan]] = {
    "docker": docker,
    "fly": fly,
    "railway": railway,
    "render": render,
    "systemd": systemd,
    "procfile": procfile,
    "vercel": vercel,
}
