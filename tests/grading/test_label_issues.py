import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import dr
from dr import UsageError
from dr.grading import label_issues as module


def predictions(*, flipped: int, images: int = 600, seed: int = 0):
    """Probabilities of a fair grader for images of five grades, the labels of some moved by two grades or more
    -> (table, which labels are wrong (N,) bool)."""
    rng = np.random.default_rng(seed)
    true = rng.choice(5, size=images, p=(0.5, 0.1, 0.25, 0.08, 0.07))
    distance = np.abs(np.arange(5) - (true + rng.normal(0, 0.5, images))[:, None])
    probabilities = np.exp(-2 * distance) / np.exp(-2 * distance).sum(axis=1, keepdims=True)
    wrong = np.zeros(images, bool)
    wrong[rng.choice(images, flipped, replace=False)] = True
    far = [rng.choice(np.flatnonzero(np.abs(np.arange(5) - grade) >= 2)) for grade in true]
    table = pd.DataFrame(probabilities, columns=[f"probability_{k}" for k in range(5)])
    names = [f"image_{number}" for number in range(images)]
    return table.assign(truth=np.where(wrong, far, true), id=names, path=[f"val/{name}.jpeg" for name in names]), wrong


def test_labels_that_were_flipped_are_found_and_come_first():
    table, wrong = predictions(flipped=30)
    issues = dr.label_issues(table)
    assert issues.columns.tolist() == ["id", "path", "given", "suggested", "quality"]
    assert issues["quality"].is_monotonic_increasing
    found = issues["id"].str.removeprefix("image_").astype(int).to_numpy()
    assert wrong[found].sum() >= 27  # of 30
    assert wrong[found[:30]].mean() >= 0.8
    assert (issues["given"].to_numpy() == table["truth"].to_numpy()[found]).all()
    assert (issues["given"] != issues["suggested"]).all()
    quality = table.to_numpy()[np.arange(600), table["truth"]].astype(float)
    assert issues["quality"].tolist() == pytest.approx(quality[found].tolist(), abs=1e-4)
    assert roc_auc_score(wrong, -quality) > 0.95


def test_the_rarest_classes_are_searched_as_well():
    table, _ = predictions(flipped=0)
    table.loc[table["truth"] == 4, "truth"] = 3
    table.loc[[5], "truth"] = 4
    table.loc[[5], [f"probability_{k}" for k in range(5)]] = [0.96, 0.01, 0.01, 0.01, 0.01]
    assert dr.label_issues(table)["id"].iloc[0] == "image_5"  # the only label of its class


def test_a_csv_file_is_read_with_its_ids_as_text(tmp_path):
    table, _ = predictions(flipped=10, images=100)
    table.assign(id=[f"{number:04}" for number in range(100)], fold="1/5").to_csv(tmp_path / "oof.csv", index=False)
    issues = dr.label_issues(tmp_path / "oof.csv")
    assert len(issues)
    assert issues["id"].str.fullmatch("[0-9]{4}").all()
    assert set(issues["fold"]) == {"1/5"}


def test_labels_of_one_class_have_no_issues():
    table, _ = predictions(flipped=0, images=20)
    assert dr.label_issues(table.assign(truth=2)).empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="truth"), "label_issues: expected the columns truth and probability_0"),
        (lambda t: t.drop(columns="probability_1"), "expected the columns truth and probability_0"),
        (lambda t: t[:0], "the table has no rows"),
        (lambda t: t.assign(truth=5), "truth must be a class from 0 to 4 in every row"),
        (lambda t: t.assign(truth="Mild"), "truth must be a class from 0 to 4"),
        (lambda t: t.assign(probability_0=np.nan), "probability_0 to probability_4 must be 0 or more and sum to 1"),
        (lambda t: t.assign(probability_0=2.0), "must be 0 or more and sum to 1"),
    ],
)
def test_a_table_without_what_it_needs_is_one_line(change, message):
    with pytest.raises(UsageError, match=message) as raised:
        dr.label_issues(change(predictions(flipped=1, images=20)[0]))
    assert "\n" not in str(raised.value)


def test_a_missing_or_foreign_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"none\.csv: not found; pass predictions_val\.csv"):
        dr.label_issues(tmp_path / "none.csv")
    (tmp_path / "empty.csv").touch()
    for path in (tmp_path / "empty.csv", tmp_path):
        with pytest.raises(UsageError, match="not a CSV table"):
            dr.label_issues(path)


def test_without_the_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="label_issues: cleanlab is not installed; pip install cleanlab"):
        dr.label_issues(predictions(flipped=1, images=20)[0])
