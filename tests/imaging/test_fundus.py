"""The retina is found at its known place in drawn images; files of every format are decoded or refused."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from conftest import draw_retina, encode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dr.imaging import fundus, quality
from dr.imaging.decode import UnreadableImage, decode
from dr.imaging.fundus import preprocess
from dr.imaging.retina import WORKING_SIDE_PX, find_retina

SHAPES = ((360, 480), (512, 512), (600, 900))


def overlap(a, b):
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


def drawn(rng, **options):
    """A disc of some size in a frame of some size."""
    shape = options.pop("shape", SHAPES[rng.integers(3)])
    radius = options.pop("radius", rng.uniform(0.33, 0.48) * min(shape))
    return draw_retina(shape=shape, radius=radius, seed=int(rng.integers(1_000_000)), **options)


def add_noise(image, rng, *, deviation, where=True):
    noise = np.where(where, rng.normal(0, deviation, image.shape), 0)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def plain(rng):
    return drawn(rng)


def noise_everywhere(rng):
    image, box = drawn(rng)
    return add_noise(image, rng, deviation=rng.uniform(4, 25)), box


def noise_in_the_surround(rng):
    image, box = drawn(rng)
    band = np.zeros(image.shape, bool)
    margin = int(rng.uniform(0, 0.1) * len(image))
    band[margin : len(image) - margin] = True  # black above and below, as in frames that were padded
    surround = (image == 0).all(axis=2, keepdims=True)
    return add_noise(image, rng, deviation=rng.uniform(10, 40), where=band & surround), box


def blurred(rng):
    image, box = drawn(rng)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.002, 0.008) * len(image)), box


def text_in_the_surround(rng):
    image, box = drawn(rng)
    height, width = image.shape[:2]
    for text, x, y in (("OD 45", 0.01, 0.08), ("2015-03-02", 0.76, 0.98)):
        place = (int(x * width), int(y * height))
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, height / 800, (230, 230, 230), 1, cv2.LINE_AA)
    return image, box


def dark(rng):
    image, box = drawn(rng)
    return add_noise(image * rng.uniform(0.12, 0.3), rng, deviation=1.5), box


def off_centre(rng):
    radius = rng.uniform(150, 190)
    centre = (rng.uniform(radius, 640 - radius), rng.uniform(radius, 480 - radius))
    return drawn(rng, shape=(480, 640), radius=radius, centre=centre)


def cut_at_both_sides(rng):
    width = int(rng.uniform(400, 500))
    return drawn(rng, shape=(480, width), radius=rng.uniform(0.52, 0.58) * max(width, 440))


def cut_at_one_side(rng):
    radius = rng.uniform(160, 220)
    return drawn(rng, shape=(480, 640), radius=radius, centre=(rng.uniform(0.6, 0.95) * radius, 240))


def flat_top_and_bottom(rng):
    return drawn(rng, flat=rng.uniform(0.05, 0.25))


def filling_the_frame_from_top_to_bottom(rng):
    return drawn(rng, shape=(480, 600), radius=rng.uniform(250, 290))


def colour_cast(rng):
    colours = ((45, 95, 190), (90, 120, 90), (150, 110, 80), (60, 160, 170))
    return drawn(rng, surround=tuple(rng.integers(0, 45, 3)), colour=colours[rng.integers(4)])


def white_surround(rng):
    return drawn(rng, surround=(255, 255, 255))


def grey_surround(rng):
    return drawn(rng, surround=(int(rng.integers(100, 180)),) * 3)


def several_at_once(rng):
    image, box = text_in_the_surround(rng)
    return add_noise(image * 0.4, rng, deviation=5), box


CONDITIONS = (
    plain,
    noise_everywhere,
    noise_in_the_surround,
    blurred,
    text_in_the_surround,
    dark,
    off_centre,
    cut_at_both_sides,
    cut_at_one_side,
    flat_top_and_bottom,
    filling_the_frame_from_top_to_bottom,
    colour_cast,
    white_surround,
    grey_surround,
    several_at_once,
)


@pytest.mark.parametrize("shape", [(2879, 3839), (3743, 4991), (767, 1151), (1000, 3000)])
@pytest.mark.parametrize("corner", [0, 1])
def test_the_box_is_right_to_a_pixel_of_the_working_copy_where_sides_are_no_multiple_of_it(shape, corner):
    height, width = shape
    radius = int(0.42 * height)
    centre = (20 + radius, 20 + radius) if corner == 0 else (width - 20 - radius, height - 20 - radius)
    image = np.zeros((*shape, 3), np.uint8)
    cv2.circle(image, centre, radius, (60, 100, 180), cv2.FILLED)
    drawn_box = (centre[0] - radius, centre[1] - radius, centre[0] + radius + 1, centre[1] + radius + 1)
    assert find_retina(image).box == pytest.approx(drawn_box, abs=max(shape) / WORKING_SIDE_PX)


def test_the_box_agrees_with_the_drawn_retina_under_every_condition():
    overlaps = {}
    for condition in CONDITIONS:
        cases = [condition(np.random.default_rng(seed)) for seed in range(4)]
        overlaps[condition.__name__] = [overlap(find_retina(image).box, box) for image, box in cases]
    summary = "\n".join(f"{name}: mean {np.mean(v):.3f}, worst {min(v):.3f}" for name, v in overlaps.items())
    print(summary)
    for values in overlaps.values():
        assert np.mean(values) >= 0.97, summary
        assert min(values) >= 0.90, summary


@pytest.mark.parametrize("deviation_px", [1, 2, 4])
def test_a_blurred_rim_is_cropped_where_it_was_before_the_blur(deviation_px):
    image, box = draw_retina(shape=(512, 512), radius=210)
    retina = find_retina(cv2.GaussianBlur(image, (0, 0), deviation_px))
    assert np.abs(np.subtract(retina.box, box)).max() <= 1 + deviation_px


discs = st.tuples(
    st.sampled_from(SHAPES), st.floats(0.28, 0.5), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.25), st.integers(0)
)


def draw_somewhere(disc):
    """A whole disc anywhere in its frame."""
    shape, size, right, down, flat, seed = disc
    radius = size * min(shape)
    centre = (radius + right * (shape[1] - 2 * radius), radius + down * (shape[0] - 2 * radius))
    return draw_retina(shape=shape, radius=radius, centre=centre, flat=flat, seed=seed)


@given(discs)
@settings(max_examples=25, deadline=None)
def test_the_crop_keeps_the_whole_disc(disc):
    image, (x0, y0, x1, y1) = draw_somewhere(disc)
    retina = find_retina(image)
    pixel = max(image.shape) / WORKING_SIDE_PX  # the finest step the search can make
    assert retina.found
    assert retina.box[0] - x0 <= pixel
    assert retina.box[1] - y0 <= pixel
    assert x1 - retina.box[2] <= pixel
    assert y1 - retina.box[3] <= pixel


@given(discs)
@settings(max_examples=25, deadline=None)
def test_cropping_twice_changes_nothing(disc):
    image, _ = draw_somewhere(disc)
    preprocessed, retina = preprocess(image, size_px=256)
    again = find_retina(preprocessed)
    width, height = retina.box[2] - retina.box[0], retina.box[3] - retina.box[1]
    side = len(preprocessed)
    pad_x, pad_y = (side * (1 - extent / max(width, height)) / 2 for extent in (width, height))
    assert np.abs(np.subtract(again.box, (pad_x, pad_y, side - pad_x, side - pad_y))).max() <= 2.5


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((300, 400, 3), np.uint8),
        np.full((300, 400, 3), 255, np.uint8),
        np.full((300, 400, 3), (30, 90, 160), np.uint8),
        np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8),
        np.random.default_rng(0).integers(0, 12, (300, 400, 3)).astype(np.uint8),
        np.dstack([np.tile(np.linspace(0, 255, 400), (300, 1)).astype(np.uint8)] * 3),
        np.pad(np.full((200, 400, 3), 140, np.uint8), ((50, 50), (0, 0), (0, 0))),
        cv2.putText(np.zeros((300, 400, 3), np.uint8), "no eye", (90, 160), 0, 2, (255, 255, 255), 3),
    ],
    ids=["black", "white", "one colour", "noise", "faint noise", "gradient", "letter box", "text"],
)
def test_without_a_retina_the_whole_frame_is_kept_and_flagged(image):
    retina = find_retina(image)
    assert retina.box == (0, 0, 400, 300)
    assert retina.found is False
    assert "no_retina" in quality.flags(retina, {"brightness": 100.0, "sharpness": 9.0})


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (9, 9)])
def test_a_sliver_of_an_image_is_preprocessed_without_an_error(shape):
    preprocessed, retina = preprocess(np.full((*shape, 3), 90, np.uint8), size_px=64)
    assert preprocessed.shape == (min(64, max(shape)),) * 2 + (3,)
    assert retina.box == (0, 0, shape[1], shape[0])


def test_the_shorter_side_is_padded_evenly_with_the_surround_and_nothing_is_stretched():
    image = np.arange(3 * 6 * 3, dtype=np.uint8).reshape(3, 6, 3)
    padded = fundus.pad_to_square(image, colour=(7, 8, 9))
    assert padded.shape == (6, 6, 3)
    np.testing.assert_array_equal(padded[1:4], image)
    assert (padded[[0, 4, 5]] == (7, 8, 9)).all()


def test_a_flattened_disc_keeps_its_proportions():
    image, (x0, y0, x1, y1) = draw_retina(shape=(480, 640), radius=200, flat=0.2)
    preprocessed, _ = preprocess(image, size_px=256)
    rows = np.flatnonzero(preprocessed.max(axis=(1, 2)) > 20)
    assert preprocessed.shape == (256, 256, 3)
    assert (rows[-1] - rows[0] + 1) / 256 == pytest.approx((y1 - y0) / (x1 - x0), abs=0.02)


def test_an_image_smaller_than_the_requested_size_is_not_enlarged():
    image, box = draw_retina(shape=(120, 140), radius=55)
    preprocessed, _ = preprocess(image, size_px=512)
    assert abs(len(preprocessed) - (box[2] - box[0])) <= 2


@pytest.mark.parametrize(
    ("shape", "crop", "whole"),
    [((100, 127), True, True), ((100, 128), True, False), ((300, 400), False, True), ((300, 400), True, False)],
)
def test_a_small_image_and_one_that_is_not_to_be_cropped_keep_their_frame(shape, crop, whole):
    image, _ = draw_retina(shape=shape, radius=0.4 * min(shape))
    preprocessed, retina = preprocess(image, size_px=512, crop=crop)
    assert (retina.box == (0, 0, shape[1], shape[0])) == whole
    assert (retina.found is None) == whole
    assert preprocessed.shape == (max(shape),) * 2 + (3,) or not whole
    assert not whole or quality.flags(retina, {"brightness": 0.0, "sharpness": 0.0}) == []


def test_flags_warn_about_poor_quality():
    retina = fundus.Retina((0, 0, 10, 10), True, (0, 0, 0))
    assert quality.flags(retina, {"brightness": 100.0, "sharpness": 5.0}) == []
    assert quality.flags(retina, {"brightness": 5.0, "sharpness": 0.5}) == ["too_dark", "blurred"]
    assert quality.flags(retina, {"brightness": 240.0, "sharpness": 5.0}) == ["too_bright"]


def cap(away):
    """The area fraction of a disc beyond a line at this distance from its centre, in radii."""
    return (np.arccos(away) - away * np.sqrt(1 - away**2)) / np.pi


@pytest.mark.parametrize(
    ("where", "cut_off"),
    [
        ({}, 0.0),
        ({"flat": 0.4}, 2 * cap(0.6)),  # by the camera's mask, inside of the frame
        ({"centre": (0.6 * 160, 180)}, cap(0.6)),  # by the frame, on the left
        ({"centre": (0.3 * 160, 180)}, cap(0.3)),
    ],
)
def test_cut_off_is_the_part_of_the_circle_outside_the_frame(where, cut_off):
    image, _ = draw_retina(shape=(360, 480), radius=160, **where)
    retina = fundus.find_retina(image)
    assert retina.cut_off == pytest.approx(cut_off, abs=0.03)
    assert ("cut_off" in quality.flags(retina, {"brightness": 100.0, "sharpness": 5.0})) == (cut_off > quality.CUT_OFF)


def test_haze_around_a_retina_is_not_a_larger_circle():
    image, _ = draw_retina(shape=(360, 480), radius=170, flat=0.1)
    y, x = np.mgrid[:360, :480]
    haze = (np.abs(y - 180) < 153) & (np.hypot(x - 240, y - 180) > 168)
    image[haze] = np.maximum(image[haze], 14)
    assert fundus.find_retina(image).cut_off < 0.1


def test_without_a_retina_there_is_no_circle():
    assert fundus.whole_frame(np.zeros((200, 200, 3), np.uint8)).cut_off is None
    assert fundus.find_retina(np.full((200, 200, 3), 90, np.uint8)).cut_off is None


def test_brightness_is_the_mean_inside_and_blur_lowers_sharpness():
    preprocessed, _ = preprocess(draw_retina(shape=(512, 512), radius=220)[0], size_px=384)
    sharp, blurry = quality.measure(preprocessed), quality.measure(cv2.GaussianBlur(preprocessed, (0, 0), 6))
    assert sharp["sharpness"] > 2 * blurry["sharpness"]
    assert quality.measure(np.full((384, 384, 3), 130, np.uint8)) == {"brightness": 130.0, "sharpness": 0.0}
    assert quality.measure(np.zeros((384, 384, 3), np.uint8)) == {"brightness": 0.0, "sharpness": 0.0}


# --- decoding -------------------------------------------------------------------------------------

IMAGE, _ = draw_retina(shape=(90, 140), radius=44)
GREY = cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY)
PIL_IMAGE = Image.fromarray(np.ascontiguousarray(IMAGE[..., ::-1]))


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def with_alpha(kind):
    image = PIL_IMAGE.copy()
    image.putalpha(255)
    return saved(image, kind)


GREY_AS_COLOUR = np.dstack([GREY] * 3)
KINDS = {  # file, what it shows, how far its pixels may be off on average
    "PNG": (saved(PIL_IMAGE, "PNG"), IMAGE, 0),
    "TIFF": (saved(PIL_IMAGE, "TIFF"), IMAGE, 0),
    "TIFF with LZW": (saved(PIL_IMAGE, "TIFF", compression="tiff_lzw"), IMAGE, 0),
    "JPEG": (saved(PIL_IMAGE, "JPEG", quality=95), IMAGE, 3),
    "grey PNG": (saved(PIL_IMAGE.convert("L"), "PNG"), GREY_AS_COLOUR, 1),
    "grey TIFF": (saved(PIL_IMAGE.convert("L"), "TIFF"), GREY_AS_COLOUR, 1),
    "grey JPEG": (saved(PIL_IMAGE.convert("L"), "JPEG", quality=95), GREY_AS_COLOUR, 3),
    "16-bit PNG": (encode(IMAGE.astype(np.uint16) * 257), IMAGE, 0),
    "16-bit grey PNG": (encode(GREY.astype(np.uint16) * 257), GREY_AS_COLOUR, 0),
    "16-bit TIFF": (encode(IMAGE.astype(np.uint16) * 257, ".tiff"), IMAGE, 0),
    "PNG with alpha": (with_alpha("PNG"), IMAGE, 0),
    "TIFF with alpha": (with_alpha("TIFF"), IMAGE, 0),
    "CMYK JPEG": (saved(PIL_IMAGE.convert("CMYK"), "JPEG", quality=95), IMAGE, 3),
    "PNG with a tail": (saved(PIL_IMAGE, "PNG") + b"more" * 100, IMAGE, 0),
    "JPEG with a tail": (saved(PIL_IMAGE, "JPEG", quality=95) + b"more" * 100, IMAGE, 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_usual_kind_of_file_gives_eight_bit_colour(kind):
    data, expected, tolerance = KINDS[kind]
    image = decode(data)
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).mean() <= tolerance


ROTATED = {3: np.rot90(IMAGE, 2), 6: np.rot90(IMAGE, 1), 8: np.rot90(IMAGE, -1)}  # EXIF orientation -> as it is stored


def rotated(kind, orientation, **options):
    exif = Image.Exif()
    exif[274] = orientation
    return saved(Image.fromarray(np.ascontiguousarray(ROTATED[orientation][..., ::-1])), kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", ROTATED)
def test_an_image_rotated_by_exif_comes_upright(kind, orientation):
    image = decode(rotated(kind, orientation))
    assert image.shape == IMAGE.shape
    assert np.abs(image.astype(int) - IMAGE).mean() <= 4


@pytest.mark.parametrize("orientation", ROTATED)
def test_a_rotated_jpeg_decoded_at_a_reduced_size_comes_upright(orientation):
    image = decode(rotated("JPEG", orientation, quality=95), min_side_px=45)
    assert image.shape == (45, 70, 3)
    assert np.abs(image.astype(int) - cv2.resize(IMAGE, (70, 45), interpolation=cv2.INTER_AREA)).mean() <= 4


def png_declaring(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def truncated(data, part):
    return data[: int(part * len(data))]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"id_code,diagnosis\n1,2\n" * 9, "not an image"),
        (png_declaring(100_000, 100_000), "declares more than 150,000,000 pixels"),
        (png_declaring(12_500, 12_500), "declares more than 150,000,000 pixels"),
        *((truncated(saved(PIL_IMAGE, "JPEG"), part), "truncated") for part in (0.3, 0.6, 0.99)),
        *((truncated(saved(PIL_IMAGE, "JPEG", progressive=True), part), "truncated") for part in (0.6, 0.99)),
        *((truncated(saved(PIL_IMAGE, "PNG"), part), "truncated") for part in (0.3, 0.6, 0.99)),
        *((truncated(saved(PIL_IMAGE, "TIFF"), part), "damaged") for part in (0.3, 0.6, 0.99)),
        *(
            (truncated(saved(PIL_IMAGE, "TIFF", compression="tiff_lzw"), part), "its beginning or end")
            for part in (0.3, 0.6)
        ),
        (saved(PIL_IMAGE, "PNG")[:60] + b"\0" * 60 + saved(PIL_IMAGE, "PNG")[120:], "damaged"),
    ],
)
def test_a_file_that_is_no_image_is_refused_in_one_line(data, message, capfd):
    with pytest.raises(UnreadableImage, match=message):
        decode(data)
    assert capfd.readouterr().err.count("\n") <= 1  # libpng has a line of its own


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_jpeg_gives_the_same_box_and_similar_pixels(factor):
    image, _ = draw_retina(shape=(200 * factor, 260 * factor), radius=90 * factor)
    data = encode(image, ".jpeg", cv2.IMWRITE_JPEG_QUALITY, 95)
    reduced = decode(data, min_side_px=200)
    assert reduced.shape == (200, 260, 3)
    whole_box, reduced_box = find_retina(decode(data)).box, find_retina(reduced).box
    assert np.abs(np.subtract(whole_box, np.multiply(reduced_box, factor))).max() <= 2 * factor
    whole, small = (preprocess(p, size_px=128)[0].astype(int) for p in (decode(data), reduced))
    assert np.abs(whole - small).mean() <= 3


@pytest.mark.parametrize(("radius", "frame"), [(700, (400, 500)), (400, (800, 1000)), (250, (1600, 2000))])
def test_a_jpeg_is_decoded_the_finer_the_smaller_its_retina(radius, frame):
    image, _ = draw_retina(shape=(1600, 2000), radius=radius)
    preprocessed, retina, decoded = fundus.decode_and_preprocess(encode(image, ".jpeg"), size_px=256)
    assert decoded.shape == (*frame, 3)
    assert preprocessed.shape == (256, 256, 3)
    assert retina.found


@pytest.mark.parametrize(("kind", "crop"), [(".png", True), (".jpeg", False)])
def test_images_without_a_reduced_scale_or_crop_keep_every_requested_pixel(kind, crop):
    image, _ = draw_retina(shape=(1600, 2000), radius=200)
    preprocessed, _, decoded = fundus.decode_and_preprocess(encode(image, kind), size_px=256, crop=crop)
    assert preprocessed.shape == (256, 256, 3)
    assert decoded.shape == ((1600, 2000, 3) if kind == ".png" else (400, 500, 3))


def test_a_jpeg_with_fewer_pixels_than_requested_is_decoded_once(monkeypatch):
    image, _ = draw_retina(shape=(400, 500), radius=190)
    decoded, read = [], fundus.decode
    monkeypatch.setattr(fundus, "decode", lambda *given, **options: decoded.append(options) or read(*given, **options))
    preprocessed, _, _ = fundus.decode_and_preprocess(encode(image, ".jpeg"), size_px=512)
    assert 370 <= len(preprocessed) <= 390
    assert len(decoded) == 1


def test_a_jpeg_with_something_behind_its_end_is_whole_and_one_without_its_end_is_not():
    data = encode(draw_retina(seed=1)[0], ".jpeg")
    film = b"abc\xff\xdaabc"  # as the film of a telephone's moving image may have
    assert fundus.decode(data + film).shape == fundus.decode(data).shape
    with pytest.raises(UnreadableImage, match="truncated"):
        fundus.decode(data[:-200] + film)
