"""Where the retina is in a fundus image: the roundest region that differs from the surround. Arrays in, a box out."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from dr.imaging import border, pair
from dr.imaging.border import Box
from dr.imaging.regions import MIN_RETINA_AREA, MIN_ROUNDNESS, distance_from, levels, round_regions, surround_of

WORKING_SIDE_PX = 384  # the retina is searched on a copy of this size
ROUNDNESS_TOLERANCE = 0.02  # smaller differences count as equal
ROUNDER, LARGER = 0.03, 1.25  # differences of roundness, and ratios of areas, that a bar at the border makes
SINGLE = 0.97  # roundness of one retina; two that touch have less
HAZE = 0.7  # of the region; a retina within haze fills more
RIM_REACH = 0.03  # of the disc: the blur of a rim extends no farther
RIM_LIGHT = 0.25  # of the light just inside the rim; one half would be the middle of the blur


@dataclass(frozen=True)
class Retina:
    """Where the retina is.

    `box`: in pixels of the image. `found`: False if nothing resembles a retina and the box is
    the whole frame, None if none was searched. `surround`: the (B, G, R) colour outside the retina. `cut_off`: the part
    of the retina's circle, 0..1, outside the frame or the camera's mask, None if no retina was found. `halves`: of a
    frame with two retinas, the left and the right (or upper and lower) half; `box` is then that of one of them.
    """

    box: Box
    found: bool | None
    surround: tuple[int, int, int]
    cut_off: float | None = None
    halves: tuple[Box, Box] | None = None


def whole_frame(image: np.ndarray) -> Retina:
    """(H, W, 3) uint8 BGR -> the whole frame, without a search for the retina."""
    height, width = image.shape[:2]
    return Retina((0, 0, width, height), None, tuple(int(v) for v in surround_of(image)))


def find_retina(image: np.ndarray) -> Retina:
    """(H, W, 3) uint8 BGR -> where the retina is, one box for all channels.

    The colour of the surround is that of the corners, or black if the retina extends into the corners. If no retina is
    found, it is searched again without lines and bars at the border.
    """
    small, shown = _working_copy(image)
    inner, found = (0, 0, small.shape[1], small.shape[0]), _search(small)
    for white in (False, True):
        if found.split is not None or (white and found.contour is not None):
            break
        for box in border.inner_boxes(small, white=white, skewed=found.contour is None):
            inside = _search(small[box[1] : box[3], box[0] : box[2]])
            if inside.fills(MIN_RETINA_AREA * small[..., 0].size) and inside.better_than(found):
                inner, found = box, inside
                break
    scale = (shown[0] / small.shape[1], shown[1] / small.shape[0])
    halves = None if found.split is None else _halves(image, found.split, origin=inner[:2], scale=scale)
    colour = tuple(int(v) for v in found.surround)
    if found.contour is None:
        return replace(whole_frame(image), found=False, surround=colour, halves=halves)
    x0, y0, x1, y1 = np.add(_rim(found.contour, found.distance), inner[:2] * 2).tolist()
    sx, sy = scale
    box = (int(x0 * sx), int(y0 * sy), math.ceil(x1 * sx), math.ceil(y1 * sy))
    return Retina(box, True, colour, _cut_off(found.regions, found.contour), halves)


class _Found(NamedTuple):
    """The retina in a working copy: `contour` None without one, `regions` and `distance` at which it was found; where
    two retinas are split."""

    surround: np.ndarray
    distance: np.ndarray
    regions: list[tuple[float, np.ndarray]]
    contour: np.ndarray | None
    split: pair.Split | None

    def fills(self, area: float) -> bool:
        """Whether the retina, or two of them, has an area of this many pixels at least."""
        return self.split is not None or (self.contour is not None and cv2.contourArea(self.contour) >= area)

    def better_than(self, other: "_Found") -> bool:
        """Whether this is rounder, or as round and larger: where a bar touches the retina, a bright part of it is
        round enough to be found."""
        if self.contour is None or other.contour is None:
            return other.contour is None and (self.contour is not None or self.split is not None)
        mine, others = (max(roundness for roundness, _ in each.regions) for each in (self, other))
        larger = cv2.contourArea(self.contour) > LARGER * cv2.contourArea(other.contour)
        return mine > others + ROUNDER or (larger and mine > others - ROUNDNESS_TOLERANCE)


def _search(small: np.ndarray) -> _Found:
    """(H, W, 3) uint8 -> what it shows."""
    surround = surround_of(small)
    split = None
    for colour in [surround] if surround.max() < 16 else [surround, np.zeros(3)]:
        distance = distance_from(small, colour)
        found = levels(distance)
        regions = round_regions(found, distance.shape)
        contour = _roundest(regions)
        split = split or _split_of(found, regions, contour, distance.shape)
        if contour is not None:
            return _Found(colour, distance, regions, contour, split)
    return _Found(surround, distance, [], None, split)


def _split_of(
    found: list[list[np.ndarray]],
    regions: list[tuple[float, np.ndarray]],
    contour: np.ndarray | None,
    shape: tuple[int, int],
) -> pair.Split | None:
    """Where two retinas are split. None also if one retina, as round as a single one is, extends over the place: dark
    and bright parts of it may be round as well."""
    split = pair.find_split(found, shape)
    if split is None or contour is None or max(roundness for roundness, _ in regions) < SINGLE:
        return split
    places = contour[:, 0, split.axis]
    reach = (places.max() - places.min()) / 4
    return None if places.min() + reach < split.place < places.max() - reach else split


def _halves(
    image: np.ndarray, split: pair.Split, *, origin: tuple[int, int], scale: tuple[float, float]
) -> tuple[Box, Box]:
    """The halves of a frame, split at a place of its working copy."""
    height, width = image.shape[:2]
    place = round((split.place + origin[split.axis]) * scale[split.axis])
    if split.axis == 0:
        return (0, 0, place, height), (place, 0, width, height)
    return (0, 0, width, place), (0, place, width, height)


def _working_copy(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """(H, W, 3) -> a copy with a longer side of at most WORKING_SIDE_PX, and the (width, height) that it shows: the
    image without the last rows and columns that fill no pixel of the copy. Averages whole pixels first, which is fast,
    then interpolates."""
    height, width = image.shape[:2]
    scale = WORKING_SIDE_PX / max(height, width)
    if scale >= 1:
        return image, (width, height)
    factor = min(max(height, width) // WORKING_SIDE_PX, height, width)
    across, down = width // factor, height // factor
    shown = (factor * across, factor * down)
    whole = cv2.resize(image[: shown[1], : shown[0]], (across, down), interpolation=cv2.INTER_AREA)
    return cv2.resize(whole, (max(1, round(scale * width)), max(1, round(scale * height)))), shown


def _roundest(regions: list[tuple[float, np.ndarray]]) -> np.ndarray | None:
    """-> the roundest contour, None without regions. Of equally round ones, that of the lowest threshold: a dark rim
    stays inside, noise and text stay outside."""
    best = max((roundness for roundness, _ in regions), default=0.0)
    return next((contour for roundness, contour in regions if roundness >= best - ROUNDNESS_TOLERANCE), None)


def _rim(contour: np.ndarray, distance: np.ndarray) -> tuple[int, int, int, int]:
    """A retina's contour -> its box (x0, y0, x1, y1).

    A low threshold includes the blur of the rim. Each side moves inwards, by RIM_REACH at most, to the first place with
    RIM_LIGHT of the light within that reach.
    """
    sides = []
    for axis in (0, 1):
        places, across = contour[:, 0, axis], distance if axis == 0 else distance.T
        low, high = int(places.min()), int(places.max())
        reach, width = max(2, round(RIM_REACH * (high - low))), max(2, (high - low) // 30)
        for side, inwards in ((low, 1), (high, -1)):
            outermost = int(np.median(contour[places == side, 0, 1 - axis]))
            band = across[max(0, outermost - width) : outermost + width + 1]
            profile = np.median(band[:, side + inwards * np.arange(reach)], axis=0)
            sides.append(side + inwards * int(np.argmax(profile >= RIM_LIGHT * profile.max())))
    x0, x1, y0, y1 = sides
    return x0, y0, x1 + 1, y1 + 1


def _cut_off(regions: list[tuple[float, np.ndarray]], contour: np.ndarray) -> float:
    """Round regions, one of them the retina -> the part of its circle that is cut off, 0..1.

    The minimum over all regions that are not much smaller: haze around a retina makes the circle of a low threshold too
    large.
    """
    smallest = HAZE * cv2.contourArea(contour)
    return min(
        _outside(other)
        for roundness, other in regions
        if other is contour or (roundness >= MIN_ROUNDNESS and cv2.contourArea(other) >= smallest)
    )


def _outside(contour: np.ndarray) -> float:
    """A contour -> the part of its enclosing circle outside its box, 0..1."""
    (cx, cy), radius = cv2.minEnclosingCircle(contour)
    x, y, w, h = cv2.boundingRect(contour)
    left, right, top, bottom = np.array([cx - x, x + w - cx, cy - y, y + h - cy]) / max(radius, 1.0)
    down = np.linspace(-1, 1, 121)
    half = np.sqrt(1 - down**2)  # of the circle's chord in each row
    inside = np.where((down >= -top) & (down <= bottom), np.minimum(half, left) + np.minimum(half, right), 0)
    return float(1 - inside.sum() / (2 * half.sum()))
