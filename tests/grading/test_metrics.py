"""Metrics: equal to scikit-learn's, defined for degenerate input, quick to bootstrap."""

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from dr.grading import bootstrap, metrics
from dr.grading.bootstrap import bootstrap_interval
from dr.grading.metrics import accuracy, confusion, macro_f1, quadratic_kappa, recall_per_class

FUNCTIONS = [metrics.macro_f1_of_confusion, metrics.quadratic_kappa_of_confusion, metrics.accuracy_of_confusion]


@st.composite
def graded(draw):
    """(truth, grades, num_classes), absent classes included."""
    num_classes = draw(st.integers(2, 6))
    grade = st.integers(0, num_classes - 1)
    rows = draw(st.lists(st.tuples(grade, grade), min_size=1, max_size=40))
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), num_classes


def noisy_grades(n, *, seed):
    """Truth (n,) and grades (n,) that are right three times in four."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(5, size=n, p=(0.73, 0.07, 0.15, 0.03, 0.02))
    return truth, np.where(rng.random(n) < 0.75, truth, rng.integers(0, 5, size=n))


# deadline off: the first example also pays for imports, and the machine is shared
@settings(max_examples=100, deadline=None)
@given(graded())
def test_metrics_equal_those_of_scikit_learn(case):
    truth, grades, num_classes = case
    labels = range(num_classes)
    assert confusion(*case).tolist() == confusion_matrix(truth, grades, labels=labels).tolist()
    expected = f1_score(truth, grades, labels=labels, average="macro", zero_division=0)
    assert macro_f1(*case) == pytest.approx(expected, abs=1e-12)
    assert accuracy(*case) == pytest.approx(accuracy_score(truth, grades), abs=1e-12)
    recall = recall_score(truth, grades, labels=labels, average=None, zero_division=np.nan)
    assert recall_per_class(*case) == pytest.approx(recall, abs=1e-12, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(graded())
def test_kappa_equals_scikit_learns_where_that_is_defined(case):
    truth, grades, num_classes = case
    assume(len(np.union1d(truth, grades)) > 1)
    expected = cohen_kappa_score(truth, grades, labels=range(num_classes), weights="quadratic")
    assert quadratic_kappa(*case) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("truth", [[2, 2, 2], [0, 2, 4], [1, 1, 1]])
def test_a_grader_with_one_answer_has_kappa_zero(truth):
    assert quadratic_kappa(truth, [2, 2, 2]) == 0.0


def test_kappa_counts_a_far_error_more_than_a_near_one():
    truth = [0, 0, 2, 2, 4, 4]
    assert quadratic_kappa(truth, truth) == 1.0
    assert quadratic_kappa(truth, [0, 4, 2, 2, 4, 4]) < quadratic_kappa(truth, [0, 1, 2, 2, 4, 4]) < 1.0
    assert quadratic_kappa([0, 4], [4, 0]) == -1.0


def test_rows_of_the_confusion_matrix_are_the_truth():
    counts = confusion([0, 0, 1], [0, 2, 1], 3)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert counts.dtype == np.int64


def test_recall_of_an_absent_class_is_nan_without_a_warning():
    recall = recall_per_class([0, 0, 2, 2], [0, 1, 2, 2], 3)
    assert recall == pytest.approx([0.5, np.nan, 1.0], nan_ok=True)


def test_the_mean_of_f1_runs_over_absent_classes_too():
    assert macro_f1([0, 1], [0, 1]) == pytest.approx(2 / 5)
    assert macro_f1([0, 1], [0, 1], 2) == 1.0


def test_the_bootstrap_interval_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(loc=3, size=400)
    low, high = bootstrap_interval(np.mean, values)
    margin = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.02)


def test_the_bootstrap_keeps_pairs_together():
    truth = np.random.default_rng(0).integers(0, 5, size=100)
    assert bootstrap_interval(accuracy, truth, truth, repeats=50) == (1.0, 1.0)


def test_the_bootstrap_repeats_with_its_seed_and_widens_with_its_level():
    truth, grades = noisy_grades(200, seed=0)
    low, high = bootstrap_interval(macro_f1, truth, grades, repeats=200, seed=4)
    assert (low, high) == bootstrap_interval(macro_f1, truth, grades, repeats=200, seed=4)
    assert (low, high) != bootstrap_interval(macro_f1, truth, grades, repeats=200, seed=5)
    narrow_low, narrow_high = bootstrap_interval(macro_f1, truth, grades, repeats=200, level=0.5, seed=4)
    assert low < narrow_low < narrow_high < high


def test_a_thousand_repeats_on_a_validation_set_take_less_than_two_seconds():
    truth, grades = noisy_grades(700, seed=0)
    start = time.process_time()  # of this process alone: other work on the machine does not count
    low, high = bootstrap_interval(macro_f1, truth, grades, repeats=1000)
    assert time.process_time() - start < 2
    assert low < macro_f1(truth, grades) < high


@pytest.mark.parametrize("metric", [confusion, macro_f1, quadratic_kappa, accuracy, recall_per_class])
@pytest.mark.parametrize(
    ("truth", "grades", "message"),
    [
        ([], [], "no samples: a metric needs at least one"),
        ([0, 1], [0], r"truth and grades must have one length, got shapes \(2,\) and \(1,\)"),
        ([[0]], [[0]], r"truth and grades must have one length, got shapes \(1, 1\)"),
        ([0, 5], [0, 1], r"truth\[1\] is 5, expected a whole number from 0 to 4"),
        ([0, 1], [-1, 1], r"grades\[0\] is -1, expected a whole number from 0 to 4"),
        ([0, 1], [0, 0.5], r"grades\[1\] is 0.5, expected a whole number from 0 to 4"),
    ],
)
def test_unusable_grades_are_refused_with_their_fault(metric, truth, grades, message):
    with pytest.raises(ValueError, match=message):
        metric(truth, grades)


def test_a_single_class_cannot_be_scored():
    with pytest.raises(ValueError, match="num_classes must be 2 or more, got 1"):
        macro_f1([0], [0], 1)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ([], {}, r"bootstrap needs arrays of one length, 1 or more, got lengths \[\]"),
        ([[]], {}, r"got lengths \[0\]"),
        ([[1, 2], [1]], {}, r"got lengths \[2, 1\]"),
        ([[1, 2]], {"level": 95}, "level must be between 0 and 1, got 95"),
        ([[1, 2]], {"repeats": 0}, "repeats must be 1 or more, got 0"),
    ],
)
def test_an_unusable_bootstrap_is_refused_with_its_fault(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(np.mean, *arrays, **options)


@pytest.mark.parametrize("classes", [3, 5])
def test_auc_is_scikit_learns_one_vs_rest(classes):
    rng = np.random.default_rng(classes)
    truth = rng.integers(classes, size=80)
    class_scores = rng.random((80, classes)).round(1)  # with ties
    class_scores /= class_scores.sum(axis=1, keepdims=True)
    expected = roc_auc_score(truth, class_scores, multi_class="ovr", average="macro")
    assert metrics.auc(truth, class_scores) == pytest.approx(expected)


def test_auc_of_two_classes_is_the_usual_area():
    rng = np.random.default_rng(0)
    truth, score = rng.integers(2, size=50), rng.random(50)
    area = metrics.auc(truth, np.column_stack([1 - score, score]))
    assert area == pytest.approx(roc_auc_score(truth, score))


def test_auc_leaves_out_absent_classes_and_is_nan_where_none_is_left():
    class_scores = np.eye(3)[[0, 0, 1]]
    assert metrics.auc([0, 0, 1], class_scores) == 1
    assert np.isnan(metrics.auc([1, 1], class_scores[:2]))
    with pytest.raises(ValueError, match=r"auc needs truth \(N,\) and class_scores \(N, K\)"):
        metrics.auc([0, 1], class_scores)


def test_majority_is_the_accuracy_of_always_answering_with_the_most_frequent_class():
    assert metrics.majority(np.array([0, 0, 0, 2])) == 0.75


def test_metrics_per_class_equal_those_of_scikit_learn():
    truth, grades = noisy_grades(300, seed=3)
    class_scores = np.eye(5)[grades] + np.random.default_rng(3).random((300, 5))
    values = metrics.per_class(truth, grades, class_scores)
    precision, recall, f1, n = precision_recall_fscore_support(truth, grades, labels=range(5))
    for name, expected in {"precision": precision, "recall": recall, "f1": f1, "n": n}.items():
        assert np.allclose(values[name], expected), name
    assert np.allclose(values["auc"], [roc_auc_score(truth == k, class_scores[:, k]) for k in range(5)])


def test_recall_of_an_absent_class_and_precision_of_one_never_predicted_are_nan():
    values = metrics.per_class([0, 0, 1], [0, 0, 2], np.eye(3)[[0, 0, 2]])
    assert np.isnan(values["recall"][2])
    assert np.isnan(values["auc"][2])
    assert np.isnan(values["precision"][1])
    assert values["f1"].tolist() == [1, 0, 0]


def test_draws_in_which_a_metric_is_not_defined_do_not_count():
    truth = np.array([0] * 7 + [1])  # one draw in three has no 1
    low, high = bootstrap_interval(metrics.auc, truth, np.eye(2)[truth])
    assert (low, high) == (1, 1)
    assert np.isnan(bootstrap_interval(lambda values: float("nan"), truth)).all()


def test_paired_differences_draw_the_same_samples_for_both_graders():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 150)
    one, other = (np.where(rng.random((2, 150)) < share, truth, rng.integers(0, 4, (2, 150))) for share in (0.6, 0.4))
    values = bootstrap.paired_differences(FUNCTIONS, truth, one, other, num_classes=4, repeats=200, seed=5)
    macro = {"labels": range(4), "average": "macro", "zero_division": 0}
    references = {
        "macro_f1": lambda t, g: f1_score(t, g, **macro),
        "kappa": lambda t, g: cohen_kappa_score(t, g, labels=range(4), weights="quadratic"),
        "accuracy": accuracy_score,
    }
    for row, (name, reference) in zip(values, references.items(), strict=True):

        def difference(rows, reference=reference):
            of = [np.mean([reference(truth[rows], row[rows]) for row in graded]) for graded in (one, other)]
            return of[0] - of[1]

        draws = np.random.default_rng(5)
        values = [difference(draws.integers(150, size=150)) for _ in range(200)]
        expected = difference(np.arange(150)), *np.quantile(values, [0.025, 0.975])
        assert row == pytest.approx(expected), name


def test_a_paired_interval_is_narrower_than_that_of_either_grader_and_zero_for_itself():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    one = np.where(rng.random(200) < 0.6, truth, (truth + 1) % 3)
    other = np.where(rng.random(200) < 0.1, (truth + 1) % 3, one)  # the same but for a tenth, which is worse
    assert bootstrap.paired_differences(FUNCTIONS, truth, one, one, num_classes=3)[1] == (0, 0, 0)
    _, low, high = bootstrap.paired_differences(FUNCTIONS, truth, one, other, num_classes=3)[2]
    intervals = [bootstrap_interval(lambda t, g: metrics.accuracy(t, g, 3), truth, graded) for graded in (one, other)]
    assert low > 0
    assert high - low < min(above - below for below, above in intervals)


def test_paired_differences_refuse_unequal_lengths():
    with pytest.raises(ValueError, match="must have one length"):
        bootstrap.paired_differences(FUNCTIONS, [0, 1, 2], [0, 1, 2], [0, 1])


def test_intervals_per_class_equal_a_bootstrap_of_scikit_learns_metrics():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 80)
    grades = np.where(rng.random(80) < 0.5, truth, rng.integers(0, 3, 80))
    class_scores = rng.random((80, 5))
    intervals = metrics.per_class_intervals(truth, grades, class_scores, repeats=100, seed=2)
    draws, values = np.random.default_rng(2), []
    for _ in range(100):
        rows = draws.integers(80, size=80)
        options = {"labels": range(5), "zero_division": 0}
        areas = [roc_auc_score(truth[rows] == k, class_scores[rows, k]) for k in range(3)]
        values.append([*precision_recall_fscore_support(truth[rows], grades[rows], **options)[:3], [*areas, 0, 0]])
    for place, name in enumerate(("precision", "recall", "f1", "auc")):
        expected = np.quantile([value[place] for value in values], [0.025, 0.975], axis=0)
        assert intervals[name][:, :3] == pytest.approx(expected[:, :3])
    assert np.isnan(intervals["recall"][:, 3:]).all()  # absent, never predicted
    assert np.isnan(intervals["precision"][:, 3:]).all()
    assert (intervals["f1"][:, 3:] == 0).all()


def test_a_recall_of_zero_or_one_has_wilsons_interval():
    truth, grades = np.array([0] * 3 + [1] * 7), np.array([0] * 3 + [1] * 7)
    intervals = metrics.per_class_intervals(truth, grades, np.eye(3)[grades], repeats=50)
    low, high = proportion_confint(3, 3)
    assert intervals["recall"][:, 0] == pytest.approx([low, high])
    assert intervals["precision"][:, 1] == pytest.approx(proportion_confint(7, 7))
    none = metrics.per_class_intervals(truth, 1 - grades, np.eye(3)[grades], repeats=50)
    assert none["recall"][:, 0] == pytest.approx([0, 1 - low])


def proportion_confint(hits, count, squared=1.959964**2):
    """Wilson's score interval, by the textbook formula."""
    middle = (hits + squared / 2) / (count + squared)
    half = np.sqrt(squared * (hits * (count - hits) / count + squared / 4)) / (count + squared)
    return middle - half, middle + half
