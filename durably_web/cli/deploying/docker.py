"""Docker, and Docker Compose."""

from __future__ import annotations

import json

from durably_web.cli.deploying.dockerfile import VOLUME, health_check, image
from durably_web.cli.deploying.project import GRACE, ONE_MACHINE, Plan, Process, Project, made_by, variables

_POSTGRES = """\
  database:
    image: postgres:17-trixie
    environment:
      POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?put it into .env}
    volumes:
      - data:/var/lib/postgresql/data
    healthcheck:
      test: ["CMD", "pg_isready", "--username", "postgres"]
      interval: 5s
    restart: unless-stopped
"""

_URLS = {
    "postgresql": "postgresql://postgres:${POSTGRES_PASSWORD:?put it into .env}@database:5432/postgres",
    "libsql": "${DATABASE_URL:?put it into .env, as libsql://…?authToken=…}",
}


def docker(project: Project) -> Plan:
    """An image, and a compose.yaml that runs it with a volume."""
    files = {**image(project, volume_of_root=False), "compose.yaml": _compose(project)}
    lines = ["docker compose up --build --detach", "docker compose logs --follow"]
    notes = [
        variables("put it into .env, as NAME=value"),
        f"`docker compose down` waits {GRACE} s; `docker stop` alone only 10 s: use `docker stop --time {GRACE}`",
    ]
    if project.on_disk:
        notes.append(ONE_MACHINE)
    if project.database == "postgresql":
        lines.insert(0, 'echo "POSTGRES_PASSWORD=$(openssl rand -hex 16)" >> .env')
    if project.database == "libsql":
        lines.insert(0, "echo 'DATABASE_URL=libsql://…?authToken=…' >> .env")
    return Plan(files, lines, notes)


def _compose(project: Project) -> str:
    processes = project.processes(VOLUME)
    services = [_service(project, process, process is processes[0]) for process in processes]
    if project.database == "postgresql":
        services.append(_POSTGRES)
    volumes = "" if project.database == "libsql" else "\nvolumes:\n  data:\n"
    return f"{made_by(project)}\nname: {project.name}\n\nservices:\n{''.join(services)}{volumes}"


def _service(project: Project, process: Process, is_main: bool) -> str:
    lines = [f"  {process.name}:", "    build: ."]
    if not is_main:
        lines += [
            f"    command: {json.dumps(process.command())}",
            "    healthcheck:",
            f"      test: {json.dumps(['CMD', *health_check(process.port, process.health)])}",
        ]
    if process.name == "web":
        lines += [
            "    ports:",
            "      # Only this machine: put a proxy with TLS in front of it.",
            f'      - "127.0.0.1:{process.port}:{process.port}"',
        ]
    if project.on_disk:
        lines += ["    volumes:", f"      - data:{VOLUME}"]
    lines += [
        "    # Secrets, as NAME=value. It need not be there.",
        "    env_file:",
        "      - path: .env",
        "        required: false",
        "    environment:",
        f"      DATABASE_URL: {project.url(VOLUME) if project.on_disk else _URLS[project.database]}",
    ]
    if project.database == "postgresql":
        lines += ["    depends_on:", "      database:", "        condition: service_healthy"]
    lines += [
        "    # Longer than --stop-timeout: the current steps are finished, and the runs given back.",
        f"    stop_grace_period: {GRACE}s",
        "    restart: unless-stopped",
    ]
    return "\n".join(lines) + "\n"
