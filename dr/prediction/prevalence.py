"""Decisions for photographs whose mix of grades is not validation's: stated by the user, or estimated from them.

K classes; a prevalence is the share of each class (K,), its sum 1.
"""

from collections.abc import Sequence

import numpy as np

from dr import UsageError
from dr.grading import calibration
from dr.grading.calibration import SMALLEST, reweighted
from dr.inference import ensemble
from dr.inference.checkpoint import Checkpoint

TOLERANCE, MOST_STEPS = 1e-6, 1000
PRIOR = 0.5  # how many photographs of validation's mix count with each one at hand: by maximum likelihood alone, grades
#              that a score hardly tells apart vanish
STEPS = 200  # of Frank and Wolfe: from 25 on at most one of 2,764 photographs has another grade than after 1,600


def estimate(probabilities: np.ndarray, trained: np.ndarray, *, prior: np.ndarray | None = None) -> np.ndarray:
    """probabilities (N, K), N >= 1, calibrated where the prevalence was `trained` (K,) > 0 -> the prevalence of these
    samples: the EM of Saerens, Latinne and Decaestecker (Neural Computation 2002;14:21), with a Dirichlet prior around
    `prior` (K,), or around `trained`."""
    prior = trained if prior is None else prior
    found = trained
    for _ in range(MOST_STEPS):
        before, found = found, reweighted(probabilities, found / trained).mean(axis=0)
        found = (found + PRIOR * prior) / (1 + PRIOR)
        if np.abs(found - before).max() < TOLERANCE:
            break
    return found


def rule(probabilities: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """probabilities (N, K) of samples that count as `weights` (N,) > 0 -> gains, costs (K,). Classes argmax(gains p -
    costs) have the highest expected macro-F1 that Frank-Wolfe steps reach from the likeliest ones; such a rule is
    linear in the probabilities (Narasimhan et al., ICML 2015)."""
    classes, shares = np.eye(probabilities.shape[1]), weights / weights.sum()
    chosen, true = classes[probabilities.argmax(axis=1)], shares @ probabilities
    for step in range(STEPS):
        sizes = shares @ chosen + true  # F1 = 2 hits / (chosen + true), whose derivative the gains and costs are
        gains, costs = 2 / sizes, 2 * (shares @ (chosen * probabilities)) / sizes**2
        chosen += (classes[(gains * probabilities - costs).argmax(axis=1)] - chosen) * 2 / (step + 3)
    return gains / gains.max(), costs / gains.max()


def _sure_leads(gains: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """-> (K,), how far each class is ahead of the next where a sample is surely of it: the most that it can be."""
    evidence = np.diag(gains) - costs
    return np.diagonal(evidence) - np.where(np.eye(len(costs), dtype=bool), -np.inf, evidence).max(axis=1)


class Shift:
    """What changes where photographs, with these mean predictions (N, P), have another prevalence: `prevalence` (K,),
    calibrated `probabilities` (N, K), and either `cuts` (K-1,) for each checkpoint or, without cuts, `grades` (N,), the
    highest of each row of `evidence` (N, K), which is ahead of the next by 1 where a sample is surely of that grade.

    Both are those of highest expected macro-F1 of validation re-weighed. Raises UsageError for a checkpoint that keeps
    no validation and for a prevalence of other classes.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], predictions: np.ndarray, stated: Sequence[float] | str):
        first = checkpoints[0]
        check(checkpoints, stated)
        likely = ensemble.calibrated(checkpoints, predictions)
        seen = ensemble.validation(checkpoints)
        trained = np.maximum(np.bincount(np.concatenate([t for _, t in seen]), minlength=likely.shape[1]), 0.5)
        trained = trained / trained.sum()  # half a photograph of a class that validation has none of
        self.estimated = isinstance(stated, str)
        if self.estimated:
            prior = ensemble.class_prevalence(
                checkpoints
            )  # not that of what folds hold out, which data.py may have balanced
            self.prevalence = estimate(likely, trained, prior=prior) if len(likely) else prior
        else:
            self.prevalence = np.maximum(stated, SMALLEST)
        ratio = self.prevalence / trained
        self.probabilities = reweighted(likely, ratio)
        self.thresholds, self.grades, self.evidence = None, None, None
        if first.objective.has_thresholds:
            self.thresholds = [
                calibration.calibrated_thresholds(
                    first.objective.scores(scores), truth, first.objective.num_classes, prevalence=self.prevalence
                )
                for scores, truth in seen
            ]
        else:
            likely = ensemble.calibrated(checkpoints, np.concatenate([scores for scores, _ in seen]))
            gains, costs = rule(reweighted(likely, ratio), likely @ ratio)
            evidence = gains * self.probabilities - costs
            self.grades = evidence.argmax(axis=1)
            self.evidence = evidence / _sure_leads(gains, costs)[self.grades, None]

    def describe(self) -> str:
        shares = " ".join(f"{share:.3f}" for share in self.prevalence)
        source = "estimated by EM (Saerens et al., 2002)" if self.estimated else "stated"
        decided = (
            f"cuts {' '.join(f'{value:.3f}' for value in np.mean(self.thresholds, axis=0))}"
            if self.thresholds
            else "grades"
        )
        return f"{decided}: of the highest expected macro-F1 for a prevalence of {shares}, {source}"


def check(checkpoints: Sequence[Checkpoint], stated: Sequence[float] | str, *, by: str = "mean") -> None:
    """Raises UsageError where this prevalence cannot be met, before the first photograph is looked at."""
    for one in checkpoints:
        if one.validation is None:
            raise UsageError(
                f"--prevalence: {one.path} keeps no validation scores to move its cuts by; give a checkpoint that "
                "train.py wrote, or leave --prevalence out"
            )
    if by == "vote" and not checkpoints[0].objective.has_thresholds:
        raise UsageError(
            f"--prevalence: {checkpoints[0].path} has no cuts, and the mean of its views is re-weighed, not their "
            "votes; add --tta_by mean"
        )
    classes = checkpoints[0].classes
    if not isinstance(stated, str) and len(stated) != len(classes):
        raise UsageError(
            f"--prevalence: it has {len(stated)} shares, but {checkpoints[0].path} has {len(classes)} classes "
            f"({', '.join(classes)})"
        )
