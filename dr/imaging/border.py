"""Lines, bars and captions at the border of an image, and the margin of a scanned one. Arrays in, boxes out."""

import cv2
import numpy as np

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive
FILLED = 0.95  # of a part of a row that has one colour, apart from text
TOLERANCE = 24  # grey levels within one colour, at most half of its contrast
LEAST_CONTRAST = 10  # grey levels: a line of one pixel fades in a copy of a tenth of the size
WITHOUT_TEXT = 0.4  # of the rows of a caption
BAR_REACH = 0.3  # of the frame: the depth of a bar or margin
LINE_REACH, THIN = 0.15, 0.04  # of the frame: where a line inside of the edge is searched, and how thick it may be
BLUR = 2  # pixels beside a bar that are neither bar nor surround
SKEW = 0.04  # of the frame: a scan turned by two degrees
STEP = 4  # every fourth pixel of a row is read
SMALLEST = 32  # pixels: a smaller image has no border
WHITE_PERCENTILE, WHITE = 85, 200  # of the pixels, and the grey level of a white surround
DARK_PERCENTILE = 10  # of the pixels: the level of a dark surround


def inner_boxes(image: np.ndarray, *, white: bool = False, skewed: bool = False) -> list[Box]:
    """(H, W, 3) uint8 -> the box without the bars at the border of a dark or `white` surround, and with `skewed` a
    smaller one for bars of a skewed scan. Empty if there are none."""
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        return []
    extreme = cv2.min if white else cv2.max
    grey = extreme(extreme(image[..., 0], image[..., 1]), image[..., 2])  # NumPy takes 20 times as long
    if white and np.percentile(grey[::STEP, ::STEP], WHITE_PERCENTILE) < WHITE:
        return []
    corners = [np.median(part) for part in (grey[:8, :8], grey[:8, -8:], grey[-8:, :8], grey[-8:, -8:])]
    surround = 255.0 if white else min(*corners, np.percentile(grey[::STEP, ::STEP], DARK_PERCENTILE))
    bars = np.array([*_bars(grey.T, surround), *_bars(grey, surround)])  # left, right, top, bottom
    boxes = []
    for skew in (0, SKEW) if skewed else (0,):
        more = (bars > 0) * [round(skew * side) for side in (width, width, height, height)]
        left, right, top, bottom = (bars + more).tolist()
        box = (left, top, width - right, height - bottom)
        if bars.any() and box[2] - box[0] > width // 3 and box[3] - box[1] > height // 3:
            boxes.append(box)
    return boxes


def _bars(grey: np.ndarray, surround: float) -> tuple[int, int]:
    """Rows to leave out at the top and at the bottom of (H, W)."""
    height, width = grey.shape
    tenth = max(1, width // 10)
    whole, middle, ends = np.r_[:width:STEP], np.r_[tenth : width - tenth : STEP], np.r_[:tenth, -tenth:0]
    deep, shallow, few = (max(1, round(share * height)) for share in (BAR_REACH, LINE_REACH, THIN))
    found = []
    for rows in (grey, grey[::-1]):
        bar = _edge_run(*_levels(rows[:deep, whole], surround))
        line = _inner_line(*_levels(rows[:shallow, middle], surround), most=few)
        # a line of a few pixels, mixed with a retina that touches it: its ends
        thin = _edge_run(*_levels(rows[:few, ends], surround))
        innermost = max(bar, line, thin)
        found.append(innermost + BLUR if innermost else 0)
    return found[0], found[1]


def _levels(rows: np.ndarray, surround: float) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) uint8 -> (H,) bool, whether a row has one level other than that of the surround, and (H,) float32, the
    contrast of its median."""
    rows = rows.astype(np.float32)
    level = np.median(rows, axis=1)
    contrast = np.abs(level - surround)
    tolerance = np.minimum(TOLERANCE, contrast / 2)
    filled = (np.abs(rows - level[:, None]) <= tolerance[:, None]).mean(axis=1) >= FILLED
    return filled & (contrast > LEAST_CONTRAST), contrast


def _edge_run(bar: np.ndarray, _: np.ndarray) -> int:
    """`_levels` from the edge inwards -> the rows of a bar that begins at the edge, apart from text."""
    if not bar[:2].any():
        return 0
    share = np.cumsum(bar) / np.arange(1, len(bar) + 1)
    return int(np.flatnonzero(bar & (share >= WITHOUT_TEXT))[-1:].sum()) + 1


def _inner_line(bar: np.ndarray, contrast: np.ndarray, *, most: int) -> int:
    """`_levels` from the edge inwards -> the rows up to the end of the innermost line of at most `most` rows that has
    surround on both sides: rows of a retina have retina."""
    edges = np.flatnonzero(np.diff(np.r_[0, bar.astype(np.int8), 0])).tolist()
    innermost = 0
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        limit = contrast[start:end].max() / 3
        before, after = contrast[: max(0, start - BLUR)][-1:], contrast[end + BLUR :][:1]
        if end - start <= most and len(after) and max([*before, *after]) < limit:
            innermost = end
    return innermost
