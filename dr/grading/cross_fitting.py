"""Cross-fitting: what is fitted to one half of the samples is tried on the other."""

import numpy as np

from dr.grading.thresholds import apply_thresholds, checked, optimal_thresholds


def cross_fitted_grades(scores, grades, *, num_classes=5, repeats=20, seed=0, fit=optimal_thresholds):
    """Grades from cuts that have not seen the sample -> (repeats, N) int64 in 0..num_classes - 1.

    scores (N,) finite float, grades (N,) int in 0..num_classes - 1, N >= 2. In each repeat the samples are halved at
    random, stratified by grade; the cuts that `fit` finds for either half grade the other. A class with a single sample
    is never graded by cuts that have seen it.

    Raises ValueError as optimal_cuts does, and for fewer than two samples or fewer than one repeat.
    """
    scores, grades = checked(scores, grades, num_classes)
    if len(scores) < 2:
        raise ValueError("cross-fitting needs at least 2 samples, got 1")
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}")
    rng = np.random.default_rng(seed)
    predicted = np.empty((repeats, len(scores)), np.int64)
    for repeat in range(repeats):
        for fitted, graded in halves(grades, num_classes=num_classes, rng=rng):
            thresholds = fit(scores[fitted], grades[fitted], num_classes)
            predicted[repeat, graded] = apply_thresholds(scores[graded], thresholds)
    return predicted


def halves(grades, *, num_classes, rng):
    """grades (N,) int -> two halves drawn at random, every class halved to within one sample, as the two pairs
    (rows of one, rows of the other) and the reverse."""
    # Dealt out in turn, class after class, every class is halved to within one sample, and so is the whole.
    # The order of the classes is drawn too, or the single samples of two classes would always meet or always part.
    class_order = rng.permutation(num_classes)
    deal = np.lexsort((rng.random(len(grades)), class_order[grades]))
    return (deal[::2], deal[1::2]), (deal[1::2], deal[::2])
