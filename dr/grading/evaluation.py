"""Thresholds by a recipe's rule, and the registered metrics of predictions with their intervals."""

from collections.abc import Callable, Mapping

import numpy as np

from dr.grading import bootstrap, calibration, cross_fitting, metrics, registry
from dr.grading.objective import Objective
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
RECALLS_UP_TO = 10  # classes; more columns would be unreadable
REPEATS, FEWER_REPEATS = 1000, 200  # of the bootstrap; fewer from calibration.LARGE_SET on


def fits_thresholds(objective: Objective, rule: str) -> bool:
    """Whether a recipe's `thresholds` rule fits them to validation, which makes metrics of its grades optimistic."""
    return objective.has_thresholds and rule in FITTED_THRESHOLDS


def fit_thresholds(
    predictions: np.ndarray,
    truth: np.ndarray,
    *,
    objective: Objective,
    rule: str,
    prevalence: np.ndarray | None = None,
) -> np.ndarray | None:
    """predictions (N, P), truth (N,) -> thresholds (K-1,) by a recipe's `thresholds` rule; None where the objective has
    none. `prevalence` (K,) weighs each grade to that share."""
    if not objective.has_thresholds:
        return None
    if rule == "round":
        return rounding_thresholds(objective.num_classes)
    return FITTED_THRESHOLDS[rule](objective.scores(predictions), truth, objective.num_classes, prevalence=prevalence)


def cross_fitted_decisions(
    predictions: np.ndarray, truth: np.ndarray, *, objective: Objective, rule: str, seed: int
) -> np.ndarray:
    """predictions (N, P), truth (N,) -> grades (T, N) by decisions made without the sample: thresholds fitted to the
    other half in T halvings where the rule fits them, otherwise the one fixed decision, T = 1."""
    if fits_thresholds(objective, rule):
        scores = objective.scores(predictions)
        fit = FITTED_THRESHOLDS[rule]
        return cross_fitting.cross_fitted_grades(scores, truth, num_classes=objective.num_classes, seed=seed, fit=fit)
    thresholds = fit_thresholds(predictions, truth, objective=objective, rule=rule)
    return objective.grades(predictions, thresholds)[None]


def _decisions(
    predictions: np.ndarray,
    truth: np.ndarray,
    thresholds: np.ndarray | None,
    *,
    objective: Objective,
    rule: str,
    seed: int,
) -> dict[str, np.ndarray]:
    """-> {decision of registry.Metric: grades (T, N)}, T decisions over which a metric is averaged."""
    decided = {"applied": objective.grades(predictions, thresholds)[None]}
    if objective.has_thresholds:
        scores, classes = objective.scores(predictions), objective.num_classes
        fixed = {"rounded": rounding_thresholds(classes), "optimal": optimal_thresholds(scores, truth, classes)}
        decided |= {name: apply_thresholds(scores, limits)[None] for name, limits in fixed.items()}
    crossed = cross_fitted_decisions(predictions, truth, objective=objective, rule=rule, seed=seed)
    return decided | {"cross_fitted": crossed}


def _values(
    split: str,
    truth: np.ndarray,
    decided: Mapping[str, np.ndarray],
    class_scores: np.ndarray,
    *,
    referable_from: int | None,
) -> dict[str, float]:
    """The registered metrics of a split that need no calibration -> {key: value}; a decision that does not exist has
    none."""
    classes = class_scores.shape[1]
    matrices = {name: [metrics.confusion(truth, row, classes) for row in graded] for name, graded in decided.items()}
    counted = _proportions(split, truth, decided, num_classes=classes, referable_from=referable_from)
    values = {}
    for metric in registry.for_split(split, "confusion", "proportion", "class_scores"):
        if metric.input == "class_scores":
            values[metric.key] = float(metric.compute(truth, class_scores))
        elif metric.input == "proportion":
            if metric.key in counted:
                hits, total = counted[metric.key]
                values[metric.key] = hits / total if total else float("nan")
        elif metric.decision in matrices:
            values[metric.key] = float(np.mean([metric.compute(matrix) for matrix in matrices[metric.decision]]))
    return values


