"""How good predictions are: the figures of an epoch or of a test, and their intervals. Arrays in, numbers out."""

import numpy as np

from dr.grading import calibration, cross_fitting, metrics, objectives
from dr.grading.objectives import Objective
from dr.grading.thresholds import (
    apply_thresholds,
    bagged_thresholds,
    kappa_thresholds,
    optimal_thresholds,
    rounding_thresholds,
)

FITTED_THRESHOLDS = {
    "calibrated": calibration.calibrated_thresholds,
    "optimal": optimal_thresholds,
    "bagged": bagged_thresholds,
    "kappa": kappa_thresholds,
}
RECALLS_UP_TO = 10  # classes; more would fill a table with columns that nobody reads
REPEATS, FEWER_REPEATS = 1000, 200  # of the bootstrap; fewer where one takes long
LONG = 100_000  # samples times classes


def fits_thresholds(objective: Objective, rule: str) -> bool:
    """Whether a recipe's `cuts` are fitted to validation, so that grades of the same photographs flatter."""
    return objective.has_thresholds and rule in FITTED_THRESHOLDS


def fit_thresholds(
    predictions: np.ndarray,
    truth: np.ndarray,
    *,
    objective: Objective,
    rule: str,
    prevalence: np.ndarray | None = None,
) -> np.ndarray | None:
    """predictions (N, P), truth (N,) -> cuts (K-1,) by a recipe's `cuts`, with `prevalence` (K,) as if each grade had
    that share; None where the objective has none."""
    if not objective.has_thresholds:
        return None
    if rule == "round":
        return rounding_thresholds(objective.num_classes)
    return FITTED_THRESHOLDS[rule](objective.scores(predictions), truth, objective.num_classes, prevalence=prevalence)


def cross_fitted_decisions(
    predictions: np.ndarray, truth: np.ndarray, *, objective: Objective, rule: str, seed: int
) -> np.ndarray:
    """-> grades (repeats, N) by a decision that has not seen the sample: cuts of the other half where cuts are fitted,
    else the one decision there is."""
    if fits_thresholds(objective, rule):
        scores = objective.scores(predictions)
        fit = FITTED_THRESHOLDS[rule]
        return cross_fitting.cross_fitted_grades(scores, truth, num_classes=objective.num_classes, seed=seed, fit=fit)
    thresholds = fit_thresholds(predictions, truth, objective=objective, rule=rule)
    return objectives.grades(objective, predictions, thresholds)[None]


def _decisions(
    predictions: np.ndarray, truth: np.ndarray, *, objective: Objective, rule: str, seed: int
) -> dict[str, np.ndarray]:
    """-> {name: grades (T, N)} of the decisions whose macro-F1 is reported, T of one kind, whose mean counts."""
    decided = {}
    if objective.has_thresholds:
        scores, classes = objective.scores(predictions), objective.num_classes
        fixed = {
            "rounded": rounding_thresholds(classes),
            "optimal": optimal_thresholds(scores, truth, classes),
        }
        decided = {name: apply_thresholds(scores, thresholds)[None] for name, thresholds in fixed.items()}
    crossed = cross_fitted_decisions(predictions, truth, objective=objective, rule=rule, seed=seed)
    return decided | {"cross_fitted": crossed}


def evaluate(
    predictions: np.ndarray, truth: np.ndarray, *, objective: Objective, rule: str = "optimal", seed: int
) -> tuple[dict[str, float], np.ndarray | None]:
    """predictions (N, P), truth (N,) -> (figures, cuts (K-1,) or None), the cuts fitted here by `rule`.

    kappa, accuracy and recall_k are with these cuts, macro_f1_optimal with the best there are; macro_f1_cross_fitted
    and kappa_cross_fitted with a decision that has not seen the photograph: honest whatever the rule, until the best
    of several epochs is chosen by them.
    """
    classes = objective.num_classes
    thresholds = fit_thresholds(predictions, truth, objective=objective, rule=rule)
    decided = _decisions(predictions, truth, objective=objective, rule=rule, seed=seed)
    figures = {
        f"macro_f1_{name}": float(np.mean([metrics.macro_f1(truth, one, classes) for one in graded]))
        for name, graded in decided.items()
    }
    kappas = [metrics.quadratic_kappa(truth, one, classes) for one in decided["cross_fitted"]]
    grades = objectives.grades(objective, predictions, thresholds)
    plain = measure(truth, grades, objectives.class_scores(objective, predictions))
    figures |= {
        "kappa": plain["kappa"],
        "kappa_cross_fitted": float(np.mean(kappas)),
        "accuracy": plain["accuracy"],
        "auc": plain["auc"],
    }
    if classes <= RECALLS_UP_TO:
        recall = metrics.recall_per_class(truth, grades, classes)
        figures |= {f"recall_{grade}": float(value) for grade, value in enumerate(recall)}
    return figures, thresholds


def measure(truth: np.ndarray, grades: np.ndarray, class_scores: np.ndarray) -> dict[str, float]:
    """truth (N,), grades (N,), class_scores (N, K) -> macro_f1, kappa, accuracy, auc: nothing is fitted."""
    return {name: float(figure(*arrays)) for name, (figure, *arrays) in _calls(truth, grades, class_scores).items()}


def measured_intervals(
    truth: np.ndarray, grades: np.ndarray, class_scores: np.ndarray, *, seed: int
) -> dict[str, list[float]]:
    """95 % bootstrap intervals of `measure` -> {name: [low, high]}; of REPEATS draws, of FEWER_REPEATS where one takes
    long."""
    calls = _calls(truth, grades, class_scores)
    repeats = FEWER_REPEATS if class_scores.size > LONG else REPEATS
    return {name: list(metrics.bootstrap_interval(*call, repeats=repeats, seed=seed)) for name, call in calls.items()}


def _calls(truth: np.ndarray, grades: np.ndarray, class_scores: np.ndarray) -> dict[str, tuple]:
    """-> {name: (figure, its arrays)}."""
    classes = class_scores.shape[1]
    return {
        "macro_f1": (lambda t, g: metrics.macro_f1(t, g, classes), truth, grades),
        "kappa": (lambda t, g: metrics.quadratic_kappa(t, g, classes), truth, grades),
        "accuracy": (lambda t, g: metrics.accuracy(t, g, classes), truth, grades),
        "auc": (metrics.auc, truth, class_scores),
    }


def intervals(
    predictions: np.ndarray,
    truth: np.ndarray,
    *,
    objective: Objective,
    thresholds: np.ndarray | None,
    rule: str = "optimal",
    seed: int,
) -> dict[str, list[float]]:
    """95 % bootstrap intervals of the figures of `evaluate` but recalls, the cuts held fixed -> {name: [low, high]}."""
    grades = objectives.grades(objective, predictions, thresholds)
    found = measured_intervals(truth, grades, objectives.class_scores(objective, predictions), seed=seed)
    del found["macro_f1"]  # with cuts fitted to the same photographs it flatters: evaluate has it as macro_f1_optimal
    for name, graded in _decisions(predictions, truth, objective=objective, rule=rule, seed=seed).items():
        measured = metrics.mean_intervals(truth, graded, num_classes=objective.num_classes, seed=seed)
        found[f"macro_f1_{name}"] = list(measured["macro_f1"])
        if name == "cross_fitted":
            found["kappa_cross_fitted"] = list(measured["kappa"])
    return found
