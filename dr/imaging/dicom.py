"""DICOM files of ophthalmic photography: pixels, and the two fields of the header that a label table needs.

Needs the package pydicom. No other field of the header is read: names, dates and numbers of patients stay in the file.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from dr.imaging import optional
from dr.imaging.bit_depth import to_8_bits, to_colour
from dr.imaging.unreadable import UnreadableImage

if TYPE_CHECKING:
    from pydicom import Dataset

# The first bytes of a file without preamble: group 2 or 8, little endian
WITHOUT_PREAMBLE = (b"\x02\x00\x00\x00", b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00")
EYES = {"L": "left", "R": "right"}  # of ImageLaterality (DICOM PS3.3 C.8.17.5)
HEADER_TAGS = ("PatientID", "ImageLaterality", "Laterality", "SharedFunctionalGroupsSequence")
OTHER_CODECS = "convert it to PNG or uncompressed DICOM, or: pip install pylibjpeg pylibjpeg-libjpeg pyjpegls"


@dataclass(frozen=True)
class DicomHeader:
    """`patient`: PatientID. `laterality`: "left" or "right". None where the file does not say."""

    patient: str | None = None
    laterality: str | None = None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without pydicom's warnings about values that break the standard, which quote them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file, with or without its preamble."""
    return data[128:132] == b"DICM" or data[:4] in WITHOUT_PREAMBLE


def read_header(data: bytes) -> DicomHeader:
    """Bytes of a file, or its beginning up to the pixels -> patient and eye. Raises UnreadableImage."""
    header = _read(data, stop_before_pixels=True, specific_tags=list(HEADER_TAGS))
    try:
        with _quietly():
            patient = str(header.get("PatientID") or "").strip()
            sides = [header.get("ImageLaterality"), header.get("Laterality"), _frame_laterality(header)]
    except Exception as exc:  # pydicom converts values when they are read, and raises any error
        raise UnreadableImage("the DICOM header is damaged") from exc
    eyes = [EYES[side] for side in (str(each or "").strip().upper() for each in sides) if side in EYES]
    return DicomHeader(patient or None, eyes[0] if eyes else None)


def _frame_laterality(header: "Dataset") -> str | None:
    """FrameLaterality of an enhanced image."""
    for group in header.get("SharedFunctionalGroupsSequence") or ():
        for anatomy in group.get("FrameAnatomySequence") or ():
            return anatomy.get("FrameLaterality")
    return None


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels, without decoding. Raises UnreadableImage."""
    tags = ["Columns", "Rows", "NumberOfFrames"]
    return _size(_read(data, stop_before_pixels=True, specific_tags=tags))


def decode(data: bytes) -> np.ndarray:
    """Bytes -> (H, W, 3) uint8 BGR of a file with one frame; more bits are scaled by BitsStored, or where that
    is 16 by the range in use. Raises UnreadableImage."""
    dataset = _read(data)
    _size(dataset)
    try:
        with _quietly():
            return _pixels(dataset)
    except UnreadableImage:
        raise
    except Exception as exc:  # pydicom and its plug-ins raise ValueError, RuntimeError, AttributeError and more
        raise UnreadableImage("the DICOM image is damaged or incomplete, and cannot be decoded") from exc


def _read(data: bytes, **options: object) -> "Dataset":
    pydicom = optional.load(".dcm")
    try:
        with _quietly():
            return pydicom.dcmread(io.BytesIO(data), force=True, **options)
    except Exception as exc:  # of a damaged file: any
        raise UnreadableImage("the DICOM file is damaged, or its end is missing") from exc


def _size(dataset: "Dataset") -> tuple[int, int]:
    """(width, height). Raises UnreadableImage for a file without an image, or with several frames."""
    try:
        with _quietly():
            width, height = int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0)
            frames = int(dataset.get("NumberOfFrames") or 1)
    except Exception as exc:  # of a damaged value: any
        raise UnreadableImage("the DICOM header is damaged") from exc
    if not width or not height:
        raise UnreadableImage("the DICOM file holds no image")
    if frames > 1:
        raise UnreadableImage(f"the DICOM file holds {frames} frames; export the frame to grade as a file of its own")
    return width, height


def _pixels(dataset: "Dataset") -> np.ndarray:
    """-> (H, W, 3) uint8 BGR. Raises UnreadableImage, and any error of pydicom."""
    from pydicom.pixels import apply_color_lut, pixel_array

    if "PixelData" not in dataset:
        raise UnreadableImage("the DICOM file holds no image")
    kind = str(dataset.get("PhotometricInterpretation", ""))
    frame = _encoded_frame(dataset)
    if kind == "RGB" and frame is not None and b"JFIF" in frame[:32]:
        dataset.PhotometricInterpretation = "YBR_FULL_422"  # JFIF is YCbCr, whatever the header states
    try:
        values = pixel_array(dataset)
    except (NotImplementedError, RuntimeError, ValueError, AttributeError):
        return _by_opencv(frame, inverted=kind == "MONOCHROME1")
    if kind == "PALETTE COLOR":
        values = to_8_bits(apply_color_lut(values, dataset))
    else:
        bits = int(dataset.BitsStored)
        values = _scaled(values, bits=bits if bits < 16 else None)  # 16 is often but the size of the container
    if kind == "MONOCHROME1":
        values = 255 - values
    return to_colour(values if values.ndim == 2 else values[..., ::-1])


def _scaled(values: np.ndarray, *, bits: int | None) -> np.ndarray:
    """Values of any type with `bits` bits -> uint8."""
    if values.min(initial=0) < 0:  # signed: from -2 ** (bits - 1)
        values = values.astype(np.int64) + (1 << ((bits or 16) - 1))
    return to_8_bits(values, declared=bits)


def _encoded_frame(dataset: "Dataset") -> bytes | None:
    """The first frame of compressed pixels, None of others."""
    from pydicom.encaps import generate_frames

    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None) if hasattr(dataset, "file_meta") else None
    if syntax is None or not syntax.is_encapsulated:
        return None
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def _by_opencv(frame: bytes | None, *, inverted: bool) -> np.ndarray:
    """A frame that pydicom has no decoder for, as lossless JPEG -> (H, W, 3) uint8 BGR. Raises UnreadableImage."""
    if frame is None:
        raise UnreadableImage("the DICOM image is damaged or incomplete, and cannot be decoded")
    try:
        image = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None or image.dtype != np.uint8:
        raise UnreadableImage(f"its DICOM compression is not read; {OTHER_CODECS}")
    return to_colour(255 - image if inverted else image)
