"""Pixels of any depth -> 8 bits: by the depth that the file declares, else by the range that its values use."""

import io
import struct
import warnings

import cv2
import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from dr.imaging.unreadable import UnreadableImage

DEPTHS = (8, 10, 12, 14, 16)  # bits of sensors and of the programs that store their values in 16
# Share of the values that may exceed a depth: hot pixels. A reflex covers more
ABOVE = 1e-4
WIDTH, HEIGHT, PHOTOMETRIC, MAX_SAMPLE_VALUE, S_MAX_SAMPLE_VALUE = 256, 257, 262, 281, 341  # TIFF tags
SIZ = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream (ITU-T T.800 A.5.1)
SSIZ_PLACE = 42  # of the depth of its first component


def declared_bits(data: bytes) -> int | None:
    """The bits of each value according to the file: sBIT of a PNG, MaxSampleValue of a TIFF, SIZ of a JPEG 2000. None
    if it declares nothing, or 16 as the size of the container."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _significant_bits(data)
    if data[:2] in (b"II", b"MM"):
        tags = tiff_tags(data)
        value = np.max(tags.get(S_MAX_SAMPLE_VALUE, tags.get(MAX_SAMPLE_VALUE, 0)))
        return int(value).bit_length() if 1 < value < 1 << 16 else None
    start = data.find(SIZ, 0, 1 << 16)
    if start >= 0 and len(data) > start + SSIZ_PLACE:
        bits = (data[start + SSIZ_PLACE] & 0x7F) + 1
        return bits if bits < 16 else None
    return None


def _significant_bits(data: bytes) -> int | None:
    """The largest value of the chunk sBIT, which precedes the pixels of a PNG."""
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"sBIT" and length:
            return max(data[place + 8 : place + 8 + min(length, 3)])
        if kind == b"IDAT":
            return None
        place += 12 + length
    return None


def tiff_tags(data: bytes) -> dict:
    """The tags of the first image of a TIFF; empty where they cannot be read."""
    try:
        with warnings.catch_warnings(), io.BytesIO(data) as file:
            warnings.simplefilter("ignore")
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
            return dict(tags)
    except Exception:  # of a damaged header: any; OpenCV may read the file all the same
        return {}


def to_8_bits(image: np.ndarray, *, declared: int | None = None) -> np.ndarray:
    """(H, W) or (H, W, C) of any numeric type -> the same uint8, the highest bits of each value.

    `declared`: the bits of each value, if the file says so and no value is larger. Else the depth is the smallest of
    DEPTHS that holds the values, except that multiples of 256 or of 257 are 8 bits in a true 16. Floats up to 1 are
    shares of white. Raises UnreadableImage for negative, infinite and larger values.
    """
    if image.dtype == np.uint8 and declared in (None, 8):
        return image
    values = _integers(image)
    if declared is None or values.max(initial=0) >= 1 << declared:
        declared = bits_in_use(values)
    if declared < 8:
        return (values * (255 // ((1 << declared) - 1))).astype(np.uint8)
    return np.minimum(values >> (declared - 8), 255).astype(np.uint8)


def bits_in_use(values: np.ndarray) -> int:
    """uint16 of any shape -> how many of the 16 bits its values use: one of DEPTHS."""
    counts = np.bincount(values.ravel(), minlength=1 << 16)
    if np.count_nonzero(counts) > 1:
        counts[-1] = 0  # text and masks are drawn in the white of 16 bits, whatever the depth of the image
    used = np.flatnonzero(counts)
    if used[-1] and (not (used % 256).any() or not (used % 257).any()):
        return 16
    allowed = ABOVE * values.size
    return next(bits for bits in DEPTHS if counts[1 << bits :].sum() <= allowed)


def _integers(image: np.ndarray) -> np.ndarray:
    """Any numeric type -> uint16. Raises UnreadableImage."""
    low, high = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
    if not np.isfinite((low, high)).all():
        raise UnreadableImage("its values are not finite; save it with 8 or 16 bits")
    floats = image.dtype.kind == "f"
    if low < (-0.01 * high if floats else 0):  # interpolation leaves small negative values
        raise UnreadableImage("some of its values are negative; save it with 8 or 16 unsigned bits")
    if high >= 1 << 16:
        raise UnreadableImage("its values exceed 16 bits; save it with 8 or 16 bits")
    if floats:
        scale = 65535 if high <= 1 else 1
        return np.rint(np.clip(image, 0, None) * scale).astype(np.uint16)
    return image.astype(np.uint16)


def white_is_zero(data: bytes) -> bool:
    """Whether a TIFF stores negatives."""
    return data[:2] in (b"II", b"MM") and tiff_tags(data).get(PHOTOMETRIC) == 0


def to_colour(image: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 1, 3 or 4) uint8, BGR -> (H, W, 3)."""
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])
