import re

import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, write_preprocessed

from dr.datasets.preprocessed import read_preprocessed
from dr.grading import objectives
from dr.inference.checkpoint import Checkpoint
from dr.inference.records import GradedSplit
from dr.recipes.load import from_dict
from dr.training import loop, model_card, report, summary, worst_errors
from dr.training.options import RunOptions
from dr.training.run_files import RunFiles

CLASSES = ("<b>No</b>", "Mi|ld", "c & d", "Severe", "worst")


def train(data, folder, name="run", **options):
    recipe = from_dict(TINY.to_dict() | {"epochs": 1, "loss": None} | options)
    return loop.train(recipe, data=data, options=RunOptions(folder=str(folder), name=name, device="cpu", workers=0))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with a test and with class names that need escaping -> (folder, its data, its checkpoint, row)."""
    folder = tmp_path_factory.mktemp("page")
    data = read_preprocessed(write_preprocessed(folder / "data", classes=CLASSES, val=20, test=15))
    row = train(data, folder / "weights")
    return folder / "weights", data, Checkpoint.load(folder / "weights" / "run__best.pt"), row


def page_of(finished) -> str:
    return (finished[0] / "run/report.html").read_text()


def errors_of(text: str) -> list[str]:
    """The cards of the worst errors on a page; those of labels that look wrong follow."""
    section = text.partition("Worst errors")[2].partition("Labels that look wrong")[0]
    return re.findall(r'<li class="card">(.*?)</li>', section, flags=re.DOTALL)


def test_the_page_holds_every_plot_of_the_run_and_needs_no_other_file(finished):
    text = page_of(finished)
    sources = re.findall(r'src="([^"]+)"', text)
    assert all(source.startswith("data:image/") for source in sources)
    plots = sum(source.startswith("data:image/png") for source in sources)
    assert plots == len(list((finished[0] / "run").glob("*.png"))) == 7


def test_the_page_states_every_metric_with_its_interval(finished):
    text, best = re.sub("<span[^>]*>|</span>", "", page_of(finished)), finished[2]
    for split, intervals in best.intervals.items():
        for name, (low, high) in intervals.items():
            assert f"{best.metrics[split][name]:.3f} ({low:.3f} to {high:.3f})" in text, name
    assert "validation: macro-F1, cross-fitted" not in text  # the headlines are of the test
    assert "test: macro-F1" in text


def test_names_from_outside_are_escaped(finished):
    text = page_of(finished)
    assert "<b>No</b>" not in text
    assert "&lt;b&gt;No&lt;/b&gt;" in text
    assert "c &amp; d" in text
    named = (finished[0] / "run/card.md").read_text()
    assert r"| \<b\>No\</b\> |" in named
    assert r"Mi\|ld" in named


def test_the_worst_errors_are_of_the_test_and_shown_with_truth_and_grade(finished):
    _, data, best, _ = finished
    graded = best.graded_splits()[-1]
    wrong = graded.truth != graded.grades
    cards = errors_of(page_of(finished))
    assert len(cards) == min(worst_errors.MAX_ERRORS, wrong.sum())
    rows = worst_errors.worst(best.objective, graded)
    for text, row in zip(cards, rows, strict=True):
        assert data.test["path"][row] in text
        assert f"score {graded.predictions[row, 0]:.2f}" in text
        assert text.count("data:image/jpeg") == 2  # with its heat map


def test_images_are_counted_by_split_class_source_and_patients():
    table = pd.DataFrame(
        {"path": list("abcd"), "diagnosis": [0, 1, 1, 0], "source": ["main", "main", "x", "x"], "patient": list("ppqr")}
    )
    data = read_like(table, table[:1].assign(patient="s"))
    counts = summary.composition(data)
    assert counts.loc[("training", "main")].tolist() == [1, 1, 1]
    assert counts.loc[("training", "x")].tolist() == [1, 1, 2]
    assert counts.loc[("validation", "main")].tolist() == [1, 0, 1]
    assert summary.patient_overlap(data) == "No patient has images in more than one split."
    partly = read_like(table.assign(patient=["p", "p", "", ""]), table[:1])
    assert summary.patient_overlap(partly) == (
        "Patients are known for 3 of 5 images (60 %). Overlap between splits was checked for these alone: 1 patient "
        "has images in more than one split."
    )
    assert summary.patient_overlap(read_like(table, table[:1])) == "1 patient has images in more than one split."
    unknown = table.drop(columns="patient")
    assert "are not known" in summary.patient_overlap(read_like(unknown, unknown[:1]))
    nameless = table.assign(patient="")
    assert "are not known" in summary.patient_overlap(read_like(nameless, nameless[:1]))
    sourceless = table.drop(columns="source")
    assert (
        summary.patient_overlap(read_like(sourceless, sourceless[:1])) == "1 patient has images in more than one split."
    )
    assert summary.composition(read_like(unknown, unknown[:1]))["patients"].isna().all()


@pytest.mark.parametrize(
    ("patients", "kept"),
    [
        (list("ppqr"), "by whole patients."),
        (["p", "", "q", "r"], "by whole patients where they are known, else by image."),
    ],
)
def test_the_card_does_not_claim_that_unknown_patients_were_held_out(patients, kept):
    table = pd.DataFrame({"path": list("abcd"), "diagnosis": [0, 1, 1, 0], "patient": patients})
    known = summary.patients_known(read_like(table, table[:1]))
    assert f"by {model_card._held_out_by(known)}." == kept
    assert model_card._held_out_by(0.0) == "image, because patients are not known"


def read_like(train, val):
    from dr.datasets.preprocessed import PreprocessedData

    return PreprocessedData(None, train.reset_index(drop=True), val.reset_index(drop=True), 64, "", classes=("a", "b"))


def test_the_page_loads_without_errors_and_fits_its_window(finished, open_page):
    for options in ({}, {"dark": True}, {"width": 390}):
        errors, broken, wider, text = open_page(finished[0] / "run/report.html", **options)
        assert (errors, broken) == ([], [])
        assert wider <= 0
        assert "<b>No</b>" in text


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "classification", "crop_size": 48},
        {"objective": "ordinal", "thresholds": "argmax", "tta": "flips", "tta_by": "vote"},
        {"objective": "binary"},
    ],
    ids=lambda options: options["objective"],
)
def test_every_objective_has_its_page_and_card(finished, tmp_path, options):
    train(finished[1], tmp_path, **options)
    text = (tmp_path / "run/report.html").read_text()
    best = Checkpoint.load(tmp_path / "run__best.pt")
    graded = best.graded_splits()[-1]
    wrong = int((graded.truth != graded.grades).sum())
    assert len(errors_of(text)) == min(12, wrong)
    assert ("probability 0." in text) == (options["objective"] == "classification")
    written = (tmp_path / "run/card.md").read_text()
    for name in best.classes:
        assert f"| {model_card._cell(name)} |" in written


def test_of_many_classes_the_worst_and_the_most_frequent_errors_are_shown(tmp_path):
    classes = tuple(f"class {number}" for number in range(32))
    data = read_preprocessed(write_preprocessed(tmp_path / "data", classes=classes, train=64, val=64))
    train(data, tmp_path, objective="classification")
    text = (tmp_path / "run/report.html").read_text()
    assert "The 30 classes with the lowest F1 of 32" in text
    assert "Most frequent errors, validation" in text
    assert not (tmp_path / "run/confusion.png").exists()
    assert "The 30 classes with the lowest F1 of 32" in (tmp_path / "run/card.md").read_text()


def graded_split(predictions, truth, grades):
    return GradedSplit("test", np.array(truth), np.array(grades), np.array(predictions), fitted=False)


def test_the_largest_errors_come_first_and_correct_grades_are_left_out():
    regression = objectives.Regression(5)
    predictions, truth = [[0.1], [3.0], [2.2], [4.4], [1.6]], [0, 0, 4, 4, 1]
    graded = graded_split(predictions, truth, [0, 3, 2, 4, 2])
    assert worst_errors.worst(regression, graded).tolist() == [1, 2, 4]
    assert worst_errors.worst(regression, graded, most=1).tolist() == [1]
    assert len(worst_errors.worst(regression, graded_split(predictions, truth, truth))) == 0
    graded = graded_split([[0.6, 0.4], [0.9, 0.1]], [1, 1], [0, 0])
    assert worst_errors.worst(objectives.Classification(2), graded).tolist() == [1, 0]


def test_a_run_without_errors_is_reported_as_such(finished, tmp_path):
    _, data, best, row = finished
    test = best.predictions["test"]
    perfect = best.replace(predictions={"test": test.model_copy(update={"grades": test.truth})})
    paths = RunFiles(tmp_path, "run")
    paths.run_folder.mkdir()
    report.write(paths, perfect, data=data, row=row, epochs=1)
    assert "None: every grade is correct." in paths.report.read_text()


def test_the_card_states_purpose_data_metrics_and_limits(finished):
    folder, data, best, _ = finished
    text = (folder / "run/card.md").read_text()
    for heading in ("## Data", "## Recipe", "## Metrics", "## Intended use", "## Limits", "## Versions"):
        assert heading in text
    assert data.fingerprint in text
    assert f"torch {torch.__version__}" in text
    low, high = best.intervals["test"]["macro_f1"]
    assert f"| test | macro-F1 | {best.metrics['test']['macro_f1']:.3f} ({low:.3f} to {high:.3f}) |" in text
    assert "`backbone=test_efficientnet`" in text
    assert "`momentum" not in text  # a default
    assert "Written during training" not in text
    assert "\n\n\n" not in text


def test_a_card_is_written_with_each_better_epoch_and_states_that_training_goes_on(finished, tmp_path, monkeypatch):
    written = []
    render = model_card.render

    def keep(best, **options):
        written.append(render(best, **options))
        return written[-1]

    monkeypatch.setattr(model_card, "render", keep)
    train(finished[1], tmp_path)
    assert len(written) == 2
    assert "Written during training, after epoch 1. Intervals and the test are added at the end." in written[0]
    assert (tmp_path / "run/card.md").read_text() == written[1]


def test_only_classes_named_after_dr_grades_are_dr_grades():
    assert summary.are_dr_grades(["No DR", "Mild or worse"])
    assert summary.are_dr_grades(["below Moderate", "Moderate or worse"])
    assert not summary.are_dr_grades(["cat", "dog"])
    assert not summary.are_dr_grades(["Normal", "Mild pneumonia"])
