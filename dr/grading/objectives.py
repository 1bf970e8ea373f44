"""What the network's outputs mean: size of the head, loss, outputs -> predictions -> scores and grades.

Throughout, N samples and K classes; outputs (N, num_outputs) float32 come from the network; targets (N, K) float32 are
class probabilities (one-hot, smoothed, or mixed). Predictions (N, P) are what may be averaged over views of a
photograph and over networks.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from dr import UsageError
from dr.grading.thresholds import apply_thresholds
from dr.recipes.schema import Recipe


class Objective(Protocol):
    """One way to learn grades. `has_cuts`: its scores are cut into grades; else the likeliest class is the grade."""

    num_classes: int
    num_outputs: int
    has_thresholds: bool

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """outputs (N, num_outputs), targets (N, K) -> loss of each sample (N,)."""

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """outputs (N, num_outputs) -> predictions (N, P)."""

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """predictions (N, P) -> scores (N,), roughly 0..K-1: the expected grade."""

    def probabilities(self, predictions: np.ndarray) -> np.ndarray | None:
        """predictions (N, P) -> class probabilities (N, K); None where the objective has none."""


_REGRESSION_LOSSES = {"smooth_l1": F.smooth_l1_loss, "l1": F.l1_loss, "mse": F.mse_loss}


@dataclass(frozen=True)
class Regression:
    """One output, the grade as a number; of mixed targets, their mean grade."""

    num_classes: int
    loss_name: str = "smooth_l1"
    class_weights: torch.Tensor | None = None
    num_outputs: int = field(default=1, init=False)
    has_thresholds: bool = field(default=True, init=False)

    def loss(self, outputs, targets):
        grades = targets @ torch.arange(self.num_classes, dtype=targets.dtype, device=targets.device)
        losses = _REGRESSION_LOSSES[self.loss_name](outputs[:, 0], grades, reduction="none")
        return losses * _sample_weights(self.class_weights, targets)

    def predictions(self, outputs):
        return outputs

    def scores(self, predictions):
        return predictions[:, 0]

    def probabilities(self, predictions):
        return None


@dataclass(frozen=True)
class Ordinal:
    """K-1 cumulative logits: output k says whether the grade is above k (Cheng et al., IJCNN 2008, arXiv:0704.1028).

    Ranks are made consistent: P(grade > k) is at most P(grade > k-1), by the running minimum.
    """

    num_classes: int
    class_weights: torch.Tensor | None = None
    has_thresholds: bool = True

    @property
    def num_outputs(self) -> int:
        return self.num_classes - 1

    def loss(self, outputs, targets):
        above = targets.flip(1).cumsum(1).flip(1)[:, 1:]  # P(grade > k), k = 0..K-2
        losses = F.binary_cross_entropy_with_logits(outputs, above.clamp(0, 1), reduction="none").mean(dim=1)
        return losses * _sample_weights(self.class_weights, targets)

    def predictions(self, outputs):
        return outputs.sigmoid().cummin(dim=1).values

    def scores(self, predictions):
        return predictions.sum(axis=1)

    def probabilities(self, predictions):
        above = np.pad(predictions, ((0, 0), (1, 0)), constant_values=1.0)
        return above - np.pad(predictions, ((0, 0), (0, 1)))


@dataclass(frozen=True)
class Classification:
    """K logits; cross-entropy, or focal loss (Lin et al., ICCV 2017, arXiv:1708.02002: -alpha (1 - p)^gamma log p)."""

    num_classes: int
    focal_gamma: float = 0.0  # 0 is cross-entropy
    class_weights: torch.Tensor | None = None
    has_thresholds: bool = field(default=False, init=False)

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    def loss(self, outputs, targets):
        log_p = outputs.log_softmax(dim=1)
        focus = (1 - log_p.exp()).clamp(min=0) ** self.focal_gamma if self.focal_gamma else 1.0
        weights = 1.0 if self.class_weights is None else self.class_weights.to(outputs.device)
        return -(weights * targets * focus * log_p).sum(dim=1)

    def predictions(self, outputs):
        return outputs.softmax(dim=1)

    def scores(self, predictions):
        return predictions @ np.arange(self.num_classes)

    def probabilities(self, predictions):
        return predictions


@dataclass(frozen=True)
class Binary:
    """One logit: whether the class is the second of two."""

    class_weights: torch.Tensor | None = None
    num_classes: int = field(default=2, init=False)
    num_outputs: int = field(default=1, init=False)
    has_thresholds: bool = field(default=True, init=False)

    def loss(self, outputs, targets):
        losses = F.binary_cross_entropy_with_logits(outputs[:, 0], targets[:, 1], reduction="none")
        return losses * _sample_weights(self.class_weights, targets)

    def predictions(self, outputs):
        return outputs.sigmoid()

    def scores(self, predictions):
        return predictions[:, 0]

    def probabilities(self, predictions):
        return np.column_stack([1 - predictions[:, 0], predictions[:, 0]])


def _sample_weights(class_weights: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor | float:
    """class_weights (K,), targets (N, K) -> (N,)."""
    return 1.0 if class_weights is None else targets @ class_weights.to(targets.device)


def grades(objective: Objective, predictions: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """predictions (N, P), cuts (K-1,) where the objective has them -> grades (N,) int64 in 0..K-1."""
    if objective.has_thresholds:
        return apply_thresholds(objective.scores(predictions), thresholds)
    return objective.probabilities(predictions).argmax(axis=1)


def class_scores(objective: Objective, predictions: np.ndarray) -> np.ndarray:
    """predictions (N, P) -> (N, K), higher for likelier classes, as one-vs-rest AUC needs it: the probabilities, or how
    near the score is to each grade."""
    probabilities = objective.probabilities(predictions)
    if probabilities is not None:
        return probabilities
    return -np.abs(objective.scores(predictions)[:, None] - np.arange(objective.num_classes))


def mean_loss(objective: Objective, outputs: torch.Tensor, grades: np.ndarray) -> float:
    """outputs (N, num_outputs), grades (N,) -> mean loss, of targets neither mixed nor smoothed, every sample of equal
    weight: what is validated and what is tested can be compared."""
    objective = dataclasses.replace(objective, class_weights=None)
    targets = F.one_hot(torch.from_numpy(grades), objective.num_classes).float()
    return objective.loss(outputs, targets).mean().item()


def inverse_frequency(truth: np.ndarray, num_classes: int) -> torch.Tensor:
    """truth (N,) -> weights (K,) float32, N / (K n_k): 1 for each class of a balanced set, 0 for one that is absent."""
    counts = np.bincount(truth, minlength=num_classes)
    weights = np.where(counts > 0, len(truth) / (num_classes * np.maximum(counts, 1)), 0.0)
    return torch.from_numpy(weights.astype(np.float32))


def smoothing(recipe: Recipe, num_classes: int) -> torch.Tensor:
    """-> (K, K) float32: row k is the target of class k. Label smoothing (Szegedy et al., CVPR 2016) spreads its share
    evenly over all classes; neighbour smoothing gives [s, 1 - 2 s, s] to the grades around, at the ends [1 - s, s]."""
    near = torch.eye(num_classes)
    if recipe.neighbour_smoothing:
        share = recipe.neighbour_smoothing
        steps = share * (torch.diag(torch.ones(num_classes - 1), 1) + torch.diag(torch.ones(num_classes - 1), -1))
        near = steps + torch.diag(1 - steps.sum(dim=1))
    return (1 - recipe.label_smoothing) * near + recipe.label_smoothing / num_classes


def build(recipe: Recipe, *, num_classes: int = 5, class_weights: torch.Tensor | None = None) -> Objective:
    """The objective that a recipe names, for K classes; class_weights (K,) weigh the losses. Raises UsageError."""
    if recipe.objective == "binary":
        if num_classes != 2:
            raise UsageError(f"recipe: objective binary is for two classes, here are {num_classes}")
        return Binary(class_weights)
    if recipe.objective == "ordinal":
        return Ordinal(num_classes, class_weights, has_thresholds=recipe.thresholds != "argmax")
    if recipe.objective == "classification":
        return Classification(num_classes, recipe.focal_gamma if recipe.loss == "focal" else 0.0, class_weights)
    return Regression(num_classes, recipe.loss, class_weights)
