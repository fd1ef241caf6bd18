"""examples/serverless/vercel: the application as Vercel's runtime serves it, and what vercel.json says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from tests.serverless.conftest import EXAMPLES, ON_EACH, SECRETS, Load
from tests.support.serving import SECONDS, served

KEY = {"X-API-Key": SECRETS["API_KEY"]}
BEARER = {"Authorization": f"Bearer {SECRETS['CRON_SECRET']}"}
CONFIG = json.loads((EXAMPLES / "vercel" / "vercel.json").read_text())


@ON_EACH
async def test_a_cron_job_is_all_that_works(load: Load) -> None:
    """Each with an instance of its own: a request, calls of the cron job, and a look at the run."""

    async def instance(method: str, path: str, **options: object) -> httpx.Response:
        app = load("vercel", "api.index").app
        # As vercel_runtime does: uvicorn, with the lifespan.
        async with (
            served(app, lifespan="on") as address,
            httpx.AsyncClient(base_url=address, timeout=SECONDS) as client,
        ):
            return await client.request(method, path, **options)  # type: ignore[arg-type]

    [cron] = CONFIG["crons"]
    asked = {"jobName": "count_words", "input": {"pieces": ["a b", "c", "d e f", "g"], "pause": 0}}
    made = (await instance("POST", "/api/trigger", json=asked, headers=KEY)).json()
    run = (await instance("GET", f"/api/run?runId={made['runId']}", headers=KEY)).json()
    assert run["status"] == "pending"
    done = (await instance("GET", cron["path"], headers=BEARER)).json()
    assert done["processed"] >= 1 and (done["due"], done["leased"], done["later"]) == (0, 0, 0)
    run = (await instance("GET", f"/api/run?runId={made['runId']}", headers=KEY)).json()
    assert (run["status"], run["output"]) == ("completed", 7)


async def test_who_knows_nothing_gets_nothing(load: Load) -> None:
    app = load("vercel", "api.index").app
    async with served(app, lifespan="on") as address, httpx.AsyncClient(base_url=address, timeout=SECONDS) as client:
        for method, path in (("GET", "/api/runs"), ("POST", "/api/trigger"), ("GET", "/api/process")):
            for headers in ({}, {**KEY, "X-API-Key": "another"}, {"Authorization": "Bearer x"}):
                assert (await client.request(method, path, headers=headers)).status_code == 401
        assert (await client.get("/api/process", headers=KEY)).status_code == 401
        assert (await client.get("/api/runs", headers=BEARER)).status_code == 401
        assert (await client.post("/api/purge", json={"olderThanMs": 0}, headers=KEY)).status_code == 403


@pytest.mark.parametrize("missing", ["API_KEY", "CRON_SECRET", "DATABASE_URL"])
def test_it_does_not_begin_without_its_settings(load: Load, missing: str) -> None:
    for nothing in (None, ""):
        with pytest.raises(RuntimeError, match=missing):
            load("vercel", "api.index", **{missing: nothing})


def test_vercel_json_is_what_the_platform_asks_for() -> None:
    """By its documentation: crons call a path of the function, and have expressions of five fields without names;
    functions are files, named from the root."""
    folder = EXAMPLES / "vercel"
    assert CONFIG.keys() <= {"$schema", "functions", "rewrites", "crons"}
    for path, function in CONFIG["functions"].items():
        assert (folder / path).is_file() and Path(path).suffix == ".py"
        assert 0 < function["maxDuration"] <= 300, "what Hobby allows"
    [rewrite] = CONFIG["rewrites"]
    destination = rewrite["destination"].removeprefix("/")
    assert f"{destination}.py" in CONFIG["functions"]
    for cron in CONFIG["crons"]:
        assert cron.keys() == {"path", "schedule"} and len(cron["path"]) <= 512
        assert re.fullmatch(rewrite["source"], cron["path"]), "the cron job's calls lead to the function"
        assert re.fullmatch(r"[\d*/,-]+( [\d*/,-]+){4}", cron["schedule"])
    source = (folder / "api" / "index.py").read_text()
    [seconds] = re.findall(r"process_seconds=(\d+)", source)
    assert int(seconds) < CONFIG["functions"]["api/index.py"]["maxDuration"]
