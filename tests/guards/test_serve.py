"""The local server behaves as a plain static host does."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scripts.serve import SiteServer, serve


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    directory = tmp_path / "site"
    (directory / "folder").mkdir(parents=True)
    (directory / "index.html").write_text("<p>here</p>")
    for name in ("a.js", "a.mjs", "a.wasm", "a.whl", "a.py", "a.json"):
        (directory / name).write_bytes(b"content")
    (tmp_path / "secret.txt").write_text("outside")
    with serve(directory, base="/my-repo/") as address:
        yield address


def get(address: str, path: str) -> HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def test_the_site_appears_below_the_path_and_nowhere_else(served: str) -> None:
    assert served.endswith("/my-repo/")
    assert get(served, "/my-repo/").status == 200
    assert get(served, "/my-repo/a.js?version=1").status == 200
    assert get(served, "/a.js").status == 404
    assert get(served, "/my-repo/../secret.txt").status == 404
    assert get(served, "/my-repo/missing").status == 404
    assert get(served, "/my-repo/folder/").status == 404
    assert get(served, "/").getheader("Location") == "/my-repo/"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.js", "text/javascript"),
        ("a.mjs", "text/javascript"),
        ("a.wasm", "application/wasm"),
        ("a.whl", "application/zip"),
        ("a.json", "application/json"),
    ],
)
def test_types_are_those_that_a_browser_insists_on(served: str, name: str, kind: str) -> None:
    assert (get(served, f"/my-repo/{name}").getheader("Content-Type") or "").partition(";")[0] == kind


def test_no_header_isolates_the_page(served: str) -> None:
    names = {name.lower() for name, _ in get(served, "/my-repo/").getheaders()}
    assert not {name for name in names if name.startswith("cross-origin-")}


def test_only_this_machine_can_connect(tmp_path: Path) -> None:
    with SiteServer(tmp_path, base="/") as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_base_path_without_slashes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slash"):
        SiteServer(tmp_path, base="my-repo")
