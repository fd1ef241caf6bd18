"""Requests of jobs to another server: answers, failures that say what happened, and steps that wait for the network."""

from __future__ import annotations

import gzip
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.wheels import ROOT, download_wheels, pinned
from tests.e2e.conftest import HERE, create, wait_until
from tests.e2e.host import host_of, publish

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

LARGE = bytes(range(256)) * 8192
ENDING = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """A server on another origin. What is below /open/ may be read by anybody; the rest by nobody."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        match path.removeprefix("/open/"):
            case "hang":
                ENDING.wait(20)
            case "cut":
                self.send_response(200)
                self._allow()
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"half")
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            case "moved":
                self._answer(302, b"", Location="/open/gzip")
            case "gzip":
                self._answer(200, gzip.compress(b"unpacked"), **{"Content-Encoding": "gzip"})
            case "large":
                self._answer(200, LARGE)
            case "missing":
                self._answer(404, b'{"error": "none"}')
            case "broken":
                self._answer(500, b'{"error": "all"}')
            case _:
                self._answer(200, b"hello")

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_OPTIONS(self) -> None:
        self._answer(204, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.headers["Idempotency-Key"], body.decode()))
        self._answer(201, body)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self._allow()
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _allow(self) -> None:
        if self.path.startswith("/open/"):
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Headers", "*")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posted: list[tuple[str, str]] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    ENDING.clear()
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        ENDING.set()
        server.shutdown()
        thread.join(timeout=10)


@pytest.fixture
def closed() -> str:
    """An address where nobody is."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def ask(page: Page, way: str, url: str, *, offload: bool = False, **options: Any) -> Any:
    given = {"way": way, "url": url, "offload": offload, "options": options}
    return page.evaluate("input => durably.triggerAndWait('ask', input, { timeout: 60_000 })", given)


def test_answers_and_failures(
    visit: Callable[..., Page], browser: BrowserContext, server: Server, closed: str, origin: str, origin_folder: Path
) -> None:
    wheels = download_wheels(pinned(HERE / "jobs" / "requirements.txt"), ROOT / "build" / "cache")
    for wheel in wheels.values():
        shutil.copy(wheel, origin_folder / "my-repo")
    page = visit()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    requirements = [f"./{wheel.name}" for wheel in wheels.values()]
    assert create(page, jobs="network_jobs.py", requirements=requirements) == "leader"
    ways = ["pyfetch", "fetch", "urllib", "requests"]
    site = origin.rstrip("/")
    for way in ways:
        # Answers, whatever they say.
        assert ask(page, way, f"{server.address}/open/hello") == [200, "hello"], way
        assert ask(page, way, f"{server.address}/open/missing") == [404, '{"error": "none"}'], way
        assert ask(page, way, f"{server.address}/open/broken") == [500, '{"error": "all"}'], way
        assert ask(page, way, f"{server.address}/open/moved") == [200, "unpacked"], way

        refused = ask(page, way, f"{server.address}/hello?api_key=hush#part")
        assert refused["failure"] and f"{server.address}/hello does not let {site} read" in refused["text"], (
            way,
            refused,
        )
        assert f"Access-Control-Allow-Origin: {site}" in refused["text"] and "hush" not in refused["text"]

        nobody = ask(page, way, f"{closed}/hello?api_key=hush")
        assert nobody["failure"] and f"{closed}/hello could not be reached: its server" in nobody["text"], (way, nobody)
        assert "hush" not in str(nobody), way

        kinds = {
            "urllib": "urllib.error.URLError",
            "requests": "requests.exceptions.ConnectionError",
        }
        if way in kinds:
            assert refused["names"][0] == nobody["names"][0] == kinds[way], (refused, nobody)
            assert (refused["cause"], nobody["cause"]) == ("CrossOriginRefused", "Unreachable")
        else:
            assert refused["names"][0] == "durably_web.errors.CrossOriginRefused", refused
            assert nobody["names"][0] == "durably_web.errors.Unreachable", nobody
            assert refused["url"] == f"{server.address}/hello"

    # Of the blocking ones, which have a time-out of their own.
    for way, kind in (("urllib", "urllib.error.URLError"), ("requests", "requests.exceptions.ReadTimeout")):
        late = ask(page, way, f"{server.address}/open/hang", timeout=0.3)
        assert late["names"][0] == kind and "/open/hang took longer than" in late["text"], late
    cut = ask(page, "pyfetch", f"{server.address}/open/cut")
    assert cut["names"][0] == "durably_web.errors.Unreachable" and "broke off" in cut["text"], cut
    cut = ask(page, "fetch", f"{server.address}/open/cut")
    assert cut["names"][0] == "durably_web.errors.Unreachable" and "broke off" in cut["text"], cut
    # Headers that browsers do not let anybody set.
    for way in ("pyfetch", "urllib", "requests"):
        headers = {"User-Agent": "me", "Content-Type": "text/plain"}
        body: dict[str, Any] = {"method": "POST", "headers": headers, "body": "grüße"}
        assert ask(page, way, f"{server.address}/open/post", **body) == [201, "grüße"], way
    size = page.evaluate("url => durably.triggerAndWait('download', { url })", f"{server.address}/open/large")
    assert size == sum(LARGE)
    # In a worker of its own.
    far = ask(page, "pyfetch", f"{server.address}/hello", offload=True)
    assert far["names"][0] == "durably_web.errors.CrossOriginRefused" and far["url"] == f"{server.address}/hello", far
    assert ask(page, "requests", f"{closed}/", offload=True)["names"][0] == "requests.exceptions.ConnectionError"

    browser.set_offline(True)
    for way in ways:
        offline = ask(page, way, f"{server.address}/open/hello?api_key=hush")
        assert offline["failure"] and "the browser is offline" in offline["text"], (way, offline)
    browser.set_offline(False)
    assert ask(page, "pyfetch", f"{server.address}/open/hello") == [200, "hello"]

    stored = page.evaluate(
        "async () => JSON.stringify(await Promise.all((await durably.getRuns()).map(({ id }) => durably.getSteps(id))))"
    )
    assert "does not let" in stored and "hush" not in stored
    assert not [line for line in told if "hush" in line and "durably" in line], told


