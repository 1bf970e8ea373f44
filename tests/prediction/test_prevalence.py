from pathlib import Path

import numpy as np
import pytest
import torch
from made import TINY, checkpoint_content

from dr import UsageError
from dr.grading import calibration, metrics, objectives
from dr.grading.thresholds import apply_thresholds
from dr.inference import checkpoint
from dr.prediction import prevalence
from dr.prediction import report as prediction_page
from dr.recipes.load import from_dict

TRAINED = np.array([0.5, 0.2, 0.3])
OTHER = np.array([0.15, 0.25, 0.6])


def drawn(count, shares, *, seed=0):
    """Scores and grades of three classes that stand in the mix `shares`."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=count, p=shares)
    return truth + rng.normal(scale=0.6, size=count), truth


def loaded(scores, truth, **choices):
    """A checkpoint that gave these predictions to its validation photographs."""
    recipe = from_dict(TINY.to_dict() | choices)
    thresholds = {} if objectives.build(recipe, num_classes=3).has_thresholds else {"thresholds": None}
    content = checkpoint_content(recipe, classes=("a", "b", "c"), **({"thresholds": (0.5, 1.5)} | thresholds))
    content["validation"] = {"predictions": torch.tensor(scores), "truth": torch.tensor(truth)}
    return checkpoint.read(content, Path("one.pt"))


def test_the_mix_of_unlabelled_photographs_is_found_again():
    scores, truth = drawn(4000, TRAINED)
    likely = calibration.fit(scores, truth, num_classes=3).probabilities(drawn(4000, OTHER, seed=1)[0])
    found = prevalence.estimate(likely, TRAINED)
    assert np.abs(found - OTHER).sum() < 0.6 * np.abs(TRAINED - OTHER).sum()
    same = calibration.fit(scores, truth, num_classes=3).probabilities(drawn(4000, TRAINED, seed=2)[0])
    assert prevalence.estimate(same, TRAINED) == pytest.approx(TRAINED, abs=0.02)


def test_without_a_prior_the_estimate_would_be_that_of_maximum_likelihood(monkeypatch):
    monkeypatch.setattr(prevalence, "PRIOR", 0.0)
    scores, truth = drawn(4000, TRAINED)
    likely = calibration.fit(scores, truth, num_classes=3).probabilities(drawn(4000, OTHER, seed=1)[0])
    assert prevalence.estimate(likely, TRAINED) == pytest.approx(OTHER, abs=0.05)


def test_probabilities_move_as_bayes_says():
    moved = prevalence.reweighted(np.array([[0.5, 0.5]]), np.array([0.9, 0.1]) / 0.5)
    assert moved == pytest.approx(np.array([[0.9, 0.1]]))


@pytest.mark.parametrize("stated", [tuple(OTHER), "auto"])
def test_cuts_for_another_mix_score_higher_on_it_and_no_lower_on_the_same(stated):
    scores, truth = drawn(600, TRAINED)
    one = loaded(scores[:, None], truth)
    own = calibration.calibrated_thresholds(scores, truth, 3)
    there, grades = drawn(4000, (0.03, 0.07, 0.9), seed=5)
    moved = prevalence.Shift([one], there[:, None], (0.03, 0.07, 0.9) if stated != "auto" else "auto")
    gain = [
        metrics.macro_f1(grades, apply_thresholds(there, thresholds), 3) for thresholds in (own, moved.thresholds[0])
    ]
    assert gain[1] > gain[0] + 0.01
    here, grades = drawn(4000, TRAINED, seed=6)
    same = prevalence.Shift([one], here[:, None], tuple(TRAINED) if stated != "auto" else "auto")
    gain = [metrics.macro_f1(grades, apply_thresholds(here, thresholds), 3) for thresholds in (own, same.thresholds[0])]
    assert gain[1] > gain[0] - 0.01
    assert same.probabilities.mean(axis=0) == pytest.approx(TRAINED, abs=0.04)
    assert "for a prevalence of 0." in same.describe()


@pytest.mark.parametrize("stated", [(0.03, 0.07, 0.9), "auto"])
@pytest.mark.parametrize("choices", [{"objective": "classification"}, {"objective": "ordinal", "thresholds": "argmax"}])
def test_grades_without_cuts_score_higher_on_another_mix_and_no_lower_on_the_same(choices, stated):
    def predictions(scores):
        logits = -((scores[:, None] - np.arange(3)) ** 2) / 0.72
        likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return likely if choices["objective"] == "classification" else 1 - likely.cumsum(axis=1)[:, :-1]

    scores, truth = drawn(600, TRAINED)
    one = loaded(predictions(scores), truth, loss=None, **choices)
    for mix, least, seed in [((0.03, 0.07, 0.9), 0.01, 5), (tuple(TRAINED), -0.01, 6)]:
        scores, truth = drawn(4000, mix, seed=seed)
        moved = prevalence.Shift([one], predictions(scores), "auto" if stated == "auto" else mix).grades
        own = objectives.grades(one.objective, predictions(scores), None)
        assert metrics.macro_f1(truth, moved, 3) > metrics.macro_f1(truth, own, 3) + least
    with pytest.raises(UsageError, match=r"one\.pt has no cuts.*add --tta_by mean"):
        prevalence.check([one], "auto", by="vote")


def test_the_rule_without_cuts_has_an_expected_macro_f1_that_no_other_weights_beat():
    rng = np.random.default_rng(3)
    likely = rng.dirichlet((3, 0.5, 1), size=400)
    weights = rng.uniform(0.5, 2, size=400)

    def expected(gains, costs):
        chosen = np.eye(3)[(gains * likely - costs).argmax(axis=1)]
        hits, sizes = weights @ (chosen * likely), weights @ chosen + weights @ likely
        return (2 * hits / sizes).mean()

    found = expected(*prevalence.rule(likely, weights))
    others = [expected(rng.uniform(0, 1, 3), rng.uniform(0, 0.3, 3)) for _ in range(5000)]
    assert found > max(others) - 0.002
    assert found > expected(np.ones(3), np.zeros(3)) + 0.02


def test_doubt_is_none_where_a_grade_is_sure_whatever_its_share_and_whole_where_the_grade_changes():
    scores, truth = drawn(600, TRAINED)
    logits = -((scores[:, None] - np.arange(3)) ** 2) / 0.72
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    one = loaded(likely, truth, loss=None, objective="classification")
    share = np.linspace(0, 1, 400)[:, None]
    between = (1 - share) * np.eye(3)[0] + share * np.eye(3)[1]  # from surely the first to surely the second
    shift = prevalence.Shift([one], np.vstack([np.eye(3), between]), (0.9, 0.07, 0.03))
    doubt = prediction_page.doubts(
        np.zeros(403), shift.grades, objective=one.objective, thresholds=None, evidence=shift.evidence
    )
    assert shift.grades[:3].tolist() == [0, 1, 2]
    assert (doubt[:3] < 0.05).all()
    changes = int(np.flatnonzero(np.diff(shift.grades[3:]))[0])
    assert doubt[3 + changes : 5 + changes].min() > 0.9


def test_what_cannot_be_moved_is_told():
    scores, truth = drawn(50, TRAINED)
    one = loaded(scores[:, None], truth)
    with pytest.raises(UsageError, match=r"--prevalence: it has 2 shares, but one\.pt has 3 classes \(a, b, c\)"):
        prevalence.check([one], (0.5, 0.5))
    bare = checkpoint.read(checkpoint_content(), Path("bare.pt"))
    with pytest.raises(UsageError, match=r"bare\.pt keeps no validation scores to move its cuts by"):
        prevalence.check([bare], "auto")


def test_a_class_that_validation_lacks_and_no_photographs_at_all_are_no_mistake():
    scores, truth = drawn(60, (0.7, 0.3, 0.0))
    one = loaded(scores[:, None], truth)
    shift = prevalence.Shift([one], scores[:, None], (0.5, 0.3, 0.2))
    assert np.isfinite(shift.thresholds[0]).all()
    assert np.isfinite(shift.probabilities).all()
    assert prevalence.Shift([one], np.empty((0, 1)), "auto").probabilities.shape == (0, 3)
