"""Every format and bit depth gives the same 8-bit pixels; DICOM headers give patient and eye, and nothing else."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from conftest import draw_retina, encode
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless, generate_uid

from dr import UsageError
from dr.imaging import optional
from dr.imaging.bit_depth import bits_in_use, to_8_bits
from dr.imaging.decode import UnreadableImage, decode, size_of
from dr.imaging.dicom import DicomHeader, read_header

IMAGE, _ = draw_retina(shape=(90, 140), radius=44)
GREY = cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY)
RGB = np.ascontiguousarray(IMAGE[..., ::-1])
OPHTHALMIC_PHOTOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.5.1"


def dicom(pixels=RGB, *, kind="RGB", bits=8, syntax=ExplicitVRLittleEndian, frame=None, **fields) -> bytes:
    """A file of ophthalmic photography. `frame`: its compressed pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = OPHTHALMIC_PHOTOGRAPHY
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = kind, 0
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelData = pixels.tobytes() if frame is None else encapsulate([frame])
    if syntax == RLELossless:
        dataset.compress(RLELossless, pixels)
    for name, value in fields.items():
        setattr(dataset, name, value)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def saved(kind, image=RGB, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


def heic() -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(RGB)).save(out, quality=-1, chroma=444)
    return out.getvalue()


def palette() -> bytes:
    """Each grey level as a colour of 16 bits."""
    levels = (np.arange(256, dtype=np.uint16) * 257).tobytes()
    colours = {
        f"{colour}PaletteColorLookupTable{name}": value
        for colour in ("Red", "Green", "Blue")
        for name, value in (("Descriptor", [256, 0, 16]), ("Data", levels))
    }
    return dicom(GREY, kind="PALETTE COLOR", **colours)


def ybr_422() -> bytes:
    """Uncompressed, one chroma for two pixels."""
    ycc = cv2.cvtColor(IMAGE, cv2.COLOR_BGR2YCrCb)
    pixels = np.empty((90, 70, 4), np.uint8)
    pixels[..., 0], pixels[..., 1] = ycc[:, 0::2, 0], ycc[:, 1::2, 0]
    pixels[..., 2], pixels[..., 3] = ycc[:, 0::2, 2], ycc[:, 0::2, 1]
    return dicom(RGB, kind="YBR_FULL_422", PixelData=pixels.tobytes())


GREY_AS_COLOUR = np.dstack([GREY] * 3)
FORMATS = {  # bytes, what they show, how far off on average
    "BMP": (saved("BMP"), IMAGE, 0),
    "WebP": (saved("WEBP", lossless=True), IMAGE, 0),
    "JPEG 2000": (saved("JPEG2000"), IMAGE, 0),
    "DICOM": (dicom(), IMAGE, 0),
    "DICOM, RLE": (dicom(syntax=RLELossless), IMAGE, 0),
    "DICOM, JPEG": (
        dicom(kind="YBR_FULL_422", syntax=JPEGBaseline8Bit, frame=saved("JPEG", quality=95)), IMAGE, 3),
    "DICOM, JPEG that is called RGB": (
        dicom(kind="RGB", syntax=JPEGBaseline8Bit, frame=saved("JPEG", quality=95)), IMAGE, 3),
    "DICOM, JPEG 2000": (
        dicom(kind="YBR_RCT", syntax=JPEG2000Lossless, frame=saved("JPEG2000", no_jp2=True)), IMAGE, 1),
    "DICOM, YBR 4:2:2": (ybr_422(), IMAGE, 3),
    "DICOM, palette": (palette(), GREY_AS_COLOUR, 0),
    "DICOM, grey": (dicom(GREY, kind="MONOCHROME2"), GREY_AS_COLOUR, 0),
    "DICOM, inverted": (dicom(255 - GREY, kind="MONOCHROME1"), GREY_AS_COLOUR, 0),
    "DICOM, 12 bits": (dicom(GREY.astype(np.uint16) * 16, kind="MONOCHROME2", bits=12), GREY_AS_COLOUR, 0),
    "DICOM, 12 bits of colour": (dicom(RGB.astype(np.uint16) * 16, bits=12), IMAGE, 0),
    "DICOM, 12 bits called 16": (dicom(RGB.astype(np.uint16) * 16, bits=16), IMAGE, 0),
    "DICOM, inverted 12 bits": (
        dicom(4095 - GREY.astype(np.uint16) * 16, kind="MONOCHROME1", bits=12), GREY_AS_COLOUR, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_eight_bit_colour(name):
    data, expected, tolerance = FORMATS[name]
    image = decode(data)
    assert size_of(data) == (140, 90)
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).mean() <= tolerance


def test_heic_gives_eight_bit_colour_and_a_damaged_one_is_refused():
    data = heic()
    assert size_of(data) == (140, 90)
    assert np.abs(decode(data).astype(int) - IMAGE).mean() <= 3
    with pytest.raises(UnreadableImage, match="HEIC"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "JPEG2000"])
def test_a_truncated_file_of_the_new_formats_is_refused(kind):
    data = saved(kind)
    with pytest.raises(UnreadableImage):
        decode(data[: int(0.6 * len(data))])