def steps_of(page: Page, run_id: str) -> dict[str, Any]:
    return {step["name"]: step for step in page.evaluate("id => durably.getSteps(id)", run_id)}


WAITS = "async id => (await durably.getRun(id)).status === 'waiting'"
ENDED = "async id => (await durably.getRun(id)).isTerminal"


def test_a_step_waits_until_the_network_is_back(
    visit: Callable[..., Page], browser: BrowserContext, server: Server
) -> None:
    """Also over a reload without a network, and in whichever tab the jobs run then."""
    server.posted.clear()
    page = visit()
    assert create(page, jobs="network_jobs.py") == "leader"
    trigger = "url => durably.trigger('send', { url }).then(({ id }) => id)"
    browser.set_offline(True)
    run_id = page.evaluate(trigger, f"{server.address}/open/post")
    wait_until(page, WAITS, run_id)
    step = steps_of(page, run_id)["send"]
    assert (step["status"], step["waitsFor"], step["attempt"], step["attempts"]) == ("waiting", "network", 1, [])
    page.wait_for_function("events.some(({ type }) => type === 'network:offline')")
    browser.set_offline(False)
    wait_until(page, ENDED, run_id)
    assert server.posted == [(f"{run_id}/send", '{"n": 1}')]
    step = steps_of(page, run_id)["send"]
    assert (step["status"], step["output"], step["attempt"], step["attempts"]) == ("completed", 201, 1, [])
    assert page.evaluate("events.filter(({ type }) => type === 'network:online').length") == 1

    # The next tab takes over while there is no network, and knows. Without one it could not load Python: here only the
    # pages are told that there is none, and they tell their workers.
    other = visit()
    assert create(other, jobs="network_jobs.py") == "follower"
    for each in (page, other):
        each.evaluate("dispatchEvent(new Event('offline'))")
    run_id = other.evaluate(trigger, f"{server.address}/open/post")
    wait_until(other, WAITS, run_id)
    page.close()
    other.wait_for_function("durably.status === 'leader'", timeout=60_000)
    other.wait_for_function("statuses.at(-1)[1] === 'running'", timeout=60_000)
    wait_until(other, WAITS, run_id)
    assert len(server.posted) == 1
    other.evaluate("dispatchEvent(new Event('online'))")
    wait_until(other, ENDED, run_id)
    assert server.posted[1:] == [(f"{run_id}/send", '{"n": 1}')]
    assert steps_of(other, run_id)["send"]["attempt"] == 1

    # A page that is loaded again, and finds a network, goes on at once with what waited.
    other.evaluate("dispatchEvent(new Event('offline'))")
    run_id = other.evaluate(trigger, f"{server.address}/open/post")
    wait_until(other, WAITS, run_id)
    other.reload()
    assert create(other, jobs="network_jobs.py") == "leader"
    wait_until(other, ENDED, run_id)
    assert server.posted[2:] == [(f"{run_id}/send", '{"n": 1}')]


def test_over_a_reload_without_a_network_and_without_a_way_out(
    open_browser: Callable[..., BrowserContext], site_directory: Path, tmp_path: Path, server: Server, closed: str
) -> None:
    """The page comes from the service worker's copy."""
    server.posted.clear()
    site = tmp_path / "www" / "my-repo"
    site.mkdir(parents=True)
    shutil.copy(HERE / "jobs" / "network_jobs.py", site)
    publish(site_directory, site, "one")
    trigger = "url => durably.trigger('send', { url }).then(({ id }) => id)"
    with host_of(site.parent) as host:
        browser = open_browser()
        page = browser.new_page()
        page.goto(f"{host.address}my-repo/")
        assert create(page, jobs="network_jobs.py") == "leader"
        wait_until(page, "async () => durably.site.stored")
        browser.set_offline(True)
        run_id = page.evaluate(trigger, f"{server.address}/open/post")
        wait_until(page, WAITS, run_id)
        page.reload()
        assert create(page, jobs="network_jobs.py") == "leader"
        wait_until(page, WAITS, run_id)
        assert server.posted == []
        browser.set_offline(False)
        wait_until(page, ENDED, run_id)
        assert server.posted == [(f"{run_id}/send", '{"n": 1}')]
        assert steps_of(page, run_id)["send"]["attempt"] == 1

        # The browser says that there is a network, but neither the server nor the own site can be reached.
        run_id = page.evaluate(trigger, f"{closed}/post")
        wait_until(page, "async id => (await durably.getSteps(id)).some(({ status }) => status === 'retrying')", run_id)
        assert len(steps_of(page, run_id)["send"]["attempts"]) == 1, "the own site is there: it counts"
        host.stop()
        run_id = page.evaluate(trigger, f"{closed}/post")
        wait_until(page, WAITS, run_id)
        step = steps_of(page, run_id)["send"]
        assert (step["status"], step["waitsFor"], step["attempts"]) == ("waiting", "network", []), step
        assert "could not be reached" in step["error"]
