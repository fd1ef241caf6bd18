"""Render."""

from __future__ import annotations

from durably_web.cli.deploying.dockerfile import VOLUME, image
from durably_web.cli.deploying.project import GRACE, ONE_MACHINE, Plan, Process, Project, made_by, shell, variables


def render(project: Project) -> Plan:
    """A render.yaml (a blueprint), with a disk or a database beside it, and the image."""
    files = {"render.yaml": _blueprint(project), **image(project, volume_of_root=True)}
    lines = ["git add --all && git commit -m 'Deploy on Render' && git push"]
    lines.append("then, in Render's dashboard: New, Blueprint, this repository")
    notes = [
        variables("add it in the dashboard, under Environment"),
        "the free plan does not do: it sleeps when nobody asks, and has no disk and no worker",
    ]
    if project.on_disk:
        notes.append(ONE_MACHINE)
    return Plan(files, lines, notes)


def _blueprint(project: Project) -> str:
    processes = project.processes(VOLUME)
    services = [_service(project, process, process is processes[0]) for process in processes]
    databases = ""
    if project.database == "postgresql":
        databases = f"\ndatabases:\n  - name: {project.name}-database\n    plan: basic-256mb\n"
    return f"{made_by(project)}\nservices:\n{''.join(services)}{databases}"


def _service(project: Project, process: Process, is_main: bool) -> str:
    name = project.name if is_main else f"{project.name}-{process.name}"
    lines = [f"  - type: {process.name}", f"    name: {name}", "    runtime: docker", "    plan: starter"]
    if not is_main:
        lines.append(f"    dockerCommand: {shell(process.command())}")
    if process.name == "web":
        lines.append(f"    healthCheckPath: {process.health}")
    if project.on_disk:
        lines += [
            "    # With a disk there is one instance, and a deployment stops it before it starts the next one.",
            "    numInstances: 1",
            "    disk:",
            "      name: data",
            f"      mountPath: {VOLUME}",
            "      sizeGB: 1",
        ]
    else:
        lines += [
            "    # Longer than --stop-timeout: the current steps are finished, and the runs given back.",
            f"    maxShutdownDelaySeconds: {GRACE}",
        ]
    lines.append("    envVars:")
    if process.name == "web":
        lines += ["      - key: PORT", f'        value: "{process.port}"']
    lines += _database(project)
    return "\n".join(lines) + "\n"


def _database(project: Project) -> list[str]:
    lines = ["      - key: DATABASE_URL"]
    if project.database == "postgresql":
        lines += [
            "        fromDatabase:",
            f"          name: {project.name}-database",
            "          property: connectionString",
        ]
    elif project.database == "libsql":
        lines.append("        sync: false # asked for in the dashboard: libsql://…?authToken=…")
    else:
        lines.append(f"        value: {project.url(VOLUME)}")
    return lines
