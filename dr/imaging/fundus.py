"""One photograph: decode, find the retina, crop, square, shrink, quality. Arrays in, arrays out; nothing is opened."""

import io
import math
import re
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # but those that stand within what a scan has coded
MAX_PIXELS = 150_000_000  # 450 MB decoded; retina cameras stay below 50 megapixels
SMALL_PX = 128  # a picture whose longest side is shorter was cropped before it was shrunk, and has no pixel to lose
WORKING_SIDE_PX = 384  # the retina is looked for on a copy of this size
# pixels of a JPEG that are decoded for each one kept, along a side: averaging fewer blurs. Ten camera originals keep 91
# to 102 % of the sharpness that decoding all of them leaves at 512 px, with 2.0 in its place 97 to 102 %
DECODED = 1.5
MIN_RETINA_AREA = 0.04  # of the frame; below it what was found is a reflex or text, not a retina
MIN_ROUNDNESS = 0.9  # of the enclosing circle inside its own box; real discs, flat or cut, fill 0.95 and more
AS_ROUND = 0.02  # roundness may differ by so much and count as equal
HAZE = 0.7  # of what was found; a retina within haze fills more than this
RIM_REACH = 0.03  # of the disc: a blurred rim is smeared no farther than this
RIM_LIGHT = 0.25  # of the light just inside the rim; the half of it would be the middle of the smear

# Flags. 2,902 real photographs have a brightness of 109 to 190 and a sharpness of 2.2 to 32: what is marked is worse
TOO_DARK = 45.0  # mean grey level inside the retina, 0..255; the darkest of ten camera originals has 54
TOO_BRIGHT = 215.0
CUT_OFF = 0.2  # of the circle of the retina; of those 2,902 the median is 0.05, the 99th percentile 0.15, 4 are above
# mean absolute Laplacian inside the retina after resizing to 384 px, in grey levels: Gaussian blur with a deviation of
# 1 % of the side brings all of ten camera originals, and nine in ten of the others, below; two hazy ones are already
BLURRED = 2.0

_set_log_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # OpenCV 4, 5


class UnreadableImage(Exception):  # noqa: N818  (it names the photograph's state)
    """The bytes are not a photograph that can be used; the text says why."""


@dataclass(frozen=True)
class Retina:
    """Where the retina is: box (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; `found` is False when it is the whole
    frame because nothing retina-like stood out, None when nobody looked; `surround` is the (B, G, R) colour outside
    the retina; `cut_off` is the part of its circle, 0..1, that the frame or the camera's mask has cut off, None where
    it was not found."""

    box: tuple[int, int, int, int]
    found: bool | None
    surround: tuple[int, int, int]
    cut_off: float | None = None


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels as the header declares them, without decoding. Raises UnreadablePhotograph."""
    if not data:
        raise UnreadableImage("the file is empty")
    too_large = UnreadableImage(f"it declares more than {MAX_PIXELS:,} pixels, far more than a photograph has")
    try:
        with warnings.catch_warnings():  # of damaged EXIF data, and of half the size that Pillow refuses
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as header:
                width, height = header.size
    except Image.DecompressionBombError as exc:
        raise too_large from exc
    except Exception as exc:  # Pillow's plug-ins raise OSError, SyntaxError, struct.error and more on bad headers
        raise UnreadableImage("it is not an image, or its beginning or end is missing") from exc
    if width * height > MAX_PIXELS:
        raise too_large
    return width, height


def _truncated(data: bytes) -> bool:
    """True when a JPEG or PNG lacks its end marker: OpenCV would fill the missing part with grey and say nothing."""
    if data[:2] == b"\xff\xd8":
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") and not _jpeg_ends(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND\xaeB`\x82" not in data  # the end chunk and its checksum
    return False


def _jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG's marker for its end (EOI, ITU-T T.81 B.1.1.3) follows its last scan; what stands behind it, as
    the film of a telephone's moving picture, and within a segment, as a thumbnail, does not count."""
    place = 2
    while match := JPEG_MARKER.search(data, place):
        marker, place = data[match.end() - 1], match.end()
        if marker == 0xD9:
            return True
        if marker != 0x01:  # all others have a length
            place += int.from_bytes(data[place : place + 2], "big")
    return False


