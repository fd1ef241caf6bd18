"""Files by name, the same way in a browser and on a server.

A large file does not belong into a run's input: the engine would store it a second time. The run gets the name, and its
steps read the part that they need.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

HERE = "csv-example"


class Disk:
    """Paths on a server. What is read is named by whoever triggers; what is written goes below `folder`."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    async def size(self, name: str) -> int:
        """How many bytes there are. Raises `FileNotFoundError`."""
        return os.stat(self._folder / name).st_size

    async def read(self, name: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`; fewer where the file ends."""
        return await asyncio.to_thread(self._read, name, start, end)

    def _read(self, name: str, start: int, end: int) -> bytes:
        with open(self._folder / name, "rb") as file:
            file.seek(start)
            return file.read(end - start)

    async def write(self, name: str, text: str) -> None:
        """Replace the file as a whole: whoever is killed in the middle leaves the old one, or none."""
        await asyncio.to_thread(self._write, self._folder / name, text)

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_bytes(text.encode())
        beside.replace(path)


class Opfs:
    """The origin private file system of the browser, below one folder of this example."""

    async def size(self, name: str) -> int:
        return int((await self._file(name)).size)

    async def read(self, name: str, start: int, end: int) -> bytes:
        # A slice is not loaded before somebody asks for its bytes.
        buffer = await (await self._file(name)).slice(start, end).arrayBuffer()
        found: bytes = buffer.to_bytes()
        return found

    async def write(self, name: str, text: str) -> None:
        folder, name = await self._open(name, create=True)
        handle = await folder.getFileHandle(name, create=True)
        stream = await handle.createWritable()  # writes beside the file; close() puts it in its place
        await stream.write(text)
        await stream.close()

    async def _file(self, name: str) -> Any:
        from pyodide.ffi import JsException

        try:
            folder, last = await self._open(name)
            return await (await folder.getFileHandle(last)).getFile()
        except JsException as error:
            if error.name == "NotFoundError":
                raise FileNotFoundError(f"{name} is not in this browser any more") from None
            raise

    async def _open(self, name: str, create: bool = False) -> tuple[Any, str]:
        from js import navigator

        *folders, last = f"{HERE}/{name}".split("/")
        folder = await navigator.storage.getDirectory()
        for part in folders:
            folder = await folder.getDirectoryHandle(part, create=create)
        return folder, last


def here() -> Disk | Opfs:
    """The files of this place. On a server that is the working directory, or `$CSV_FILES`."""
    return Opfs() if sys.platform == "emscripten" else Disk(os.environ.get("CSV_FILES", "."))
