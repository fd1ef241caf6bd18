"""Fly.io."""

from __future__ import annotations

from durably_web.cli.deploying.dockerfile import VOLUME, image
from durably_web.cli.deploying.project import GRACE, ONE_MACHINE, Plan, Process, Project, made_by, shell, variables


def fly(project: Project) -> Plan:
    """A fly.toml, with a volume or a database beside it, and the image."""
    files = {"fly.toml": _fly_toml(project), **image(project, volume_of_root=True)}
    lines = [f"fly launch --no-deploy --copy-config --name {project.name}"]
    notes = [variables("`fly secrets set NAME=value`")]
    if project.database == "postgresql":
        lines += ["fly mpg create", f"fly mpg attach CLUSTER_ID --app {project.name}"]
    if project.database == "libsql":
        lines.append("fly secrets set DATABASE_URL='libsql://…?authToken=…'")
    if project.on_disk:
        # Otherwise Fly makes two machines, each with a volume of its own.
        lines.append("fly deploy --ha=false")
        notes += [ONE_MACHINE, "keep it so: do not `fly scale count 2`, the second one would have an empty database"]
    else:
        lines.append("fly deploy")
    return Plan(files, lines, notes)


def _fly_toml(project: Project) -> str:
    processes = project.processes(VOLUME)
    parts = [
        f"""\
{made_by(project)}
app = "{project.name}"

# Longer than --stop-timeout: the current steps are finished, and the runs given back.
kill_signal = "SIGTERM"
kill_timeout = {GRACE}
"""
    ]
    if len(processes) > 1:
        lines = "".join(f"  {one.name} = '{shell(one.command())}'\n" for one in processes)
        parts.append(f"[processes]\n{lines}")
    if project.on_disk:
        parts.append(
            f"""\
# One machine has it. DATABASE_URL in the Dockerfile names the file on it.
[[mounts]]
  source = "data"
  destination = "{VOLUME}"
  initial_size = "1gb"
"""
        )
    parts += [_checked(process, alone=len(processes) == 1) for process in processes]
    parts.append(
        """\
# Also when a process ended well: nobody else starts it again.
[[restart]]
  policy = "always"

[[vm]]
  size = "shared-cpu-1x"
  memory = "512mb"
"""
    )
    return "\n".join(parts)


def _checked(process: Process, alone: bool) -> str:
    group = "" if alone else f'  processes = ["{process.name}"]\n'
    check = f"""\
    method = "GET"
    path = "{process.health}"
    grace_period = "30s"
    interval = "15s"
    timeout = "5s"
"""
    if process.name == "worker":
        return f"""\
[checks]
  [checks.worker]
    type = "http"
    port = {process.port}
{check}{"  " + group if group else ""}"""
    return f"""\
[http_service]
  internal_port = {process.port}
  force_https = true
  # A machine that is stopped executes nothing, and no schedule fires: it stays awake without requests, too.
  auto_stop_machines = "off"
  auto_start_machines = false
{group}
  [[http_service.checks]]
{check}"""
