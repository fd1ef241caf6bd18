"""systemd."""

from __future__ import annotations

import shlex

from durably_web.cli.deploying.project import GRACE, ONE_MACHINE, Plan, Process, Project, made_by, variables

_HARDENED = """\
# A user that exists while it runs, who writes to StateDirectory and to a /tmp of its own, and nowhere else.
DynamicUser=yes
UMask=0077
ProtectHome=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
# MemoryDenyWriteExecute= is left out: libraries that make code while they run would break.
"""


def systemd(project: Project) -> Plan:
    """A unit for a machine with systemd: restarted when it fails, stopped with time, hardened."""
    processes = project.processes(_state(project))
    names = [project.name if len(processes) == 1 else f"{project.name}-{process.name}" for process in processes]
    files = {f"{name}.service": _unit(project, process) for name, process in zip(names, processes, strict=True)}
    place = _place(project)
    install = "--requirement requirements.txt" if project.requirements == "requirements.txt" else "."
    if project.missing is not None:
        files["requirements.txt"] = f"{project.missing}\n"
    lines = [
        f"sudo cp --recursive . {place} && cd {place}",
        f"sudo python3 -m venv .venv && sudo .venv/bin/pip install {install}",
        f"sudo cp {' '.join(f'{name}.service' for name in names)} /etc/systemd/system/ && sudo systemctl daemon-reload",
        f"sudo systemctl enable --now {' '.join(names)}",
    ]
    if not project.on_disk:
        lines.insert(2, f"sudo install --mode 600 /dev/null {_secrets(project)}, and write DATABASE_URL=… into it")
    notes = [
        variables(f"write it into {_secrets(project)}, as NAME=value"),
        "copy no .venv of your own there: the programs in it name the folder that they were installed in",
    ]
    if project.on_disk:
        notes.append(ONE_MACHINE)
    return Plan(files, lines, notes)


def _place(project: Project) -> str:
    return f"/opt/{project.name}"


def _state(project: Project) -> str:
    return f"/var/lib/{project.name}"


def _secrets(project: Project) -> str:
    return f"/etc/{project.name}.env"


def _unit(project: Project, process: Process) -> str:
    program, *arguments = process.command("127.0.0.1")
    command = shlex.join([f"{_place(project)}/.venv/bin/{program}", *arguments])
    doing = "Requests for durable jobs" if process.name == "web" else "Durable jobs"
    secrets = "# Secrets, as NAME=value; only root needs to read it.\n"
    if not project.on_disk:
        secrets = "# DATABASE_URL=… and other secrets; only root needs to read it.\n"
    state = ""
    if project.on_disk:
        state = f"""\
# Made by systemd, and the only place that is written to. It stays when the unit is removed.
StateDirectory={project.name}
StateDirectoryMode=0700
Environment=DATABASE_URL={project.url(_state(project))}
"""
    return f"""\
{made_by(project)}
[Unit]
Description={doing} of {project.name}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
WorkingDirectory={_place(project)}
ExecStart={command}
Environment=PYTHONUNBUFFERED=1
{state}{secrets}EnvironmentFile={"-" if project.on_disk else ""}{_secrets(project)}

# A stop finishes the current steps and gives the runs back; only then whatever is left is killed. `mixed`: the signal
# goes to the main process alone, which passes it on to its own.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec={GRACE}
Restart=on-failure
RestartSec=2

{_HARDENED}
[Install]
WantedBy=multi-user.target
"""
