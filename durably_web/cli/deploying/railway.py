"""Railway. Its railway.json and railway.toml are no longer read (docs.railway.com/config-as-code): a program is."""

from __future__ import annotations

import json

from durably_web.cli.deploying.dockerfile import VOLUME, image
from durably_web.cli.deploying.project import GRACE, ONE_MACHINE, Plan, Process, Project, made_by, shell, variables


def railway(project: Project) -> Plan:
    """A .railway/railway.ts, with a volume or a database beside it, and the image."""
    files = {".railway/railway.ts": _program(project), **image(project, volume_of_root=True)}
    processes = project.processes(VOLUME)
    lines = ["railway login", f"railway init --name {project.name}", "railway config apply"]
    if project.database == "libsql":
        lines += [
            f"railway variable set --service {one.name} DATABASE_URL='libsql://…?authToken=…'" for one in processes
        ]
    lines += [f"railway up --service {process.name} --detach" for process in processes]
    if project.web is not None:
        lines.append("railway domain --service web")
    named = f"`railway variable set --service {processes[0].name} NAME=value`"
    notes = [variables(named), "health is looked at when a deployment begins, and not later"]
    if project.on_disk:
        notes.append(ONE_MACHINE)
    return Plan(files, lines, notes)


def _program(project: Project) -> str:
    processes = project.processes(VOLUME)
    names = ["defineRailway", "project", "service"]
    resources: list[str] = [process.name for process in processes]
    beside = ""
    if project.on_disk:
        names.append("volume")
        resources.append("data")
        beside = '  const data = volume("data", { sizeMB: 1024 });\n\n'
    if project.database == "postgresql":
        names.append("postgres")
        resources.append("database")
        beside = '  const database = postgres("database");\n\n'
    if project.database == "libsql":
        names.append("preserve")
    services = "\n".join(_service(project, process, process is processes[0]) for process in processes)
    return f"""\
{made_by(project, "//")}
import {{ {", ".join(sorted(names))} }} from "railway/iac";

export default defineRailway(() => {{
{beside}{services}
  return project({json.dumps(project.name)}, {{ resources: [{", ".join(resources)}] }});
}});
"""


def _service(project: Project, process: Process, is_main: bool) -> str:
    lines = ['build: { builder: "DOCKERFILE", dockerfilePath: "Dockerfile" },']
    if not is_main:
        lines.append(f"start: {json.dumps(shell(process.command()))},")
    lines += [
        f"healthcheck: {json.dumps(process.health)},",
        "deploy: {",
        "  // Longer than --stop-timeout: the current steps are finished, and the runs given back.",
        f"  drainingSeconds: {GRACE},",
        '  restartPolicyType: "ALWAYS",',
        "},",
    ]
    if project.on_disk:
        lines += ["// A volume belongs to one service, which then has one machine.", "replicas: 1,"]
        lines.append(f"volumeMounts: {{ {json.dumps(VOLUME)}: data }},")
    lines.append("env: {")
    lines.append(f'  PORT: "{process.port}", // where health is asked for')
    lines += [f"  {line}" for line in _database(project)]
    lines.append("},")
    body = "\n".join(f"    {line}" for line in lines)
    return f'  const {process.name} = service("{process.name}", {{\n{body}\n  }});\n'


def _database(project: Project) -> list[str]:
    if project.database == "postgresql":
        return ["DATABASE_URL: database.env.DATABASE_URL,"]
    if project.database == "libsql":
        return ["DATABASE_URL: preserve(), // libsql://…?authToken=…, set by `railway variable set`"]
    return [f"DATABASE_URL: {json.dumps(project.url(VOLUME))},"]
