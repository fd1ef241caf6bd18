"""The image that Docker, Fly.io, Railway and Render run."""

from __future__ import annotations

import json

from durably_web.cli.deploying.project import WEB_PORT, Project, made_by

VOLUME = "/data"
USER = "app"
# As a number, so that whoever runs the image can see that it is not root's.
UID = 10001
ENTRYPOINT = "docker-entrypoint.sh"

IGNORED = """\
# What does not belong into the image: secrets, databases, and what is made anew there.
.git
**/.env
**/.env.*
**/.venv
**/venv
**/__pycache__
**/*.pyc
**/.*_cache
**/*.db
**/*.db-*
**/node_modules
.durably-web
Dockerfile
.dockerignore
compose.yaml
"""


def image(project: Project, *, volume_of_root: bool) -> dict[str, str]:
    """The files that make it. With `volume_of_root` the platform mounts a volume that only root can write to."""
    [process, *_] = project.processes(VOLUME)
    as_root = volume_of_root and project.on_disk
    parts = [
        f"""\
{made_by(project)}
FROM python:{project.python}-slim-trixie

# What is said is seen at once.
ENV PYTHONUNBUFFERED=1

WORKDIR /app
""",
        _install(project),
        _user(project, as_root),
        f"""\
EXPOSE {process.port}

# Docker asks it; platforms have checks of their own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \\
    CMD {json.dumps(health_check(process.port, process.health))}

# As a list, so that no shell stands between: SIGTERM arrives, the current steps are finished, and the runs go on in the
# next container.
CMD {json.dumps(process.command())}
""",
    ]
    files = {"Dockerfile": "\n".join(parts), ".dockerignore": IGNORED}
    if as_root:
        files[ENTRYPOINT] = _entrypoint(project)
    if project.missing is not None:
        files["requirements.txt"] = f"{project.missing}\n"
    return files


def health_check(port: int = WEB_PORT, path: str = "/") -> list[str]:
    """A command that fails unless the process is well. The image has no curl."""
    return ["python", "-c", f"from urllib.request import urlopen; urlopen('http://127.0.0.1:{port}{path}', timeout=4)"]


def _install(project: Project) -> str:
    if project.requirements == "pyproject.toml":
        return """\
COPY . .
RUN pip install --no-cache-dir .
"""
    return """\
# Before the code: a change of the code does not install everything again.
COPY requirements.txt ./
RUN pip install --no-cache-dir --requirement requirements.txt

COPY . .
"""


def _user(project: Project, as_root: bool) -> str:
    make = f"RUN useradd --system --user-group --uid {UID} {USER}"
    if not project.on_disk:
        return f"# Whoever breaks in is not root.\n{make}\nUSER {UID}:{UID}\n"
    make += f" && mkdir {VOLUME} && chown {UID}:{UID} {VOLUME}"
    place = f"# The database is on the volume. What is written elsewhere is gone with the container.\n{_where(project)}"
    if as_root:
        return f"{make}\n\n{place}\n# Gives the volume to {USER}, and then is {USER}.\n{_entry_line()}"
    return f"# Whoever breaks in is not root.\n{make}\nUSER {UID}:{UID}\n\n{place}"


def _where(project: Project) -> str:
    return f"ENV DATABASE_URL={project.url(VOLUME)}\n"


def _entry_line() -> str:
    return f"ENTRYPOINT {json.dumps(['sh', f'/app/{ENTRYPOINT}'])}\n"


def _entrypoint(project: Project) -> str:
    return f"""\
#!/bin/sh
{made_by(project)}
# The platform mounts {VOLUME} for root. It becomes {USER}'s, and so does this process, before anything else happens.
# `exec` leaves no shell behind that would keep SIGTERM for itself.
set -e
if [ "$(id -u)" = 0 ]; then
    chown {UID}:{UID} {VOLUME}
    exec setpriv --reuid={UID} --regid={UID} --clear-groups "$@"
fi
exec "$@"
"""
