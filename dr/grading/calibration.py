"""Calibration: the probability of each grade, fitted to validation, and its expected calibration error.

N samples, K classes; truth (N,) int in 0..K-1. The inputs of a calibration are the scores (N,) of a network, or its own
probabilities (N, K): `Objective.calibration_input`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

from dr.grading import cross_fitting
from dr.grading.thresholds import expected_f1_thresholds

PRIOR_SD = 3.0  # of every parameter, on standardised inputs: keeps them finite where a class is absent or separable
MIN_PROBABILITY = 1e-6  # the logarithm of a smaller one is that of this one
BINS = 15  # of Guo et al.
REPEATS, FEWER_REPEATS = 20, 2  # of cross-fitting
LARGE_SET = 100_000  # samples times classes; above it fewer repeats are drawn


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration, of one of two kinds.

    - Of a score s the proportional-odds model (McCullagh, J. R. Stat. Soc. B 1980;42:109):
      P(grade > k) = logistic(slope s - offset_k), with K-1 ascending offsets.
    - Of probabilities p temperature scaling with a bias for each class (Alexandari et al., ICML 2020,
      arXiv:1901.06852): softmax(slope log p - offset_k), with K offsets.
    """

    slope: float
    offsets: tuple[float, ...]

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """inputs (N,) or (N, K) -> calibrated probabilities (N, K) float64. Raises ValueError for another shape."""
        inputs = torch.tensor(np.asarray(inputs, np.float64))
        if inputs.ndim == 2 and inputs.shape[1] != len(self.offsets):
            raise ValueError(f"calibration inputs must have {len(self.offsets)} columns, got {inputs.shape[1]}")
        return log_probabilities(inputs, torch.tensor(self.slope), torch.tensor(self.offsets).double()).exp().numpy()

    def to_dict(self) -> dict:
        """Primitives, for a checkpoint."""
        return {"slope": self.slope, "offsets": list(self.offsets)}


def fit(inputs: np.ndarray, truth: np.ndarray, *, num_classes: int) -> Calibration:
    """inputs (N,) or (N, K), truth (N,), N >= 1 -> the maximum-a-posteriori Calibration, with a normal prior of
    standard deviation PRIOR_SD on each parameter. Raises ValueError for no samples or unequal lengths."""
    inputs, truth = np.asarray(inputs, np.float64), np.asarray(truth, np.int64)
    if len(truth) == 0 or inputs.shape not in ((len(truth),), (len(truth), num_classes)):
        raise ValueError(
            f"calibration inputs must be (N,) or (N, {num_classes}), got {inputs.shape} and truth {truth.shape}"
        )
    centre, scale = (inputs.mean(), max(inputs.std(), MIN_PROBABILITY)) if inputs.ndim == 1 else (0.0, 1.0)
    standard, labels = torch.tensor((inputs - centre) / scale), torch.tensor(truth)

    def unpack(free: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if inputs.ndim == 2:
            return 1 + free[0], free[1:]
        gaps = torch.cat([free[1:2], free[2:].exp()])  # the first offset, then steps upwards
        return free[0], gaps.cumsum(0)

    def cost(free: torch.Tensor) -> torch.Tensor:
        likelihood = -F.nll_loss(log_probabilities(standard, *unpack(free)), labels, reduction="sum")
        return free.square().sum() / (2 * PRIOR_SD**2) - likelihood

    size = num_classes + (inputs.ndim == 2)
    slope, offsets = unpack(torch.from_numpy(_minimise(cost, np.zeros(size))))
    slope = slope / scale
    offsets = offsets + slope * centre
    return Calibration(float(slope), tuple(offsets.tolist()))


def calibrated_thresholds(
    scores: np.ndarray, grades: np.ndarray, num_classes: int = 5, *, prevalence: np.ndarray | None = None
) -> np.ndarray:
    """scores (N,), grades (N,) -> the thresholds (K-1,) of highest expected macro-F1 under the proportional-odds model
    fitted to these samples. They vary less from sample to sample than the optimal thresholds. `prevalence` (K,) weighs
    each grade to that share. Raises ValueError as `fit` does."""
    probabilities = fit(scores, grades, num_classes=num_classes).probabilities(scores)
    weights = 1.0 if prevalence is None else prevalence / probabilities.mean(axis=0)
    return expected_f1_thresholds(scores, probabilities * weights)


def _minimise(cost: Callable[[torch.Tensor], torch.Tensor], start: np.ndarray) -> np.ndarray:
    """The parameters (P,) of lowest cost, by L-BFGS from `start` (P,)."""
    from scipy.optimize import minimize  # takes half a second to import, and grading seldom fits

    def with_gradient(free: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(free, requires_grad=True)
        value = cost(parameters)
        (gradient,) = torch.autograd.grad(value, parameters)
        return value.item(), gradient.numpy()

    # BLAS and torch threads would wait for each other, which takes 30 times as long for these few numbers
    with threadpool_limits(1, "blas"), torch.inference_mode(False), torch.enable_grad():
        return minimize(with_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x


def log_probabilities(inputs: torch.Tensor, slope: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """inputs (N,) with offsets (K-1,), or (N, K) with offsets (K,) -> log probabilities (N, K). It uses tensor
    operations only, so that the ONNX graph contains it."""
    if inputs.ndim == 2:
        return (slope * inputs.clamp(min=MIN_PROBABILITY).log() - offsets).log_softmax(dim=1)
    above = F.pad((slope * inputs[:, None] - offsets).sigmoid(), (1, 0), value=1.0)  # P(grade > k - 1)
    classes = above - F.pad(above[:, 1:], (0, 1))
    return classes.clamp(min=MIN_PROBABILITY).div(classes.clamp(min=MIN_PROBABILITY).sum(dim=1, keepdim=True)).log()


def reweighted(probabilities: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """probabilities (N, K), ratio (K,) of the new class prevalence to the old one -> probabilities (N, K) under the new
    one."""
    weighted = probabilities * ratio
    return weighted / weighted.sum(axis=1, keepdims=True)


def cross_fitted(inputs: np.ndarray, truth: np.ndarray, *, num_classes: int, seed: int = 0) -> np.ndarray:
    """inputs (N,) or (N, K), truth (N,), N >= 2 -> probabilities (R, N, K) of R random halvings: each half by the
    calibration fitted to the other."""
    repeats = FEWER_REPEATS if len(truth) * num_classes > LARGE_SET else REPEATS
    probabilities = np.empty((repeats, len(truth), num_classes))
    rng = np.random.default_rng(seed)
    for repeat in probabilities:
        for fitted, held_out in cross_fitting.halves(truth, num_classes=num_classes, rng=rng):
            calibration = fit(inputs[fitted], truth[fitted], num_classes=num_classes)
            repeat[held_out] = calibration.probabilities(inputs[held_out])
    return probabilities


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, *, bins: int = BINS) -> float:
    """probabilities (N, K), truth (N,) -> expected calibration error in 0..1 (Guo et al., ICML 2017, arXiv:1706.04599):
    |mean confidence - accuracy| of each of `bins` bins of equal width over the probability of the most probable class,
    averaged with the numbers of samples as weights."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(number, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))
