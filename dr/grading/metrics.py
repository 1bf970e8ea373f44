"""How well grades agree with the truth: metrics of the confusion matrix, area under the ROC curve, metrics per class.

Throughout, truth and grades are (N,) integers in 0..num_classes - 1, N >= 1. Every function raises ValueError for empty
input, unequal lengths and values outside that range. The values equal those of scikit-learn, which the tests check.
From the confusion matrix they take microseconds, so that 1000 bootstrap repeats take a fraction of a second. The area
under the ROC curve needs ranks: 1000 repeats take a second for 1,700 samples of five classes.
"""

from statistics import NormalDist

import numpy as np
import pandas as pd

from dr.grading.resampling import Rows

AUC_REPEATS, AUC_CLASSES = 200, 30  # of the bootstrap of one class's AUC; no interval for more classes


def confusion(truth, grades, num_classes=5):
    """Confusion matrix -> (num_classes, num_classes) int64 counts, rows the true class, columns the predicted grade."""
    truth, grades = checked(truth, grades, num_classes)
    return np.bincount(truth * num_classes + grades, minlength=num_classes**2).reshape(num_classes, num_classes)


def macro_f1(truth, grades, num_classes=5):
    """Mean over all num_classes of the F1 = 2 TP / (samples of the class + predictions of the class) -> float in 0..1.

    A class that is neither present nor predicted counts 0, as in scikit-learn's f1_score with
    labels=range(num_classes), average="macro", zero_division=0.
    """
    return macro_f1_of_confusion(confusion(truth, grades, num_classes))


def quadratic_kappa(truth, grades, num_classes=5):
    """Cohen's kappa with quadratic weights (Cohen, Psychological Bulletin 1968;70:213) -> float in -1..1.

    Where truth and grades are one and the same class throughout, the formula is 0 / 0 (NaN in scikit-learn), and kappa
    is 0 here, as for a constant grader with any other truth.
    """
    return quadratic_kappa_of_confusion(confusion(truth, grades, num_classes))


def accuracy(truth, grades, num_classes=5):
    """Share of samples whose grade is their true class -> float in 0..1."""
    return accuracy_of_confusion(confusion(truth, grades, num_classes))


def recall_per_class(truth, grades, num_classes=5):
    """Share of each class that is graded correctly -> (num_classes,) float64 in 0..1, NaN for an absent class."""
    matrix = confusion(truth, grades, num_classes)
    sizes = matrix.sum(axis=1)
    return np.where(sizes > 0, np.diagonal(matrix) / np.maximum(sizes, 1), np.nan)


def per_class(truth, grades, class_scores):
    """truth, grades (N,) int, class_scores (N, K) float -> {metric: (K,)}: n, recall, precision, f1 and auc of each
    class. Recall and AUC are NaN for an absent class, precision for one that is never predicted. F1 is 0 for a class
    that is neither present nor predicted, as in macro_f1."""
    class_scores = np.asarray(class_scores, dtype=np.float64)
    matrix = confusion(truth, grades, class_scores.shape[1])
    hits, sizes, given = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "n": sizes,
        "recall": recall_per_class(truth, grades, len(matrix)),
        "precision": np.where(given > 0, hits / np.maximum(given, 1), np.nan),
        "f1": 2.0 * hits / np.maximum(sizes + given, 1),
        "auc": np.array([_area(np.asarray(truth) == k, class_scores[:, k]) for k in range(len(matrix))]),
    }


def per_class_intervals(truth, grades, class_scores, *, repeats=1000, level=0.95, seed=0, patients=None):
    """truth, grades (N,) int, class_scores (N, K) -> {metric: (2, K)}: low and high of recall, precision, f1 and auc of
    each class, by the percentile bootstrap over samples, or over `patients` (N,) as in bootstrap. Repeats in which a
    metric is not defined do not count; it is NaN where no repeat defines it, and for the AUC of more than AUC_CLASSES.
    A recall or precision of 0 or 1, which the bootstrap gives no width, has Wilson's interval."""
    class_scores = np.asarray(class_scores, dtype=np.float64)
    num_classes = class_scores.shape[1]
    truth, grades = checked(truth, grades, num_classes)
    rows = Rows(len(truth), patients)
    draws = _per_class_draws(truth, grades, class_scores, rows=rows, repeats=repeats, seed=seed)
    intervals = {name: _percentiles(drawn, level) for name, drawn in draws.items()}
    matrix = confusion(truth, grades, num_classes)
    hits = np.diagonal(matrix)
    for name, totals in (("recall", matrix.sum(axis=1)), ("precision", matrix.sum(axis=0))):
        extreme = (totals > 0) & ((hits == 0) | (hits == totals))
        intervals[name][:, extreme] = wilson(hits[extreme], totals[extreme], level=level)
    return intervals


def _per_class_draws(truth, grades, class_scores, *, rows, repeats, seed):
    """-> {metric: (R, K)} of bootstrap draws, NaN where a draw does not define the metric."""
    num_classes = class_scores.shape[1]
    rng = np.random.default_rng(seed)
    hits, sizes, given = (np.empty((repeats, num_classes)) for _ in range(3))
    areas = np.full((min(repeats, AUC_REPEATS), num_classes), np.nan)
    for repeat in range(repeats):
        chosen = rows.draw(rng)
        drawn, graded = truth[chosen], grades[chosen]
        hits[repeat] = np.bincount(drawn[drawn == graded], minlength=num_classes)
        sizes[repeat] = np.bincount(drawn, minlength=num_classes)
        given[repeat] = np.bincount(graded, minlength=num_classes)
        if repeat < len(areas) and num_classes <= AUC_CLASSES:
            areas[repeat] = [_area(drawn == k, class_scores[chosen, k]) for k in range(num_classes)]
    return {
        "recall": np.where(sizes > 0, hits / np.maximum(sizes, 1), np.nan),
        "precision": np.where(given > 0, hits / np.maximum(given, 1), np.nan),
        "f1": 2 * hits / np.maximum(sizes + given, 1),
        "auc": areas,
    }


