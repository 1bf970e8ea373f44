"""Bytes of an image -> pixels, or an error with the reason in one line."""

import io
import re
import warnings

import cv2
import numpy as np
from PIL import Image

JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # without the markers inside the coded data of a scan
MAX_PIXELS = 150_000_000  # 450 MB decoded; retina cameras have fewer than 50 megapixels

_set_log_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # OpenCV 4, 5


class UnreadableImage(Exception):  # noqa: N818  (the name describes the image)
    """The bytes are not a usable image; the text is the reason."""


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels from the header, without decoding. Raises UnreadableImage."""
    if not data:
        raise UnreadableImage("the file is empty")
    too_large = UnreadableImage(f"the header declares more than {MAX_PIXELS:,} pixels, far more than a camera has")
    try:
        with warnings.catch_warnings():  # about damaged EXIF data, and sizes above half of Pillow's limit
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as header:
                width, height = header.size
    except Image.DecompressionBombError as exc:
        raise too_large from exc
    except Exception as exc:  # Pillow's plug-ins raise OSError, SyntaxError, struct.error and more on bad headers
        raise UnreadableImage("not an image, or its beginning or end is missing") from exc
    if width * height > MAX_PIXELS:
        raise too_large
    return width, height


def decode(data: bytes, *, min_side_px: int | None = None) -> np.ndarray:
    """Bytes of a JPEG, PNG or TIFF -> (H, W, 3) uint8 BGR, upright by EXIF; 16-bit, grey, alpha and CMYK are converted.

    With `min_side_px`, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling) if its shorter side keeps at
    least that many pixels. Raises UnreadableImage.
    """
    width, height = size_of(data)
    if _is_truncated(data):
        raise UnreadableImage("the image is truncated: its end is missing")
    _set_log_level(0)  # UnreadableImage reports the reason, in one line
    flag = cv2.IMREAD_COLOR
    if min_side_px is not None and data[:2] == b"\xff\xd8":
        reduced = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
        factors = [factor for factor in reduced if min(width, height) >= factor * min_side_px]
        flag = reduced[max(factors)] if factors else flag
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as exc:
        raise UnreadableImage("the image is damaged and cannot be decoded") from exc
    if image is None:
        raise UnreadableImage("the image is damaged and cannot be decoded")
    return image


def _is_truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker: OpenCV would silently fill the missing part with grey."""
    if data[:2] == b"\xff\xd8":
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") and not _jpeg_ends(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND\xaeB`\x82" not in data  # the end chunk and its checksum
    return False


def _jpeg_ends(data: bytes) -> bool:
    """Whether the end marker (EOI, ITU-T T.81 B.1.1.3) follows the last scan of a JPEG. Markers after the image, as in
    a phone's motion photo, and inside a segment, as in a thumbnail, do not count."""
    place = 2
    while match := JPEG_MARKER.search(data, place):
        marker, place = data[match.end() - 1], match.end()
        if marker == 0xD9:
            return True
        if marker != 0x01:  # all others have a length
            place += int.from_bytes(data[place : place + 2], "big")
    return False
