"""How likely each grade is, given a network's score: fitted to validation, and how far such probabilities are right.

N samples, K classes; truth (N,) int in 0..K-1. What is calibrated, the `evidence`, is a score (N,), or probabilities
(N, K) of a network that has some.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

from dr.grading import cross_fitting, metrics
from dr.grading.objectives import Objective
from dr.grading.thresholds import expected_f1_thresholds

PRIOR_SD = 3.0  # of every parameter, on standardised scores or logits: finite where a class is absent or set apart
SMALLEST = 1e-6  # probability; its logarithm is taken
BINS = 15  # of Guo et al.
REPEATS, FEWER_REPEATS = 20, 2  # of cross-fitting; fewer where one takes long
LONG = 100_000  # samples times classes


@dataclass(frozen=True)
class Calibration:
    """Of a score s, the proportional-odds model (McCullagh, J. R. Stat. Soc. B 1980;42:109), P(grade > k) = logistic(
    slope s - offset_k), K-1 ascending offsets. Of probabilities p, temperature scaling with a bias for each class
    (Alexandari et al., ICML 2020, arXiv:1901.06852), softmax(slope log p - offset_k), K offsets."""

    slope: float
    offsets: tuple[float, ...]

    def probabilities(self, evidence: np.ndarray) -> np.ndarray:
        """evidence (N,) or (N, K) -> calibrated probabilities (N, K) float64. Raises ValueError for another shape."""
        seen = torch.tensor(np.asarray(evidence, np.float64))
        if seen.ndim == 2 and seen.shape[1] != len(self.offsets):
            raise ValueError(f"evidence must have {len(self.offsets)} columns, got {seen.shape[1]}")
        return log_probabilities(seen, torch.tensor(self.slope), torch.tensor(self.offsets).double()).exp().numpy()

    def to_dict(self) -> dict:
        """As primitives, for a checkpoint."""
        return {"slope": self.slope, "offsets": list(self.offsets)}


def from_dict(content: object, *, num_offsets: int) -> Calibration:
    """What a checkpoint keeps -> Calibration. Raises ValueError where it is damaged."""
    slope, offsets = (content.get(key) for key in ("slope", "offsets")) if isinstance(content, Mapping) else (None, ())
    numbers = [slope, *offsets] if isinstance(offsets, list) else [None]
    finite = all(isinstance(value, float) and math.isfinite(value) for value in numbers)
    if not finite or len(numbers) != 1 + num_offsets:
        raise ValueError(f"a calibration has a slope and {num_offsets} offsets, got {content!r}")
    return Calibration(slope, tuple(offsets))


def evidence(objective: Objective, predictions: np.ndarray) -> np.ndarray:
    """predictions (N, P) -> what is calibrated: the objective's probabilities (N, K), or its score (N,)."""
    probabilities = objective.probabilities(predictions)
    return objective.scores(predictions) if probabilities is None else probabilities


def num_offsets(objective: Objective) -> int:
    """How many offsets the calibration of an objective has."""
    return objective.num_classes - (evidence(objective, np.zeros((1, objective.num_outputs))).ndim == 1)


