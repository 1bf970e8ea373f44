"""The bootstrap over samples: percentile intervals of metrics, and of the difference between two graders.

The rows must be independent. Where both eyes of a patient are rows, the intervals are too narrow, unless `patients`
(N,), numbers that are equal for rows of one patient, let whole patients be drawn. Every function draws with a generator
of its own, seeded by `seed`: the same number of rows and the same seed give the same draws.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dr.grading.metrics import checked
from dr.grading.resampling import Rows

FromConfusion = Callable[[np.ndarray], float]  # confusion matrix (K, K) int, rows the true class -> a metric


def bootstrap(statistic, *arrays, repeats=1000, seed=0, patients=None):
    """Values of a statistic of paired arrays, each (N, ...), over N rows drawn with replacement, the same rows of every
    array -> (repeats, ...).

    Raises ValueError for no arrays, empty arrays, unequal lengths and fewer than one repeat.
    """
    arrays = [np.asarray(array) for array in arrays]
    lengths = [len(array) for array in arrays]
    if not lengths or len(set(lengths)) > 1 or lengths[0] == 0:
        raise ValueError(f"bootstrap needs arrays of one length, 1 or more, got lengths {lengths}")
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}")
    rng = np.random.default_rng(seed)
    rows = Rows(lengths[0], patients)
    draws = (rows.draw(rng) for _ in range(repeats))
    return np.array([statistic(*(array[drawn] for array in arrays)) for drawn in draws])


def percentile_interval(values, *, level=0.95):
    """values (R,) float -> (low, high) float, the interval of the central share `level` of them. NaN values do not
    count; the interval is NaN where all values are. Raises ValueError for a level outside 0..1, exclusive."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(statistic, *arrays, repeats=1000, level=0.95, seed=0, patients=None):
    """Percentile bootstrap interval of a statistic that returns a float -> (low, high) float. Raises ValueError as
    `bootstrap` and `percentile_interval` do."""
    values = bootstrap(statistic, *arrays, repeats=repeats, seed=seed, patients=patients)
    return percentile_interval(values, level=level)


def confusion_intervals(
    functions: Sequence[FromConfusion], truth, graded, *, num_classes=5, repeats=1000, seed=0, patients=None
):
    """truth (N,), graded (T, N), T decisions over which each metric is averaged -> [(low, high)], the 95 %
    percentile interval of each of the M metrics. Raises ValueError as `dr.grading.metrics` does."""
    codes = _codes(truth, graded, num_classes)
    draws = {"repeats": repeats, "seed": seed, "patients": patients}
    values = bootstrap(lambda drawn: _means(functions, drawn, num_classes), codes, **draws)
    return [percentile_interval(column) for column in values.T]


def paired_differences(functions: Sequence[FromConfusion], truth, one, other, *, num_classes=5, repeats=1000, seed=0):
    """By how much `one` grades the same samples better than `other` -> [(difference, low, high)] of each metric, with
    the 95 % percentile interval of the difference.

    truth (N,), one and other (N,) or (T, N), T decisions over which each metric is averaged. Every repeat draws the
    same samples for both graders, so samples that are hard for both do not widen the interval (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, ch. 8). Raises ValueError as `dr.grading.metrics` does.
    """

    def difference(*drawn):
        return np.subtract(*(_means(functions, codes, num_classes) for codes in drawn))

    both = [_codes(truth, np.atleast_2d(grades), num_classes) for grades in (one, other)]
    values = bootstrap(difference, *both, repeats=repeats, seed=seed)
    intervals = [percentile_interval(column) for column in values.T]
    return [(float(value), *interval) for value, interval in zip(difference(*both), intervals, strict=True)]


def _codes(truth, graded, num_classes):
    """truth (N,), graded (T, N) -> (N, T) int, truth * num_classes + grade."""
    pairs = [checked(truth, row, num_classes) for row in graded]
    return np.stack([true * num_classes + row for true, row in pairs], axis=1)


def _means(functions, codes, num_classes):
    """codes (N, T) of `_codes` -> (M,) means over T of the M metrics."""
    matrices = [np.bincount(column, minlength=num_classes**2).reshape(num_classes, num_classes) for column in codes.T]
    return np.mean([[function(matrix) for function in functions] for matrix in matrices], axis=0)
