"""The kit finds nothing in the jobs of the examples, of the demo, and of a new site."""

from __future__ import annotations

import gc
import importlib.util
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from demo.jobs import import_csv
from durably_web import Step, job
from durably_web.testing import CrashPoint, check
from examples.outbox.server import Reports
from tests.support.examples import imported
from tests.support.png import bands, png, waves

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")


def loaded(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_everywhere(points: list[CrashPoint], most: int = 5) -> Any:
    """The output, which is the same wherever the engine died."""
    assert len(points) > most and {point.run.status for point in points} == {"completed"}
    assert all(point.output == points[0].output for point in points)
    return points[0].output


async def test_the_demo(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPORTS", str(tmp_path / "imports"))
    lines = (root / "demo" / "airports.csv").read_text("utf-8").splitlines()[:40]
    points = await check(
        import_csv,
        {"text": "\n".join(lines), "chunk_size": 13, "pause": 2},
        reset=lambda: shutil.rmtree(tmp_path / "imports", ignore_errors=True),
        # Its figures say how often a chunk was asked for; what was saved is the same.
        varies={"summarise"},
    )
    assert same_everywhere(points)["saved"] == 39


async def test_a_new_site(root: Path) -> None:
    jobs = loaded(root / "durably_web" / "site" / "template" / "jobs.py")
    output = same_everywhere(await check(jobs.count_words, {"text": "a b c\n\nd e a\n\nx"}))
    assert output == {"words": 7, "different": 6, "frequent": output["frequent"]}


@pytest.mark.parametrize(
    ("example", "input"),
    [
        ("react/public", {"below": 100, "blocks": 3, "pause": 0.5, "failAt": 0}),
        ("vite/public", {"below": 20_010, "pause": 0.5, "offload": False}),
    ],
)
async def test_primes(root: Path, example: str, input: dict[str, Any]) -> None:
    jobs = loaded(root / "examples" / example / "jobs.py")
    assert same_everywhere(await check(jobs.primes, input))["primes"] > 20


async def test_csv(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSV_FILES", str(tmp_path))
    rows = [f"{day}.3.2010;North;{day * number}.5;" for number in range(60) for day in range(1, 29)]
    (tmp_path / "file.csv").write_text("\n".join(["when;place;level;note", *rows]))
    with imported(root / "examples" / "csv") as jobs:
        points = await check(
            jobs.clean_csv,
            {"file": "file.csv", "pause": 1},
            most=10,
            reset=lambda: shutil.rmtree(tmp_path / "cleaned", ignore_errors=True),
        )
    assert same_everywhere(points)["parts"] > 1


async def test_images(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES", str(tmp_path))
    large = png(320, 240, bands)
    files = {"large": large, "other": png(100, 100, waves), "broken": large[:60]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    pictures = {"pictures": [{"file": name, "name": f"{name}.png"} for name in [*files, "absent"]]}
    with imported(root / "examples" / "images") as jobs:
        points = await check(jobs.sort_pictures, pictures, most=8)
    assert same_everywhere(points)["failed"] == 2


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


async def test_outbox(root: Path, tmp_path: Path) -> None:
    reports: Callable[..., Any] = Reports(str(tmp_path / "reports.db"))
    with make_server("127.0.0.1", 0, reports, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            report = {"what": "a tree", "where": "here", "written": "now"}
            report["endpoint"] = f"http://127.0.0.1:{server.server_port}/reports"
            with imported(root / "examples" / "outbox" / "site") as jobs:
                points = await check(jobs.send_report, report)
        finally:
            server.shutdown()
            thread.join(timeout=10)
    same_everywhere(points)


async def test_what_python_clears_up_in_the_turn_of_a_job() -> None:
    """As other packages have it done: the job has not asked for it."""
    asked: list[float] = []

    class Timed:
        def __del__(self) -> None:
            asked.append(time.time())

    def collecting(phase: str, info: dict[str, int]) -> None:
        asked.append(time.perf_counter())

    @job
    async def lets_go(step: Step, input: dict[str, Any]) -> int:
        dropped = [Timed()]
        dropped.clear()
        gc.collect()
        return await step.run("count", int, 1)

    gc.callbacks.append(collecting)
    try:
        await check(lets_go, {})
    finally:
        gc.callbacks.remove(collecting)
    assert len(asked) > 2
