"""A Procfile: Heroku, Dokku, Foreman, Honcho."""

from __future__ import annotations

from durably_web.cli.deploying.project import Plan, Project, made_by, shell, variables


def procfile(project: Project) -> Plan:
    """A Procfile, for Heroku, Dokku, Foreman and Honcho."""
    lines = [made_by(project)]
    for process in project.processes("."):
        # A worker is asked for nothing there.
        command = process.command("0.0.0.0", "$PORT") if process.name == "web" else process.command(None)
        # `exec` leaves no shell behind that would keep SIGTERM for itself.
        lines.append(f"{process.name}: exec {shell(command)}")
    files = {"Procfile": "\n".join(lines) + "\n"}
    if project.missing is not None:
        files["requirements.txt"] = f"{project.missing}\n"
    notes = [
        variables("`heroku config:set NAME=value`; Foreman and Honcho read .env"),
        "Heroku kills 30 s after SIGTERM, which is longer than --stop-timeout",
    ]
    if project.on_disk:
        notes.append(
            "a SQLite file does for Foreman, Honcho, and Dokku with mounted storage; Heroku's disks are emptied once a "
            "day and with each deployment: use --database postgresql there"
        )
        return Plan(files, ["honcho start"], notes)
    attach = "heroku config:set DATABASE_URL='libsql://…?authToken=…'"
    if project.database == "postgresql":
        attach = "heroku addons:create heroku-postgresql:essential-0"
    scale = " ".join(f"{process.name}=1" for process in project.processes("."))
    return Plan(files, ["heroku create", attach, "git push heroku HEAD:main", f"heroku ps:scale {scale}"], notes)
