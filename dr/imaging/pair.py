"""Frames that show two retinas side by side: both eyes, or a stereo pair of one. Arrays in, boxes out."""

from typing import NamedTuple

import cv2
import numpy as np

from dr.imaging.regions import contours, roundness

MIN_ASPECT = 1.35  # of two discs that touch; one retina is wider only where its top and bottom are cut off
WAIST = 0.85  # of the height of the discs, where they touch
MIDDLE = (0.35, 0.65)  # where the waist is, as shares of their width
# of the sum of both radii: the distance between the centres. The halves of one retina behind a dark band share a centre
MIN_DISTANCE = 0.75
MIN_RATIO = 0.7  # of the radii
MIN_PAIR_ROUNDNESS = 0.85  # lower than that of a single retina: where two touch, the fit is worse


class Split(NamedTuple):
    """The place between two retinas: along axis 0 the column, along axis 1 the row."""

    axis: int
    place: int


def find_split(found: list[list[np.ndarray]], shape: tuple[int, int]) -> Split | None:
    """`regions.levels` of a copy of this shape -> the place between two retinas, None without them."""
    return next((split for level in found if level and (split := _split(level, shape))), None)


def _split(level: list[np.ndarray], shape: tuple[int, int]) -> Split | None:
    """The contours at one threshold, the largest first -> the place between two discs, None without them."""
    if len(level) > 1 and (axis := _axis(level[0], level[1], shape)) is not None:
        boxes = [cv2.boundingRect(contour) for contour in level[:2]]
        (first, extent), (second, _) = sorted((box[axis], box[axis + 2]) for box in boxes)
        return Split(axis, (first + extent + second) // 2)
    x, y, w, h = cv2.boundingRect(level[0])
    if max(w, h) < MIN_ASPECT * min(w, h):
        return None
    region = np.zeros((h, w), np.uint8)
    cv2.drawContours(region, level[:1], -1, 1, cv2.FILLED, offset=(-x, -y))
    axis = 0 if w > h else 1
    place = _waist(region if axis == 0 else np.ascontiguousarray(region.T), shape)
    return None if place is None else Split(axis, place + (x, y)[axis])


def _waist(region: np.ndarray, shape: tuple[int, int]) -> int | None:
    """(h, w) uint8 0 or 1, one region that fills its box -> the column where two discs touch, None without them."""
    heights = region.sum(axis=0, dtype=int)
    start, stop = (round(share * len(heights)) for share in MIDDLE)
    place = start + int(np.argmin(heights[start:stop]))
    if heights[place] > WAIST * min(heights[:place].max(), heights[place:].max()):
        return None
    region[:, place] = 0
    parts = sorted(contours(region), key=cv2.contourArea, reverse=True)[:2]
    return place if len(parts) == 2 and _axis(*parts, shape) == 0 else None


def _axis(a: np.ndarray, b: np.ndarray, shape: tuple[int, int]) -> int | None:
    """Two contours of discs of similar size -> 0 if they are side by side, 1 if one is above the other, else None."""
    ((ax, ay), ar), ((bx, by), br) = cv2.minEnclosingCircle(a), cv2.minEnclosingCircle(b)
    across, down = abs(ax - bx), abs(ay - by)
    apart = max(across, down) >= MIN_DISTANCE * (ar + br) and min(across, down) <= min(ar, br)
    if not apart or min(ar, br) < MIN_RATIO * max(ar, br):
        return None
    if min(roundness(a, shape), roundness(b, shape)) < MIN_PAIR_ROUNDNESS:
        return None
    return 0 if across >= down else 1
