import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, roc_auc_score

from dr import GRADES
from dr.grading import objectives
from dr.prediction import scoring
from dr.prediction.labels import Labels
from dr.recipes.load import from_dict
from dr.recipes.schema import Recipe

REGRESSION = objectives.build(Recipe())


def graded(count=200, *, seed=0, unreadable=()):
    """Images p0, p1, ... graded by rounding, and their true grades."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(5, size=count, p=(0.5, 0.1, 0.25, 0.07, 0.08))
    scores = truth + rng.normal(scale=0.8, size=count)
    grades = np.clip(np.round(scores), 0, 4).astype(int)
    return scoring.Graded([f"p{i}" for i in range(count)], scores[:, None], grades, unreadable), truth


def labels(truth, *, patients=None, ungraded=()):
    """True grades of p0, p1, ..., or by id."""
    grades = truth if isinstance(truth, dict) else {f"p{i}": int(grade) for i, grade in enumerate(truth)}
    return Labels(pd.Series(grades), None if patients is None else pd.Series(patients), frozenset(ungraded))


def score(prediction, known, **options):
    return scoring.score(prediction, known, objective=REGRESSION, classes=GRADES, **options)


def test_metrics_equal_scikit_learn_s_and_are_within_their_intervals():
    prediction, truth = graded()
    content = score(prediction, labels(truth))
    values = {name: metric["value"] for name, metric in content["metrics"].items()}
    assert values["macro_f1"] == pytest.approx(f1_score(truth, prediction.grades, average="macro"), abs=1e-6)
    assert values["kappa"] == pytest.approx(cohen_kappa_score(truth, prediction.grades, weights="quadratic"), abs=1e-6)
    assert values["accuracy"] == pytest.approx(np.mean(truth == prediction.grades))
    assert content["confusion"] == confusion_matrix(truth, prediction.grades).tolist()
    referable, ill = content["referable"], truth >= 2
    assert referable["sensitivity"]["value"] == pytest.approx(np.mean(prediction.grades[ill] >= 2), abs=1e-6)
    assert referable["specificity"]["value"] == pytest.approx(np.mean(prediction.grades[~ill] < 2), abs=1e-6)
    assert referable["auc"]["value"] == pytest.approx(roc_auc_score(ill, prediction.predictions[:, 0]), abs=1e-6)
    for metric in (*content["metrics"].values(), *referable.values()):
        assert metric["low"] < metric["value"] < metric["high"]
    assert [row["n"] for row in content["per_class"]] == np.bincount(truth).tolist()
    assert content["per_class"][1]["class"] == "Mild"
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_missing_labels_missing_images_and_unreadable_images_are_counted_and_reported():
    prediction, truth = graded(50, unreadable=["p50", "p51"])
    grades = dict(enumerate([*truth[:40], *[0] * 10, 1]))
    known = labels(
        {f"{'q' if str(i)[0] == '4' else 'p'}{i}": int(grade) for i, grade in grades.items()}
    )  # not p4, p40, ...
    content = score(prediction, known)
    assert content["images"] == 39
    assert (content["without_label"], content["without_image"], content["unreadable"]) == (12, 11, ["p50"])
    lines = "\n".join(scoring.summary_lines(content))
    assert "on 39 labelled images: macro-F1 0." in lines
    assert "not scored: 12 images without a label, 11 labels without an image" in lines
    assert "not in these metrics: 1 unreadable images (p50)" in lines


def test_without_a_labelled_image_nothing_is_scored():
    none = scoring.Graded([], np.empty((0, 1)), np.empty(0, int), ["elsewhere"])
    assert score(none, labels({"elsewhere": 1})) is None


def test_undefined_metrics_are_null_and_reported():
    prediction, _ = graded(20)
    content = score(prediction, labels([0] * 20))
    assert content["referable"]["sensitivity"] == {"value": None, "low": None, "high": None}
    assert content["per_class"][4]["recall"]["value"] is None
    json.dumps(content, allow_nan=False)
    assert "sensitivity not defined" in scoring.summary_lines(content)[1]


def test_other_classes_have_no_referable_grade(tmp_path):
    objective = objectives.build(from_dict({"objective": "classification"}), num_classes=3)
    truth = np.array([0, 1, 2] * 10)
    prediction = scoring.Graded([f"p{i}" for i in range(30)], np.eye(3)[truth] * 0.7 + 0.1, truth, [])
    content = scoring.score(prediction, labels(truth), objective=objective, classes=("a", "b", "c"))
    assert content["referable"] is None
    assert content["metrics"]["macro_f1"]["value"] == 1
    scoring.write(content, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == content
    assert (tmp_path / "confusion.png").stat().st_size > 5000


def test_the_interval_of_a_sensitivity_of_three_images_is_wide():
    prediction = scoring.Graded(
        ["a", "b", "c", "d"], np.array([[3.0], [3.0], [3.0], [0.0]]), np.array([3, 3, 3, 0]), []
    )
    referable = score(prediction, labels({"a": 3, "b": 3, "c": 3, "d": 0}))["referable"]
    # by hand: 3 of 3 is n / (n + z^2) at the low end, z = 1.96
    assert referable["sensitivity"] == {
        "value": 1.0,
        "low": pytest.approx(3 / (3 + 1.959964**2), abs=1e-6),
        "high": 1.0,
    }
    assert referable["specificity"]["low"] == pytest.approx(1 / (1 + 1.959964**2), abs=1e-6)


def test_intervals_are_over_patients_where_the_table_names_them():
    prediction, truth = graded(100)
    twice = scoring.Graded(
        [*prediction.ids, *(f"q{i}" for i in range(100))],
        np.tile(prediction.predictions, (2, 1)),
        np.tile(prediction.grades, 2),
        [],
    )
    grades = {name: int(grade) for name, grade in zip(twice.ids, np.tile(truth, 2), strict=True)}
    patients = {name: name[1:] for name in twice.ids}
    one, by_image = score(prediction, labels(truth)), score(twice, labels(grades))
    by_patient = score(twice, labels(grades, patients=patients))

    def width(content, *path):
        for key in path:
            content = content[key]
        return content["high"] - content["low"]

    assert (by_image["resampled"], by_patient["resampled"]) == ("images", "patients")
    assert "on 200 labelled images, intervals over patients: macro-F1" in scoring.summary_lines(by_patient)[0]
    for path in (("metrics", "kappa"), ("metrics", "accuracy"), ("referable", "sensitivity"), ("referable", "auc")):
        # both images of a patient agree: they say no more than one
        assert width(by_patient, *path) == pytest.approx(width(one, *path), rel=0.25)
        assert width(by_image, *path) < 0.85 * width(by_patient, *path)
    lowest = min(by_patient["per_class"], key=lambda row: row["recall"]["value"])
    assert by_patient["metrics"]["lowest_recall"] == lowest["recall"] | {"class": lowest["class"]}
    assert f") {lowest['class']}" in scoring.summary_lines(by_patient)[0]
    assert width(by_patient["per_class"][0], "recall") > 1.2 * width(by_image["per_class"][0], "recall")
    single = score(prediction, labels(truth, patients={f"p{i}": str(i) for i in range(100)}))
    assert single == one  # each patient has one image


def test_images_without_a_patient_count_as_their_own():
    prediction, truth = graded(40)
    content = score(prediction, labels(truth, patients={"p0": "a", "p1": "a"}))
    assert content["resampled"] == "patients"
    assert content["images"] == 40


def test_images_without_a_grade_in_the_table_are_counted_apart():
    prediction, truth = graded(20)
    known = labels({f"p{i}": int(truth[i]) for i in range(15)}, ungraded=["p15", "p16", "elsewhere"])
    content = score(prediction, known)
    assert (content["images"], content["without_grade"], content["without_label"]) == (15, 2, 3)
    words = "not scored: 2 images without a grade in the table, 3 images without a label"
    assert words in scoring.summary_lines(content)
