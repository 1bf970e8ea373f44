import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from dr.grading import bootstrap, calibration, evaluation, objectives
from dr.grading.thresholds import optimal_thresholds
from dr.recipes.load import from_dict
from dr.recipes.schema import Recipe


def drawn(count, *, seed=0, slope=1.5, offsets=(-1.0, 0.5, 2.0)):
    """Scores, grades drawn from a proportional-odds model of these, and the model's probabilities."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(1, 1.5, count)
    above = 1 / (1 + np.exp(-(slope * scores[:, None] - np.array(offsets))))
    truth = (rng.random(count)[:, None] < above).sum(axis=1)
    return scores, truth, -np.diff(np.pad(above, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0))), axis=1)


def test_fit_recovers_the_model_that_drew_the_grades():
    scores, truth, expected = drawn(20_000)
    fitted = calibration.fit(scores, truth, num_classes=4)
    assert fitted.slope == pytest.approx(1.5, abs=0.05)
    assert fitted.offsets == pytest.approx((-1.0, 0.5, 2.0), abs=0.08)
    assert np.abs(fitted.probabilities(scores) - expected).max() < 0.02


def test_two_classes_give_logistic_regression():
    scores, truth, _ = drawn(500, offsets=(0.5,))
    fitted = calibration.fit(scores, truth, num_classes=2)
    reference = LogisticRegression(C=1e6).fit(scores[:, None], truth).predict_proba(scores[:, None])
    assert np.allclose(fitted.probabilities(scores), reference, atol=0.01)


def test_probabilities_sum_to_one_and_a_higher_score_never_lowers_the_expected_grade():
    scores, truth, _ = drawn(120)
    made = calibration.fit(scores, truth, num_classes=4).probabilities(np.linspace(-9, 12, 50))
    assert np.allclose(made.sum(axis=1), 1)
    assert (np.diff(made @ np.arange(4)) > 0).all()


def test_overconfident_probabilities_of_another_prevalence_are_corrected():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(5000, 3))
    right = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random(5000)[:, None] > right.cumsum(axis=1)).sum(axis=1)
    wrong = np.exp(3 * logits + np.array([2.0, 0, 0]))
    wrong /= wrong.sum(axis=1, keepdims=True)
    fitted = calibration.fit(wrong, truth, num_classes=3)
    assert fitted.slope == pytest.approx(1 / 3, abs=0.03)
    assert np.abs(fitted.probabilities(wrong) - right).max() < 0.04
    assert calibration.expected_calibration_error(fitted.probabilities(wrong), truth) < 0.03
    assert calibration.expected_calibration_error(wrong, truth) > 0.2


@pytest.mark.parametrize("columns", [None, 5])
def test_an_absent_grade_and_separable_scores_leave_finite_probabilities(columns):
    truth = np.array([0, 1, 3] * 8)  # no 2, no 4
    inputs = truth * 10.0 if columns is None else np.eye(columns)[truth]
    fitted = calibration.fit(inputs, truth, num_classes=5)
    probabilities = fitted.probabilities(inputs)
    assert np.isfinite(probabilities).all()
    assert (probabilities.argmax(axis=1) == truth).all()


def test_a_constant_score_gets_the_class_prevalence():
    truth = np.repeat([0, 1, 2], [60, 30, 10])
    made = calibration.fit(np.full(100, 1.7), truth, num_classes=3).probabilities(np.array([1.7]))
    assert made[0] == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_the_calibration_error_equals_that_of_scikit_learns_bins():
    rng = np.random.default_rng(2)
    positive = rng.uniform(0.5, 1, 3000)
    truth = (rng.random(3000) < positive**2).astype(int)
    probabilities = np.column_stack([1 - positive, positive])
    shares, means = calibration_curve(truth, positive, n_bins=10)
    sizes = np.histogram(positive, np.linspace(0, 1, 11))[0]
    expected = np.sum(sizes[sizes > 0] / 3000 * np.abs(shares - means))
    assert calibration.expected_calibration_error(probabilities, truth, bins=10) == pytest.approx(expected)


def test_cross_fitted_probabilities_do_not_depend_on_the_sample_itself():
    rng = np.random.default_rng(3)
    scores, truth = rng.normal(size=40), rng.integers(2, size=40)
    crossed = calibration.cross_fitted(scores, truth, num_classes=2)
    other = calibration.cross_fitted(scores, np.r_[1 - truth[:1], truth[1:]], num_classes=2)
    assert crossed.shape == (calibration.REPEATS, 40, 2)
    assert np.allclose(crossed.sum(axis=2), 1)
    seen = calibration.fit(scores, truth, num_classes=2).probabilities(scores)
    assert np.mean(-np.log(crossed[:, np.arange(40), truth])) > np.mean(-np.log(seen[np.arange(40), truth]))
    assert not np.allclose(crossed, other)


def test_the_calibration_of_each_objective_has_its_number_of_offsets():
    for name, outputs, offsets in (("regression", 1, 4), ("ordinal", 4, 5), ("classification", 5, 5)):
        objective = objectives.build(from_dict({"objective": name}))
        predictions = objective.predictions(torch.zeros(3, outputs)).numpy()
        assert objective.num_offsets == offsets
        fitted = calibration.fit(objective.calibration_input(predictions), np.array([0, 1, 2]), num_classes=5)
        assert len(fitted.offsets) == offsets


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"calibration inputs must be \(N,\) or \(N, 3\)"):
        calibration.fit(np.zeros((2, 2)), np.zeros(2), num_classes=3)
    with pytest.raises(ValueError, match="must have 2 columns, got 3"):
        calibration.Calibration(1.0, (0.0, 0.0)).probabilities(np.ones((1, 3)))
    assert objectives.build(Recipe()).num_offsets == 4


def test_calibrated_thresholds_vary_less_than_the_optimal_ones():
    fitted = {calibration.calibrated_thresholds: [], optimal_thresholds: []}
    for seed in range(12):
        scores, truth, _ = drawn(100, seed=seed)
        for rule, thresholds in fitted.items():
            thresholds.append(rule(scores, truth, 4))
    calibrated, optimal = (np.std(thresholds, axis=0) for thresholds in fitted.values())
    assert (calibrated < optimal).all()


def test_calibrated_thresholds_move_with_the_prevalence():
    scores, truth, expected = drawn(4000)
    own = calibration.calibrated_thresholds(scores, truth, 4)
    same = calibration.calibrated_thresholds(scores, truth, 4, prevalence=expected.mean(axis=0))
    assert same == pytest.approx(own, abs=0.05)
    milder = calibration.calibrated_thresholds(scores, truth, 4, prevalence=np.array([0.85, 0.1, 0.04, 0.01]))
    assert (milder > own).all()


def test_a_fit_keeps_blas_to_one_thread():
    """The thread pools of torch and BLAS, in turn, wait for each other and take 30 times as long."""

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    def cost(parameters):
        seen.append(threads())
        return (parameters**2).sum()

    seen = []
    with threadpool_limits(2, "blas"):
        calibration._minimise(cost, np.ones(2))
        assert threads() == {2}
    assert seen
    assert all(each == {1} for each in seen)


def mean_error(crossed, truth):
    return float(np.mean([calibration.expected_calibration_error(each, truth) for each in crossed.swapaxes(0, 1)]))


def test_the_interval_of_a_calibration_error_contains_it_and_narrows_with_more_samples():
    rng = np.random.default_rng(0)
    widths = []
    for count in (100, 1600):
        crossed = rng.dirichlet((2, 1, 1), size=(count, 3))
        truth = rng.integers(0, 3, count)
        value, interval = evaluation.calibrated(crossed.swapaxes(0, 1), truth, seed=0)
        low, high = interval["ece"]
        assert 0 <= low < value["ece"] < high <= 1
        draws = bootstrap.bootstrap(mean_error, crossed, truth, repeats=200)
        assert [low, high] == np.quantile(draws - draws.mean() + value["ece"], [0.025, 0.975]).clip(0, 1).tolist()
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]
