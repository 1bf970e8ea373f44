"""How well grades agree with the truth: figures from the confusion matrix, and their bootstrap interval.

Throughout, truth and grades are (N,) integers in 0..num_classes - 1, N >= 1. Every function raises ValueError for empty
input, unequal lengths and values outside that range. The figures are scikit-learn's, which the tests check; computed
from the confusion matrix they cost microseconds, so that a thousand bootstrap repeats take a fraction of a second. The
area under the ROC curve needs ranks: a thousand repeats take a second for 1,700 samples of five classes.
"""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

AVERAGED = ("macro_f1", "kappa", "accuracy")  # figures of decisions whose mean is given
KAPPA = {"validation": "kappa_cross_fitted", "test": "kappa"}  # of each side the one that flatters nothing
AUC_REPEATS, AUC_CLASSES = 200, 30  # of the bootstrap of one class's AUC, which needs ranks; more classes have none


def confusion(truth, grades, num_classes=5):
    """Confusion matrix -> (num_classes, num_classes) int64 counts, rows the true class, columns the given grade."""
    truth, grades = _checked(truth, grades, num_classes)
    return np.bincount(truth * num_classes + grades, minlength=num_classes**2).reshape(num_classes, num_classes)


def macro_f1(truth, grades, num_classes=5):
    """Mean over all num_classes of the F1 = 2 TP / (class size + times given) -> float in 0..1.

    A class that is neither present nor given counts 0, as in scikit-learn's f1_score with labels=range(num_classes),
    average="macro", zero_division=0.
    """
    return _macro_f1(confusion(truth, grades, num_classes))


def quadratic_kappa(truth, grades, num_classes=5):
    """Cohen's kappa with quadratic weights (Cohen, Psychological Bulletin 1968;70:213) -> float in -1..1.

    It is 0 where truth and grades are one and the same class throughout and the formula is 0 / 0 (NaN in scikit-learn):
    a grader with only one answer has kappa 0 beside any other truth, and shows nothing beyond chance beside this one.
    """
    return _quadratic_kappa(confusion(truth, grades, num_classes))


def accuracy(truth, grades, num_classes=5):
    """Share of samples given their true class -> float in 0..1."""
    return _accuracy(confusion(truth, grades, num_classes))


def recall_per_class(truth, grades, num_classes=5):
    """Share of each class given its own grade -> (num_classes,) float64 in 0..1, NaN for a class that is absent."""
    counts = confusion(truth, grades, num_classes)
    sizes = counts.sum(axis=1)
    return np.where(sizes > 0, np.diagonal(counts) / np.maximum(sizes, 1), np.nan)


def per_class(truth, grades, class_scores):
    """truth, grades (N,) int, class_scores (N, K) float -> {figure: (K,)}: n, recall, precision, f1 and auc of each
    class. Recall and AUC are NaN for a class that is absent, precision for one that is never given; F1 is 0 for one
    that is neither, as in macro_f1."""
    class_scores = np.asarray(class_scores, dtype=np.float64)
    counts = confusion(truth, grades, class_scores.shape[1])
    hits, sizes, given = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    return {
        "n": sizes,
        "recall": recall_per_class(truth, grades, len(counts)),
        "precision": np.where(given > 0, hits / np.maximum(given, 1), np.nan),
        "f1": 2.0 * hits / np.maximum(sizes + given, 1),
        "auc": np.array([_area(np.asarray(truth) == k, class_scores[:, k]) for k in range(len(counts))]),
    }


def per_class_intervals(truth, grades, class_scores, *, repeats=1000, level=0.95, seed=0):
    """truth, grades (N,) int, class_scores (N, K) -> {figure: (2, K)}: low and high of recall, precision, f1 and auc of
    each class, percentile bootstrap over samples. Repeats in which a figure is not defined do not count; NaN where it
    never is, and for the AUC of more than AUC_CLASSES. A share of 0 or 1 would have no width: recall and precision then
    have the interval of Wilson (J. Am. Stat. Assoc. 1927;22:209)."""
    class_scores = np.asarray(class_scores, dtype=np.float64)
    num_classes = class_scores.shape[1]
    truth, grades = _checked(truth, grades, num_classes)
    rng = np.random.default_rng(seed)
    hits, sizes, given = (np.empty((repeats, num_classes)) for _ in range(3))
    areas = np.full((min(repeats, AUC_REPEATS), num_classes), np.nan)
    for repeat in range(repeats):
        rows = rng.integers(len(truth), size=len(truth))
        drawn, graded = truth[rows], grades[rows]
        hits[repeat] = np.bincount(drawn[drawn == graded], minlength=num_classes)
        sizes[repeat] = np.bincount(drawn, minlength=num_classes)
        given[repeat] = np.bincount(graded, minlength=num_classes)
        if repeat < len(areas) and num_classes <= AUC_CLASSES:
            areas[repeat] = [_area(drawn == k, class_scores[rows, k]) for k in range(num_classes)]
    values = {
        "recall": np.where(sizes > 0, hits / np.maximum(sizes, 1), np.nan),
        "precision": np.where(given > 0, hits / np.maximum(given, 1), np.nan),
        "f1": 2 * hits / np.maximum(sizes + given, 1),
        "auc": areas,
    }
    ends = [(1 - level) / 2, (1 + level) / 2]
    found = {}
    for name, drawn in values.items():
        never = np.isnan(drawn).all(axis=0)
        found[name] = np.nanquantile(np.where(never, 0, drawn), ends, axis=0)
        found[name][:, never] = np.nan
    counts = confusion(truth, grades, num_classes)
    for name, totals in (("recall", counts.sum(axis=1)), ("precision", counts.sum(axis=0))):
        hits = np.diagonal(counts)
        same = (totals > 0) & ((hits == 0) | (hits == totals))
        found[name][:, same] = wilson(hits[same], totals[same], level=level)
    return found


