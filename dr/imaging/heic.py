"""HEIC and HEIF, as telephones write them: needs the package pillow-heif."""

import warnings

import cv2
import numpy as np

from dr.imaging import optional
from dr.imaging.unreadable import UnreadableImage

BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_heic(data: bytes) -> bool:
    """Whether the bytes are a HEIF file (ISO/IEC 23008-12), whose image is coded by HEVC."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS


def _open(data: bytes):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optional.load(".heic").open_heif(data, convert_hdr_to_8bit=True)
    except (ValueError, EOFError, SyntaxError, OSError, RuntimeError) as exc:
        raise UnreadableImage("the HEIC image is damaged, or its beginning or end is missing") from exc


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels of the primary image, without decoding. Raises UnreadableImage."""
    return _open(data).size


def decode(data: bytes) -> np.ndarray:
    """Bytes -> (H, W, 3) uint8 BGR of the primary image, upright. Raises UnreadableImage."""
    image = _open(data)
    try:
        pixels = np.asarray(image)
    except (ValueError, EOFError, SyntaxError, OSError, RuntimeError) as exc:
        raise UnreadableImage("the HEIC image is damaged and cannot be decoded") from exc
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(pixels[..., 2::-1])
