"""Whether an image resembles the training images of a network, by colours, surround and sharpness.

Fifteen measures of a preprocessed image and their Mahalanobis distance from the training images. The features of a
grading network (Lee et al., NeurIPS 2018, arXiv:1807.03888) detected fewer at the same rate of false alarms.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch

FLAG = "unlike_training"
DISTANCE = "training_distance"  # the column with Reference.distance
MAX_IMAGES = 600  # training images that are measured
LIMIT_PERCENTILE = 99  # of their distances
SIDE_PX, SHARP_PX = 64, 128  # image sizes for colours and for sharpness
INNER, OUTER, CORNERS = 0.5, 0.9, 1.1  # radii of rings, in half sides from the centre
DARK = 1.5  # lightness (CIELAB, 0..100) of padding
MEASURES = 15
MIN_SCALE = 0.02  # of a measure
SURROUND = 12  # index of the surround's lightness among the measures: it may be equal in all training images
MIN_SURROUND_SCALE = 3.0


def _radius(side: int) -> np.ndarray:
    """(side, side): distance from the centre, in half sides."""
    places = (np.arange(side) - (side - 1) / 2) / (side / 2)
    return np.hypot(*np.meshgrid(places, places))


_RADIUS, _RADIUS_SHARP = _radius(SIDE_PX), _radius(SHARP_PX)


def measure(preprocessed: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 BGR preprocessed image -> (MEASURES,) float64: mean and deviation of lightness and both
    colours (CIELAB) within INNER and from INNER to OUTER, lightness beyond CORNERS, log of fine and coarse
    contrast."""
    small = cv2.resize(preprocessed, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    measures: list[float] = []
    for ring in (_RADIUS < INNER, (_RADIUS >= INNER) & (_RADIUS < OUTER)):
        pixels = lab[ring & (lab[..., 0] > DARK)]
        pixels = pixels if len(pixels) else lab[ring]
        measures += [*pixels.mean(axis=0), *pixels.std(axis=0)]
    measures.append(lab[_RADIUS >= CORNERS, 0].mean())
    larger = cv2.resize(preprocessed, (SHARP_PX, SHARP_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(larger, cv2.COLOR_BGR2GRAY).astype(np.float32)
    smooth, smoother = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (2, 8))
    for contrast in (grey - smooth, smooth - smoother):
        measures.append(math.log(contrast[_RADIUS_SHARP < OUTER].std() + 0.1))
    return np.array(measures, np.float64)


@dataclass(frozen=True)
class Reference:
    """Mean (D,) and precision (D, D) of the `measure`s of the training images, and the LIMIT_PERCENTILE of their
    distances."""

    mean: np.ndarray
    precision: np.ndarray
    limit: float

    def distance(self, measured: np.ndarray) -> float:
        """measured (D,) -> Mahalanobis distance in units of the limit. Above 1 the image is unlike training."""
        offset = measured - self.mean
        return float(np.sqrt(offset @ self.precision @ offset) / self.limit)

    def to_dict(self) -> dict:
        """Tensors and primitives, for a checkpoint."""
        return {
            "mean": torch.from_numpy(self.mean),
            "precision": torch.from_numpy(self.precision),
            "limit": self.limit,
        }


def fit(measured: np.ndarray) -> Reference:
    """measured (N, D), N >= 2, of training images -> Reference. The covariance is shrunk after Ledoit and Wolf (J.
    Multivar. Anal. 2004;88:365)."""
    mean, scale = measured.mean(axis=0), np.maximum(measured.std(axis=0), MIN_SCALE)
    scale[SURROUND] = max(scale[SURROUND], MIN_SURROUND_SCALE)
    from sklearn.covariance import LedoitWolf  # takes a second to import; prediction does not need it

    precision = LedoitWolf(assume_centered=True).fit((measured - mean) / scale).precision_ / np.outer(scale, scale)
    offsets = measured - mean
    distances = np.sqrt(np.einsum("nd,de,ne->n", offsets, precision, offsets))
    return Reference(mean, precision, max(float(np.percentile(distances, LIMIT_PERCENTILE)), MIN_SCALE))