def wilson(hits, totals, *, level=0.95):
    """The interval of the share hits / totals, arrays (M,) of counts with totals > 0 -> (2, M) low and high, 0..1:
    Wilson (J. Am. Stat. Assoc. 1927;22:209)."""
    hits, totals = np.asarray(hits, np.float64), np.asarray(totals, np.float64)
    squared = NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle = (hits + squared / 2) / (totals + squared)
    half = np.sqrt(squared * (hits * (totals - hits) / totals + squared / 4)) / (totals + squared)
    return np.clip(np.stack([middle - half, middle + half]), 0, 1)


def majority(truth):
    """truth (N,) int -> accuracy of always giving the most frequent class, float in 0..1."""
    return float(np.bincount(truth).max() / len(truth))


def below_majority(measured: Mapping[str, Any]) -> dict[str, bool]:
    """What a checkpoint holds as `metrics` -> the sides, of validation and test, on which its accuracy is no better
    than that of always giving the most frequent class; of each, whether it tells classes apart all the same: whether
    the interval of its kappa lies above 0. Cuts for macro-F1 pay for rare grades with accuracy."""
    figures = {"validation": measured, "test": measured.get("test", {})}
    return {
        side: seen.get("intervals", {}).get(KAPPA[side], (0, 0))[0] > 0
        for side, seen in figures.items()
        if "majority" in seen and seen["accuracy"] <= seen["majority"]
    }


def auc(truth, class_scores):
    """Mean over the classes of the one-vs-rest area under the ROC curve -> float in 0..1, as MedMNIST's evaluator and
    scikit-learn's roc_auc_score(multi_class="ovr", average="macro") compute it; for two classes the usual area.

    truth (N,) int in 0..K-1, class_scores (N, K) float, higher for likelier classes. A class that is absent, or the
    only one, does not count; NaN where no class counts. By ranks: Hanley and McNeil, Radiology 1982;143:29.
    """
    truth, class_scores = np.asarray(truth), np.asarray(class_scores, dtype=np.float64)
    if class_scores.ndim != 2 or truth.shape != class_scores.shape[:1] or len(truth) == 0:
        raise ValueError(
            f"auc needs truth (N,) and class_scores (N, K), got shapes {truth.shape} and {class_scores.shape}"
        )
    sizes = np.bincount(truth, minlength=class_scores.shape[1])
    counted = np.flatnonzero((sizes > 0) & (sizes < len(truth)))
    return float(np.mean([_area(truth == k, class_scores[:, k]) for k in counted])) if len(counted) else float("nan")


def _area(positive, scores):
    """positive (N,) bool, scores (N,) -> area under the ROC curve, NaN where all samples are alike."""
    size, others = positive.sum(), (~positive).sum()
    if size == 0 or others == 0:
        return float("nan")
    ranks = pd.Series(scores).rank().to_numpy()  # the mean rank of equals; scipy.stats would take a second to import
    return float((ranks[positive].sum() - size * (size + 1) / 2) / (size * others))


def bootstrap(statistic, *arrays, repeats=1000, seed=0):
    """What a statistic of paired arrays, each (N, ...), gives for N rows drawn with replacement, the same rows of each
    array -> (repeats, ...). The rows must be independent: where both eyes of a patient are rows, what is drawn spreads
    too little. Raises ValueError for no or empty arrays, unequal lengths and fewer than one repeat."""
    arrays = [np.asarray(array) for array in arrays]
    lengths = [len(array) for array in arrays]
    if not lengths or len(set(lengths)) > 1 or lengths[0] == 0:
        raise ValueError(f"bootstrap needs arrays of one length, 1 or more, got lengths {lengths}")
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}")
    rng = np.random.default_rng(seed)
    draws = (rng.integers(lengths[0], size=lengths[0]) for _ in range(repeats))
    return np.array([statistic(*(array[rows] for array in arrays)) for rows in draws])


