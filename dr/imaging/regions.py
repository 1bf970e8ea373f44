"""Round regions of an image that differ from its surround. Arrays in, contours out."""

import cv2
import numpy as np

MIN_RETINA_AREA = 0.04  # of the frame; a smaller region is a reflex or text
MIN_ROUNDNESS = 0.9  # of the enclosing circle inside its own box; real discs, flattened or cut off, fill 0.95 and more


def surround_of(image: np.ndarray) -> np.ndarray:
    """-> (3,) float, the colour of the corners."""
    return np.median(np.median(_corner_pixels(image), axis=1), axis=0)


def _corner_pixels(image: np.ndarray) -> np.ndarray:
    """(H, W, channels) -> (4, n, channels), the four corners, 4 % of each side: surround for any disc, even a tightly
    cropped one."""
    height, width = image.shape[:2]
    h, w = max(2, height // 25), max(2, width // 25)
    corners = (image[:h, :w], image[:h, -w:], image[-h:, :w], image[-h:, -w:])
    return np.stack([corner.reshape(-1, image.shape[2]) for corner in corners])


def distance_from(image: np.ndarray, surround: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 and a colour -> (H, W) float32, how surely each pixel differs from the colour, in grey levels.

    The median of the largest difference over the channels, less twice its local deviation: noise counts little, however
    bright it is.
    """
    channels = cv2.split(cv2.absdiff(image, (*np.floor(surround), 0)))
    raw = cv2.max(cv2.max(channels[0], channels[1]), channels[2])  # ten times as fast as numpy's over the last axis
    # two medians of 5 x 5 take a seventh of the time of one of 9 x 9: from 7 x 7 on OpenCV counts histograms
    median = cv2.medianBlur(cv2.medianBlur(raw, 5), 5) if max(raw.shape) >= 128 else cv2.medianBlur(raw, 3)
    return median - 2 * cv2.blur(cv2.absdiff(raw, median).astype(np.float32), (9, 9))


def thresholds(distance: np.ndarray) -> list[float]:
    """(H, W) float32 of `distance_from` -> those that separate a retina, which rise from the noise of the surround."""
    # of the three quietest corners: the fourth may contain text or retina
    noise = np.sort(np.percentile(_corner_pixels(distance[..., None])[..., 0], 98, axis=1))[2]
    level = np.percentile(distance[::2, ::2], 95)
    rising = sorted({max(4.0, 1.5 * noise), *(part * level for part in (0.06, 0.12, 0.2, 0.3, 0.45))})
    return [threshold for threshold in rising if 4.0 <= threshold <= 0.5 * level]


def levels(distance: np.ndarray) -> list[list[np.ndarray]]:
    """(H, W) float32 -> at each threshold the contours of all regions, the largest first."""
    found = []
    for threshold in thresholds(distance):
        found.append(sorted(contours(opened(distance > threshold)), key=cv2.contourArea, reverse=True))
    return found


def round_regions(found: list[list[np.ndarray]], shape: tuple[int, int]) -> list[tuple[float, np.ndarray]]:
    """`levels` of a copy of this shape -> (roundness, contour) of the largest region at each threshold. Empty if even
    the roundest is not round."""
    regions = [(roundness(level[0], shape), level[0]) for level in found if level]
    best = max((value for value, _ in regions), default=0.0)
    return regions if best >= MIN_ROUNDNESS else []


def opened(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool -> uint8 0 or 1: holes filled, thin parts (text, a notch) opened away."""
    side = max(5, round(0.05 * max(mask.shape)) | 1)
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), side, side, side, side, cv2.BORDER_REPLICATE)
    cv2.drawContours(padded, contours(padded), -1, 1, cv2.FILLED)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))  # separable; a disc loses a pixel at each pole
    return cv2.morphologyEx(padded, cv2.MORPH_OPEN, kernel)[side:-side, side:-side]


def contours(mask: np.ndarray) -> list[np.ndarray]:
    """(H, W) uint8 0 or 1 -> the outer contour of each region."""
    return list(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0])


def roundness(contour: np.ndarray, shape: tuple[int, int]) -> float:
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
