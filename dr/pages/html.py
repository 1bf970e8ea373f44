"""Pages: a template and its content -> one HTML file that needs nothing else, neither other files nor a network."""

import base64
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
THUMBNAIL_QUALITY = 72  # of JPEG: about 4 kB a photograph
PICTURE_QUALITY = 88
MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}


def jpeg(photo: np.ndarray, *, quality: int = PICTURE_QUALITY) -> bytes:
    """(H, W, 3) uint8 RGB -> the bytes of a JPEG."""
    bgr = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def shrunk(photo: np.ndarray, *, longest_px: int) -> np.ndarray:
    """(H, W, 3) uint8 -> with a longer side of at most `longest_px`, and no side shorter than one pixel."""
    height, width = photo.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return photo
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)


def thumbnail(photo: np.ndarray, *, side_px: int = THUMBNAIL_PX) -> bytes:
    """(H, W, 3) uint8 RGB -> the bytes of a JPEG whose longer side is at most `side_px`."""
    return jpeg(shrunk(photo, longest_px=side_px), quality=THUMBNAIL_QUALITY)


def data_uri(picture: str | Path | bytes, *, mime: str = "image/jpeg") -> str:
    """The path of a picture, or its bytes and what they are -> a URI that holds the picture itself."""
    if not isinstance(picture, bytes):
        path = Path(picture)
        mime, picture = MIME[path.suffix.lower()], path.read_bytes()
    return f"data:{mime};base64,{base64.b64encode(picture).decode()}"


def as_json(content: Any) -> Markup:
    """`content` for a script block, where no text of it can end the block. Raises ValueError for NaN and infinity,
    which JSON does not know."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign, escaped in (("<", r"\u003c"), (">", r"\u003e"), ("&", r"\u0026")):
        text = text.replace(sign, escaped)
    return Markup(text)  # its signs are escaped


def render(template: str, **content: Any) -> str:
    """The name of a template in dr/templates and its content, which is escaped -> a page. Raises
    jinja2.UndefinedError for a name that the template needs and was not given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"as_json": as_json}
    return environment.get_template(template).render(version=__version__, **content)


def write(path: str | Path, template: str, **content: Any) -> None:
    """The page as a file, whole or not there."""
    files.write_bytes(path, render(template, **content).encode())