def decode(data: bytes, *, min_side_px: int | None = None) -> np.ndarray:
    """Bytes of a JPEG, PNG or TIFF -> (H, W, 3) uint8 BGR, upright by EXIF, 16-bit, grey, alpha and CMYK converted.

    With `min_side_px`, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling) as long as its shorter side keeps
    that many pixels. Raises UnreadablePhotograph.
    """
    width, height = size_of(data)
    if _truncated(data):
        raise UnreadableImage("it is truncated: its end is missing")
    _set_log_level(0)  # silent: the reason is ours to tell, in one line
    flag = cv2.IMREAD_COLOR
    if min_side_px is not None and data[:2] == b"\xff\xd8":
        reduced = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
        factors = [factor for factor in reduced if min(width, height) >= factor * min_side_px]
        flag = reduced[max(factors)] if factors else flag
    try:
        photo = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as exc:
        raise UnreadableImage("it is damaged: it cannot be decoded") from exc
    if photo is None:
        raise UnreadableImage("it is damaged: it cannot be decoded")
    return photo


def _distance(photo: np.ndarray, surround: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 and a colour -> (H, W) float32, how surely each place differs from it, in grey levels: the median
    of the largest difference over the channels less twice its local deviation, so that noise, however bright, counts
    little."""
    channels = cv2.split(cv2.absdiff(photo, (*np.floor(surround), 0)))
    raw = cv2.max(cv2.max(channels[0], channels[1]), channels[2])  # ten times as fast as numpy's over the last axis
    # two medians of 5 x 5 take a seventh of the time of one of 9 x 9: from 7 x 7 on OpenCV counts histograms
    median = cv2.medianBlur(cv2.medianBlur(raw, 5), 5) if max(raw.shape) >= 128 else cv2.medianBlur(raw, 3)
    return median - 2 * cv2.blur(cv2.absdiff(raw, median).astype(np.float32), (9, 9))


def _corner_pixels(photo: np.ndarray) -> np.ndarray:
    """The four corners, 4 % of each side -> (4, n, channels): surround wherever the retina is a disc, even a tightly
    cropped one."""
    height, width = photo.shape[:2]
    h, w = max(2, height // 25), max(2, width // 25)
    corners = (photo[:h, :w], photo[:h, -w:], photo[-h:, :w], photo[-h:, -w:])
    return np.stack([corner.reshape(-1, photo.shape[2]) for corner in corners])


def _largest_blob(mask: np.ndarray) -> np.ndarray | None:
    """(H, W) uint8 0 or 1 -> contour of its largest region, holes filled, thin things (text, a notch) opened away."""
    side = max(5, round(0.05 * max(mask.shape)) | 1)
    padded = cv2.copyMakeBorder(mask, side, side, side, side, cv2.BORDER_REPLICATE)
    contours, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(padded, contours, -1, 1, cv2.FILLED)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))  # separable; a disc loses a pixel at each pole
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, kernel)[side:-side, side:-side]
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return max(contours, key=cv2.contourArea, default=None)


def _roundness(contour: np.ndarray, shape: tuple[int, int]) -> float:
    """How far a region looks like a retina, 0..1: the part it fills of its enclosing circle inside its own box, which
    is high for discs, flattened and cut ones too. 0 for a region too small, or which fills two corners of its box (a
    frame or a band of noise)."""
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


def _round_regions(distance: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """(H, W) float32 -> (roundness, contour) over thresholds that rise from the noise of the surround; none where the
    roundest is not round."""
    # from the three quietest corners: text or retina may stand in the fourth
    noise = np.sort(np.percentile(_corner_pixels(distance[..., None])[..., 0], 98, axis=1))[2]
    level = np.percentile(distance[::2, ::2], 95)
    found = []
    for threshold in sorted({max(4.0, 1.5 * noise), *(part * level for part in (0.06, 0.12, 0.2, 0.3, 0.45))}):
        if 4.0 <= threshold <= 0.5 * level:
            contour = _largest_blob((distance > threshold).astype(np.uint8))
            if contour is not None:
                found.append((_roundness(contour, distance.shape), contour))
    best = max((roundness for roundness, _ in found), default=0.0)
    return found if best >= MIN_ROUNDNESS else []


def _roundest(regions: list[tuple[float, np.ndarray]]) -> np.ndarray | None:
    """-> the contour of the roundest; of about equally round ones the lowest threshold's, so that a dark rim stays
    inside and noise or text stays outside. None of none."""
    best = max((roundness for roundness, _ in regions), default=0.0)
    return next((contour for roundness, contour in regions if roundness >= best - AS_ROUND), None)


def _rim(contour: np.ndarray, distance: np.ndarray) -> tuple[int, int, int, int]:
    """A retina's contour -> its box (x0, y0, x1, y1). A low threshold takes in the smear of a blurred rim: each side
    moves in, by RIM_REACH at most, to where RIM_LIGHT of the light found there is reached."""
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


def _outside(contour: np.ndarray) -> float:
    """A contour -> the part of its enclosing circle that lies outside of its box, 0..1."""
    (cx, cy), radius = cv2.minEnclosingCircle(contour)
    x, y, w, h = cv2.boundingRect(contour)
    left, right, top, bottom = np.array([cx - x, x + w - cx, cy - y, y + h - cy]) / max(radius, 1.0)
    down = np.linspace(-1, 1, 121)
    half = np.sqrt(1 - down**2)  # of the circle's chord in each row
    inside = np.where((down >= -top) & (down <= bottom), np.minimum(half, left) + np.minimum(half, right), 0)
    return float(1 - inside.sum() / (2 * half.sum()))


def _cut_off(regions: list[tuple[float, np.ndarray]], contour: np.ndarray) -> float:
    """Round regions, one of them the retina -> the part of its circle that is cut off, 0..1: the least of all that are
    not much smaller, as haze around a retina makes the circle of a low threshold too large."""
    least = HAZE * cv2.contourArea(contour)
    return min(
        _outside(other)
        for how_round, other in regions
        if other is contour or (how_round >= MIN_ROUNDNESS and cv2.contourArea(other) >= least)
    )


def is_small(photo: np.ndarray) -> bool:
    """Whether a picture, (H, W, 3), is too small to be cropped or to be written with losses."""
    return max(photo.shape[:2]) < SMALL_PX


def _surround(photo: np.ndarray) -> np.ndarray:
    return np.median(np.median(_corner_pixels(photo), axis=1), axis=0)


def whole_frame(photo: np.ndarray) -> Retina:
    """(H, W, 3) uint8 BGR -> its whole frame, in which no retina is looked for."""
    height, width = photo.shape[:2]
    return Retina((0, 0, width, height), None, tuple(int(v) for v in _surround(photo)))


def inside(prepared: np.ndarray, retina: Retina, *, small: bool) -> tuple[int, int, int, int]:
    """(S, S, 3) prepared photograph and where it was cropped -> the box in which copies of it are looked for: the
    retina of a frame that was kept whole (frames of one camera are alike but for what is inside), else all of it."""
    whole = retina.found is not None or small
    return (whole_frame if whole else find_retina)(prepared).box


def _working_copy(photo: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """(H, W, 3) -> a copy of at most WORKING_SIDE_PX a side, and the (width, height) that it shows: all but rows and
    columns at the end that are fewer than a pixel of the copy. Averaged over whole pixels first, which is quick, then
    interpolated."""
    height, width = photo.shape[:2]
    scale = WORKING_SIDE_PX / max(height, width)
    if scale >= 1:
        return photo, (width, height)
    factor = min(max(height, width) // WORKING_SIDE_PX, height, width)
    across, down = width // factor, height // factor
    shown = (factor * across, factor * down)
    whole = cv2.resize(photo[: shown[1], : shown[0]], (across, down), interpolation=cv2.INTER_AREA)
    return cv2.resize(whole, (max(1, round(scale * width)), max(1, round(scale * height)))), shown


def find_retina(photo: np.ndarray) -> Retina:
    """(H, W, 3) uint8 BGR -> where the retina is, one box for all channels.

    The retina is the roundest region unlike the surround, whose colour is the corners' (or black, where the retina
    reaches into the corners).
    """
    height, width = photo.shape[:2]
    small, shown = _working_copy(photo)
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


def pad_to_square(photo: np.ndarray, *, colour: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """(H, W, 3) -> (S, S, 3), S the longer side: the shorter is padded evenly with `colour`, nothing is stretched."""
    height, width = photo.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return cv2.copyMakeBorder(
        photo, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT, value=colour
    )


def shrink(photo: np.ndarray, *, side_px: int) -> np.ndarray:
    """(S, S, 3) -> at most (side_px, side_px, 3), averaged over areas; a smaller photograph is left as it is."""
    if max(photo.shape[:2]) <= side_px:
        return photo
    return cv2.resize(photo, (side_px, side_px), interpolation=cv2.INTER_AREA)


def preprocess(photo: np.ndarray, *, size_px: int, crop: bool = True) -> tuple[np.ndarray, Retina]:
    """(H, W, 3) uint8 BGR -> the photograph the network sees, (S, S, 3) uint8 with S <= size_px, and where it was
    cropped: not at all without `crop`, or where it is small."""
    retina = find_retina(photo) if crop and not is_small(photo) else whole_frame(photo)
    x0, y0, x1, y1 = retina.box
    return shrink(pad_to_square(photo[y0:y1, x0:x1], colour=retina.surround), side_px=size_px), retina


def decode_and_preprocess(data: bytes, *, size_px: int, crop: bool = True) -> tuple[np.ndarray, Retina, np.ndarray]:
    """Bytes -> (prepared photograph, its Retina, the decoded photograph it came from). Raises UnreadablePhotograph.

    A JPEG that will be shrunk is decoded at a reduced scale, as if the retina filled the shorter side of the frame;
    where it is found to have fewer pixels than asked for, once more at a finer one.
    """
    enough = math.ceil(DECODED * size_px)
    photo = decode(data, min_side_px=max(enough, WORKING_SIDE_PX))
    prepared, retina = preprocess(photo, size_px=size_px, crop=crop)
    if len(prepared) < size_px and max(photo.shape) < max(size_of(data)):
        shorter = math.ceil(enough * min(photo.shape[:2]) / len(prepared))
        photo = decode(data, min_side_px=shorter)
        prepared, retina = preprocess(photo, size_px=size_px, crop=crop)
    return prepared, retina, photo


def quality(prepared: np.ndarray) -> dict[str, float]:
    """(S, S, 3) uint8 prepared photograph -> brightness (mean grey level, 0..255) and sharpness (mean absolute
    Laplacian, grey levels, at 384 px), both inside the inscribed disc of 90 % of the side."""
    grey = cv2.cvtColor(cv2.resize(prepared, (WORKING_SIDE_PX,) * 2, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    inside = np.zeros(grey.shape, np.uint8)
    cv2.circle(inside, (WORKING_SIDE_PX // 2,) * 2, int(0.45 * WORKING_SIDE_PX), 1, cv2.FILLED)
    inside &= cv2.compare(grey, 4, cv2.CMP_GT)  # flat tops and bottoms are padding
    laplacian = cv2.absdiff(cv2.Laplacian(grey, cv2.CV_16S), 0)
    return {"brightness": cv2.mean(grey, inside)[0], "sharpness": cv2.mean(laplacian, inside)[0]}  # 0 of nothing


def flags(retina: Retina, measured: dict[str, float]) -> list[str]:
    """What a grader should know before trusting the grade: marks, never a reason to leave the photograph out. Where no
    retina was looked for there are none: the limits were measured inside of retinas, on photographs that are not small.
    """
    if retina.found is None:
        return []
    raised = [] if retina.found else ["no_retina"]
    if measured["brightness"] < TOO_DARK:
        raised.append("too_dark")
    if measured["brightness"] > TOO_BRIGHT:
        raised.append("too_bright")
    if measured["sharpness"] < BLURRED:
        raised.append("blurred")
    if retina.cut_off is not None and retina.cut_off > CUT_OFF:
        raised.append("cut_off")
    return raised