def test_webp_comes_upright_by_exif():
    exif = Image.Exif()
    exif[274] = 6
    data = saved("WEBP", np.ascontiguousarray(np.rot90(RGB)), exif=exif, lossless=True)
    np.testing.assert_array_equal(decode(data), IMAGE)


# --- depths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".jp2"])
@pytest.mark.parametrize("image", [IMAGE, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_in_sixteen_are_as_bright_as_eight(bits, image, suffix):
    values = image.astype(np.uint16) << (bits - 8)
    values.flat[0] = (1 << bits) - 1  # the white of this depth is in use
    expected = image if image.ndim == 3 else np.dstack([image] * 3)
    decoded = decode(encode(values, suffix))
    assert np.abs(decoded.astype(int) - expected).mean() < (1 if suffix == ".jp2" else 0.1)


def test_a_dark_image_of_eight_bits_in_sixteen_stays_dark():
    dark = IMAGE // 20
    for factor in (256, 257):
        np.testing.assert_array_equal(decode(encode(dark.astype(np.uint16) * factor)), dark)


def test_hot_pixels_and_white_text_do_not_change_the_depth():
    values = np.random.default_rng(0).integers(0, 4096, (300, 300), dtype=np.uint16)
    assert bits_in_use(values) == 12
    values[:40, :40] = 65535
    values[200, 200:205] = 9000
    assert bits_in_use(values) == 12
    values[200:220, 200:220] = 9000
    assert bits_in_use(values) == 14


def png_with_sbit(values: np.ndarray, bits: int) -> bytes:
    data = encode(values)
    chunk = struct.pack(">I4sBBB", 3, b"sBIT", bits, bits, bits)
    return data[:33] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + data[33:]


def test_the_depth_that_a_file_declares_counts_if_its_values_fit():
    values = (IMAGE // 20).astype(np.uint16) << 4  # a dark image of 12 bits uses ten of them
    np.testing.assert_array_equal(decode(png_with_sbit(values, 12)), IMAGE // 20)
    np.testing.assert_array_equal(decode(png_with_sbit(IMAGE.astype(np.uint16) << 8, 12)), IMAGE)
    tiff = io.BytesIO()
    Image.fromarray(values[..., 0]).save(tiff, "TIFF", tiffinfo={281: 4095})
    np.testing.assert_array_equal(decode(tiff.getvalue())[..., 0], IMAGE[..., 0] // 20)


@pytest.mark.parametrize("scale", [1 / 255, 1, 16])
@pytest.mark.parametrize("image", [IMAGE, GREY], ids=["colour", "grey"])
def test_a_tiff_of_floats_is_scaled(image, scale):
    values = image * np.float32(scale)
    values.flat[0] = 255 * scale
    expected = image if image.ndim == 3 else np.dstack([image] * 3)
    assert np.abs(decode(encode(values, ".tiff")).astype(int) - expected).mean() < 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0.0, np.nan]], np.float32), "not finite"),
        (np.array([[-5.0, 9.0]], np.float32), "negative"),
        (np.array([[-5, 9]], np.int16), "negative"),
        (np.array([[0, 70_000]], np.int32), "exceed 16 bits"),
    ],
)
def test_values_without_a_range_are_refused(values, reason):
    with pytest.raises(UnreadableImage, match=reason):
        to_8_bits(values)


# --- DICOM ------------------------------------------------------------------------------------------

PERSONAL = {"PatientName": "Doe^Jane", "PatientBirthDate": "19610203", "AccessionNumber": "ACC4711"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, DicomHeader()),
        ({"PatientID": " P7 ", "ImageLaterality": "L"}, DicomHeader("P7", "left")),
        ({"PatientID": "P7", "Laterality": "R"} | PERSONAL, DicomHeader("P7", "right")),
        ({"PatientID": "", "ImageLaterality": "B"}, DicomHeader()),
    ],
)
def test_the_header_gives_patient_and_eye(fields, expected):
    assert read_header(dicom(**fields)) == expected


def test_a_file_without_preamble_is_read():
    np.testing.assert_array_equal(decode(dicom()[132:]), IMAGE)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (dicom(np.stack([GREY] * 2)[0], kind="MONOCHROME2", NumberOfFrames=2), "holds 2 frames; export"),
        (dicom(Rows=0), "holds no image"),
        (dicom()[:-2000], "damaged or incomplete"),
        (dicom(Rows=60_000, Columns=60_000), "declares more than"),
        (dicom(syntax="1.2.840.10008.1.2.4.80", frame=b"\xff\xd8\xff\xf7" + bytes(60)), "compression is not read"),
    ],
)  # fmt: skip
def test_a_dicom_file_that_cannot_be_used_is_refused_with_its_remedy(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data)


def test_warnings_that_quote_the_header_are_not_shown(recwarn):
    decode(dicom(**PERSONAL))
    assert not recwarn.list


# --- missing packages -------------------------------------------------------------------------------


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    with pytest.raises(UnreadableImage, match=r"DICOM images need the package pydicom; .* pip install pydicom"):
        decode(dicom())
    with pytest.raises(UsageError, match=r"HEIC images need the package pillow-heif; .* pip install pillow-heif"):
        optional.refuse_without_package(["a.HEIC", "b.heif"], place="photos")
    optional.refuse_without_package(["a.heic", "b.jpg"], place="photos")  # reported image by image
