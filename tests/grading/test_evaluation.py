import json

import numpy as np
import pytest

from dr.grading import evaluation, objectives
from dr.grading.thresholds import apply_thresholds, bagged_thresholds
from dr.recipes.load import from_dict
from dr.recipes.schema import Recipe

REGRESSION = objectives.build(Recipe())


def evaluate(scores, truth, **options):
    return evaluation.evaluate(scores[:, None], truth, objective=REGRESSION, **options)


def intervals(scores, truth, thresholds, **options):
    return evaluation.intervals(scores[:, None], truth, objective=REGRESSION, thresholds=thresholds, **options)


def test_perfect_scores_reach_one_and_a_constant_score_a_fifteenth():
    truth = np.array([0, 1, 2, 3, 4] * 6)
    perfect, thresholds = evaluate(truth + 0.1, truth, seed=0)
    assert perfect["macro_f1_rounded"] == perfect["macro_f1_cross_fitted"] == perfect["kappa_applied"] == 1
    assert apply_thresholds(truth + 0.1, thresholds).tolist() == truth.tolist()
    constant, _ = evaluate(np.full(30, 2.0), truth, seed=0)
    assert constant["macro_f1_rounded"] == pytest.approx(1 / 15)  # F1 of one class 2 * 6 / (6 + 30), of the others 0
    assert json.loads(json.dumps(perfect)) == perfect  # primitives only


def test_cross_fitted_metrics_of_noise_are_not_optimistic():
    rng = np.random.default_rng(0)
    truth = rng.choice(5, size=120, p=(0.5, 0.1, 0.25, 0.07, 0.08))
    values, _ = evaluate(rng.normal(size=120), truth, seed=0)
    assert values["macro_f1_optimal"] > values["macro_f1_cross_fitted"] + 0.05
    assert values["kappa_cross_fitted"] == pytest.approx(0, abs=0.15)


def test_intervals_contain_their_values_and_narrow_with_more_images():
    rng = np.random.default_rng(1)
    widths = []
    for size in (100, 1600):
        truth = rng.integers(5, size=size)
        scores = truth + rng.normal(scale=0.6, size=size)
        values, thresholds = evaluate(scores, truth, seed=0)
        measured = intervals(scores, truth, thresholds, seed=0)
        assert all(low <= values[name] <= high for name, (low, high) in measured.items()), measured
        widths.append(measured["kappa_applied"][1] - measured["kappa_applied"][0])
    assert widths[1] < widths[0] / 2


def test_a_rule_that_fits_nothing_equals_its_cross_fitted_metric():
    rng = np.random.default_rng(2)
    truth = rng.integers(5, size=100)
    scores = truth + rng.normal(scale=0.8, size=100)
    values, thresholds = evaluate(scores, truth, rule="round", seed=0)
    assert thresholds.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert values["macro_f1_cross_fitted"] == values["macro_f1_rounded"] <= values["macro_f1_optimal"]
    assert values["kappa_cross_fitted"] == values["kappa_applied"]


def test_bagged_thresholds_never_beat_the_optimum_on_the_same_images():
    rng = np.random.default_rng(3)
    truth = rng.choice(5, size=120, p=(0.5, 0.1, 0.25, 0.07, 0.08))
    scores = truth + rng.normal(scale=0.8, size=120)
    values, thresholds = evaluate(scores, truth, rule="bagged", seed=0)
    assert thresholds.tolist() == bagged_thresholds(scores, truth).tolist()
    assert values["macro_f1_optimal"] >= values["macro_f1_cross_fitted"]


def test_classification_has_the_same_metrics_without_thresholds():
    objective = objectives.build(from_dict({"objective": "classification"}), num_classes=3)
    truth = np.array([0, 1, 2] * 20)
    predictions = np.eye(3)[truth] * 0.7 + 0.1
    values, thresholds = evaluation.evaluate(predictions, truth, objective=objective, seed=0)
    assert thresholds is None
    assert values["macro_f1_cross_fitted"] == values["accuracy"] == values["auc"] == values["recall_2"] == 1
    assert "macro_f1_optimal" not in values
    measured = evaluation.intervals(predictions, truth, objective=objective, thresholds=None, seed=0)
    assert measured["accuracy"] == [1, 1]
