"""Where the retina is in a fundus image: the roundest region that differs from the surround. Arrays in, a box out."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

WORKING_SIDE_PX = 384  # the retina is searched on a copy of this size
MIN_RETINA_AREA = 0.04  # of the frame; a smaller region is a reflex or text
MIN_ROUNDNESS = 0.9  # of the enclosing circle inside its own box; real discs, flattened or cut off, fill 0.95 and more
ROUNDNESS_TOLERANCE = 0.02  # smaller differences count as equal
HAZE = 0.7  # of the region; a retina within haze fills more
RIM_REACH = 0.03  # of the disc: the blur of a rim extends no farther
RIM_LIGHT = 0.25  # of the light just inside the rim; one half would be the middle of the blur


@dataclass(frozen=True)
class Retina:
    """Where the retina is.

    `box`: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive. `found`: False if nothing resembles a retina and the box is
    the whole frame, None if none was searched. `surround`: the (B, G, R) colour outside the retina. `cut_off`: the part
    of the retina's circle, 0..1, outside the frame or the camera's mask, None if no retina was found.
    """

    box: tuple[int, int, int, int]
    found: bool | None
    surround: tuple[int, int, int]
    cut_off: float | None = None


def whole_frame(image: np.ndarray) -> Retina:
    """(H, W, 3) uint8 BGR -> the whole frame, without a search for the retina."""
    height, width = image.shape[:2]
    return Retina((0, 0, width, height), None, tuple(int(v) for v in _surround(image)))


def find_retina(image: np.ndarray) -> Retina:
    """(H, W, 3) uint8 BGR -> where the retina is, one box for all channels.

    The colour of the surround is that of the corners, or black if the retina extends into the corners.
    """
    height, width = image.shape[:2]
    small, shown = _working_copy(image)
    surround = _surround(small)
    for colour in [surround] if surround.max() < 16 else [surround, np.zeros(3)]:
        distance = _distance(small, colour)
        regions = _round_regions(distance)
        contour = _roundest(regions)
        if contour is not None:
            x0, y0, x1, y1 = _rim(contour, distance)
            sx, sy = shown[0] / small.shape[1], shown[1] / small.shape[0]
            box = (int(x0 * sx), int(y0 * sy), math.ceil(x1 * sx), math.ceil(y1 * sy))
            return Retina(box, True, tuple(int(v) for v in colour), _cut_off(regions, contour))
    return Retina((0, 0, width, height), False, tuple(int(v) for v in surround))


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


def _surround(image: np.ndarray) -> np.ndarray:
    """-> (3,) float, the colour of the corners."""
    return np.median(np.median(_corner_pixels(image), axis=1), axis=0)


def _corner_pixels(image: np.ndarray) -> np.ndarray:
    """(H, W, channels) -> (4, n, channels), the four corners, 4 % of each side: surround for any disc, even a tightly
    cropped one."""
    height, width = image.shape[:2]
    h, w = max(2, height // 25), max(2, width // 25)
    corners = (image[:h, :w], image[:h, -w:], image[-h:, :w], image[-h:, -w:])
    return np.stack([corner.reshape(-1, image.shape[2]) for corner in corners])


def _distance(image: np.ndarray, surround: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 and a colour -> (H, W) float32, how surely each pixel differs from the colour, in grey levels.

    The median of the largest difference over the channels, less twice its local deviation: noise counts little, however
    bright it is.
    """
    channels = cv2.split(cv2.absdiff(image, (*np.floor(surround), 0)))
    raw = cv2.max(cv2.max(channels[0], channels[1]), channels[2])  # ten times as fast as numpy's over the last axis
    # two medians of 5 x 5 take a seventh of the time of one of 9 x 9: from 7 x 7 on OpenCV counts histograms
    median = cv2.medianBlur(cv2.medianBlur(raw, 5), 5) if max(raw.shape) >= 128 else cv2.medianBlur(raw, 3)
    return median - 2 * cv2.blur(cv2.absdiff(raw, median).astype(np.float32), (9, 9))


def _round_regions(distance: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """(H, W) float32 -> (roundness, contour) at thresholds that rise from the noise of the surround. Empty if even the
    roundest is not round."""
    # of the three quietest corners: the fourth may contain text or retina
    noise = np.sort(np.percentile(_corner_pixels(distance[..., None])[..., 0], 98, axis=1))[2]
    level = np.percentile(distance[::2, ::2], 95)
    regions = []
    for threshold in sorted({max(4.0, 1.5 * noise), *(part * level for part in (0.06, 0.12, 0.2, 0.3, 0.45))}):
        if 4.0 <= threshold <= 0.5 * level:
            contour = _largest_region((distance > threshold).astype(np.uint8))
            if contour is not None:
                regions.append((_roundness(contour, distance.shape), contour))
    best = max((roundness for roundness, _ in regions), default=0.0)
    return regions if best >= MIN_ROUNDNESS else []


def _largest_region(mask: np.ndarray) -> np.ndarray | None:
    """(H, W) uint8 0 or 1 -> contour of the largest region, holes filled, thin parts (text, a notch) opened away."""
    side = max(5, round(0.05 * max(mask.shape)) | 1)
    padded = cv2.copyMakeBorder(mask, side, side, side, side, cv2.BORDER_REPLICATE)
    contours, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(padded, contours, -1, 1, cv2.FILLED)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))  # separable; a disc loses a pixel at each pole
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, kernel)[side:-side, side:-side]
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return max(contours, key=cv2.contourArea, default=None)


def _roundness(contour: np.ndarray, shape: tuple[int, int]) -> float:
    """How much a region resembles a retina, 0..1: the part that it fills of its enclosing circle inside its own box.

    High for discs, flattened and cut-off ones included. 0 for a region that is too small, or that fills two corners of
    its box (a frame or a band of noise).
    """
    if cv2.contourArea(contour) < MIN_RETINA_AREA * shape[0] * shape[1]:
        return 0.0
    x, y, w, h = cv2.boundingRect(contour)
    region, disc = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
    cv2.drawContours(region, [contour], -1, 1, cv2.FILLED, offset=(-x, -y))
    (cx, cy), radius = cv2.minEnclosingCircle(contour)
    cv2.circle(disc, (round(cx - x), round(cy - y)), round(radius), 1, cv2.FILLED)
    if (_corner_pixels(region[..., None]).mean(axis=(1, 2)) > 0.5).sum() > 1:
        return 0.0
    return float((region & disc).sum() / disc.sum())


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