def _percentiles(draws, level):
    """draws (R, K) -> (2, K) low and high of each column without its NaN; NaN for a column of NaN."""
    never = np.isnan(draws).all(axis=0)
    ends = np.nanquantile(np.where(never, 0, draws), [(1 - level) / 2, (1 + level) / 2], axis=0)
    ends[:, never] = np.nan
    return ends


def wilson(hits, totals, *, level=0.95):
    """Wilson's score interval (J. Am. Stat. Assoc. 1927;22:209) of the proportions hits / totals, counts (M,) with
    totals > 0 -> (2, M) low and high in 0..1."""
    hits, totals = np.asarray(hits, np.float64), np.asarray(totals, np.float64)
    squared = NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle = (hits + squared / 2) / (totals + squared)
    half = np.sqrt(squared * (hits * (totals - hits) / totals + squared / 4)) / (totals + squared)
    return np.clip(np.stack([middle - half, middle + half]), 0, 1)


def majority(truth):
    """truth (N,) int -> accuracy of always answering with the most frequent class, float in 0..1."""
    return float(np.bincount(truth).max() / len(truth))


def auc(truth, class_scores):
    """Mean over the classes of the one-vs-rest area under the ROC curve -> float in 0..1, as in MedMNIST's evaluator
    and scikit-learn's roc_auc_score(multi_class="ovr", average="macro"); for two classes the usual area.

    truth (N,) int in 0..K-1, class_scores (N, K) float, higher for more probable classes. Absent classes, and the only
    one present, do not count; NaN where no class counts. By ranks: Hanley and McNeil, Radiology 1982;143:29.
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
    """positive (N,) bool, scores (N,) -> area under the ROC curve, NaN where all samples are of one class."""
    size, others = positive.sum(), (~positive).sum()
    if size == 0 or others == 0:
        return float("nan")
    ranks = pd.Series(scores).rank().to_numpy()  # mean rank of ties; importing scipy.stats takes a second
    return float((ranks[positive].sum() - size * (size + 1) / 2) / (size * others))


def macro_f1_of_confusion(matrix):
    """Confusion matrix (K, K) -> `macro_f1`, float in 0..1."""
    sizes = matrix.sum(axis=1) + matrix.sum(axis=0)
    return float(np.mean(2.0 * np.diagonal(matrix) / np.maximum(sizes, 1)))


def quadratic_kappa_of_confusion(matrix):
    """Confusion matrix (K, K) -> `quadratic_kappa`, float in -1..1."""
    classes = np.arange(len(matrix))
    weights = (classes[:, None] - classes) ** 2  # kappa is a ratio: the usual division by (K - 1) ** 2 cancels
    by_chance = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / matrix.sum()
    expected = np.sum(weights * by_chance)
    if expected == 0:
        return 0.0
    return float(1 - np.sum(weights * matrix) / expected)


def accuracy_of_confusion(matrix):
    """Confusion matrix (K, K) -> `accuracy`, float in 0..1."""
    return float(np.trace(matrix) / matrix.sum())


def referable_counts(matrix, referable_from):
    """Confusion matrix (K, K), first referable class -> (hits, total): images of that class or a higher one that were
    graded so, and all images of these classes. None where `referable_from` is None."""
    if referable_from is None:
        return None
    return float(matrix[referable_from:, referable_from:].sum()), float(matrix[referable_from:].sum())


def lowest_recall_class(matrix):
    """Confusion matrix (K, K) with a sample -> the class of the lowest recall among those present, of equals the
    last, in 0..K-1."""
    sizes = matrix.sum(axis=1)
    recall = np.where(sizes > 0, np.diagonal(matrix) / np.maximum(sizes, 1), np.inf)
    return int(len(recall) - 1 - np.argmin(recall[::-1]))


def lowest_recall_counts(matrix, referable_from=None):
    """Confusion matrix (K, K) -> (hits, total) of its `lowest_recall_class`."""
    row = lowest_recall_class(matrix)
    return float(matrix[row, row]), float(matrix[row].sum())


def checked(truth, grades, num_classes):
    """truth, grades (N,) array-like -> both (N,) int64. Raises ValueError as the module docstring states."""
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, got {num_classes}")
    truth, grades = np.asarray(truth), np.asarray(grades)
    if truth.ndim != 1 or truth.shape != grades.shape:
        raise ValueError(f"truth and grades must have one length, got shapes {truth.shape} and {grades.shape}")
    if len(truth) == 0:
        raise ValueError("no samples: a metric needs at least one true class and its grade")
    for name, values in (("truth", truth), ("grades", grades)):
        bad = np.flatnonzero(~np.isin(values, np.arange(num_classes)))
        if len(bad):
            raise ValueError(
                f"{name}[{bad[0]}] is {values[bad[0]]}, expected a whole number from 0 to {num_classes - 1}"
            )
    return truth.astype(np.int64), grades.astype(np.int64)
