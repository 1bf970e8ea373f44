"""Thresholds: equal to brute force, never below Nelder-Mead, unbiased when cross-fitted, fast enough."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import f1_score

from dr.grading.cross_fitting import cross_fitted_grades
from dr.grading.metrics import macro_f1, quadratic_kappa
from dr.grading.thresholds import (
    apply_thresholds,
    expected_f1_thresholds,
    kappa_thresholds,
    optimal_thresholds,
    rounding_thresholds,
)

FUNDUS_SHARES = (0.73, 0.07, 0.15, 0.03, 0.02)  # of the five grades in large screening sets
LARGEST = float(np.finfo(np.float64).max)


def sklearn_macro_f1(truth, grades, num_classes=5):
    return f1_score(truth, grades, labels=range(num_classes), average="macro", zero_division=0)


def noisy_scores(n, *, noise, seed, decimals=None):
    """Imbalanced grades (n,) int and scores (n,) float around them, as a regression head gives them."""
    rng = np.random.default_rng(seed)
    grades = rng.choice(5, size=n, p=FUNDUS_SHARES)
    scores = grades + rng.normal(scale=noise, size=n)
    return (scores if decimals is None else scores.round(decimals)), grades


def best_cuts(scores, grades, num_classes=5):
    """The optimal thresholds and their macro-F1."""
    thresholds = optimal_thresholds(scores, grades, num_classes)
    return thresholds, macro_f1(grades, apply_thresholds(scores, thresholds), num_classes)


def cross_fitted_macro_f1(scores, grades, *, num_classes=5, repeats=20, seed=0):
    """The mean over the repeats."""
    crossed = cross_fitted_grades(scores, grades, num_classes=num_classes, repeats=repeats, seed=seed)
    return np.mean([macro_f1(grades, graded, num_classes) for graded in crossed])


def brute_force(scores, grades, num_classes):
    """The highest macro-F1 of all thresholds between distinct scores, empty classes included."""
    candidates = [*np.unique(scores), np.inf]
    return max(
        sklearn_macro_f1(grades, np.searchsorted(thresholds, scores, side="right"), num_classes)
        for thresholds in itertools.combinations_with_replacement(candidates, num_classes - 1)
    )


def every_interval(scores, grades, num_classes):
    """The highest macro-F1 by the same recursion over all pairs of distinct scores, slow and exhaustive."""
    ends = [0, *(np.searchsorted(np.sort(scores), np.unique(scores), side="right"))]
    grades = grades[np.argsort(scores, kind="stable")]
    best = {end: 0.0 if end == 0 else -np.inf for end in ends}
    for k in range(num_classes):
        size, hits = np.sum(grades == k), np.concatenate(([0], np.cumsum(grades == k)))
        best = {
            end: max(
                [best[end]]
                + [best[i] + 2 * (hits[end] - hits[i]) / (size + end - i) for i in ends if i < end and best[i] >= 0]
            )
            for end in ends
        }
    return best[ends[-1]] / num_classes


@st.composite
def small_cases(draw, *, max_classes=5, max_size=30, scores=None):
    """(scores, grades, num_classes): often tied scores, often absent classes."""
    num_classes = draw(st.integers(2, max_classes))
    if scores is None:
        scores = st.integers(0, draw(st.integers(0, 12))).map(lambda step: step / 4)
    rows = draw(st.lists(st.tuples(scores, st.integers(0, num_classes - 1)), min_size=1, max_size=max_size))
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), num_classes


any_finite_score = st.floats(-LARGEST, LARGEST, exclude_max=True)


def test_a_score_equal_to_a_threshold_gets_the_higher_grade():
    grades = apply_thresholds([-1.0, 0.49, 0.5, 1.5, 2.5, 3.49, 3.5, 9.0], rounding_thresholds())
    assert grades.tolist() == [0, 0, 1, 2, 3, 3, 4, 4]
    assert grades.dtype == np.int64


def test_the_grade_between_equal_thresholds_is_never_given():
    assert apply_thresholds([0.9, 1.0, 1.1], [0.5, 1.0, 1.0, 2.0]).tolist() == [1, 3, 3]


def test_no_scores_give_no_grades():
    assert apply_thresholds([], rounding_thresholds()).shape == (0,)


def test_rounding_thresholds_are_midway_between_grades():
    assert rounding_thresholds().tolist() == [0.5, 1.5, 2.5, 3.5]
    assert rounding_thresholds(2).tolist() == [0.5]


# deadline off: the first example also pays for imports, and the machine is shared
@settings(max_examples=100, deadline=None)
@given(small_cases(max_classes=4, max_size=8))
@example((np.array([1.0, 1.0, 1.0]), np.array([0, 2, 2]), 3))
@example((np.array([0.0, 1.0, 2.0]), np.array([2, 1, 0]), 3))
@example((np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 2, 3, 3]), 4))
def test_no_other_thresholds_score_higher(case):
    scores, grades, num_classes = case
    _, macro_f1 = best_cuts(scores, grades, num_classes)
    assert macro_f1 == pytest.approx(brute_force(scores, grades, num_classes), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(small_cases(max_classes=6, max_size=40))
def test_no_position_left_out_of_the_search_scores_higher(case):
    scores, grades, num_classes = case
    _, macro_f1 = best_cuts(scores, grades, num_classes)
    assert macro_f1 == pytest.approx(every_interval(scores, grades, num_classes), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_no_position_left_out_scores_higher_on_a_hundred_samples(seed):
    rng = np.random.default_rng(seed)
    grades = rng.choice(5, size=100, p=FUNDUS_SHARES if seed % 2 else [0.2] * 5)
    scores = rng.normal(size=100).round(1 + seed % 3) + grades * (seed % 4) / 4
    _, macro_f1 = best_cuts(scores, grades)
    assert macro_f1 == pytest.approx(every_interval(scores, grades, 5), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(st.one_of(small_cases(), small_cases(scores=any_finite_score)))
@example((np.array([5e-324, 0.0]), np.array([1, 0]), 2))
@example((np.array([1.0, np.nextafter(1.0, 2.0)]), np.array([0, 1]), 2))
@example((np.array([1e300, -1e300]), np.array([0, 0]), 5))
@example((np.array([0.0, -0.0]), np.array([0, 1]), 2))
@example((np.array([-LARGEST, 0.0]), np.array([1, 1]), 2))
def test_thresholds_are_finite_and_sorted_and_reach_their_macro_f1(case):
    scores, grades, num_classes = case
    thresholds, macro_f1 = best_cuts(scores, grades, num_classes)
    assert thresholds.shape == (num_classes - 1,)
    assert thresholds.dtype == np.float64
    assert np.all(np.isfinite(thresholds))
    assert np.all(np.diff(thresholds) >= 0)
    assert macro_f1 == pytest.approx(
        sklearn_macro_f1(grades, apply_thresholds(scores, thresholds), num_classes), abs=1e-12
    )


@settings(max_examples=80, deadline=None)
@given(small_cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(case, random):
    scores, grades, num_classes = case
    order = np.array(random.sample(range(len(scores)), len(scores)))
    thresholds, macro_f1 = best_cuts(scores, grades, num_classes)
    shuffled_cuts, shuffled_macro_f1 = best_cuts(scores[order], grades[order], num_classes)
    assert shuffled_cuts.tolist() == thresholds.tolist()
    assert shuffled_macro_f1 == macro_f1


@pytest.mark.parametrize(("noise", "seed"), [(0.4, 0), (0.7, 1), (1.5, 2)])
def test_optimal_thresholds_never_score_below_nelder_mead_from_many_starts(noise, seed):
    scores, grades = noisy_scores(300, noise=noise, seed=seed)
    _, macro_f1 = best_cuts(scores, grades)
    sizes = np.bincount(grades, minlength=5)

    def loss(thresholds):
        given = np.searchsorted(np.sort(thresholds), scores, side="right")
        hits = np.bincount(grades[given == grades], minlength=5)
        return -np.mean(2 * hits / np.maximum(sizes + np.bincount(given, minlength=5), 1))

    rng = np.random.default_rng(seed)
    starts = [rounding_thresholds(), *np.sort(rng.uniform(scores.min(), scores.max(), size=(15, 4)), axis=1)]
    optima = [-minimize(loss, start, method="Nelder-Mead").fun for start in starts]
    assert max(optima) <= macro_f1 + 1e-12
    assert macro_f1 >= sklearn_macro_f1(grades, apply_thresholds(scores, rounding_thresholds()))


def test_thresholds_of_separated_grades_are_midway():
    thresholds, macro_f1 = best_cuts([0.0, 0.2, 1.0, 1.2, 2.0, 3.0, 3.4, 4.4], [0, 0, 1, 1, 2, 3, 3, 4])
    assert thresholds == pytest.approx([0.6, 1.6, 2.5, 3.9])
    assert macro_f1 == 1.0


@pytest.mark.parametrize("lower", [1.0, np.nextafter(1.0, 2.0), 0.0, -5e-324, -1.0, 1e300])
def test_neighbouring_floats_are_separated(lower):
    upper = np.nextafter(lower, np.inf)
    thresholds, macro_f1 = best_cuts([upper, lower], [1, 0], 2)
    assert lower < thresholds[0] <= upper
    assert macro_f1 == 1.0


def test_a_threshold_beyond_all_scores_is_where_rounding_puts_it_or_half_a_grade_further_out():
    thresholds, macro_f1 = best_cuts([1.6, 2.4, 3.2], [2, 2, 2])
    assert thresholds == pytest.approx([0.5, 1.1, 3.7, 3.7])
    assert macro_f1 == pytest.approx(1 / 5)


def test_an_absent_class_between_others_has_no_interval():
    thresholds, macro_f1 = best_cuts([0.0, 0.1, 1.0, 1.1], [0, 0, 2, 2], 3)
    assert thresholds == pytest.approx([0.55, 0.55])
    assert macro_f1 == pytest.approx(2 / 3)


def test_equal_scores_get_one_grade():
    thresholds, macro_f1 = best_cuts([1.0] * 6, [0, 1, 1, 1, 2, 4])
    assert apply_thresholds([1.0], thresholds).tolist() == [1]
    assert macro_f1 == pytest.approx(2 * 3 / (3 + 6) / 5)


def test_cross_fitting_repeats_with_its_seed_and_varies_with_another():
    scores, grades = noisy_scores(200, noise=0.7, seed=3)
    first = cross_fitted_macro_f1(scores, grades, repeats=3, seed=1)
    assert first == cross_fitted_macro_f1(scores, grades, repeats=3, seed=1)
    assert first != cross_fitted_macro_f1(scores, grades, repeats=3, seed=2)


@pytest.mark.parametrize("seed", range(3))
def test_cross_fitting_removes_the_optimism_of_thresholds_fitted_to_noise(seed):
    rng = np.random.default_rng(seed)
    scores, grades = rng.uniform(0, 4, size=300), rng.integers(0, 5, size=300)
    _, fitted = best_cuts(scores, grades)
    assert fitted > 0.24
    # no thresholds beat 0.2 on fresh noise of five equal classes; 0.02 is within chance for 300 samples
    assert cross_fitted_macro_f1(scores, grades, repeats=10) < 0.22 < fitted


def test_cross_fitting_costs_little_where_samples_are_many():
    scores, grades = noisy_scores(4000, noise=0.5, seed=0)
    _, fitted = best_cuts(scores, grades)
    assert fitted - 0.03 < cross_fitted_macro_f1(scores, grades, repeats=5) < fitted


def test_separated_grades_stay_perfect_when_cross_fitted():
    grades = np.repeat(np.arange(5), 4)
    assert cross_fitted_macro_f1(grades.astype(float), grades) == 1.0


@settings(max_examples=60, deadline=None)
@given(small_cases(max_size=12).filter(lambda case: len(case[0]) >= 2))
@example((np.array([0.0, 1.0]), np.array([0, 4]), 5))
def test_cross_fitting_works_with_classes_of_one_or_no_sample(case):
    scores, grades, num_classes = case
    present = len(np.unique(grades))
    assert 0 <= cross_fitted_macro_f1(scores, grades, num_classes=num_classes, repeats=2) <= present / num_classes


def test_a_class_of_one_sample_earns_nothing_when_cross_fitted():
    scores = np.array([0.0, 0.1, 0.2, 0.3, 0.35])
    grades = np.array([0, 0, 0, 0, 1])
    assert best_cuts(scores, grades, 2)[1] == 1.0
    assert cross_fitted_macro_f1(scores, grades, num_classes=2) <= 0.5


@pytest.mark.parametrize(
    ("n", "seconds"), [(5_000, 1), (35_000, 15)], ids=["a validation set", "a whole competition archive"]
)
@pytest.mark.parametrize("kind", ["noisy", "random", "tied"])
def test_optimal_thresholds_are_found_in_time(n, seconds, kind):
    rng = np.random.default_rng(0)
    if kind == "noisy":
        scores, grades = noisy_scores(n, noise=0.6, seed=0)
    else:
        grades = rng.integers(0, 5, size=n)  # runs of one grade are short: few positions can be left out
        scores = rng.uniform(size=n) if kind == "random" else np.repeat(rng.uniform(size=n // 2), 2)
    start = time.process_time()  # of this process alone: other work on the machine does not count
    best_cuts(scores, grades)
    assert time.process_time() - start < seconds


@pytest.mark.parametrize(
    ("scores", "grades", "message"),
    [
        ([], [], "no samples: thresholds need at least one score"),
        ([0.0, np.nan], [0, 1], r"scores\[1\] is nan, expected a finite number"),
        ([np.inf, 0.0], [0, 1], r"scores\[0\] is inf, expected a finite number"),
        ([0.0, LARGEST], [0, 1], r"scores\[1\] is the largest float: no finite threshold can exceed it"),
        ([0.0, 1.0], [0], r"scores and grades must have one length, got shapes \(2,\) and \(1,\)"),
        ([[0.0, 1.0]], [[0, 1]], r"scores must be one-dimensional, got shape \(1, 2\)"),
        ([0.0, 1.0], [0, 5], r"grades\[1\] is 5, expected a whole number from 0 to 4"),
        ([0.0, 1.0], [-1, 0], r"grades\[0\] is -1, expected a whole number from 0 to 4"),
        ([0.0, 1.0], [0, 1.5], r"grades\[1\] is 1.5, expected a whole number"),
        ([0.0, 1.0], [0, np.nan], r"grades\[1\] is nan, expected a whole number"),
    ],
)
def test_unusable_samples_are_refused_with_their_fault(scores, grades, message):
    with pytest.raises(ValueError, match=message):
        best_cuts(scores, grades)
    with pytest.raises(ValueError, match=message):
        cross_fitted_macro_f1(scores, grades)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: apply_thresholds([np.nan], [0.5]), r"scores\[0\] is nan, expected a finite number"),
        (lambda: apply_thresholds([0.0], [0.5, np.nan]), r"thresholds\[1\] is nan, expected a finite number"),
        (lambda: apply_thresholds([0.0], [1.5, 0.5]), r"thresholds must ascend, got \[1.5, 0.5\]"),
        (lambda: apply_thresholds(0.0, [0.5]), r"scores must be one-dimensional, got shape \(\)"),
        (lambda: rounding_thresholds(1), "num_classes must be 2 or more, got 1"),
        (lambda: best_cuts([0.0], [0], 1), "num_classes must be 2 or more, got 1"),
        (lambda: cross_fitted_macro_f1([0.0], [0]), "cross-fitting needs at least 2 samples, got 1"),
        (lambda: cross_fitted_macro_f1([0.0, 1.0], [0, 1], repeats=0), "repeats must be 1 or more, got 0"),
    ],
)
def test_unusable_options_are_refused_with_their_fault(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def all_cuts(scores, num_classes):
    """One set of thresholds for each way to separate these scores."""
    distinct = np.unique(scores)
    borders = np.concatenate(([distinct[0] - 1], (distinct[1:] + distinct[:-1]) / 2, [distinct[-1] + 1]))
    return [np.array(chosen) for chosen in itertools.combinations_with_replacement(borders, num_classes - 1)]


@given(small_cases(max_classes=4, max_size=8))
def test_no_other_thresholds_have_a_higher_kappa(case):
    scores, grades, num_classes = case
    thresholds = kappa_thresholds(scores, grades, num_classes)
    reached = quadratic_kappa(grades, apply_thresholds(scores, thresholds), num_classes)
    highest = max(
        quadratic_kappa(grades, apply_thresholds(scores, other), num_classes) for other in all_cuts(scores, num_classes)
    )
    assert reached == pytest.approx(highest, abs=1e-9)


@given(small_cases(max_classes=4, max_size=8), st.integers(0, 2**31))
def test_no_other_thresholds_have_a_higher_expected_macro_f1(case, seed):
    scores, _, num_classes = case
    masses = np.random.default_rng(seed).dirichlet(np.ones(num_classes), len(scores))

    def expected(thresholds):
        given_grade = apply_thresholds(scores, thresholds)[:, None] == np.arange(num_classes)
        return np.mean(2 * (masses * given_grade).sum(axis=0) / (masses.sum(axis=0) + (given_grade.sum(axis=0))))

    reached = expected(expected_f1_thresholds(scores, masses))
    assert reached == pytest.approx(max(map(expected, all_cuts(scores, num_classes))), abs=1e-9)


def test_the_expected_macro_f1_of_certain_grades_is_the_macro_f1():
    rng = np.random.default_rng(4)
    grades = rng.integers(5, size=300)
    scores = grades + rng.normal(scale=0.8, size=300)
    thresholds = expected_f1_thresholds(scores, np.eye(5)[grades])
    assert macro_f1(grades, apply_thresholds(scores, thresholds)) == pytest.approx(best_cuts(scores, grades)[1])


def test_expected_f1_thresholds_of_very_many_scores_agree_with_those_of_fewer_positions():
    scores = np.linspace(0, 1, 50_000)
    masses = np.column_stack([1 - scores, scores])
    assert expected_f1_thresholds(scores, masses) == pytest.approx(
        expected_f1_thresholds(scores[::200], masses[::200]), abs=0.01
    )


@pytest.mark.parametrize("find", [optimal_thresholds, kappa_thresholds])
@settings(max_examples=60, deadline=None)
@given(small_cases(max_classes=4, max_size=12), st.data())
def test_a_prevalence_acts_like_samples_repeated_to_it(find, case, data):
    scores, grades, num_classes = case
    times = np.array([data.draw(st.integers(1, 3)) for _ in range(num_classes)])
    rows = np.repeat(np.arange(len(grades)), times[grades])
    counts = np.bincount(grades[rows], minlength=num_classes)
    thresholds = find(scores, grades, num_classes, prevalence=counts / counts.sum())
    metric = macro_f1 if find is optimal_thresholds else quadratic_kappa
    reached, highest = (
        metric(grades[rows], apply_thresholds(scores[rows], each), num_classes)
        for each in (thresholds, find(scores[rows], grades[rows], num_classes))
    )
    assert reached == pytest.approx(highest, abs=1e-9)


@pytest.mark.parametrize("find", [optimal_thresholds, kappa_thresholds])
def test_the_prevalence_of_the_samples_themselves_changes_nothing(find):
    scores, grades = noisy_scores(3000, noise=0.6, seed=1)
    own = np.bincount(grades, minlength=5) / len(grades)
    assert find(scores, grades, prevalence=own) == pytest.approx(find(scores, grades))
