"""Grad-CAM of one checkpoint, and the way back from the network's input to the image."""

import copy
import itertools
import threading

import cv2
import numpy as np
import torch

from dr.imaging.decode import decode
from dr.inference import gradcam
from dr.inference.checkpoint import Checkpoint
from dr.inference.preprocessor import Image, InputSpec, frame_of


class Explainer:
    """Explains grades of one network. It puts its hooks on a copy that shares the weights: other threads may grade
    meanwhile. Explanations themselves run one at a time.

    Raises UsageError for a network without a feature map.
    """

    def __init__(self, checkpoint: Checkpoint):
        self.spec, self.objective = InputSpec.of(checkpoint), checkpoint.objective
        tensors = itertools.chain(checkpoint.network.parameters(), checkpoint.network.buffers())
        self._network = copy.deepcopy(checkpoint.network, {id(tensor): tensor for tensor in tensors})
        side = self.spec.input_px
        noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, side, side), np.uint8))
        self._layer = gradcam.last_map(self._network, noise)
        self._lock = threading.Lock()

    def frame_heat(self, preprocessed: np.ndarray, *, grade: int) -> np.ndarray:
        """(S, S, 3) uint8 BGR, preprocessed for this network -> heat (image_px, image_px) float32 in 0..1, 0 outside
        the centre that the network receives."""
        images = self.spec.tensor(preprocessed)[None]
        with self._lock:
            grades = np.array([grade])
            heat = gradcam.heat(self._network, self.objective, images, grades=grades, layer=self._layer)[0]
        before = (self.spec.image_px - len(heat)) // 2
        return np.pad(heat, (before, self.spec.image_px - len(heat) - before))

    def image_heat(self, image: Image, *, grade: int) -> np.ndarray:
        """An image of height H and width W -> heat (H, W) float32 in 0..1, 0 outside the part that the network
        receives. Raises UnreadableImage."""
        preprocessed, retina, working_shape = frame_of(image, size_px=self.spec.preprocessed_px, crop=self.spec.crop)
        heat = _uncropped(self.frame_heat(preprocessed, grade=grade), retina.box, shape=working_shape)
        height, width = _full_shape(image)
        return np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)


def _uncropped(heat: np.ndarray, box: tuple[int, int, int, int], *, shape: tuple[int, int]) -> np.ndarray:
    """heat (s, s) of the square that was padded around `box` (x0, y0, x1, y1) -> heat of `shape` (H, W), 0 outside the
    box."""
    x0, y0, x1, y1 = box
    side = max(y1 - y0, x1 - x0)
    top, left = (side - (y1 - y0)) // 2, (side - (x1 - x0)) // 2  # as fundus.pad_to_square
    square = cv2.resize(heat, (side, side), interpolation=cv2.INTER_LINEAR)
    whole = np.zeros(shape, np.float32)
    whole[y0:y1, x0:x1] = square[top : top + y1 - y0, left : left + x1 - x0]
    return whole


def _full_shape(image: Image) -> tuple[int, int]:
    """(height, width) of an image, upright."""
    return (decode(image) if isinstance(image, bytes) else image).shape[:2]