def _mean_matrix(truth: np.ndarray, graded: np.ndarray, num_classes: int) -> np.ndarray:
    """truth (N,), grades (T, N) -> the mean confusion matrix (K, K) float of T decisions."""
    return np.mean([metrics.confusion(truth, row, num_classes) for row in graded], axis=0)


def classes_of(
    split: str, truth: np.ndarray, decided: Mapping[str, np.ndarray], *, num_classes: int
) -> dict[str, float]:
    """truth (N,), {decision: grades (T, N)} -> {Metric.class_index: index of the class that the value is of}."""
    return {
        metric.class_index: float(metric.class_of(_mean_matrix(truth, decided[metric.decision], num_classes)))
        for metric in registry.for_split(split, "proportion")
        if metric.class_of is not None and metric.decision in decided
    }


def _proportions(
    split: str, truth: np.ndarray, decided: Mapping[str, np.ndarray], *, num_classes: int, referable_from: int | None
) -> dict[str, tuple[float, float]]:
    """The registered proportions of a split that these classes have -> {key: (hits, total)}."""
    counted = {}
    for metric in registry.for_split(split, "proportion"):
        if metric.decision in decided:
            matrix = _mean_matrix(truth, decided[metric.decision], num_classes)
            counted[metric.key] = metric.compute(matrix, referable_from)
    return {key: counts for key, counts in counted.items() if counts is not None}


def _intervals(
    split: str,
    truth: np.ndarray,
    decided: Mapping[str, np.ndarray],
    class_scores: np.ndarray,
    *,
    referable_from: int | None,
    seed: int,
    patients: np.ndarray | None = None,
) -> dict[str, list[float]]:
    """95 % intervals of `_values` -> {key: [low, high]}: of proportions Wilson's, of other metrics by bootstrap with
    REPEATS draws, FEWER_REPEATS of the applied decision and the class scores of large sets."""
    fewer = FEWER_REPEATS if class_scores.size > calibration.LARGE_SET else REPEATS
    by_key = {}
    for name, graded in decided.items():
        chosen = [metric for metric in registry.for_split(split, "confusion") if metric.decision == name]
        if chosen:
            ends = bootstrap.confusion_intervals(
                [metric.compute for metric in chosen],
                truth,
                graded,
                num_classes=class_scores.shape[1],
                repeats=fewer if name == "applied" else REPEATS,
                seed=seed,
                patients=patients,
            )
            by_key |= {metric.key: list(interval) for metric, interval in zip(chosen, ends, strict=True)}
    for metric in registry.for_split(split, "class_scores"):
        draws = {"repeats": fewer, "seed": seed, "patients": patients}
        interval = bootstrap.bootstrap_interval(metric.compute, truth, class_scores, **draws)
        by_key[metric.key] = list(interval)
    classes = class_scores.shape[1]
    counted = _proportions(split, truth, decided, num_classes=classes, referable_from=referable_from)
    for key, (hits, total) in counted.items():
        by_key[key] = metrics.wilson([hits], [total])[:, 0].tolist() if total else [float("nan")] * 2
    return {metric.key: by_key[metric.key] for metric in registry.for_split(split) if metric.key in by_key}


