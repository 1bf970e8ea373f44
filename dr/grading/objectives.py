"""The objectives of recipes: regression, ordinal, classification, binary. Shapes are those of dr.grading.objective."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from dr import UsageError
from dr.grading.objective import Array, Objective
from dr.recipes.schema import Recipe

MIN_GAP = 1e-6  # between a threshold on a probability and 0 or 1
_REGRESSION_LOSSES = {"smooth_l1": F.smooth_l1_loss, "l1": F.l1_loss, "mse": F.mse_loss}


def _namespace(array: Array):
    """The module with the functions for this kind of array; all functions used here have one name in both."""
    return torch if isinstance(array, torch.Tensor) else np


@dataclass(frozen=True)
class Regression(Objective):
    """One output, the grade as a number. The target of a mixed sample is its mean grade."""

    num_classes: int
    loss_name: str = "smooth_l1"
    class_weights: torch.Tensor | None = None
    num_outputs: int = field(default=1, init=False)
    has_thresholds: bool = field(default=True, init=False)
    name = "regression"
    explains_score = True

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

    def target_output(self, output, grade):
        return output[0]

    @property
    def num_offsets(self):
        return self.num_classes - 1


@dataclass(frozen=True)
class Ordinal(Objective):
    """K-1 cumulative logits: output k is the logit of P(grade > k) (Cheng et al., IJCNN 2008, arXiv:0704.1028).

    A running minimum makes the ranks consistent: P(grade > k) is at most P(grade > k-1).
    """

    num_classes: int
    class_weights: torch.Tensor | None = None
    has_thresholds: bool = True
    name = "ordinal"

    @property
    def num_outputs(self) -> int:
        return self.num_classes - 1

    def loss(self, outputs, targets):
        above = targets.flip(1).cumsum(1).flip(1)[:, 1:]  # P(grade > k), k = 0..K-2
        losses = F.binary_cross_entropy_with_logits(outputs, above.clamp(0, 1), reduction="none").mean(dim=1)
        return losses * _sample_weights(self.class_weights, targets)

    def predictions(self, outputs):
        above = list(outputs.sigmoid().unbind(1))
        for k in range(1, len(above)):  # cummin, which ONNX lacks
            above[k] = torch.minimum(above[k - 1], above[k])
        return torch.stack(above, 1)

    def scores(self, predictions):
        return predictions.sum(1)

    def probabilities(self, predictions):
        arrays = _namespace(predictions)
        ends = arrays.ones_like(predictions[:, :1]), arrays.zeros_like(predictions[:, :1])
        above = arrays.concatenate([ends[0], predictions, ends[1]], 1)
        return above[:, :-1] - above[:, 1:]

    def target_output(self, output, grade):
        """The gradient of log P(grade > grade - 1) + log P(grade <= grade), up to a positive factor, which would vanish
        in float32 where the network is sure."""
        signed = torch.cat([output[max(grade - 1, 0) : grade], -output[grade : grade + 1]])
        return (F.logsigmoid(-signed).softmax(dim=0).detach() * signed).sum()


@dataclass(frozen=True)
class Classification(Objective):
    """K logits; cross-entropy, or focal loss (Lin et al., ICCV 2017, arXiv:1708.02002: -alpha (1 - p)^gamma log p)."""

    num_classes: int
    focal_gamma: float = 0.0  # 0 is cross-entropy
    class_weights: torch.Tensor | None = None
    has_thresholds: bool = field(default=False, init=False)
    name = "classification"
    ordered = False
    value_name = "probability"

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
        if isinstance(predictions, torch.Tensor):
            return predictions @ torch.arange(self.num_classes, dtype=predictions.dtype, device=predictions.device)
        return predictions @ np.arange(self.num_classes)

    def probabilities(self, predictions):
        return predictions

    def target_output(self, output, grade):
        return output[grade]

    def error(self, predictions, truth):
        """predictions (N, P), truth (N,) -> (N,): one minus the probability of the true class."""
        return 1 - self.values(predictions, truth)

    def values(self, predictions, grades):
        """predictions (N, P), grades (N,) -> the probability of each grade (N,)."""
        return self.probabilities(predictions)[np.arange(len(grades)), grades]


@dataclass(frozen=True)
class Binary(Objective):
    """One logit: that of the second of two classes. The score is its probability."""

    class_weights: torch.Tensor | None = None
    num_classes: int = field(default=2, init=False)
    num_outputs: int = field(default=1, init=False)
    has_thresholds: bool = field(default=True, init=False)
    name = "binary"

    def loss(self, outputs, targets):
        losses = F.binary_cross_entropy_with_logits(outputs[:, 0], targets[:, 1], reduction="none")
        return losses * _sample_weights(self.class_weights, targets)

    def predictions(self, outputs):
        return outputs.sigmoid()

    def scores(self, predictions):
        return predictions[:, 0]

    def probabilities(self, predictions):
        return _namespace(predictions).stack([1 - predictions[:, 0], predictions[:, 0]], 1)

    def target_output(self, output, grade):
        return output[0] if grade == 1 else -output[0]

    def _threshold_doubt(self, scores, thresholds):
        """1 at the threshold, falling linearly to 0 where the probability is 0 or 1; at a threshold of 0.5 this is one
        minus the margin between the two classes."""
        threshold = min(max(float(thresholds[0]), MIN_GAP), 1 - MIN_GAP)
        below, above = (threshold - scores) / threshold, (scores - threshold) / (1 - threshold)
        return 1 - np.where(scores < threshold, below, above)

    @property
    def doubt_text(self):
        return "1 at the threshold, 0 where the probability is 0 or 1"

    def score_range(self, thresholds):
        return [0.0, 1.0]


def _sample_weights(class_weights: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor | float:
    """class_weights (K,), targets (N, K) -> (N,)."""
    return 1.0 if class_weights is None else targets @ class_weights.to(targets.device)


def build(recipe: Recipe, *, num_classes: int = 5, class_weights: torch.Tensor | None = None) -> Objective:
    """The objective that a recipe names, for K classes; class_weights (K,) weigh the losses.

    Raises UsageError for objective binary with another number of classes than two.
    """
    if recipe.objective == "binary":
        if num_classes != 2:
            raise UsageError(f"recipe: objective binary needs 2 classes, got {num_classes}; use another objective")
        return Binary(class_weights)
    if recipe.objective == "ordinal":
        return Ordinal(num_classes, class_weights, has_thresholds=recipe.thresholds != "argmax")
    if recipe.objective == "classification":
        return Classification(num_classes, recipe.focal_gamma if recipe.loss == "focal" else 0.0, class_weights)
    return Regression(num_classes, recipe.loss, class_weights)
