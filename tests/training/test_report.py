import re

import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, write_preprocessed

from dr.datasets.preprocessed import read_preprocessed
from dr.grading import objectives
from dr.networks import build as models
from dr.recipes.load import from_dict
from dr.training import loop as training
from dr.training import model_card, summary, worst_errors
from dr.training import report as run_page
from dr.training.run_files import RunFiles

CLASSES = ("<b>No</b>", "Mi|ld", "c & d", "Severe", "worst")


def train(data, folder, name="run", **choices):
    recipe = from_dict(TINY.to_dict() | {"epochs": 1, "loss": None} | choices)
    return training.train(recipe, data=data, folder=str(folder), name=name, device_name="cpu", workers=0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with a test and class names that are not harmless -> (folder, its data, fields of its checkpoint, row)."""
    folder = tmp_path_factory.mktemp("page")
    data = read_preprocessed(write_preprocessed(folder / "data", classes=CLASSES, val=20, test=15))
    row = train(data, folder / "weights")
    return folder / "weights", data, models.load_tensors(folder / "weights" / "run__best.pt"), row


def page_of(finished) -> str:
    return (finished[0] / "run__report.html").read_text()


def test_the_page_holds_every_picture_of_the_run_and_needs_no_other_file(finished):
    text = page_of(finished)
    sources = re.findall(r'src="([^"]+)"', text)
    assert all(source.startswith("data:image/") for source in sources)
    pictures = sum(source.startswith("data:image/png") for source in sources)
    assert pictures == len(list(finished[0].glob("run__*.png"))) == 7


def test_the_page_states_every_figure_with_its_interval(finished):
    text, metrics = page_of(finished), finished[2]["metrics"]
    for figures in (metrics, metrics["test"]):
        for name, (low, high) in figures["intervals"].items():
            assert f"{figures[name]:.3f} ({low:.3f} to {high:.3f})" in text, name
    assert "validation: macro-F1, cross-fitted" not in text  # the headlines are of the test
    assert "test: macro-F1" in text


def test_names_from_the_outside_are_escaped(finished):
    text = page_of(finished)
    assert "<b>No</b>" not in text
    assert "&lt;b&gt;No&lt;/b&gt;" in text
    assert "c &amp; d" in text
    named = (finished[0] / "run__card.md").read_text()
    assert r"| \<b\>No\</b\> |" in named
    assert r"Mi\|ld" in named


def test_the_worst_mistakes_are_of_the_test_and_shown_with_truth_and_grade(finished):
    _, data, content, _ = finished
    side = summary.sides(content)[-1]
    wrong = side.truth != side.grades
    cards = re.findall(r'<li class="card">(.*?)</li>', page_of(finished), flags=re.DOTALL)
    assert len(cards) == min(worst_errors.MOST, wrong.sum())
    _, objective = summary.recipe_of(content)
    rows = worst_errors.worst(objective, side.predictions, side.truth, side.grades)
    for text, row in zip(cards, rows, strict=True):
        assert data.test["path"][row] in text
        assert f"score {side.predictions[row, 0]:.2f}" in text
        assert text.count("data:image/jpeg") == 2  # with its explanation


def test_the_split_is_counted_by_class_source_and_patients():
    table = pd.DataFrame(
        {"path": list("abcd"), "diagnosis": [0, 1, 1, 0], "source": ["main", "main", "x", "x"], "patient": list("ppqr")}
    )
    data = read_like(table, table[:1].assign(patient="s"))
    found = summary.composition(data)
    assert found.loc[("training", "main")].tolist() == [1, 1, 1]
    assert found.loc[("training", "x")].tolist() == [1, 1, 2]
    assert found.loc[("validation", "main")].tolist() == [1, 0, 1]
    assert summary.patient_overlap(data) == "No patient, as far as they are known, stands on two sides."
    assert summary.patient_overlap(read_like(table, table[:1])) == "1 patient stands on more than one side."
    unknown = table.drop(columns="patient")
    assert "is not known" in summary.patient_overlap(read_like(unknown, unknown[:1]))
    nameless = table.assign(patient="")
    assert "is not known" in summary.patient_overlap(read_like(nameless, nameless[:1]))
    sourceless = table.drop(columns="source")
    assert summary.patient_overlap(read_like(sourceless, sourceless[:1])) == "1 patient stands on more than one side."
    assert summary.composition(read_like(unknown, unknown[:1]))["patients"].isna().all()


def read_like(train, val):
    from dr.datasets.preprocessed import PreprocessedData

    return PreprocessedData(None, train.reset_index(drop=True), val.reset_index(drop=True), 64, "", classes=("a", "b"))


def test_the_page_loads_without_errors_and_fits_its_window(finished, look):
    for options in ({}, {"dark": True}, {"width": 390}):
        errors, broken, wider, text = look(finished[0] / "run__report.html", **options)
        assert (errors, broken) == ([], [])
        assert wider <= 0
        assert "<b>No</b>" in text


@pytest.mark.parametrize(
    "choices",
    [
        {"objective": "classification", "crop_size": 48},
        {"objective": "ordinal", "thresholds": "argmax", "tta": "flips", "tta_by": "vote"},
        {"objective": "binary"},
    ],
    ids=lambda choices: choices["objective"],
)
def test_every_objective_has_its_page_and_card(finished, tmp_path, choices):
    train(finished[1], tmp_path, **choices)
    text = (tmp_path / "run__report.html").read_text()
    content = models.load_tensors(tmp_path / "run__best.pt")
    wrong = int((summary.sides(content)[-1].truth != summary.sides(content)[-1].grades).sum())
    assert text.count('<li class="card">') == min(12, wrong)
    assert ("probability 0." in text) == (choices["objective"] == "classification")
    written = (tmp_path / "run__card.md").read_text()
    for name in content["classes"]:
        assert f"| {model_card._cell(name)} |" in written


def test_many_classes_are_shown_by_the_worst_and_by_the_most_frequent_mistakes(tmp_path):
    classes = tuple(f"class {number}" for number in range(32))
    data = read_preprocessed(write_preprocessed(tmp_path / "data", classes=classes, train=64, val=64))
    train(data, tmp_path, objective="classification")
    text = (tmp_path / "run__report.html").read_text()
    assert "The 30 classes with the lowest F1 of 32" in text
    assert "The most frequent mistakes, validation" in text
    assert not (tmp_path / "run__confusion.png").exists()
    assert "The 30 classes with the lowest F1 of 32" in (tmp_path / "run__card.md").read_text()


def test_the_farthest_from_the_truth_are_the_worst_and_those_graded_right_are_none():
    regression = objectives.Regression(5)
    predictions, truth = np.array([[0.1], [3.0], [2.2], [4.4], [1.6]]), np.array([0, 0, 4, 4, 1])
    grades = np.array([0, 3, 2, 4, 2])
    assert worst_errors.worst(regression, predictions, truth, grades).tolist() == [1, 2, 4]
    assert worst_errors.worst(regression, predictions, truth, grades, most=1).tolist() == [1]
    assert len(worst_errors.worst(regression, predictions, truth, truth)) == 0
    classes = objectives.Classification(2)
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1]])
    assert worst_errors.worst(classes, probabilities, np.array([1, 1]), np.array([0, 0])).tolist() == [1, 0]


def test_a_run_without_mistakes_says_so(finished, tmp_path):
    _, data, content, row = finished
    perfect = dict(content["test"]) | {"grades": content["test"]["truth"]}
    run_page.write(RunFiles(tmp_path, "run"), dict(content) | {"test": perfect}, data=data, row=row, epochs=1)
    assert "None: every photograph has its grade." in (tmp_path / "run__report.html").read_text()


def test_the_card_says_what_it_is_and_what_it_is_not_for(finished):
    folder, data, content, _ = finished
    text = (folder / "run__card.md").read_text()
    for heading in ("## Data", "## Recipe", "## Metrics", "## Intended use", "## Limits", "## Versions"):
        assert heading in text
    assert data.fingerprint in text
    assert f"torch {torch.__version__}" in text
    low, high = content["metrics"]["test"]["intervals"]["macro_f1"]
    assert f"| test | macro-F1 | {content['metrics']['test']['macro_f1']:.3f} ({low:.3f} to {high:.3f}) |" in text
    assert "`backbone=test_efficientnet`" in text
    assert "`momentum" not in text  # a default
    assert "Written during training" not in text
    assert "\n\n\n" not in text


def test_a_card_is_written_with_each_better_epoch_and_says_that_training_goes_on(finished, tmp_path, monkeypatch):
    written = []
    render = model_card.render

    def keep(content, **options):
        written.append(render(content, **options))
        return written[-1]

    monkeypatch.setattr(model_card, "render", keep)
    train(finished[1], tmp_path)
    assert len(written) == 2
    assert "Written during training, after epoch 1: intervals and the test are added at the end." in written[0]
    assert (tmp_path / "run__card.md").read_text() == written[1]


def test_a_retina_is_known_by_its_grades():
    assert summary.are_dr_grades(["No DR", "Mild or worse"])
    assert summary.are_dr_grades(["below Moderate", "Moderate or worse"])
    assert not summary.are_dr_grades(["cat", "dog"])
    assert not summary.are_dr_grades(["Normal", "Mild pneumonia"])