def evaluate(
    predictions: np.ndarray,
    truth: np.ndarray,
    *,
    objective: Objective,
    rule: str = "optimal",
    seed: int,
    referable_from: int | None = None,
) -> tuple[dict[str, float], np.ndarray | None]:
    """predictions (N, P), truth (N,) of validation -> the registered metrics {key: value} with the recall of each class
    (`recall_0`, ...) of up to RECALLS_UP_TO, and the thresholds (K-1,) fitted here by `rule`, None without thresholds.
    `referable_from`: that of the registry, for these classes.

    Recalls are those of the fitted thresholds. Metrics that registry marks as biased by fitting are optimistic here;
    the cross-fitted ones are unbiased until the best of several epochs is selected by them.
    """
    classes = objective.num_classes
    thresholds = fit_thresholds(predictions, truth, objective=objective, rule=rule)
    decided = _decisions(predictions, truth, thresholds, objective=objective, rule=rule, seed=seed)
    class_scores = objective.class_scores(predictions)
    values = _values("val", truth, decided, class_scores, referable_from=referable_from)
    values |= classes_of("val", truth, decided, num_classes=classes)
    if classes <= RECALLS_UP_TO:
        recall = metrics.recall_per_class(truth, decided["applied"][0], classes)
        values |= {f"recall_{grade}": float(value) for grade, value in enumerate(recall)}
    return values, thresholds


def intervals(
    predictions: np.ndarray,
    truth: np.ndarray,
    *,
    objective: Objective,
    thresholds: np.ndarray | None,
    rule: str = "optimal",
    seed: int,
    referable_from: int | None = None,
) -> dict[str, list[float]]:
    """95 % intervals of the metrics of `evaluate` but recalls, the thresholds held fixed -> {key: [low, high]}."""
    decided = _decisions(predictions, truth, thresholds, objective=objective, rule=rule, seed=seed)
    class_scores = objective.class_scores(predictions)
    return _intervals("val", truth, decided, class_scores, referable_from=referable_from, seed=seed)


def measure(
    truth: np.ndarray, grades: np.ndarray, class_scores: np.ndarray, *, referable_from: int | None = None
) -> dict[str, float]:
    """truth (N,), grades (N,), class_scores (N, K) -> the registered metrics of a test, {key: value}. Nothing is
    fitted."""
    return _values("test", truth, {"applied": grades[None]}, class_scores, referable_from=referable_from)


def measured_intervals(
    truth: np.ndarray,
    grades: np.ndarray,
    class_scores: np.ndarray,
    *,
    seed: int,
    referable_from: int | None = None,
    patients: np.ndarray | None = None,
) -> dict[str, list[float]]:
    """95 % intervals of `measure` -> {key: [low, high]}. `patients` (N,) as in bootstrap: whole patients are drawn;
    Wilson's intervals of proportions take images as independent all the same."""
    decided = {"applied": grades[None]}
    return _intervals("test", truth, decided, class_scores, referable_from=referable_from, seed=seed, patients=patients)


def baselines(truth: np.ndarray, split: str) -> dict[str, float]:
    """truth (N,) -> the registered metrics of the truth alone, {key: value}, such as the accuracy of the
    majority-class baseline."""
    return {metric.key: float(metric.compute(truth)) for metric in registry.for_split(split, "truth")}


def calibrated(crossed: np.ndarray, truth: np.ndarray, *, seed: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """crossed (R, N, K), probabilities of each sample by R calibrations fitted without it, truth (N,) -> the
    registered metrics of calibration: {key: mean over R}, and their 95 % bootstrap intervals {key: [low, high]}."""
    values, intervals = {}, {}
    for metric in registry.for_split("val", "calibrated"):

        def mean(by_sample: np.ndarray, drawn: np.ndarray, compute: Callable = metric.compute) -> float:
            return float(np.mean([compute(each, drawn) for each in by_sample.swapaxes(0, 1)]))

        by_sample = crossed.swapaxes(0, 1)
        values[metric.key] = mean(by_sample, truth)
        draws = bootstrap.bootstrap(mean, by_sample, truth, repeats=FEWER_REPEATS, seed=seed)
        if metric.recentred:
            draws = draws - draws.mean() + values[metric.key]
        interval = np.quantile(draws, [0.025, 0.975])
        intervals[metric.key] = (interval.clip(0, 1) if metric.recentred else interval).tolist()
    return values, intervals
