"""Bytes of an image -> pixels, or an error with the reason in one line."""

import io
import re
import warnings

import cv2
import numpy as np
from PIL import Image

from dr.imaging import dicom, heic
from dr.imaging.bit_depth import HEIGHT, WIDTH, declared_bits, tiff_tags, to_8_bits, to_colour, white_is_zero
from dr.imaging.unreadable import UnreadableImage as UnreadableImage  # for those who decode

JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # without the markers inside the coded data of a scan
MAX_PIXELS = 150_000_000  # 450 MB decoded; retina cameras have fewer than 50 megapixels

# The formats that OpenCV does not read: the module that does, and how it recognises them
READERS = ((dicom, dicom.is_dicom), (heic, heic.is_heic))

_set_log_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # OpenCV 4, 5


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels from the header, without decoding. Raises UnreadableImage."""
    if not data:
        raise UnreadableImage("the file is empty")
    too_large = UnreadableImage(f"the header declares more than {MAX_PIXELS:,} pixels, far more than a camera has")
    reader = next((module for module, recognises in READERS if recognises(data)), None)
    if reader is not None:
        width, height = reader.size_of(data)
    else:
        width, height = _size_by_pillow(data, too_large=too_large)
    if width * height > MAX_PIXELS:
        raise too_large
    return width, height


def _size_by_pillow(data: bytes, *, too_large: UnreadableImage) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():  # about damaged EXIF data, and sizes above half of Pillow's limit
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as header:
                return header.size
    except Image.DecompressionBombError as exc:
        raise too_large from exc
    except Exception as exc:  # Pillow's plug-ins raise OSError, SyntaxError, struct.error and more on bad headers
        tags = tiff_tags(data) if data[:2] in (b"II", b"MM") else {}
        if tags.get(WIDTH) and tags.get(HEIGHT):  # Pillow reads no colours of floats
            return int(tags[WIDTH]), int(tags[HEIGHT])
        raise UnreadableImage("not an image, or its beginning or end is missing") from exc


def decode(data: bytes, *, min_side_px: int | None = None) -> np.ndarray:
    """Bytes of an image -> (H, W, 3) uint8 BGR, upright by EXIF; grey, alpha and CMYK are converted, and more bits are
    scaled to 8 (`bit_depth.to_8_bits`). Reads JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, and with a package DICOM and HEIC.

    With `min_side_px`, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling) if its shorter side keeps at
    least that many pixels. Raises UnreadableImage.
    """
    width, height = size_of(data)
    _set_log_level(0)  # UnreadableImage reports the reason, in one line
    reader = next((module for module, recognises in READERS if recognises(data)), None)
    if reader is not None:
        return reader.decode(data)
    if _is_truncated(data):
        raise UnreadableImage("the image is truncated: its end is missing")
    if data[:2] == b"\xff\xd8":
        return _by_opencv(data, _jpeg_flag(min(width, height), min_side_px=min_side_px))
    # IMREAD_COLOR alone takes the upper 8 bits of 16; a TIFF of grey floats is read without it only
    others = (cv2.IMREAD_UNCHANGED,) if data[:2] in (b"II", b"MM") else ()
    image = _by_opencv(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, *others)
    if image.dtype == np.uint8:
        return to_colour(image)
    scaled = to_colour(to_8_bits(image, declared=declared_bits(data)))
    return 255 - scaled if white_is_zero(data) else scaled


def _jpeg_flag(shorter_px: int, *, min_side_px: int | None) -> int:
    """How OpenCV decodes a JPEG of this shorter side."""
    reduced = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    factors = [] if min_side_px is None else [factor for factor in reduced if shorter_px >= factor * min_side_px]
    return reduced[max(factors)] if factors else cv2.IMREAD_COLOR


def _by_opencv(data: bytes, *flags: int) -> np.ndarray:
    """The image as the first of the flags that decodes it. Raises UnreadableImage."""
    for flag in flags:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        except cv2.error:
            continue
        if image is not None:
            return image
    raise UnreadableImage("the image is damaged and cannot be decoded")


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
