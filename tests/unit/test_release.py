"""What a release of a site consists of, and when it is another one."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from durably_web.site.release import release_files, write_release, write_withdrawal


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, text in {
        "index.html": "<p>page</p>",
        "data/rows, 100%.csv": "1",
        "durably-web/manifest.json": '{"version": "1"}',
        "durably-web/service-worker.js": "code;\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def released(site: Path) -> dict[str, object]:
    """What the service worker's first statement says."""
    statement, code = (site / "service-worker.js").read_text().split(";\n\n", 1)
    assert code == "code;\n"
    content: dict[str, object] = json.loads(statement.removeprefix("self.RELEASE = "))
    return content


def test_every_file_with_its_hash_and_size(site: Path) -> None:
    version = write_release(site)
    files = release_files(site)
    assert list(files) == ["data/rows, 100%.csv", "durably-web/manifest.json", "index.html"]
    digest = base64.b64encode(hashlib.sha384(b"<p>page</p>").digest()).decode()
    assert files["index.html"] == {"integrity": f"sha384-{digest}", "bytes": 11}
    assert released(site) == {"version": version, "files": files}


def test_pages_are_told_that_there_is_a_service_worker(site: Path) -> None:
    manifest = site / "durably-web" / "manifest.json"
    write_release(site)
    assert json.loads(manifest.read_text()) == {"version": "1", "offline": True}
    write_withdrawal(site)
    assert json.loads(manifest.read_text()) == {"version": "1"}


def test_what_no_page_loads_is_left_out(site: Path) -> None:
    before = write_release(site)
    for name in (
        ".nojekyll",
        ".well-known/x",
        "CNAME",
        "404.html",
        "README.md",
        "a.js.map",
        "data/.hidden",
        "_headers",
    ):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text("x")
    assert write_release(site) == before
    # These mean something at the root only.
    (site / "data" / "404.html").write_text("x")
    assert "data/404.html" in release_files(site)


def test_what_comes_from_another_server_is_kept_too(site: Path) -> None:
    before = write_release(site)
    described = {"bytes": 3, "integrity": "sha384-abc"}
    files = {"https://cdn.example/pyodide.mjs": described, "sqlite/index.mjs": described}
    (site / "durably-web" / "manifest.json").write_text(json.dumps({"files": files}))
    assert write_release(site) != before
    assert release_files(site)["https://cdn.example/pyodide.mjs"] == described
    assert "sqlite/index.mjs" not in release_files(site)


def test_the_same_files_are_the_same_release(site: Path) -> None:
    version = write_release(site)
    text = (site / "service-worker.js").read_bytes()
    assert write_release(site) == version
    assert (site / "service-worker.js").read_bytes() == text


@pytest.mark.parametrize("change", ["content", "name", "gone", "code"])
def test_any_change_is_another_release(site: Path, change: str) -> None:
    version = write_release(site)
    text = (site / "service-worker.js").read_bytes()
    page = site / "index.html"
    match change:
        case "content":
            page.write_text("<p>PAGE</p>")
        case "name":
            page.rename(site / "other.html")
        case "gone":
            page.unlink()
        case "code":
            (site / "durably-web" / "service-worker.js").write_text("other code;\n")
    assert write_release(site) != version
    assert (site / "service-worker.js").read_bytes() != text


def test_a_withdrawal_keeps_nothing(site: Path) -> None:
    write_release(site)
    write_withdrawal(site)
    assert released(site) == {"version": None, "files": {}}


def test_a_folder_without_a_runtime_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("x")
    with pytest.raises(FileNotFoundError):
        write_release(tmp_path)
    assert not (tmp_path / "service-worker.js").exists()