def fit(evidence: np.ndarray, truth: np.ndarray, *, num_classes: int) -> Calibration:
    """evidence (N,) or (N, K), truth (N,), N >= 1 -> the most probable Calibration, each parameter having a normal
    prior of PRIOR_SD. Raises ValueError for no samples or unequal lengths."""
    seen, truth = np.asarray(evidence, np.float64), np.asarray(truth, np.int64)
    if len(truth) == 0 or seen.shape not in ((len(truth),), (len(truth), num_classes)):
        raise ValueError(f"evidence must be (N,) or (N, {num_classes}), got {seen.shape} and truth {truth.shape}")
    centre, scale = (seen.mean(), max(seen.std(), SMALLEST)) if seen.ndim == 1 else (0.0, 1.0)
    standard, labels = torch.tensor((seen - centre) / scale), torch.tensor(truth)

    def unpack(free: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if seen.ndim == 2:
            return 1 + free[0], free[1:]
        gaps = torch.cat([free[1:2], free[2:].exp()])  # a first offset, then steps upwards
        return free[0], gaps.cumsum(0)

    def cost(free: torch.Tensor) -> torch.Tensor:
        likelihood = -F.nll_loss(log_probabilities(standard, *unpack(free)), labels, reduction="sum")
        return free.square().sum() / (2 * PRIOR_SD**2) - likelihood

    size = num_classes + (seen.ndim == 2)
    slope, offsets = unpack(torch.from_numpy(_lowest(cost, np.zeros(size))))
    slope = slope / scale
    offsets = offsets + slope * centre
    return Calibration(float(slope), tuple(offsets.tolist()))


def calibrated_thresholds(
    scores: np.ndarray, grades: np.ndarray, num_classes: int = 5, *, prevalence: np.ndarray | None = None
) -> np.ndarray:
    """scores (N,), grades (N,) -> the cuts (K-1,) of highest expected macro-F1 where grades are as likely as the
    proportional-odds model fitted to these samples says: steadier than the best cuts of the samples themselves. With
    `prevalence` (K,), each grade is weighed so that it has that share. Raises ValueError as fit does."""
    likely = fit(scores, grades, num_classes=num_classes).probabilities(scores)
    weights = 1.0 if prevalence is None else prevalence / likely.mean(axis=0)
    return expected_f1_thresholds(scores, likely * weights)


def _lowest(cost: Callable[[torch.Tensor], torch.Tensor], start: np.ndarray) -> np.ndarray:
    """Where a cost of a vector of parameters is lowest, from `start`."""
    from scipy.optimize import minimize  # half a second to import, and old checkpoints alone are fitted when loaded

    def with_gradient(free: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(free, requires_grad=True)
        value = cost(parameters)
        (gradient,) = torch.autograd.grad(value, parameters)
        return value.item(), gradient.numpy()

    # the threads of BLAS and of torch, taking turns, wait for each other: thirty times as long for these few numbers
    with threadpool_limits(1, "blas"), torch.inference_mode(False), torch.enable_grad():
        return minimize(with_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x


def log_probabilities(evidence: torch.Tensor, slope: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """evidence (N,) with offsets (K-1,), or (N, K) with offsets (K,) -> (N, K) logarithms of probabilities, by tensors
    alone, so that a graph may hold it."""
    if evidence.ndim == 2:
        return (slope * evidence.clamp(min=SMALLEST).log() - offsets).log_softmax(dim=1)
    above = F.pad((slope * evidence[:, None] - offsets).sigmoid(), (1, 0), value=1.0)  # P(grade > k - 1)
    classes = above - F.pad(above[:, 1:], (0, 1))
    return classes.clamp(min=SMALLEST).div(classes.clamp(min=SMALLEST).sum(dim=1, keepdim=True)).log()


def reweighted(probabilities: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """probabilities (N, K), ratio (K,) of the new prevalence to the old one -> probabilities under the new one."""
    weighed = probabilities * ratio
    return weighed / weighed.sum(axis=1, keepdims=True)


def cross_fitted(evidence: np.ndarray, truth: np.ndarray, *, num_classes: int, seed: int = 0) -> np.ndarray:
    """evidence (N,) or (N, K), truth (N,), N >= 2 -> probabilities (R, N, K), each sample's by a calibration of the
    other half, R times."""
    repeats = FEWER_REPEATS if len(truth) * num_classes > LONG else REPEATS
    made = np.empty((repeats, len(truth), num_classes))
    rng = np.random.default_rng(seed)
    for repeat in made:
        for fitted, tried in cross_fitting.halves(truth, num_classes=num_classes, rng=rng):
            calibration = fit(evidence[fitted], truth[fitted], num_classes=num_classes)
            repeat[tried] = calibration.probabilities(evidence[tried])
    return made


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, *, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al., ICML 2017, arXiv:1706.04599): probabilities (N, K), truth (N,) -> mean
    over equal bins of the likeliest class's probability, weighted by their samples, of |its mean - share right|."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    number = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(number, weights=sure - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def mean_error(crossed: np.ndarray, truth: np.ndarray) -> float:
    """crossed (N, R, K), R probabilities of each sample, truth (N,) -> the mean of their R calibration errors."""
    return float(np.mean([expected_calibration_error(made, truth) for made in crossed.swapaxes(0, 1)]))


def mean_error_interval(crossed: np.ndarray, truth: np.ndarray, *, repeats: int = 200, seed: int = 0) -> list[float]:
    """crossed (N, R, K), truth (N,) -> [low, high], the 95 % bootstrap interval over samples of `mean_error`. Drawing
    again raises an error that is a sum of absolute gaps: the draws are moved so that their mean is the error."""
    seen = metrics.bootstrap(mean_error, crossed, truth, repeats=repeats, seed=seed)
    moved = seen - seen.mean() + mean_error(crossed, truth)
    return np.quantile(moved, [0.025, 0.975]).clip(0, 1).tolist()
