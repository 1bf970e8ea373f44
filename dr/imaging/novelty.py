"""Whether a photograph looks like those that a network was trained on: colours, surround and sharpness, not features.

Fifteen numbers of a prepared photograph and their Mahalanobis distance from training. The features of a network that
tells grades apart were tried (Lee et al., NeurIPS 2018, arXiv:1807.03888) and marked less at as many false alarms.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch

FLAG = "unlike_training"
DISTANCE = "training_distance"  # the column of what Reference.distance gives
MOST = 600  # training photographs that are looked at
LEVEL = 99  # percent of them that lie within the limit
SIDE_PX, SHARP_PX = 64, 128  # that colours and sharpness are measured at
INNER, OUTER, CORNERS = 0.5, 0.9, 1.1  # rings, in half sides from the centre
DARK = 1.5  # lightness (CIELAB, 0..100) of what is padding
MEASURES = 15
LEAST_SCALE = 0.02  # of a measure
SURROUND = 12  # place of the surround's lightness among the measures: all of training may have the very same one
LEAST_SURROUND = 3.0  # its scale


def _radius(side: int) -> np.ndarray:
    """(side, side): distance from the centre, in half sides."""
    places = (np.arange(side) - (side - 1) / 2) / (side / 2)
    return np.hypot(*np.meshgrid(places, places))


_AWAY, _AWAY_SHARP = _radius(SIDE_PX), _radius(SHARP_PX)


def measure(prepared: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 BGR prepared photograph -> (MEASURES,) float64: mean and deviation of lightness and both colours
    (CIELAB) within INNER and from there to OUTER, lightness beyond CORNERS, logarithm of fine and coarse contrast."""
    small = cv2.resize(prepared, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    found: list[float] = []
    for ring in (_AWAY < INNER, (_AWAY >= INNER) & (_AWAY < OUTER)):
        seen = lab[ring & (lab[..., 0] > DARK)]
        seen = seen if len(seen) else lab[ring]
        found += [*seen.mean(axis=0), *seen.std(axis=0)]
    found.append(lab[_AWAY >= CORNERS, 0].mean())
    larger = cv2.resize(prepared, (SHARP_PX, SHARP_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(larger, cv2.COLOR_BGR2GRAY).astype(np.float32)
    smooth, smoother = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (2, 8))
    for contrast in (grey - smooth, smooth - smoother):
        found.append(math.log(contrast[_AWAY_SHARP < OUTER].std() + 0.1))
    return np.array(found, np.float64)


@dataclass(frozen=True)
class Reference:
    """Of the training photographs: mean (D,) and precision (D, D) of what `measure` finds, and the distance that LEVEL
    percent of them do not exceed."""

    mean: np.ndarray
    precision: np.ndarray
    limit: float

    def distance(self, measured: np.ndarray) -> float:
        """measured (D,) -> Mahalanobis distance in units of the limit: above 1 it is unlike training."""
        away = measured - self.mean
        return float(np.sqrt(away @ self.precision @ away) / self.limit)

    def to_dict(self) -> dict:
        """As tensors and primitives, for a checkpoint."""
        return {
            "mean": torch.from_numpy(self.mean),
            "precision": torch.from_numpy(self.precision),
            "limit": self.limit,
        }


def fit(measured: np.ndarray) -> Reference:
    """measured (N, D), N >= 2, of training photographs -> Reference; the covariance is shrunk as Ledoit and Wolf do (J.
    Multivar. Anal. 2004;88:365)."""
    mean, scale = measured.mean(axis=0), np.maximum(measured.std(axis=0), LEAST_SCALE)
    scale[SURROUND] = max(scale[SURROUND], LEAST_SURROUND)
    from sklearn.covariance import LedoitWolf  # a second to import, which prediction does without

    precision = LedoitWolf(assume_centered=True).fit((measured - mean) / scale).precision_ / np.outer(scale, scale)
    away = measured - mean
    distances = np.sqrt(np.einsum("nd,de,ne->n", away, precision, away))
    return Reference(mean, precision, max(float(np.percentile(distances, LEVEL)), LEAST_SCALE))


def from_dict(content: object) -> Reference:
    """What a checkpoint keeps -> Reference. Raises ValueError where it is damaged."""
    try:
        mean, precision, limit = content["mean"].numpy(), content["precision"].numpy(), content["limit"]
        whole = mean.shape == (MEASURES,) and precision.shape == (MEASURES, MEASURES)
        whole = whole and isinstance(limit, float) and limit > 0
    except (TypeError, KeyError, AttributeError):
        whole = False
    if not (whole and isinstance(content, Mapping) and np.isfinite(mean).all() and np.isfinite(precision).all()):
        raise ValueError("mean, precision and limit of training photographs are missing or damaged")
    return Reference(mean, precision, limit)
