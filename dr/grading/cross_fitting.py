"""Cross-fitting: thresholds fitted to one half of the samples grade the other half."""

import numpy as np

from dr.grading.thresholds import apply_thresholds, checked, optimal_thresholds


def cross_fitted_grades(scores, grades, *, num_classes=5, repeats=20, seed=0, fit=optimal_thresholds):
    """Grades by thresholds that were fitted without the sample -> (repeats, N) int64 in 0..num_classes - 1.

    scores (N,) finite float, grades (N,) int in 0..num_classes - 1, N >= 2. Each repeat halves the samples at random,
    stratified by grade. The thresholds that `fit(scores, grades, num_classes)` returns for one half grade the other.

    Raises ValueError as optimal_thresholds does, and for fewer than two samples or fewer than one repeat.
    """
    scores, grades = checked(scores, grades, num_classes)
    if len(scores) < 2:
        raise ValueError("cross-fitting needs at least 2 samples, got 1")
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}")
    rng = np.random.default_rng(seed)
    predicted = np.empty((repeats, len(scores)), np.int64)
    for repeat in range(repeats):
        for fitted, held_out in halves(grades, num_classes=num_classes, rng=rng):
            thresholds = fit(scores[fitted], grades[fitted], num_classes)
            predicted[repeat, held_out] = apply_thresholds(scores[held_out], thresholds)
    return predicted


def halves(grades, *, num_classes, rng):
    """grades (N,) int -> ((rows A, rows B), (rows B, rows A)), two random halves that split every class evenly, to
    within one sample."""
    # Dealing alternately, class after class, halves every class and the whole to within one sample. The order of the
    # classes is random as well, or the single samples of two classes would always share a half or never.
    class_order = rng.permutation(num_classes)
    deal = np.lexsort((rng.random(len(grades)), class_order[grades]))
    return (deal[::2], deal[1::2]), (deal[1::2], deal[::2])
