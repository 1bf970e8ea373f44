"""Objective: what a network's outputs mean, from the loss to predictions, scores and grades.

Throughout, N samples and K classes. Outputs (N, num_outputs) float32 come from the network. Targets (N, K) float32 are
class probabilities: one-hot, smoothed or mixed. Predictions (N, P) are what may be averaged over TTA views and over
networks. Methods that take predictions accept a numpy array or a torch tensor and return the same kind, so that the
ONNX graph and predict.py share one formula.
"""

import dataclasses
from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.nn.functional as F

from dr.grading.thresholds import apply_thresholds

Array = np.ndarray | torch.Tensor


class Objective(ABC):
    """One way to learn grades. A subclass is a frozen dataclass with `class_weights`, and the only place that knows
    what its outputs mean: other code calls these methods and never asks for the type."""

    name: str  # in recipes: `objective = "..."`
    num_classes: int
    num_outputs: int
    has_thresholds: bool  # thresholds on the score give the grade; otherwise the most probable class is the grade
    class_weights: torch.Tensor | None
    ordered: bool = True  # a grade two steps off is worse than one step off
    explains_score: bool = False  # Grad-CAM explains the score rather than one grade

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """outputs (N, num_outputs), targets (N, K) -> loss of each sample (N,)."""

    @abstractmethod
    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """outputs (N, num_outputs) -> predictions (N, P)."""

    @abstractmethod
    def scores(self, predictions: Array) -> Array:
        """predictions (N, P) -> scores (N,): the expected grade, roughly 0..K-1."""

    @abstractmethod
    def probabilities(self, predictions: Array) -> Array | None:
        """predictions (N, P) -> class probabilities (N, K); None where the objective has none."""

    @abstractmethod
    def target_output(self, output: torch.Tensor, grade: int) -> torch.Tensor:
        """output (num_outputs,) of one image -> the scalar that Grad-CAM differentiates to explain `grade`."""

    def mean_loss(self, outputs: torch.Tensor, grades: np.ndarray) -> float:
        """outputs (N, num_outputs), grades (N,) -> mean loss of unmixed, unsmoothed targets without class weights, so
        that losses on validation and test are comparable."""
        plain = dataclasses.replace(self, class_weights=None)
        targets = F.one_hot(torch.from_numpy(grades), self.num_classes).float()
        return plain.loss(outputs, targets).mean().item()

    def grades(self, predictions: Array, thresholds: Array | None) -> Array:
        """predictions (N, P), thresholds (K-1,), ignored without `has_thresholds` -> grades (N,) int64 in 0..K-1."""
        if not self.has_thresholds:
            return self.probabilities(predictions).argmax(1)
        scores = self.scores(predictions)
        if isinstance(scores, torch.Tensor):
            return (scores[:, None] >= thresholds).sum(1)
        return apply_thresholds(scores, thresholds)

    def class_scores(self, predictions: np.ndarray) -> np.ndarray:
        """predictions (N, P) -> (N, K), higher for more probable classes, as one-vs-rest AUC needs: the probabilities,
        or minus the distance of the score from each grade."""
        probabilities = self.probabilities(predictions)
        if probabilities is not None:
            return probabilities
        return -np.abs(self.scores(predictions)[:, None] - np.arange(self.num_classes))

    def scores_from(self, grade: int, predictions: np.ndarray) -> np.ndarray:
        """predictions (N, P) -> (N,), higher the more probable `grade` or a higher one: P(class >= grade), or the score
        where there are no probabilities."""
        probabilities = self.probabilities(predictions)
        return self.scores(predictions) if probabilities is None else probabilities[:, grade:].sum(axis=1)

    def calibration_input(self, predictions: Array) -> Array:
        """predictions (N, P) -> what calibration maps to probabilities: the objective's own probabilities (N, K), or
        the score (N,)."""
        probabilities = self.probabilities(predictions)
        return self.scores(predictions) if probabilities is None else probabilities

    @property
    def num_offsets(self) -> int:
        """Number of offsets of the calibration: K for probabilities, K-1 for a score."""
        return self.num_classes

    def error(self, predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """predictions (N, P), truth (N,) -> how wrong each prediction is (N,) >= 0: |score - true grade|."""
        return np.abs(self.scores(predictions) - truth)

    value_name: str = "score"  # of `values`

    def values(self, predictions: np.ndarray, grades: np.ndarray) -> np.ndarray:
        """predictions (N, P), grades (N,) -> the number to show beside each grade (N,): the score."""
        return self.scores(predictions)

    def doubt(
        self,
        scores: np.ndarray,
        grades: np.ndarray,
        *,
        thresholds: np.ndarray | None,
        decision_values: np.ndarray | None = None,
    ) -> np.ndarray:
        """scores (N,), grades (N,), thresholds (K-1,) -> doubt (N,) in 0..1: 1 at a threshold, 0 half a grade or more
        away from all of them. Without thresholds one minus the lead of the grade over the next class in
        `decision_values` (N, K), whose argmax the grade is."""
        if thresholds is not None:
            return self._threshold_doubt(scores, thresholds).clip(0, 1)
        given = np.arange(decision_values.shape[1]) == grades[:, None]
        lead = decision_values[given] - np.where(given, -np.inf, decision_values).max(axis=1)
        return (1 - lead).clip(0, 1)

    def _threshold_doubt(self, scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        return 1 - 2 * np.abs(scores[:, None] - thresholds).min(axis=1)

    @property
    def doubt_text(self) -> str:
        """What `doubt` means, for the legend of a page."""
        if not self.has_thresholds:
            return "one minus the lead of the grade over the next class"
        return "1 at a threshold, 0 half a grade or more away from every threshold"

    def score_range(self, thresholds: np.ndarray | None) -> list[float]:
        """thresholds (K-1,) or None -> [low, high] of an axis of scores: all grades, and half a grade beyond the
        outermost thresholds."""
        highest = float(self.num_classes - 1)
        if thresholds is None:
            return [0.0, highest]
        return [min(0.0, float(thresholds[0]) - 0.5), max(highest, float(thresholds[-1]) + 0.5)]
