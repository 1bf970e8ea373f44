import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, roc_auc_score

from dr import GRADES, UsageError
from dr.grading import objectives
from dr.prediction import scoring
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


def labels(tmp_path, text, classes=GRADES):
    (tmp_path / "labels.csv").write_text(text)
    return scoring.read_labels(str(tmp_path / "labels.csv"), classes=classes)


def table(truth, header="id_code,diagnosis"):
    return "\n".join([header, *(f"p{i},{grade}" for i, grade in enumerate(truth))])


def score(prediction, known, **options):
    return scoring.score(prediction, known, objective=REGRESSION, classes=GRADES, **options)


def test_metrics_equal_scikit_learn_s_and_are_within_their_intervals(tmp_path):
    prediction, truth = graded()
    content = score(prediction, labels(tmp_path, table(truth)))
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


def test_numbers_are_class_names_if_all_names_are_numbers_and_indices_otherwise(tmp_path):
    for twice in ("2", "2.0"):
        table = f"id_code,diagnosis\na,1\nb,{twice}\nc,4\n"
        assert labels(tmp_path, table, classes=("1", "2", "4")).to_dict() == {"a": 0, "b": 1, "c": 2}
    for wrong in ("3", "5", "-1", "1_0", "1.5", "nan"):
        with pytest.raises(UsageError, match=rf"row 3: diagnosis is '{wrong}', expected one of 1, 2, 4$"):
            labels(tmp_path, f"id_code,diagnosis\na,1\nb,{wrong}\n", classes=("1", "2", "4"))
    with pytest.raises(UsageError, match=r"row 3: diagnosis is 'brid', expected one of cat, bird$"):
        labels(tmp_path, "id_code,diagnosis\na,cat\nb,brid\n", classes=("cat", "bird"))
    assert labels(tmp_path, "id_code,diagnosis\na,1\nb,0\n", classes=("cat", "dog")).to_dict() == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("classes", "spellings"),
    [
        (("No_DR", "DR"), ("no dr", "DR")),
        (("No DR", "Mild"), ("normal", "mild NPDR")),
        (("cat", "dog"), ("Cat", "dog")),
    ],
)
def test_labels_match_classes_in_every_spelling_that_data_py_knows(tmp_path, classes, spellings):
    table = "id_code,diagnosis\na,{}\nb,{}\n".format(*spellings)
    assert labels(tmp_path, table, classes=classes).to_dict() == {"a": 0, "b": 1}


def test_the_table_of_2015_names_of_grades_and_file_names_are_read_alike(tmp_path):
    assert labels(tmp_path, "image,level\n1_left,2\n1_right,0\n").to_dict() == {"1_left": 2, "1_right": 0}
    assert labels(tmp_path, "extra,id_code,diagnosis\nx,a.png,No DR\nx,deep/b,Severe\n").to_dict() == {
        "a": 0, "deep/b": 3,
    }  # fmt: skip
    assert labels(tmp_path, "id_code,diagnosis\na,PDR\n.\\c\\b.png,mild npdr\n").to_dict() == {"a": 4, "c/b": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,grade\na,1\n",
            r"labels\.csv: header 'name,grade', expected the columns id_code or image and diagnosis or level",
        ),
        ("id_code,diagnosis\na,1\nb,7\n", r"labels\.csv, row 3: diagnosis is '7', expected 0 to 4"),
        ("id_code,diagnosis\na,1\na,2\n", r"labels\.csv, row 3: a has diagnosis 2, but 1 in row 2; keep one"),
        ("id_code,diagnosis\n,1\n", r"labels\.csv, row 2: id_code is empty"),
    ],
)
def test_an_invalid_table_is_refused_with_its_row(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        labels(tmp_path, text)
    with pytest.raises(UsageError, match=r"--labels none\.csv: not found; pass a table"):
        scoring.read_labels("none.csv", classes=GRADES)


def test_missing_labels_missing_images_and_unreadable_images_are_counted_and_reported(tmp_path):
    prediction, truth = graded(50, unreadable=["p50", "p51"])
    known = labels(tmp_path, table([*truth[:40], *[0] * 10, 1]).replace("p4", "q4"))  # p4, p40 to p49 have none
    content = score(prediction, known)
    assert content["images"] == 39
    assert (content["without_label"], content["without_image"], content["unreadable"]) == (12, 11, ["p50"])
    lines = "\n".join(scoring.summary_lines(content))
    assert "on 39 labelled images: macro-F1 0." in lines
    assert "not scored: 12 images without a label, 11 labels without an image" in lines
    assert "not in these metrics: 1 unreadable images (p50)" in lines


def test_no_labelled_image_is_an_error_before_and_none_after_grading(tmp_path):
    known = labels(tmp_path, "id_code,diagnosis\nelsewhere,1\n")
    with pytest.raises(UsageError, match=r"none of its 1 ids matches one of the 2 images .*elsewhere and a"):
        scoring.check(["a", "b"], known, path="labels.csv")
    none = scoring.Graded([], np.empty((0, 1)), np.empty(0, int), ["elsewhere"])
    assert score(none, known) is None


def test_undefined_metrics_are_null_and_reported(tmp_path):
    prediction, _ = graded(20)
    content = score(prediction, labels(tmp_path, table([0] * 20)))
    assert content["referable"]["sensitivity"] == {"value": None, "low": None, "high": None}
    assert content["per_class"][4]["recall"]["value"] is None
    json.dumps(content, allow_nan=False)
    assert "sensitivity not defined" in scoring.summary_lines(content)[1]


def test_other_classes_have_no_referable_grade(tmp_path):
    objective = objectives.build(from_dict({"objective": "classification"}), num_classes=3)
    truth = np.array([0, 1, 2] * 10)
    prediction = scoring.Graded([f"p{i}" for i in range(30)], np.eye(3)[truth] * 0.7 + 0.1, truth, [])
    known = labels(tmp_path, table(np.array(["a", "b", "c"])[truth]), classes=("a", "b", "c"))
    content = scoring.score(prediction, known, objective=objective, classes=("a", "b", "c"))
    assert content["referable"] is None
    assert content["metrics"]["macro_f1"]["value"] == 1
    scoring.write(content, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == content
    assert (tmp_path / "confusion.png").stat().st_size > 5000


def test_the_interval_of_a_sensitivity_of_three_images_is_wide(tmp_path):
    prediction = scoring.Graded(
        ["a", "b", "c", "d"], np.array([[3.0], [3.0], [3.0], [0.0]]), np.array([3, 3, 3, 0]), []
    )
    referable = score(prediction, labels(tmp_path, "Image,Level\na,3\nb,3\nc,3\nd,0\n"))["referable"]
    # by hand: 3 of 3 is n / (n + z^2) at the low end, z = 1.96
    assert referable["sensitivity"] == {
        "value": 1.0,
        "low": pytest.approx(3 / (3 + 1.959964**2), abs=1e-6),
        "high": 1.0,
    }
    assert referable["specificity"]["low"] == pytest.approx(1 / (1 + 1.959964**2), abs=1e-6)
