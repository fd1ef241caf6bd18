"""Serving a folder while somebody works on it: a page gets what the folder has now, and learns of changes.

Nothing is built but the runtime with what the jobs require, which lies in `.durably-web/dev/`. There is no service
worker: one that a built site has left in the browser is replaced by one that goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Scope
from watchfiles import Change, awatch

from durably_web.site import pins
from durably_web.site.build import NOT_SERVED, is_own
from durably_web.site.bundle import Package, add_packages, default_cdn, gather, work_folder
from durably_web.site.files import is_junk, replace_folder
from durably_web.site.problem import SiteProblem
from durably_web.site.requirements import FILE_NAME
from durably_web.site.runtime import Runtime
from durably_web.site.serving import Files, application
from durably_web.site.source import RUNTIME_FOLDER, read_source, require_page

PREFIX = "durably-web-dev"
CLIENT = f'<script type="module" src="/{PREFIX}/reload.js"></script>'
MOST_REPORTED = 2_000

# Takes the place of the one that a built site has left at this address.
NO_SERVICE_WORKER = """\
addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) await caches.delete(name);
  await registration.unregister();
  for (const client of await clients.matchAll({ type: "window" })) {
    // What the browser's own cache has of the built site is older than what is here.
    await fetch(client.url, { cache: "reload" });
    void client.navigate(client.url);
  }
})()));
"""

Say = Callable[[str, str], None]
"""Shows a line on the terminal, in a style."""


class Workshop:
    """A folder that somebody works on."""

    def __init__(self, folder: Path, runtime: Runtime, say: Say, pyodide_cdn: str | None = None) -> None:
        require_page(folder)
        self.folder = folder.resolve()
        self.runtime = runtime
        self.problem = ""
        self._say = say
        self._pyodide_cdn = pyodide_cdn or default_cdn(runtime)
        self._packages: list[Package] | None = None
        self._pages: set[asyncio.Queue[tuple[str, Any]]] = set()
        self._identity = secrets.token_hex(8)

    def _built(self) -> Path | None:
        """The folder of an own build in here, which is no source."""
        return next((path for path in self.folder.iterdir() if path.is_dir() and is_own(path)), None)

    @property
    def _served_runtime(self) -> Path:
        return work_folder(self.folder) / "dev" / RUNTIME_FOLDER

    def prepare(self) -> None:
        """Look at the job files and get what they require. What is wrong is told and kept in `problem`."""
        try:
            packages = gather(read_source(self.folder, without=self._built()), self.runtime, self._pyodide_cdn)
            self.problem = ""
        except SiteProblem as problem:
            packages = self._packages or []
            self.problem = str(problem)
            self._say(self.problem, "red")
        if packages != self._packages:
            self._lay_out(packages)
            self._packages = packages

    def _lay_out(self, packages: list[Package]) -> None:
        target = self._served_runtime
        fresh = target.with_name("fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(self.runtime.served, fresh)
        add_packages(fresh, packages)
        replace_folder(target, fresh)

    def app(self) -> Starlette:
        return application(
            [
                Route(f"/{PREFIX}/reload.js", self._client),
                Route(f"/{PREFIX}/events", self._events),
                Route(f"/{PREFIX}/report", self._report, methods=["POST"]),
                Route("/service-worker.js", self._no_service_worker),
                Mount(f"/{RUNTIME_FOLDER}", Files(directory=self._served_runtime)),
                Mount("/", _Pages(directory=self.folder, html=True)),
            ]
        )

    @contextlib.asynccontextmanager
    async def watching(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Tell the pages of changes, until the event is set or the context is left."""
        watch = asyncio.create_task(self._watch(stop))
        try:
            yield
        finally:
            stop.set()
            self._tell("end", None)
            await watch

    async def _watch(self, stop: asyncio.Event) -> None:
        ended = asyncio.create_task(stop.wait())
        ended.add_done_callback(lambda _: self._tell("end", None))
        async for changes in awatch(self.folder, watch_filter=self._concerns, stop_event=stop, debounce=200, step=50):
            names = sorted({Path(path).relative_to(self.folder).as_posix() for _, path in changes})
            self._say(f"changed: {', '.join(names)}", "dim")
            if any(name.endswith(".py") or name == FILE_NAME for name in names):
                await asyncio.to_thread(self.prepare)
            self._tell("changed", names)
        await ended

    def _concerns(self, _change: Change, path: str) -> bool:
        parts = Path(path).relative_to(self.folder).parts
        # The pins are written here, after a change that was told.
        if any(map(is_junk, parts)) or parts == (pins.FILE_NAME,):
            return False
        return not is_own(self.folder / parts[0]) if parts else False

    def _tell(self, event: str, data: Any) -> None:
        for page in self._pages:
            page.put_nowait((event, data))

    async def _client(self, _request: Request) -> Response:
        source = (Path(__file__).parent / "reload.js").read_text(encoding="utf-8")
        return Response(source, media_type="text/javascript", headers={"Cache-Control": "no-store"})

    async def _no_service_worker(self, _request: Request) -> Response:
        return Response(NO_SERVICE_WORKER, media_type="text/javascript", headers={"Cache-Control": "no-store"})

    async def _events(self, _request: Request) -> Response:
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _stream(self) -> AsyncIterator[str]:
        told: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._pages.add(told)
        try:
            yield _event("server", self._identity)
            yield _event("problem", self.problem)
            while True:
                event, data = await told.get()
                if event == "end":
                    return
                yield _event(event, data)
        finally:
            self._pages.discard(told)

    async def _report(self, request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{request.url.netloc}":
            raise HTTPException(403)
        text = (await request.body())[: 4 * MOST_REPORTED].decode(errors="replace")[:MOST_REPORTED]
        # It goes to a terminal, where more than letters has a meaning.
        self._say("page: " + "".join(each for each in text if each.isprintable() or each == "\n"), "red")
        return Response(status_code=204)


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


class _Pages(Files):
    """The folder that somebody works on, as a build would take it; its pages have the client that loads them again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        parts = Path(path).parts
        if any(is_junk(part) for part in parts if part != ".") or path in NOT_SERVED:
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        file = getattr(response, "path", None)
        if file is None or not str(file).endswith((".html", ".htm")):
            return response
        page = await asyncio.to_thread(Path(file).read_text, encoding="utf-8")
        return HTMLResponse(_with_client(page), headers={"Cache-Control": "no-store"})


def _with_client(page: str) -> str:
    # First, so that it hears of what goes wrong later.
    head, tag, rest = page.partition("<head>")
    if tag:
        return f"{head}{tag}{CLIENT}{rest}"
    doctype, end, rest = page.partition(">")
    if doctype.strip().lower().startswith("<!doctype"):
        return f"{doctype}{end}{CLIENT}{rest}"
    return f"{CLIENT}{page}"
