"""Decisions for images whose class prevalence differs from the validation set's: stated, or estimated from them.

K classes; a prevalence (K,) is the share of each class, with sum 1.
"""

from collections.abc import Sequence

import numpy as np

from dr import UsageError
from dr.grading import calibration
from dr.grading.calibration import MIN_PROBABILITY, reweighted
from dr.inference import ensemble
from dr.inference.checkpoint import Checkpoint
from dr.inference.decision import Decision
from dr.inference.forward import mean_predictions
from dr.inference.grader import Grader, NetworkOutputs

TOLERANCE, MAX_STEPS = 1e-6, 1000
# validation images that count as much as each image at hand: with maximum likelihood alone, classes that a score hardly
# separates vanish
PRIOR = 0.5
STEPS = 200  # of Frank and Wolfe: from 25 on at most one of 2,764 images has another grade than after 1,600


def estimate(probabilities: np.ndarray, trained: np.ndarray, *, prior: np.ndarray | None = None) -> np.ndarray:
    """probabilities (N, K), N >= 1, calibrated at prevalence `trained` (K,) > 0 -> the prevalence of these images, by
    the EM of Saerens, Latinne and Decaestecker (Neural Computation 2002;14:21) with a Dirichlet prior around `prior`
    (K,), by default `trained`."""
    prior = trained if prior is None else prior
    estimated = trained
    for _ in range(MAX_STEPS):
        before, estimated = estimated, reweighted(probabilities, estimated / trained).mean(axis=0)
        estimated = (estimated + PRIOR * prior) / (1 + PRIOR)
        if np.abs(estimated - before).max() < TOLERANCE:
            break
    return estimated


def rule(probabilities: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """probabilities (N, K) of samples with `weights` (N,) > 0 -> gains, costs (K,): the classes argmax(gains p - costs)
    have the highest expected macro-F1 that Frank-Wolfe steps reach from argmax(p). The optimal rule is linear in the
    probabilities (Narasimhan et al., ICML 2015)."""
    classes, shares = np.eye(probabilities.shape[1]), weights / weights.sum()
    chosen, true = classes[probabilities.argmax(axis=1)], shares @ probabilities
    for step in range(STEPS):
        sizes = shares @ chosen + true  # F1 = 2 hits / (chosen + true); gains and costs are its derivative
        gains, costs = 2 / sizes, 2 * (shares @ (chosen * probabilities)) / sizes**2
        chosen += (classes[(gains * probabilities - costs).argmax(axis=1)] - chosen) * 2 / (step + 3)
    return gains / gains.max(), costs / gains.max()


def _largest_leads(gains: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """-> (K,), the lead of each class over the next one for a sample with probability 1 of that class."""
    values = np.diag(gains) - costs
    return np.diagonal(values) - np.where(np.eye(len(costs), dtype=bool), -np.inf, values).max(axis=1)


class Shift:
    """The decisions at another prevalence, of images with mean predictions (N, P): `prevalence` (K,), calibrated
    `probabilities` (N, K), and either `thresholds` (K-1,) of each checkpoint or, without thresholds, `grades` (N,), the
    argmax of `decision_values` (N, K). Their lead over the next class is 1 for a sample with probability 1.

    Thresholds and grades have the highest expected macro-F1 on the reweighted validation set. Raises UsageError for a
    checkpoint without validation scores, and for a prevalence of another number of classes.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], predictions: np.ndarray, stated: Sequence[float] | str):
        check(checkpoints, stated)
        objective = checkpoints[0].objective
        calibrated = ensemble.calibrated(checkpoints, predictions)
        validation = ensemble.validation(checkpoints)
        counts = np.bincount(np.concatenate([truth for _, truth in validation]), minlength=calibrated.shape[1])
        trained = np.maximum(counts, 0.5)  # half an image of a class that the validation set lacks
        trained = trained / trained.sum()
        self.estimated = isinstance(stated, str)
        if self.estimated:  # the prior: not what folds hold out, which data.py may have balanced
            prior = ensemble.class_prevalence(checkpoints)
            self.prevalence = estimate(calibrated, trained, prior=prior) if len(calibrated) else prior
        else:
            self.prevalence = np.maximum(stated, MIN_PROBABILITY)
        ratio = self.prevalence / trained
        self.probabilities = reweighted(calibrated, ratio)
        self.thresholds, self.grades, self.decision_values = None, None, None
        if objective.has_thresholds:
            self.thresholds = [
                calibration.calibrated_thresholds(
                    objective.scores(scores), truth, objective.num_classes, prevalence=self.prevalence
                )
                for scores, truth in validation
            ]
        else:
            self._decide_by_rule(
                ensemble.calibrated(checkpoints, np.concatenate([scores for scores, _ in validation])), ratio
            )

    def _decide_by_rule(self, validation: np.ndarray, ratio: np.ndarray) -> None:
        """Calibrated probabilities (M, K) of the validation set; new over old prevalence (K,)."""
        gains, costs = rule(reweighted(validation, ratio), validation @ ratio)
        values = gains * self.probabilities - costs
        self.grades = values.argmax(axis=1)
        self.decision_values = values / _largest_leads(gains, costs)[self.grades, None]

    def describe(self) -> str:
        """One sentence: the rule, the prevalence and its source."""
        shares = " ".join(f"{share:.3f}" for share in self.prevalence)
        source = "estimated by EM (Saerens et al., 2002)" if self.estimated else "stated"
        decided = "grades"
        if self.thresholds:
            decided = f"thresholds {' '.join(f'{value:.3f}' for value in np.mean(self.thresholds, axis=0))}"
        return f"{decided}: highest expected macro-F1 at a prevalence of {shares}, {source}"


def decide(grader: Grader, outputs: NetworkOutputs, stated: Sequence[float] | str) -> Decision:
    """The decision at a stated prevalence (K,), or at one that is estimated (`auto`)."""
    shift = Shift(grader.checkpoints, mean_predictions(grader.checkpoints, outputs.outputs), stated)
    thresholds = shift.thresholds or [None] * len(grader.checkpoints)
    predictions, grades = grader.predictions_and_grades(outputs, thresholds)
    grades = grades if shift.grades is None else shift.grades
    return Decision(predictions, grades, shift.probabilities, True, thresholds, shift.describe(), shift.decision_values)


def check(checkpoints: Sequence[Checkpoint], stated: Sequence[float] | str, *, by: str = "mean") -> None:
    """Raises UsageError where these checkpoints cannot decide at this prevalence, before the first image is read."""
    for checkpoint in checkpoints:
        if checkpoint.validation is None:
            raise UsageError(
                f"--prevalence: {checkpoint.path} has no validation scores to refit its thresholds on; use a "
                "checkpoint of train.py, or leave out --prevalence"
            )
    first = checkpoints[0]
    if by == "vote" and not first.objective.has_thresholds:
        raise UsageError(
            f"--prevalence: {first.path} has no thresholds, and only the mean of its TTA views can be reweighted, not "
            "their votes; add --tta_by mean"
        )
    if not isinstance(stated, str) and len(stated) != len(first.classes):
        raise UsageError(
            f"--prevalence: {len(stated)} shares for the {len(first.classes)} classes of {first.path} "
            f"({', '.join(first.classes)}); state one share for each class"
        )
