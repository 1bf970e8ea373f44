"""A fundus image as stages 1 and 3 preprocess it: decode, crop to the retina, pad to a square, shrink."""

import math

import cv2
import numpy as np

from dr.imaging.decode import decode, size_of
from dr.imaging.retina import WORKING_SIDE_PX, Retina, find_retina, whole_frame

SMALL_PX = 128  # an image with a shorter longest side was cropped before it was shrunk, and has no pixel to lose
# Pixels of a JPEG decoded for each one kept, along a side: averaging fewer blurs. Ten camera originals keep 91 to 102 %
# of the sharpness of a full decode at 512 px; with 2.0 they keep 97 to 102 %
DECODED = 1.5


def is_small(image: np.ndarray) -> bool:
    """Whether an image, (H, W, 3), is too small to be cropped or to be compressed with losses."""
    return max(image.shape[:2]) < SMALL_PX


def pad_to_square(image: np.ndarray, *, colour: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """(H, W, 3) -> (S, S, 3), S the longer side: `colour` pads the shorter side evenly, nothing is stretched."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return cv2.copyMakeBorder(
        image, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT, value=colour
    )


def shrink(image: np.ndarray, *, side_px: int) -> np.ndarray:
    """(S, S, 3) -> at most (side_px, side_px, 3), averaged over areas. A smaller image is unchanged."""
    if max(image.shape[:2]) <= side_px:
        return image
    return cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA)


def preprocess(image: np.ndarray, *, size_px: int, crop: bool = True) -> tuple[np.ndarray, Retina]:
    """(H, W, 3) uint8 BGR -> (preprocessed image (S, S, 3) uint8, S <= size_px; where it was cropped).

    The whole frame is kept without `crop` and for small images.
    """
    retina = find_retina(image) if crop and not is_small(image) else whole_frame(image)
    x0, y0, x1, y1 = retina.box
    return shrink(pad_to_square(image[y0:y1, x0:x1], colour=retina.surround), side_px=size_px), retina


def decode_and_preprocess(data: bytes, *, size_px: int, crop: bool = True) -> tuple[np.ndarray, Retina, np.ndarray]:
    """Bytes -> (preprocessed image, its Retina, the decoded image). Raises UnreadableImage.

    A JPEG that will be shrunk is decoded at a reduced scale, which assumes that the retina fills the shorter side of
    the frame. If the crop has fewer pixels than requested, it is decoded again at a finer scale.
    """
    enough = math.ceil(DECODED * size_px)
    image = decode(data, min_side_px=max(enough, WORKING_SIDE_PX))
    preprocessed, retina = preprocess(image, size_px=size_px, crop=crop)
    if len(preprocessed) < size_px and max(image.shape) < max(size_of(data)):
        shorter = math.ceil(enough * min(image.shape[:2]) / len(preprocessed))
        image = decode(data, min_side_px=shorter)
        preprocessed, retina = preprocess(image, size_px=size_px, crop=crop)
    return preprocessed, retina, image


def comparison_box(preprocessed: np.ndarray, retina: Retina, *, small: bool) -> tuple[int, int, int, int]:
    """(S, S, 3) preprocessed image and where it was cropped -> the box in which duplicates are compared.

    The whole image, unless the frame was kept whole. Then the box is that of the retina: the surround looks the same in
    all frames of a camera.
    """
    whole = retina.found is not None or small
    return (whole_frame if whole else find_retina)(preprocessed).box
