import json

import numpy as np
import pytest

from dr import thresholds
from dr.evaluation import evaluate, intervals


def test_a_network_that_grades_perfectly_scores_one_and_a_constant_one_a_fifteenth():
    truth = np.array([0, 1, 2, 3, 4] * 6)
    perfect, cuts = evaluate(truth + 0.1, truth, seed=0)
    assert perfect["macro_f1_rounded"] == perfect["macro_f1_cross_fitted"] == perfect["kappa"] == 1
    assert thresholds.cut(truth + 0.1, cuts).tolist() == truth.tolist()
    constant, _ = evaluate(np.full(30, 2.0), truth, seed=0)
    assert constant["macro_f1_rounded"] == pytest.approx(1 / 15)  # F1 of one class 2 * 6 / (6 + 30), of the others 0
    assert json.loads(json.dumps(perfect)) == perfect  # primitives only


def test_cross_fitting_does_not_flatter_scores_that_are_noise():
    rng = np.random.default_rng(0)
    truth = rng.choice(5, size=120, p=(0.5, 0.1, 0.25, 0.07, 0.08))
    figures, _ = evaluate(rng.normal(size=120), truth, seed=0)
    assert figures["macro_f1_optimal"] > figures["macro_f1_cross_fitted"] + 0.05
    assert figures["kappa_cross_fitted"] == pytest.approx(0, abs=0.15)


def test_intervals_hold_their_figures_and_shrink_with_more_photographs():
    rng = np.random.default_rng(1)
    widths = []
    for size in (100, 1600):
        truth = rng.integers(5, size=size)
        scores = truth + rng.normal(scale=0.6, size=size)
        figures, cuts = evaluate(scores, truth, seed=0)
        measured = intervals(scores, truth, cuts, seed=0)
        assert all(low <= figures[name] <= high for name, (low, high) in measured.items())
        widths.append(measured["kappa"][1] - measured["kappa"][0])
    assert widths[1] < widths[0] / 2
