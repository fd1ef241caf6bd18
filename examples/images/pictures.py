"""Reading a picture: in a browser by the browser itself, on a server by Pillow (`pip install pillow`)."""

import base64
import io
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from alike import SIDE, Pixel, colours, fingerprint

HERE = "images-example"
SMALL = 160  # pixels of the longer side of the small picture
GRID = 64  # pixels of both sides of what is looked at


class Decoded(NamedTuple):
    """A picture as its sizes and its small copies."""

    width: int
    height: int
    small: bytes  # WebP
    grid: list[Pixel]  # GRID x GRID


async def look(file: str) -> dict[str, Any]:
    """Everything there is to know about a picture. Raises `ValueError` for what is none.

    This runs in a worker of its own: it gets a name, and reads the file there.
    """
    picture = await (decode_in_browser(file) if sys.platform == "emscripten" else decode_here(file))
    half = [
        sum(sum(picture.grid[(2 * y + dy) * GRID + 2 * x + dx]) for dy in (0, 1) for dx in (0, 1)) / 12
        for y in range(SIDE)
        for x in range(SIDE)
    ]
    return {
        "width": picture.width,
        "height": picture.height,
        "colours": colours(picture.grid),
        "hash": fingerprint(half),
        "small": "data:image/webp;base64," + base64.b64encode(picture.small).decode(),
    }


def small_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1, SMALL / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


async def decode_in_browser(file: str) -> Decoded:
    from js import OffscreenCanvas, createImageBitmap, navigator
    from pyodide.ffi import JsException

    folder = await (await navigator.storage.getDirectory()).getDirectoryHandle(HERE)
    try:
        bitmap = await createImageBitmap(await (await folder.getFileHandle(file)).getFile())
    except JsException as error:
        gone = error.name == "NotFoundError"
        raise ValueError("it is not in this browser any more" if gone else "this is no picture") from None

    def drawn(width: int, height: int) -> Any:
        canvas = OffscreenCanvas.new(width, height)
        context = canvas.getContext("2d", alpha=False)
        context.imageSmoothingQuality = "high"
        context.fillStyle = "white"
        context.fillRect(0, 0, width, height)
        context.drawImage(bitmap, 0, 0, width, height)
        return canvas, context

    try:
        small, _ = drawn(*small_size(bitmap.width, bitmap.height))
        blob = await small.convertToBlob(type="image/webp", quality=0.8)
        _, context = drawn(GRID, GRID)
        data = context.getImageData(0, 0, GRID, GRID).data.to_bytes()
        grid = list(zip(data[0::4], data[1::4], data[2::4], strict=True))
        return Decoded(bitmap.width, bitmap.height, (await blob.arrayBuffer()).to_bytes(), grid)
    finally:
        bitmap.close()  # its pixels are many, and not Python's to free


async def decode_here(file: str) -> Decoded:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(Path(os.environ.get("IMAGES", "."), file)) as opened:
            turned = ImageOps.exif_transpose(opened).convert("RGBA")
    except (UnidentifiedImageError, OSError) as error:
        gone = isinstance(error, FileNotFoundError)
        raise ValueError("there is no such file" if gone else "this is no picture") from None
    image = Image.new("RGB", turned.size, "white")
    image.paste(turned, mask=turned)
    small = io.BytesIO()
    image.resize(small_size(*image.size)).save(small, "WEBP", quality=80)
    data = image.resize((GRID, GRID)).tobytes()
    grid = list(zip(data[0::3], data[1::3], data[2::3], strict=True))
    return Decoded(image.width, image.height, small.getvalue(), grid)
