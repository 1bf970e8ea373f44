"""One entry of the registry is all that a new metric needs."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from dr import GRADES, SPLIT_NAMES
from dr.grading import baseline, evaluation, metrics, objectives, registry
from dr.grading.registry import Metric
from dr.recipes.load import from_dict
from dr.recipes.schema import OPTIONS

OBJECTIVE = objectives.build(from_dict({}))


def balanced_accuracy(matrix):
    sizes = matrix.sum(axis=1)
    return float((np.diagonal(matrix)[sizes > 0] / sizes[sizes > 0]).mean())


BALANCED = Metric(key="balanced_accuracy", label="balanced accuracy", compute=balanced_accuracy)


@pytest.fixture
def with_balanced_accuracy(monkeypatch):
    monkeypatch.setattr(registry, "METRICS", (*registry.METRICS, BALANCED))


@pytest.fixture
def graded():
    rng = np.random.default_rng(4)
    truth = rng.integers(5, size=80)
    return truth + rng.normal(scale=0.7, size=80), truth


def test_a_new_metric_is_one_entry(graded, with_balanced_accuracy):
    scores, truth = graded
    values, thresholds = evaluation.evaluate(scores[:, None], truth, objective=OBJECTIVE, seed=0)
    grades = OBJECTIVE.grades(scores[:, None], thresholds)
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, grades))
    low, high = evaluation.intervals(scores[:, None], truth, objective=OBJECTIVE, thresholds=thresholds, seed=0)[
        "balanced_accuracy"
    ]
    assert low < values["balanced_accuracy"] < high
    class_scores = OBJECTIVE.class_scores(scores[:, None])
    assert evaluation.measure(truth, grades, class_scores)["balanced_accuracy"] == values["balanced_accuracy"]
    assert evaluation.measured_intervals(truth, grades, class_scores, seed=0)["balanced_accuracy"] == [low, high]
    assert BALANCED in registry.table("val")
    assert BALANCED in registry.headline("test")
    assert BALANCED not in registry.headline("val")  # of thresholds fitted to the same images
    assert f"balanced accuracy {values['balanced_accuracy']:.3f}" in registry.epoch_text(values)


def test_metrics_of_every_input_can_be_added(graded, monkeypatch):
    def brier(probabilities, truth):
        return float(np.mean(np.sum((probabilities - np.eye(5)[truth]) ** 2, axis=1)))

    entries = (
        Metric(key="brier", label="Brier score", compute=brier, input="calibrated", splits=("val",)),
        Metric(key="classes", label="number of classes", compute=lambda truth: len(set(truth)), input="truth"),
        Metric(key="top", label="mean top score", compute=lambda truth, s: s.max(axis=1).mean(), input="class_scores"),
    )
    monkeypatch.setattr(registry, "METRICS", (*registry.METRICS, *entries))
    scores, truth = graded
    crossed = np.random.default_rng(0).dirichlet(np.ones(5), size=(2, 80))
    values, ends = evaluation.calibrated(crossed, truth, seed=0)
    assert values["brier"] == pytest.approx(np.mean([brier(each, truth) for each in crossed]))
    assert ends["brier"][0] < values["brier"] < ends["brier"][1]
    assert evaluation.baselines(truth, "test") == {"majority": np.bincount(truth).max() / 80, "classes": 5}
    class_scores = OBJECTIVE.class_scores(scores[:, None])
    assert evaluation.measure(truth, truth, class_scores)["top"] == class_scores.max(axis=1).mean()


def test_values_come_in_the_order_of_the_registry(graded):
    scores, truth = graded
    values, thresholds = evaluation.evaluate(scores[:, None], truth, objective=OBJECTIVE, seed=0, referable_from=2)
    keys = [metric.key for metric in registry.for_split("val", "confusion", "proportion", "class_scores")]
    extra = [registry.by_key("lowest_recall_cross_fitted").class_index, *(f"recall_{k}" for k in range(5))]
    assert list(values) == [*keys, *extra]
    fixed = {"objective": OBJECTIVE, "thresholds": thresholds, "seed": 0, "referable_from": 2}
    ends = evaluation.intervals(scores[:, None], truth, **fixed)
    assert list(ends) == keys


def test_keys_labels_and_columns_are_unique_and_splits_are_known():
    for values in ([getattr(m, name) for m in registry.METRICS] for name in ("key", "label", "short")):
        assert len(set(values)) == len(values)
    assert {split for metric in registry.METRICS for split in metric.splits} <= SPLIT_NAMES.keys()
    assert registry.by_key("accuracy").column("val") == "accuracy"
    assert registry.by_key("kappa").column("test") == "test_kappa"
    for metric in registry.METRICS:
        assert "kappa" not in metric.short or metric.short.startswith("quadratic kappa")


def test_what_recipes_select_epochs_by_is_registered():
    keys = {metric.key for metric in registry.for_split("val", "confusion", "class_scores")}
    assert set(OPTIONS["monitor"]) - {"val_loss", "last"} <= keys
    assert registry.SELECTION in keys


def test_fitted_thresholds_bias_metrics_of_grades_on_validation_alone():
    fitted, fixed = ({"thresholds_fitted": value} for value in (True, False))
    kappa, optimal, auc = map(registry.by_key, ("kappa_applied", "macro_f1_optimal", "auc"))
    assert kappa.is_optimistic("val", **fitted)
    assert not kappa.is_optimistic("val", **fixed)
    assert not registry.by_key("kappa").is_optimistic("test", **fitted)
    assert optimal.is_optimistic("val", **fixed)
    assert not auc.is_optimistic("val", **fitted)
    assert not registry.by_key("kappa_cross_fitted").is_optimistic("val", **fitted)


def test_tables_show_one_metric_of_each_family_and_headlines_none_that_is_optimistic():
    keys = {split: [metric.key for metric in registry.table(split)] for split in ("val", "test")}
    proportions = ["referable_sensitivity", "lowest_recall"]
    crossed = [f"{key}_cross_fitted" for key in proportions]
    assert keys["val"] == ["macro_f1_cross_fitted", "kappa_cross_fitted", "accuracy", "auc", *crossed]
    assert keys["test"] == ["macro_f1", "kappa", "accuracy", "auc", *proportions]
    headline = [metric.key for metric in registry.headline("val")]
    assert headline == ["macro_f1_cross_fitted", "kappa_cross_fitted", "auc", *crossed]
    assert [metric.key for metric in registry.headline("test")] == keys["test"]
    assert registry.unbiased("kappa", "test").key == "kappa"
    assert registry.unbiased("accuracy", "val") is None


def test_referable_sensitivity_counts_grades_from_moderate_on_with_wilsons_interval():
    truth, grades = np.array([0, 1, 2, 2, 3, 4, 4, 4]), np.array([0, 2, 2, 1, 2, 4, 3, 0])
    scores = np.eye(5)[grades]
    referable = registry.referable_from(GRADES)
    values = evaluation.measure(truth, grades, scores, referable_from=referable)
    assert values["referable_sensitivity"] == pytest.approx(4 / 6)  # Severe as Moderate is referred all the same
    low, high = evaluation.measured_intervals(truth, grades, scores, seed=0, referable_from=referable)[
        "referable_sensitivity"
    ]
    assert [low, high] == pytest.approx(metrics.wilson([4], [6])[:, 0].tolist())
    assert "referable_sensitivity" not in evaluation.measure(truth, grades, scores)
    assert registry.referable_from(("below Moderate", "Moderate or worse")) == 1
    assert registry.referable_from(("No DR", "Mild or worse")) is None
    assert registry.referable_from(("a", "b", "c", "d", "e")) is None
    healthy = evaluation.measure(np.array([0, 1]), np.array([0, 1]), np.eye(5)[:2], referable_from=referable)
    assert np.isnan(healthy["referable_sensitivity"])


def test_the_lowest_recall_is_that_of_a_class_that_is_present():
    truth, grades = np.array([0, 0, 1, 1, 3, 3]), np.array([0, 0, 1, 0, 1, 1])  # no 2 and no 4
    values = evaluation.measure(truth, grades, np.eye(5)[grades])
    assert values["lowest_recall"] == 0
    decided = {"applied": grades[None]}
    key = registry.by_key("lowest_recall").class_index
    assert evaluation.classes_of("test", truth, decided, num_classes=5) == {key: 3.0}
    ends = evaluation.measured_intervals(truth, grades, np.eye(5)[grades], seed=0)
    assert ends["lowest_recall"] == pytest.approx(metrics.wilson([0], [2])[:, 0].tolist())


def test_an_accuracy_equal_to_the_baseline_does_not_exceed_it():
    assert baseline.below_majority(0.5, 0.5)
    assert not baseline.below_majority(0.51, 0.5)
    assert not baseline.below_majority(None, 0.5)
    assert "; " not in baseline.note("val", 0.5, 0.5, skilled_by=None)
    assert baseline.note("test", 0.5, 0.5, skilled_by="quadratic kappa").endswith(
        "baseline 0.500, but quadratic kappa is significantly above 0"
    )
