import numpy as np
import pytest
import torch
from made import TINY, checkpoint_content

from dr import UsageError
from dr.grading import calibration, metrics, objectives
from dr.grading.thresholds import apply_thresholds
from dr.inference.checkpoint import Checkpoint
from dr.prediction import prevalence
from dr.recipes.load import from_dict

TRAINED = np.array([0.5, 0.2, 0.3])
OTHER = np.array([0.15, 0.25, 0.6])


def drawn(count, shares, *, seed=0):
    """Scores and grades of three classes with prevalence `shares`."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=count, p=shares)
    return truth + rng.normal(scale=0.6, size=count), truth


def loaded(scores, truth, **options):
    """A checkpoint with these predictions of its validation images."""
    recipe = from_dict(TINY.to_dict() | options)
    thresholds = {} if objectives.build(recipe, num_classes=3).has_thresholds else {"thresholds": None}
    content = checkpoint_content(recipe, classes=("a", "b", "c"), **({"thresholds": (0.5, 1.5)} | thresholds))
    content["predictions"] = {"val": {"predictions": torch.tensor(scores), "truth": torch.tensor(truth)}}
    return Checkpoint.from_content(content, path="one.pt")


def test_the_prevalence_of_unlabelled_images_is_recovered():
    scores, truth = drawn(4000, TRAINED)
    probabilities = calibration.fit(scores, truth, num_classes=3).probabilities(drawn(4000, OTHER, seed=1)[0])
    estimated = prevalence.estimate(probabilities, TRAINED)
    assert np.abs(estimated - OTHER).sum() < 0.6 * np.abs(TRAINED - OTHER).sum()
    same = calibration.fit(scores, truth, num_classes=3).probabilities(drawn(4000, TRAINED, seed=2)[0])
    assert prevalence.estimate(same, TRAINED) == pytest.approx(TRAINED, abs=0.02)


def test_without_a_prior_the_estimate_is_that_of_maximum_likelihood(monkeypatch):
    monkeypatch.setattr(prevalence, "PRIOR", 0.0)
    scores, truth = drawn(4000, TRAINED)
    probabilities = calibration.fit(scores, truth, num_classes=3).probabilities(drawn(4000, OTHER, seed=1)[0])
    assert prevalence.estimate(probabilities, TRAINED) == pytest.approx(OTHER, abs=0.05)


def test_probabilities_are_reweighted_by_bayes_rule():
    moved = prevalence.reweighted(np.array([[0.5, 0.5]]), np.array([0.9, 0.1]) / 0.5)
    assert moved == pytest.approx(np.array([[0.9, 0.1]]))


@pytest.mark.parametrize("stated", [tuple(OTHER), "auto"])
def test_thresholds_for_another_prevalence_score_higher_on_it_and_no_lower_on_the_same(stated):
    scores, truth = drawn(600, TRAINED)
    checkpoint = loaded(scores[:, None], truth)
    own = calibration.calibrated_thresholds(scores, truth, 3)
    elsewhere, grades = drawn(4000, (0.03, 0.07, 0.9), seed=5)
    moved = prevalence.Shift([checkpoint], elsewhere[:, None], (0.03, 0.07, 0.9) if stated != "auto" else "auto")
    gain = [
        metrics.macro_f1(grades, apply_thresholds(elsewhere, thresholds), 3)
        for thresholds in (own, moved.thresholds[0])
    ]
    assert gain[1] > gain[0] + 0.01
    here, grades = drawn(4000, TRAINED, seed=6)
    same = prevalence.Shift([checkpoint], here[:, None], tuple(TRAINED) if stated != "auto" else "auto")
    gain = [metrics.macro_f1(grades, apply_thresholds(here, thresholds), 3) for thresholds in (own, same.thresholds[0])]
    assert gain[1] > gain[0] - 0.01
    assert same.probabilities.mean(axis=0) == pytest.approx(TRAINED, abs=0.04)
    assert "at a prevalence of 0." in same.describe()


@pytest.mark.parametrize("stated", [(0.03, 0.07, 0.9), "auto"])
@pytest.mark.parametrize("options", [{"objective": "classification"}, {"objective": "ordinal", "thresholds": "argmax"}])
def test_grades_without_thresholds_score_higher_on_another_prevalence_and_no_lower_on_the_same(options, stated):
    def predictions(scores):
        logits = -((scores[:, None] - np.arange(3)) ** 2) / 0.72
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return probabilities if options["objective"] == "classification" else 1 - probabilities.cumsum(axis=1)[:, :-1]

    scores, truth = drawn(600, TRAINED)
    checkpoint = loaded(predictions(scores), truth, loss=None, **options)
    for shares, least, seed in [((0.03, 0.07, 0.9), 0.01, 5), (tuple(TRAINED), -0.01, 6)]:
        scores, truth = drawn(4000, shares, seed=seed)
        moved = prevalence.Shift([checkpoint], predictions(scores), "auto" if stated == "auto" else shares).grades
        own = checkpoint.objective.grades(predictions(scores), None)
        assert metrics.macro_f1(truth, moved, 3) > metrics.macro_f1(truth, own, 3) + least
    with pytest.raises(UsageError, match=r"one\.pt has no thresholds.*add --tta_by mean"):
        prevalence.check([checkpoint], "auto", by="vote")


def test_no_other_weights_beat_the_expected_macro_f1_of_the_rule_without_thresholds():
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet((3, 0.5, 1), size=400)
    weights = rng.uniform(0.5, 2, size=400)

    def expected(gains, costs):
        chosen = np.eye(3)[(gains * probabilities - costs).argmax(axis=1)]
        hits, sizes = weights @ (chosen * probabilities), weights @ chosen + weights @ probabilities
        return (2 * hits / sizes).mean()

    estimated = expected(*prevalence.rule(probabilities, weights))
    others = [expected(rng.uniform(0, 1, 3), rng.uniform(0, 0.3, 3)) for _ in range(5000)]
    assert estimated > max(others) - 0.002
    assert estimated > expected(np.ones(3), np.zeros(3)) + 0.02


def test_doubt_is_0_for_a_certain_grade_of_any_prevalence_and_1_where_the_grade_changes():
    scores, truth = drawn(600, TRAINED)
    logits = -((scores[:, None] - np.arange(3)) ** 2) / 0.72
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    checkpoint = loaded(probabilities, truth, loss=None, objective="classification")
    share = np.linspace(0, 1, 400)[:, None]
    between = (1 - share) * np.eye(3)[0] + share * np.eye(3)[1]  # from surely the first to surely the second
    shift = prevalence.Shift([checkpoint], np.vstack([np.eye(3), between]), (0.9, 0.07, 0.03))
    doubt = checkpoint.objective.doubt(
        np.zeros(403), shift.grades, thresholds=None, decision_values=shift.decision_values
    )
    assert shift.grades[:3].tolist() == [0, 1, 2]
    assert (doubt[:3] < 0.05).all()
    changes = int(np.flatnonzero(np.diff(shift.grades[3:]))[0])
    assert doubt[3 + changes : 5 + changes].min() > 0.9


def test_a_prevalence_that_cannot_be_applied_is_refused():
    scores, truth = drawn(50, TRAINED)
    checkpoint = loaded(scores[:, None], truth)
    with pytest.raises(
        UsageError, match=r"--prevalence: 2 shares for the 3 classes of one\.pt \(a, b, c\); state one share"
    ):
        prevalence.check([checkpoint], (0.5, 0.5))
    bare = Checkpoint.from_content(checkpoint_content(), path="bare.pt")
    with pytest.raises(UsageError, match=r"bare\.pt has no validation scores to refit its thresholds on"):
        prevalence.check([bare], "auto")


def test_a_class_without_validation_images_and_an_empty_input_are_valid():
    scores, truth = drawn(60, (0.7, 0.3, 0.0))
    checkpoint = loaded(scores[:, None], truth)
    shift = prevalence.Shift([checkpoint], scores[:, None], (0.5, 0.3, 0.2))
    assert np.isfinite(shift.thresholds[0]).all()
    assert np.isfinite(shift.probabilities).all()
    assert prevalence.Shift([checkpoint], np.empty((0, 1)), "auto").probabilities.shape == (0, 3)
