"""predictions_val.csv, predictions_test.csv and oof.csv."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from made import write_preprocessed
from runs import run, tiny

import dr
from dr import UsageError
from dr.datasets.folds import fold
from dr.datasets.preprocessed import read_preprocessed
from dr.grading import metrics
from dr.inference.checkpoint import Checkpoint
from dr.training import suspect_labels
from dr.training.run_files import RunFiles, summary_lines

COLUMNS = ["id", "path", "fold", "truth", "grade", "score", *(f"probability_{k}" for k in range(5))]


def read(path):
    return pd.read_csv(path, dtype={"id": str}, keep_default_na=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """45 images whose names in their source are numbers with leading zeros."""
    folder = write_preprocessed(tmp_path_factory.mktemp("data"), train=30, val=15)
    for number, split in enumerate(("train", "val")):
        path = folder / "kaggle_retina" / f"labels_{split}.csv"
        table = pd.read_csv(path)
        table.assign(original=[f"{100 * number + row:04}" for row in table.index]).to_csv(path, index=False)
    return read_preprocessed(folder)


@pytest.fixture(scope="module")
def folds(data, tmp_path_factory):
    """The folder of two runs, folds 1 and 2 of 2."""
    folder = tmp_path_factory.mktemp("folds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dr.training.plots.draw", lambda *_, **__: None)
        patch.setattr("dr.training.report.write", lambda *_, **__: None)
        for name in ("evaluation.REPEATS", "evaluation.FEWER_REPEATS", "calibration.REPEATS"):
            patch.setattr(f"dr.grading.{name}", 5)
        for number in (1, 2):
            run(fold(data, number, 2), folder, name=f"a{number}", recipe=tiny(epochs=1, seed=number))
    return folder


def test_the_predictions_of_a_split_have_a_row_for_each_image_in_its_order(data, folds):
    best = Checkpoint.load(folds / "a1__best.pt", network=False)
    tables = {"val": fold(data, 1, 2).val, "test": fold(data, 1, 2).test}
    for graded in best.graded_splits():
        table, images = read(folds / f"a1/predictions_{graded.name}.csv"), tables[graded.name]
        assert table.columns.tolist() == COLUMNS
        assert table["id"].tolist() == images["original"].tolist()
        assert table["path"].tolist() == images["path"].tolist()
        assert set(table["fold"]) == {"1/2" if graded.name == "test" else ""}
        assert table["truth"].tolist() == images["diagnosis"].tolist()
        assert table["grade"].tolist() == graded.grades.tolist()
        assert table["score"].tolist() == pytest.approx(graded.predictions[:, 0].tolist(), abs=1e-5)
        probabilities = table[COLUMNS[6:]].to_numpy()
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(table)), abs=1e-4)
        reported = metrics.accuracy(table["truth"], table["grade"])
        assert best.metrics[graded.name]["accuracy"] == pytest.approx(reported)
    test = read(folds / "a1/predictions_test.csv")[COLUMNS[6:]].to_numpy()
    scores = best.predictions["test"].predictions[:, 0]
    assert test == pytest.approx(best.calibration.probabilities(scores), abs=1e-5)


def test_probabilities_of_validation_are_not_fitted_to_the_image_itself(folds):
    best = Checkpoint.load(folds / "a1__best.pt", network=False)
    own = best.calibration.probabilities(best.validation.predictions[:, 0])
    written = read(folds / "a1/predictions_val.csv")[COLUMNS[6:]].to_numpy()
    truth = best.validation.truth
    assert written[np.arange(len(truth)), truth].mean() < own[np.arange(len(truth)), truth].mean()


def test_folds_end_up_in_one_table_with_every_image_once(data, folds):
    both = [read(folds / f"{name}/oof.csv") for name in ("a1", "a2")]
    assert both[0].equals(both[1])
    table = both[0]
    assert table.columns.tolist() == COLUMNS
    assert sorted(table["id"]) == sorted([*data.train["original"], *data.val["original"]])
    for number in (1, 2):
        held_out = table[table["fold"] == f"{number}/2"]
        assert held_out["id"].tolist() == fold(data, number, 2).test["original"].tolist()
    assert dr.out_of_fold([folds / "a2__best.pt", folds / "a1__best.pt"])["id"].tolist() == table["id"].tolist()
    assert summary_lines(str(folds), "a2")[0].endswith("a2/oof.csv: out-of-fold predictions of folds 1, 2 of 2")


@pytest.mark.usefixtures("no_report")
def test_other_recipes_and_deleted_runs_stay_out_of_the_table_and_the_last_run_of_a_fold_counts(data, folds, tmp_path):
    shutil.copytree(folds, tmp_path / "w")
    run(fold(data, 2, 2), tmp_path / "w", name="other", recipe=tiny(epochs=1, lr=0.02))
    assert set(read(tmp_path / "w/other/oof.csv")["fold"]) == {"2/2"}
    run(fold(data, 2, 2), tmp_path / "w", name="a2", recipe=tiny(epochs=1, seed=5))
    table = read(tmp_path / "w/a2/oof.csv")
    assert len(table) == 45
    again = read(tmp_path / "w/a2/predictions_test.csv")
    assert table[table["fold"] == "2/2"]["score"].tolist() == again["score"].tolist()
    before = read(tmp_path / "w/a2__previous_1/predictions_test.csv")
    assert before["score"].tolist() != again["score"].tolist()
    (tmp_path / "w/a1__best.pt").unlink()
    run(fold(data, 2, 2), tmp_path / "w", name="a3", recipe=tiny(epochs=1, seed=6))
    assert set(read(tmp_path / "w/a3/oof.csv")["fold"]) == {"2/2"}


@pytest.mark.usefixtures("no_report")
def test_checkpoints_that_are_no_folds_of_one_recipe_are_refused(data, folds, tmp_path):
    shutil.copytree(folds, tmp_path / "w")
    one, two = (tmp_path / f"w/a{number}__best.pt" for number in (1, 2))
    run(data, tmp_path / "w", name="whole", recipe=tiny(epochs=1))
    with pytest.raises(UsageError, match=r"whole__best\.pt: trained without --fold; pass a checkpoint of each fold"):
        dr.out_of_fold([one, tmp_path / "w/whole__best.pt"])
    with pytest.raises(UsageError, match="the same fold; pass one of them"):
        dr.out_of_fold([one, one])
    with pytest.raises(UsageError, match="pass a list of checkpoints"):
        dr.out_of_fold(str(one))
    two.rename(tmp_path / "w/two.pt")
    with pytest.raises(UsageError, match=r"two\.pt: not NAME__best\.pt; pass the checkpoint where train\.py wrote it"):
        dr.out_of_fold([one, tmp_path / "w/two.pt"])
    (tmp_path / "w/two.pt").rename(two)
    RunFiles(tmp_path / "w", "a2").predictions("test").unlink()
    with pytest.raises(UsageError, match=r"predictions_test\.csv: not found; train this fold again"):
        dr.out_of_fold([one, two])
    shutil.copy(tmp_path / "w/a1/predictions_test.csv", tmp_path / "w/a2/predictions_test.csv")
    with pytest.raises(UsageError, match=r"not the predictions of a2__best\.pt; train this fold again"):
        dr.out_of_fold([one, two])


def shown(folds, name="a2", **options):
    return suspect_labels.shown(RunFiles(folds, name), split="test", **{"unskilled": False} | options)


def test_the_page_lists_labels_that_look_wrong_of_all_folds_with_their_images(data, folds):
    content = shown(folds, root=data.root)
    issues = dr.label_issues(folds / "a2/oof.csv")
    assert content["suspects_found"] == len(issues)
    assert len(content["suspects"]) == min(len(issues), suspect_labels.MAX_SHOWN) > 0
    for suspect, row in zip(content["suspects"], issues.itertuples(), strict=False):
        assert (suspect["file"], suspect["given"], suspect["suggested"]) == (row.id, row.given, row.suggested)
        assert max(suspect["image"].shape) == 320


def test_the_page_says_why_no_labels_are_listed(data, folds, monkeypatch):
    assert "hardly distinguishes" in shown(folds, root=data.root, unskilled=True)["no_suspects"]
    monkeypatch.setattr("dr.grading.label_issues.installed", lambda: False)
    assert shown(folds, root=data.root)["no_suspects"] == "Not listed: cleanlab is missing; pip install cleanlab."


def test_images_without_a_name_in_their_source_are_named_after_their_file(tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data"))
    assert "original" not in data.val
    from dr.training import prediction_tables

    best = type("Best", (), {})()
    best.data, best.classes, best.objective = type("Data", (), {"fold": None}), ("a", "b"), type("O", (), {})
    best.objective.scores = staticmethod(lambda predictions: predictions[:, 0])
    graded = type("Graded", (), {"name": "val", "truth": np.zeros(15), "grades": np.zeros(15)})
    graded.predictions = np.zeros((15, 1))
    table = prediction_tables.table(best, graded, data.val, np.zeros((15, 2)))
    assert table["id"].tolist() == [f"image_{number}" for number in range(15)]


def test_the_page_of_a_run_has_the_section_and_the_classes_it_never_finds(tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", val=10, test=15))
    row = run(data, tmp_path / "w", recipe=tiny(epochs=1, lr=1e-9, thresholds="round"))
    text = (tmp_path / "w/run/report.html").read_text()
    assert "Labels that look wrong, test" in text
    missed = r"Test recall is 0 for Proliferative DR \(0 of 3\), Severe \(0 of 3\)"
    for name in ("report.html", "card.md"):
        assert re.search(missed, (tmp_path / "w/run" / name).read_text()), name
    assert row["test_missed_classes"].startswith("Proliferative DR (0 of 3), Severe (0 of 3)")
    assert (row["test_lowest_recall"], row["test_lowest_recall_class"]) == (0, "Proliferative DR")
    assert json.loads(json.dumps(row["test_referable_sensitivity"])) == 0
