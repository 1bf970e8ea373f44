"""HTML pages: a template and its content -> one self-contained file, which needs no other file and no network."""

import base64
import functools
import json
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from dr import __version__
from dr.core import files

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL_PX = 160
THUMBNAIL_QUALITY = 72  # of JPEG: about 4 kB per image
JPEG_QUALITY = 88
MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}


def jpeg(image: np.ndarray, *, quality: int = JPEG_QUALITY) -> bytes:
    """(H, W, 3) uint8 RGB -> JPEG bytes."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def shrunk(image: np.ndarray, *, longest_px: int) -> np.ndarray:
    """(H, W, 3) uint8 -> the same with a longer side of at most `longest_px` and both sides at least one pixel."""
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def thumbnail(image: np.ndarray, *, side_px: int = THUMBNAIL_PX) -> bytes:
    """(H, W, 3) uint8 RGB -> JPEG bytes with a longer side of at most `side_px`."""
    return jpeg(shrunk(image, longest_px=side_px), quality=THUMBNAIL_QUALITY)


def data_uri(image: str | Path | bytes, *, mime: str = "image/jpeg") -> str:
    """The path of an image file, or its bytes and their MIME type -> a data URI that embeds it."""
    if not isinstance(image, bytes):
        path = Path(image)
        mime, image = MIME[path.suffix.lower()], path.read_bytes()
    return f"data:{mime};base64,{base64.b64encode(image).decode()}"


def as_json(content: Any) -> Markup:
    """`content` as JSON for a script block, which no text in it can end. Raises ValueError for NaN and infinity, which
    JSON lacks."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign, escaped in (("<", r"\u003c"), (">", r"\u003e"), ("&", r"\u0026")):
        text = text.replace(sign, escaped)
    return Markup(text)  # escaped above


def render(template: str, **content: Any) -> str:
    """The name of a template in dr/pages/templates and its content, which is escaped -> HTML. Raises
    jinja2.UndefinedError for a missing name."""
    return _environment(TEMPLATES).get_template(template).render(version=__version__, **content)


@functools.cache  # it keeps compiled templates, which take longer to compile than to render
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"as_json": as_json}
    return environment


def write(path: str | Path, template: str, **content: Any) -> None:
    """Render the page and write it to `path`, atomically."""
    files.write_bytes(path, render(template, **content).encode())
