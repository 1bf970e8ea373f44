"""Thresholds between grades of a continuous score: by rounding, or those of highest macro-F1, found exactly.

Scores are floats, roughly 0..num_classes - 1; grades are integers 0..num_classes - 1; thresholds are num_classes - 1
ascending floats. A score equal to a threshold gets the higher grade.
"""

import numpy as np

from dr.grading.threshold_search import best_positions, between_distinct, least_sum, traced_back

MAX_POSITIONS = 500  # that expected_f1_thresholds tries


def apply_thresholds(scores, thresholds):
    """Grade scores by thresholds.

    scores (N,) finite float; thresholds (K-1,) finite float, ascending -> grades (N,) int64 in 0..K-1. The grade
    between two equal thresholds is never given. Raises ValueError for scores or thresholds that are not finite or not
    one-dimensional, and for thresholds that descend.
    """
    scores, thresholds = _finite(scores, "scores"), _finite(thresholds, "thresholds")
    if np.any(thresholds[1:] < thresholds[:-1]):
        raise ValueError(f"thresholds must ascend, got {thresholds.tolist()}")
    return np.searchsorted(thresholds, scores, side="right").astype(np.int64)


def rounding_thresholds(num_classes=5):
    """Thresholds that round a score to the nearest grade -> (num_classes - 1,) float64: .5, 1.5, 2.5, 3.5 for five.

    Raises ValueError for fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, got {num_classes}")
    return np.arange(num_classes - 1) + 0.5


def optimal_thresholds(scores, grades, num_classes=5, *, prevalence=None):
    """The thresholds of the highest macro-F1 that any thresholds reach on these samples, the global optimum. A class
    that is neither present nor predicted counts 0. `prevalence` (K,) weighs each grade to that share.

    scores (N,) finite float, grades (N,) int in 0..num_classes - 1, N >= 1 -> thresholds (num_classes - 1,) finite
    float64, ascending.

    Each threshold is midway between two neighbouring distinct scores. A threshold below or above all scores is where
    rounding would put it, or half a grade beyond the outermost score, whichever is further out. Of equally good
    thresholds (up to float rounding) those win that, from the highest class down, leave the class empty, or else begin
    it lowest.

    Raises ValueError for empty input, unequal lengths, scores that are not finite and grades outside the range.
    """
    scores, grades = _in_order(scores, grades, num_classes)
    positions = best_positions(scores, grades, _weights(grades, prevalence), num_classes)
    return _thresholds_at(scores, positions, num_classes)


def _weights(grades, prevalence):
    """grades (N,) int, prevalence (K,) or None -> weights (N,) that give each grade its share: 1 for None, with a mean
    of 1 where every grade has samples."""
    if prevalence is None:
        return np.ones(len(grades))
    shares = np.asarray(prevalence, np.float64)
    return (shares / np.maximum(np.bincount(grades, minlength=len(shares)), 1))[grades] * len(grades)


def bagged_thresholds(scores, grades, num_classes=5, *, prevalence=None, repeats=25, seed=0):
    """The mean of the optimal thresholds of bootstrap samples (Breiman, Machine Learning 1996;24:123) -> (num_classes -
    1,) float64, ascending. On few samples it varies less than the optimal thresholds.

    Arguments and errors are those of optimal_thresholds.
    """
    scores, grades = checked(scores, grades, num_classes)
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(scores), size=(repeats, len(scores)))
    fitted = [optimal_thresholds(scores[drawn], grades[drawn], num_classes, prevalence=prevalence) for drawn in rows]
    return np.mean(fitted, axis=0)


def kappa_thresholds(scores, grades, num_classes=5, *, prevalence=None):
    """The thresholds of the highest quadratic weighted kappa that any thresholds reach on these samples
    -> (num_classes - 1,) finite float64, ascending. Arguments and errors are those of optimal_thresholds.

    Kappa is 1 - O / E. A sample of grade i that is given j adds (i - j)^2 to O, and the mean of (i' - j)^2 over all
    true grades i' to E. For a fixed ratio r, O - r E is a sum over samples, whose minimum dynamic programming over
    sorted scores finds. Then r becomes O / E there, until the minimum is 0 and r is the lowest ratio (Dinkelbach,
    Management Science 1967;13:492).
    """
    scores, grades = _in_order(scores, grades, num_classes)
    positions = between_distinct(scores)
    classes = np.arange(num_classes)
    weights = _weights(grades, prevalence)[:, None]
    distance = weights * (grades[:, None] - classes) ** 2.0  # (N, K), if the sample were given j
    by_chance = weights * distance.sum(axis=0) / weights.sum()
    # of all samples below each position, if they were given j
    observed, expected = (
        np.concatenate((np.zeros((1, num_classes)), np.cumsum(terms, axis=0)))[positions]
        for terms in (distance, by_chance)
    )
    ratio, best = 1.0, None  # kappa 0, which any single grade for all has
    while True:
        starts = least_sum(observed - ratio * expected)
        borders = np.concatenate(([0], starts, [len(positions) - 1]))
        o, e = (np.diff(sums[borders], axis=0)[classes, classes].sum() for sums in (observed, expected))
        if best is None or (e > 0 and o / e < ratio * (1 - 1e-12)):
            ratio, best = o / e if e > 0 else ratio, starts
        else:
            return _thresholds_at(scores, positions[best], num_classes)


def expected_f1_thresholds(scores, masses):
    """The thresholds of highest expected macro-F1, the F1 of expected counts, given the probability of each grade for
    each sample (the plug-in rule of Koyejo et al., NeurIPS 2014).

    scores (N,) finite float, N >= 1; masses (N, K) >= 0: the probability of each grade, times the sample's weight
    -> (K-1,) finite float64, ascending. By the dynamic programme of optimal_thresholds over at most MAX_POSITIONS
    positions, since the sums change little between them. Raises ValueError for scores that are not finite.
    """
    scores, masses = _finite(scores, "scores"), np.asarray(masses, np.float64)
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    positions = between_distinct(scores)
    if len(positions) > MAX_POSITIONS:
        positions = positions[np.linspace(0, len(positions) - 1, MAX_POSITIONS).round().astype(int)]
    num_classes = masses.shape[1]
    below = np.concatenate((np.zeros((1, num_classes)), np.cumsum(masses[order], axis=0)))[positions]
    within = below.sum(axis=1) - below.sum(axis=1)[:, None]  # mass between a start (row) and an end
    ascending = np.triu(np.ones(within.shape, bool))
    best, begins = np.where(np.arange(len(positions)) == 0, 0.0, -np.inf), []
    for hits in below.T:
        f1 = 2 * (hits - hits[:, None]) / np.maximum(hits[-1] + np.maximum(within, 0), np.finfo(float).tiny)
        totals = np.where(ascending, f1, -np.inf) + best[:, None]
        begins.append(totals.argmax(axis=0))
        best = totals.max(axis=0)
    return _thresholds_at(scores, positions[traced_back(begins)], num_classes)


def _thresholds_at(scores, positions, num_classes):
    """Sorted scores (N,), positions (K-1,) int in 0..N -> thresholds (K-1,) finite float64, ascending."""
    last = len(scores) - 1
    lower, upper = scores[np.maximum(positions - 1, 0)], scores[np.minimum(positions, last)]
    middle = 0.5 * lower + 0.5 * upper  # halved first, or the sum of two large scores overflows
    # Between neighbouring floats the midpoint may round onto the lower score, which would then get the higher grade.
    middle = np.where(lower < middle, middle, upper)

    rounding = rounding_thresholds(num_classes)
    above_all = np.maximum(scores[last] + 0.5, np.nextafter(scores[last], np.inf))  # + 0.5 is lost on a large score
    thresholds = np.where(positions == 0, np.minimum(rounding, scores[0] - 0.5), middle)
    return np.where(positions == len(scores), np.maximum(rounding, above_all), thresholds)


def _finite(values, name):
    """values (N,) -> (N,) float64. Raises ValueError naming the first one that is not finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {values.shape}")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {values[bad[0]]}, expected a finite number")
    return values


def _in_order(scores, grades, num_classes):
    """scores, grades (N,) array-like -> both sorted by score. Raises ValueError as optimal_thresholds does."""
    scores, grades = checked(scores, grades, num_classes)
    order = np.argsort(scores, kind="stable")
    return scores[order], grades[order]


def checked(scores, grades, num_classes):
    """scores, grades (N,) array-like -> (N,) float64, (N,) int64. Raises ValueError as optimal_thresholds does."""
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, got {num_classes}")
    scores, grades = _finite(scores, "scores"), np.asarray(grades)
    if grades.shape != scores.shape:
        raise ValueError(f"scores and grades must have one length, got shapes {scores.shape} and {grades.shape}")
    if len(scores) == 0:
        raise ValueError("no samples: thresholds need at least one score and its grade")
    if scores.max() == np.finfo(np.float64).max:
        raise ValueError(f"scores[{scores.argmax()}] is the largest float: no finite threshold can exceed it")
    bad = np.flatnonzero(~np.isin(grades, np.arange(num_classes)))
    if len(bad):
        raise ValueError(f"grades[{bad[0]}] is {grades[bad[0]]}, expected a whole number from 0 to {num_classes - 1}")
    return scores, grades.astype(np.int64)