def bootstrap_interval(statistic, *arrays, repeats=1000, level=0.95, seed=0):
    """Percentile bootstrap interval of a statistic, which returns a float -> (low, high) float, as `bootstrap` draws.

    level in 0..1, exclusive, is the share of the repeats that lie within. Repeats in which the statistic is not defined
    (NaN) do not count; the interval is NaN where it never is. Raises ValueError as `bootstrap` does, and for a level
    outside its range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    values = bootstrap(statistic, *arrays, repeats=repeats, seed=seed)
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_intervals(truth, graded, *, num_classes=5, repeats=1000, level=0.95, seed=0):
    """truth (N,), graded (T, N), T decisions whose figures are averaged -> {figure: (low, high)} of macro_f1, kappa
    (quadratic) and accuracy, percentile bootstrap over samples. Raises ValueError as the head of this file says."""
    codes = _codes(truth, graded, num_classes)
    seen = bootstrap(lambda drawn: _mean_metrics(drawn, num_classes), codes, repeats=repeats, seed=seed)
    low, high = np.quantile(seen, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(low[k]), float(high[k])) for k, name in enumerate(AVERAGED)}


def paired_differences(truth, one, other, *, num_classes=5, repeats=1000, level=0.95, seed=0):
    """How much better `one` grades the same samples than `other` -> {figure: (difference, low, high)} of macro_f1,
    kappa (quadratic) and accuracy, with the percentile bootstrap interval of the difference.

    truth (N,), one and other (N,) or (T, N), T decisions whose figures are averaged. Every repeat draws N samples, the
    same for both graders: what is hard for both does not widen the interval (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, ch. 8). Raises ValueError as the head of this file says.
    """

    def difference(*drawn):
        return np.subtract(*(_mean_metrics(codes, num_classes) for codes in drawn))

    both = [_codes(truth, np.atleast_2d(grades), num_classes) for grades in (one, other)]
    found, seen = difference(*both), bootstrap(difference, *both, repeats=repeats, seed=seed)
    low, high = np.quantile(seen, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(found[k]), float(low[k]), float(high[k])) for k, name in enumerate(AVERAGED)}


def _codes(truth, graded, num_classes):
    """truth (N,), graded (T, N) -> (N, T) int, truth * num_classes + grade."""
    checked = [_checked(truth, row, num_classes) for row in graded]
    return np.stack([known * num_classes + row for known, row in checked], axis=1)


def _mean_metrics(codes, num_classes):
    """(N, T) as _codes gives them -> (3,) the means over T of macro-F1, kappa, accuracy."""
    matrices = [np.bincount(one, minlength=num_classes**2).reshape(num_classes, num_classes) for one in codes.T]
    return np.mean([[figure(counts) for figure in (_macro_f1, _quadratic_kappa, _accuracy)] for counts in matrices], 0)


def _macro_f1(counts):
    sizes = counts.sum(axis=1) + counts.sum(axis=0)
    return float(np.mean(2.0 * np.diagonal(counts) / np.maximum(sizes, 1)))


def _quadratic_kappa(counts):
    classes = np.arange(len(counts))
    weights = (classes[:, None] - classes) ** 2  # kappa is a ratio: the usual division by (K - 1) ** 2 cancels
    by_chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    expected = np.sum(weights * by_chance)
    if expected == 0:
        return 0.0
    return float(1 - np.sum(weights * counts) / expected)


def _accuracy(counts):
    return float(np.trace(counts) / counts.sum())


def _checked(truth, grades, num_classes):
    """truth, grades as given -> both (N,) int64. Raises ValueError as the head of this file says."""
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, got {num_classes}")
    truth, grades = np.asarray(truth), np.asarray(grades)
    if truth.ndim != 1 or truth.shape != grades.shape:
        raise ValueError(f"truth and grades must have one length, got shapes {truth.shape} and {grades.shape}")
    if len(truth) == 0:
        raise ValueError("there are no samples: a metric needs at least one true class and its grade")
    for name, values in (("truth", truth), ("grades", grades)):
        bad = np.flatnonzero(~np.isin(values, np.arange(num_classes)))
        if len(bad):
            raise ValueError(
                f"{name}[{bad[0]}] is {values[bad[0]]}, expected a whole number from 0 to {num_classes - 1}"
            )
    return truth.astype(np.int64), grades.astype(np.int64)
