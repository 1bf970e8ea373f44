"""Image quality: brightness and sharpness inside the retina, and the flags that follow from them."""

import cv2
import numpy as np

from dr.imaging.retina import WORKING_SIDE_PX, Retina

# 2,902 real images have a brightness of 109 to 190 and a sharpness of 2.2 to 32: flagged images are worse
TOO_DARK = 45.0  # mean grey level inside the retina, 0..255; the darkest of ten camera originals has 54
TOO_BRIGHT = 215.0
CUT_OFF = 0.2  # of the circle of the retina; of those 2,902 the median is 0.05, the 99th percentile 0.15, 4 are above
# Mean absolute Laplacian inside the retina after resizing to 384 px, in grey levels. Of ten camera originals two hazy
# ones are below. A Gaussian blur with a deviation of 1 % of the side brings all ten below, and nine in ten other images
BLURRED = 2.0
TWO_RETINAS = "two_retinas"  # flag


def measure(preprocessed: np.ndarray) -> dict[str, float]:
    """(S, S, 3) uint8 preprocessed image -> brightness (mean grey level, 0..255) and sharpness (mean absolute
    Laplacian, grey levels, at 384 px), both inside the inscribed disc of 90 % of the side. Both are 0 without content.
    """
    small = cv2.resize(preprocessed, (WORKING_SIDE_PX,) * 2, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    inside = np.zeros(grey.shape, np.uint8)
    cv2.circle(inside, (WORKING_SIDE_PX // 2,) * 2, int(0.45 * WORKING_SIDE_PX), 1, cv2.FILLED)
    inside &= cv2.compare(grey, 4, cv2.CMP_GT)  # flat tops and bottoms are padding
    laplacian = cv2.absdiff(cv2.Laplacian(grey, cv2.CV_16S), 0)
    return {"brightness": cv2.mean(grey, inside)[0], "sharpness": cv2.mean(laplacian, inside)[0]}


def flags(retina: Retina, measured: dict[str, float]) -> list[str]:
    """Warnings about an image, which never exclude it. Empty if no retina was searched: the limits were measured inside
    retinas, on images that are not small."""
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
    if retina.halves is not None:
        raised.append(TWO_RETINAS)
    return raised
