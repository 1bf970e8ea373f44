"""Lines, bars and captions at the border do not hide the retina; two retinas in one frame are recognised."""

import cv2
import numpy as np
import pytest
from conftest import draw_retina

from dr.imaging import quality
from dr.imaging.retina import find_retina

SHAPE = (400, 600)


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) * 2


def framed(image, px, colour, *, inset=0):
    cv2.rectangle(image, (inset, inset), (SHAPE[1] - 1 - inset, SHAPE[0] - 1 - inset), colour, 2 * px - 1)
    image[:inset] = image[len(image) - inset :] = 0
    return image


@pytest.mark.parametrize("px", [1, 3, 10, 40])
@pytest.mark.parametrize("colour", [(255, 255, 255), (128, 128, 128), (30, 160, 220)])
def test_a_frame_does_not_hide_the_retina(px, colour):
    image, box = draw_retina(shape=SHAPE, radius=0.49 * SHAPE[0])
    retina = find_retina(framed(image, px, colour))
    box = tuple(np.clip(box, px, (SHAPE[1] - px, SHAPE[0] - px) * 2))
    assert retina.found
    assert overlap(retina.box, box) > 0.95
    assert retina.surround == (0, 0, 0)


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("px", [5, 40, 90])
@pytest.mark.parametrize("text", [False, True])
def test_a_bar_or_a_caption_at_any_side_does_not_hide_the_retina(px, side, text):
    image, (x0, y0, x1, y1) = draw_retina(shape=SHAPE, radius=190)
    bar = np.full((px, SHAPE[1], 3), 200, np.uint8)
    if text:
        cv2.putText(bar, "OD 45 degrees 2015-03-02", (10, px - px // 3), 0, px / 60, (20, 20, 20), 1)
    image = np.ascontiguousarray(np.rot90(np.vstack([image, bar]), side))
    height, width = SHAPE[0] + px, SHAPE[1]
    boxes = [(x0, y0, x1, y1), (y0, width - x1, y1, width - x0),
             (width - x1, height - y1, width - x0, height - y0), (height - y1, x0, height - y0, x1)]  # fmt: skip
    retina = find_retina(image)
    assert retina.found
    assert overlap(retina.box, boxes[side]) > 0.95


@pytest.mark.parametrize("degrees", [0, 1, 2])
def test_a_scan_on_white_paper_is_cropped_to_the_retina(degrees):
    image, box = draw_retina(shape=SHAPE, radius=180)
    scan = cv2.copyMakeBorder(image, 70, 70, 70, 70, cv2.BORDER_CONSTANT, value=(250, 250, 250))
    turn = cv2.getRotationMatrix2D((scan.shape[1] / 2, scan.shape[0] / 2), degrees, 1)
    scan = cv2.warpAffine(scan, turn, scan.shape[1::-1], borderValue=(250, 250, 250))
    retina = find_retina(scan)
    assert retina.found
    assert overlap(retina.box, np.add(box, 70)) > 0.93


# --- two retinas ------------------------------------------------------------------------------------


def two(*, gap=0, cut=0.0, flat=0.0):
    """Two discs side by side, `cut` of their radius cut off where they meet."""
    shape = (300, round(280 * (1 - cut)) + gap)
    return np.hstack([draw_retina(shape=shape, radius=140, flat=flat, seed=seed)[0] for seed in (1, 2)])


@pytest.mark.parametrize(
    "options", [{"gap": 60}, {"gap": 4}, {}, {"cut": 0.1}, {"cut": 0.2}, {"gap": 20, "flat": 0.2}], ids=str
)
@pytest.mark.parametrize("place", ["side by side", "one above the other", "in a square"])
def test_two_retinas_are_split_between_them(options, place):
    image = two(**options)
    width = image.shape[1]
    if place == "in a square":
        image = cv2.copyMakeBorder(image, 0, width - len(image), 0, 0, cv2.BORDER_CONSTANT)
    if place == "one above the other":
        image = np.ascontiguousarray(image.transpose(1, 0, 2))
    retina = find_retina(image)
    axis = int(place == "one above the other")
    first, second = retina.halves
    assert first[axis + 2] == second[axis] == pytest.approx(width / 2, abs=5)
    assert max(first[2], second[2]) == image.shape[1]
    assert quality.TWO_RETINAS in quality.flags(retina, {"brightness": 100.0, "sharpness": 9.0})


def test_two_retinas_inside_a_white_frame_are_split():
    image = two(gap=40)
    image[:4] = image[-4:] = 255
    image[:, :4] = image[:, -4:] = 255
    assert find_retina(image).halves[0][2] == pytest.approx(image.shape[1] / 2, abs=5)


@pytest.mark.parametrize("width", [2, 10, 30, 80])
@pytest.mark.parametrize("offset", [-60, 0, 40])
@pytest.mark.parametrize("flat", [0.0, 0.4])
def test_one_retina_with_a_dark_band_is_one(width, offset, flat):
    image, _ = draw_retina(shape=(360, 560), radius=170 / (1 - flat), flat=flat)
    start = image.shape[1] // 2 + offset
    image[:, start : start + width] = image[:, start : start + width] // 4
    assert find_retina(image).halves is None
    image[:, start : start + width] = 0
    assert find_retina(image).halves is None


def test_one_retina_with_text_or_a_bright_optic_disc_is_one():
    image, _ = draw_retina(shape=(360, 640), radius=150, centre=(180, 180))
    cv2.putText(image, "OD", (420, 220), 0, 4, (255, 255, 255), 8)
    assert find_retina(image).halves is None
    zoomed = cv2.circle(np.full((360, 640, 3), (40, 60, 150), np.uint8), (330, 180), 90, (150, 220, 250), cv2.FILLED)
    assert find_retina(zoomed).halves is None
