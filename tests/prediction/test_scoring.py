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
    """Photographs p0, p1, ... graded by rounding, and their true grades."""
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


def score(one, known, **options):
    return scoring.score(one, known, objective=REGRESSION, classes=GRADES, **options)


def test_the_figures_are_scikit_learn_s_and_lie_in_their_intervals(tmp_path):
    one, truth = graded()
    content = score(one, labels(tmp_path, table(truth)))
    values = {name: figure["value"] for name, figure in content["metrics"].items()}
    assert values["macro_f1"] == pytest.approx(f1_score(truth, one.grades, average="macro"), abs=1e-6)
    assert values["kappa"] == pytest.approx(cohen_kappa_score(truth, one.grades, weights="quadratic"), abs=1e-6)
    assert values["accuracy"] == pytest.approx(np.mean(truth == one.grades))
    assert content["confusion"] == confusion_matrix(truth, one.grades).tolist()
    referable, ill = content["referable"], truth >= 2
    assert referable["sensitivity"]["value"] == pytest.approx(np.mean(one.grades[ill] >= 2), abs=1e-6)
    assert referable["specificity"]["value"] == pytest.approx(np.mean(one.grades[~ill] < 2), abs=1e-6)
    assert referable["auc"]["value"] == pytest.approx(roc_auc_score(ill, one.predictions[:, 0]), abs=1e-6)
    for figure in (*content["metrics"].values(), *referable.values()):
        assert figure["low"] < figure["value"] < figure["high"]
    assert [row["n"] for row in content["per_class"]] == np.bincount(truth).tolist()
    assert content["per_class"][1]["class"] == "Mild"
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_numbers_are_names_of_classes_where_these_are_numbers_and_else_their_places(tmp_path):
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
    ("classes", "words"),
    [
        (("No_DR", "DR"), ("no dr", "DR")),
        (("No DR", "Mild"), ("normal", "mild NPDR")),
        (("cat", "dog"), ("Cat", "dog")),
    ],
)
def test_words_are_matched_to_classes_in_whatever_spelling_data_py_knows_them(tmp_path, classes, words):
    table = "id_code,diagnosis\na,{}\nb,{}\n".format(*words)
    assert labels(tmp_path, table, classes=classes).to_dict() == {"a": 0, "b": 1}


def test_the_form_of_2015_and_names_of_grades_and_of_files_are_read_alike(tmp_path):
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
            r"labels\.csv: its header is 'name,grade', expected the columns id_code or image and diagnosis or level",
        ),
        ("id_code,diagnosis\na,1\nb,7\n", r"labels\.csv, row 3: diagnosis is '7', expected 0 to 4"),
        ("id_code,diagnosis\na,1\na,2\n", r"labels\.csv, row 3: a has diagnosis 2, but 1 in row 2; keep one"),
        ("id_code,diagnosis\n,1\n", r"labels\.csv, row 2: id_code is empty"),
    ],
)
def test_a_table_that_cannot_be_meant_is_told_with_its_row(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        labels(tmp_path, text)
    with pytest.raises(UsageError, match=r"--labels none\.csv: it is not there; give a table"):
        scoring.read_labels("none.csv", classes=GRADES)


def test_what_is_without_a_label_or_a_photograph_or_cannot_be_read_is_counted_and_told(tmp_path):
    one, truth = graded(50, unreadable=["p50", "p51"])
    known = labels(tmp_path, table([*truth[:40], *[0] * 10, 1]).replace("p4", "q4"))  # p4, p40 to p49 have none
    content = score(one, known)
    assert content["photographs"] == 39
    assert (content["without_label"], content["without_photograph"], content["unreadable"]) == (12, 11, ["p50"])
    words = "\n".join(scoring.summary_lines(content))
    assert "on 39 photographs with a label: macro-F1 0." in words
    assert "not scored: 12 photographs without a label, 11 labels without a photograph" in words
    assert "not in these figures: 1 that could not be read (p50)" in words


def test_no_photograph_with_a_label_is_an_error_before_and_after_they_were_read(tmp_path):
    known = labels(tmp_path, "id_code,diagnosis\nelsewhere,1\n")
    with pytest.raises(
        UsageError, match=r"none of its 1 ids is the name of one of the 2 photographs .*elsewhere and a"
    ):
        scoring.check(["a", "b"], known, path="labels.csv")
    none = scoring.Graded([], np.empty((0, 1)), np.empty(0, int), ["elsewhere"])
    assert score(none, known) is None


def test_figures_that_are_not_defined_are_null_and_told(tmp_path):
    one, _ = graded(20)
    content = score(one, labels(tmp_path, table([0] * 20)))
    assert content["referable"]["sensitivity"] == {"value": None, "low": None, "high": None}
    assert content["per_class"][4]["recall"]["value"] is None
    json.dumps(content, allow_nan=False)
    assert "sensitivity not defined" in scoring.summary_lines(content)[1]


def test_other_classes_have_no_referable_grade(tmp_path):
    objective = objectives.build(from_dict({"objective": "classification"}), num_classes=3)
    truth = np.array([0, 1, 2] * 10)
    one = scoring.Graded([f"p{i}" for i in range(30)], np.eye(3)[truth] * 0.7 + 0.1, truth, [])
    known = labels(tmp_path, table(np.array(["a", "b", "c"])[truth]), classes=("a", "b", "c"))
    content = scoring.score(one, known, objective=objective, classes=("a", "b", "c"))
    assert content["referable"] is None
    assert content["metrics"]["macro_f1"]["value"] == 1
    scoring.write(content, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == content
    assert (tmp_path / "confusion.png").stat().st_size > 5000


def test_sensitivity_of_three_photographs_is_not_certain(tmp_path):
    one = scoring.Graded(["a", "b", "c", "d"], np.array([[3.0], [3.0], [3.0], [0.0]]), np.array([3, 3, 3, 0]), [])
    found = score(one, labels(tmp_path, "Image,Level\na,3\nb,3\nc,3\nd,0\n"))["referable"]
    # by hand: 3 of 3 is n / (n + z^2) at the low end, z = 1.96
    assert found["sensitivity"] == {"value": 1.0, "low": pytest.approx(3 / (3 + 1.959964**2), abs=1e-6), "high": 1.0}
    assert found["specificity"]["low"] == pytest.approx(1 / (1 + 1.959964**2), abs=1e-6)
