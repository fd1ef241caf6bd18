"""examples/serverless/cloudflare: the Worker in Pyodide under Node, with Cloudflare's own package, and a real server.

workerd itself downloads what it needs for Python when it begins, so it is not what runs here.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT
from tests.serverless.conftest import EXAMPLES, SECRETS, Load
from tests.support.serving import SECONDS, served

PYODIDE = ROOT / "web" / "node_modules" / "pyodide"
FOLDER = EXAMPLES / "cloudflare"
# Python has to start.
PATIENCE = 120

Call = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def worker(**environment: str) -> AsyncIterator[Call]:
    """The Worker with these variables and secrets; gives what calls its handlers."""
    node = shutil.which("node")
    sdk = importlib.util.find_spec("workers")
    if node is None or not PYODIDE.exists() or sdk is None or sdk.origin is None:
        pytest.skip("needs Node, the npm packages of web/, and workers-runtime-sdk")
    process = await asyncio.create_subprocess_exec(
        *(node, str(ROOT / "tests" / "serverless" / "worker_in_node.mjs"), str(PYODIDE)),
        *(str(Path(sdk.origin).parent.parent), str(FOLDER / "src" / "entry.py"), json.dumps(environment)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    requests, answers = process.stdin, process.stdout

    async def call(**what: Any) -> Any:
        requests.write(json.dumps(what).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            return json.loads(await answers.readline())

    try:
        async with asyncio.timeout(PATIENCE):
            assert json.loads(await answers.readline())["python"]
        yield call
    finally:
        requests.close()
        try:
            async with asyncio.timeout(SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def fetch(method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
    options = {"method": method, "headers": headers, **({} if body is None else {"body": json.dumps(body)})}
    return {"fetch": [f"https://count-words.example.workers.dev{path}", options]}


@pytest.mark.pyodide
async def test_a_worker_asks_and_a_cron_trigger_lets_the_server_work(load: Load) -> None:
    """The server is the function for Vercel, in which nobody works otherwise."""
    app = load("vercel", "api.index").app
    async with served(app, lifespan="on") as address, worker(DURABLY_URL=f"{address}/api", **SECRETS) as call:
        pieces = {"pieces": ["a b", "c", "d e f", "g"], "pause": 0}
        made = [await call(**fetch("POST", "/count", pieces, **{"Idempotency-Key": "order 7"})) for _ in range(2)]
        assert [answer["status"] for answer in made] == [200, 200] and made[0]["type"] == "application/json"
        first, again = (json.loads(answer["body"]) for answer in made)
        assert (first["disposition"], again["disposition"]) == ("created", "idempotent")
        look = fetch("GET", f"/runs/{first['runId']}")
        assert json.loads((await call(**look))["body"])["status"] == "pending"
        assert await call(scheduled="* * * * *") == {"ok": True}
        run = json.loads((await call(**look))["body"])
        assert (run["status"], run["output"]) == ("completed", 7)

        wrong = await call(**fetch("POST", "/count", [1, 2]))
        assert wrong["status"] == 400 and json.loads(wrong["body"])["error"], "what the server says is told"
        for line in ("GET /", "GET /count", "POST /runs/x", "GET /runs/a%26b", "GET /runs/", "PUT /count"):
            assert (await call(**fetch(*line.split())))["status"] == 404, line


@pytest.mark.pyodide
async def test_what_goes_wrong_is_told(load: Load) -> None:
    app = load("vercel", "api.index").app
    async with served(app, lifespan="on") as address:
        known = {"DURABLY_URL": f"{address}/api", "API_KEY": "another", "CRON_SECRET": "another"}
        async with worker(**known) as call:
            assert (await call(**fetch("POST", "/count", {})))["status"] == 401
            assert "/process answered 401" in (await call(scheduled="* * * * *"))["error"]
    async with worker(**known) as call:
        assert (await call(**fetch("POST", "/count", {})))["status"] == 503, "the server is gone"
        assert "error" in await call(scheduled="* * * * *"), "and the trigger counts as failed"


def test_the_configuration_is_that_of_this_worker() -> None:
    text = (FOLDER / "wrangler.jsonc").read_text()
    config = json.loads("\n".join(line for line in text.splitlines() if not line.lstrip().startswith("//")))
    source = (FOLDER / config["main"]).read_text()
    assert "class Default(WorkerEntrypoint)" in source
    assert "python_workers" in config["compatibility_flags"]
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", config["compatibility_date"])
    assert all(len(cron.split()) == 5 for cron in config["triggers"]["crons"])
    used = set(re.findall(r"self\.env\.([A-Z_]+)", source))
    assert used - set(config["vars"]) == set(SECRETS), "which are no part of the file"
    assert all(secret not in text.split('"vars"')[1].split("}")[0] for secret in SECRETS)
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    assert project["project"]["name"] == config["name"] and "workers-py" in project["dependency-groups"]["dev"]
