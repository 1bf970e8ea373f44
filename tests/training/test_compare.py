import re

import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, write_preprocessed
from sklearn.metrics import cohen_kappa_score

from dr import UsageError
from dr.commands import train as train_script
from dr.datasets.folds import fold
from dr.datasets.preprocessed import read_preprocessed
from dr.grading import metrics
from dr.recipes.load import from_dict
from dr.training import compare, loop
from dr.training.options import RunOptions


def train(data, folder, name, **options):
    recipe = from_dict(TINY.to_dict() | {"epochs": 1, "loss": None} | options)
    recorded = {"recipe": "tiny", "overrides": "a|b"}
    run = RunOptions(folder=str(folder), name=name, device="cpu", workers=0, recorded=recorded)
    return loop.train(recipe, data=data, options=run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs on the same images, one with two classes, one on other images."""
    place = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("report.write", "plots.draw"):  # they take longer than training
            patch.setattr(f"dr.training.{name}", lambda *_, **__: None)
        train_all(place)
    return place / "weights"


def train_all(place):
    data = read_preprocessed(write_preprocessed(place / "data", val=20, test=15))
    for name, options in {
        "one": {},
        "rounded": {"thresholds": "round", "seed": 11},
        "views": {"objective": "ordinal", "tta": "flips", "tta_by": "vote", "seed": 12},
        "two_classes": {"objective": "binary"},
    }.items():
        train(data, place / "weights", name, **options)
    other = read_preprocessed(write_preprocessed(place / "other", train=25))
    train(other, place / "weights", "elsewhere", objective="classification")


def lines(text: str) -> dict[str, list[list[str]]]:
    """{run: its rows of the tables, as cells}."""
    rows = {}
    for line in text.splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            rows.setdefault(cells[0].rstrip(" †‡"), []).append(cells)
    return rows


@pytest.fixture(scope="module")
def compared(folder):
    return compare.compare(str(folder))


def test_every_run_is_a_row_best_first_with_its_interval(folder, compared):
    assert (folder / "runs.md").read_text() == compared
    table = pd.read_csv(folder / "runs.csv").sort_values("macro_f1_cross_fitted", ascending=False, kind="stable")
    rows = lines(compared)
    assert [name for name in rows if name not in ("run", "---")] == table["name"].tolist()
    for row in table.itertuples():
        low, high = row.macro_f1_cross_fitted_low, row.macro_f1_cross_fitted_high
        assert f"{row.macro_f1_cross_fitted:.3f} ({low:.3f} to {high:.3f})" in rows[row.name][0][2]
        assert rows[row.name][0][1] == f"{row.data_fingerprint[:8]}, {2 if row.name == 'two_classes' else 5} classes"
        below_majority = row.accuracy <= row.majority or row.test_accuracy <= row.test_majority
        assert ("†" in rows[row.name][0][0]) == below_majority
        missed = {getattr(row, name, np.nan) for name in ("missed_classes", "test_missed_classes")}
        assert ("‡" in rows[row.name][0][0]) == any(isinstance(text, str) for text in missed)
        cells = dict(zip(rows["run"][0], rows[row.name][0], strict=True))
        assert cells["lowest recall, cross-fitted"].endswith(f") {row.lowest_recall_cross_fitted_class}")
        has_referable = row.name != "two_classes"  # of the others, classes are the DR grades
        assert bool(cells["referable sensitivity, cross-fitted"]) == has_referable
        assert rows[row.name][0][-1] == r"tiny a\|b"


def test_the_differences_are_those_of_the_reported_metrics(folder, compared):
    table = pd.read_csv(folder / "runs.csv").set_index("name")
    rows = lines(compared)
    five = table.loc[["one", "rounded", "views"]].sort_values("macro_f1_cross_fitted", ascending=False, kind="stable")
    best = five.index[0]
    assert rows[best][1][-1].startswith("the best")
    columns = rows["run"][1]
    for name in five.index[1:]:
        paired = dict(zip(columns, rows[name][1], strict=True))
        assert paired["note"] == f"compared with {best}"
        for column, metric in {
            "validation macro-F1, cross-fitted": "macro_f1_cross_fitted",
            "validation quadratic kappa, cross-fitted": "kappa_cross_fitted",
            "test macro-F1": "test_macro_f1",
            "test quadratic kappa": "test_kappa",
            "test accuracy": "test_accuracy",
        }.items():
            shown = float(re.match(r"\**([+-][\d.]+) ", paired[column])[1])
            assert shown == pytest.approx(table.loc[name, metric] - table.loc[best, metric], abs=6e-4), (name, column)


def test_runs_on_other_images_or_classes_are_not_compared(compared):
    rows = lines(compared)
    assert len(rows["elsewhere"]) == 1
    assert rows["two_classes"][1][1:-1] == [""] * (len(rows["run"][1]) - 2)
    assert rows["two_classes"][1][-1].startswith("the best")


def test_a_missing_damaged_or_foreign_checkpoint_is_reported(folder, tmp_path):
    for path in [*folder.glob("*__best.pt"), folder / "runs.csv"]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "one__best.pt").unlink()
    (tmp_path / "rounded__best.pt").write_bytes((tmp_path / "views__best.pt").read_bytes())
    (tmp_path / "views__best.pt").write_bytes((folder / "views__best.pt").read_bytes()[:5000])
    rows = lines(compare.compare(str(tmp_path)))
    assert rows["one"][1][-1] == "not compared: its checkpoint was deleted or renamed"
    assert rows["rounded"][1][-1] == "not compared: the checkpoint with its name belongs to another run"
    assert "truncated" in rows["views"][1][-1]
    assert rows["two_classes"][1][-1].startswith("the best")


def test_grades_of_the_test_give_its_metrics_also_after_a_vote_of_tta_views(folder):
    table = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False).set_index("name", drop=False)
    for name in ("rounded", "views"):
        truth, grades = compare._kept_run(folder, table.loc[name].to_dict()).graded["test"]
        assert metrics.macro_f1(truth, grades[0]) == pytest.approx(float(table.loc[name, "test_macro_f1"]))


def test_folds_of_one_dataset_are_pooled_with_every_image_once(tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", train=40, val=20))
    for number in (1, 2):
        train(fold(data, number, 2), tmp_path / "weights", f"fold_{number}", seed=20 + number, thresholds="round")
    train(fold(data, 2, 2), tmp_path / "weights", "other_recipe", lr=0.1)
    text = compare.compare(str(tmp_path / "weights"))
    header, _, *pooled = [line for line in text[text.index("## Folds") :].splitlines() if line.startswith("|")]
    assert len(pooled) == 1
    row = dict(zip(*([cell.strip() for cell in line.split("|")[1:-1]] for line in (header, pooled[0])), strict=True))
    assert (row["runs"], row["folds"], row["images"]) == ("fold_1, fold_2", "1, 2 of 2", "60")
    tests = [
        torch.load(tmp_path / f"weights/fold_{number}__best.pt", weights_only=True)["predictions"]["test"]
        for number in (1, 2)
    ]
    truth, grades = (np.concatenate([test[name].numpy() for test in tests]) for name in ("truth", "grades"))
    kappa = cohen_kappa_score(truth, grades, weights="quadratic")
    each = [cohen_kappa_score(test["truth"], test["grades"], weights="quadratic") for test in tests]
    shown = rf"{kappa:.3f} \(.* to .*\); {np.mean(each):.3f} ± {np.std(each, ddof=1):.3f}$"
    assert re.match(shown, row["quadratic kappa"])
    assert re.match(r"\d\.\d{3} \(.*\) [A-Z].*; ", row["lowest recall"])  # with its class
    assert row["referable sensitivity"]
    assert "a\\|b --fold 1/2" in text
    (tmp_path / "weights" / "other_recipe__best.pt").unlink()
    assert "Left out: other_recipe: its checkpoint was deleted" in compare.compare(str(tmp_path / "weights"))


def test_the_last_run_of_a_fold_counts(tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", train=40, val=20))
    for name, number in (("early", 1), ("late", 1), ("second", 2)):
        train(fold(data, number, 2), tmp_path / "weights", name)
    table = pd.read_csv(tmp_path / "weights" / "runs.csv", dtype=str, keep_default_na=False)
    table["finished"] = ["2026-01-01 10:00:00", "2026-01-02 10:00:00", "2026-01-01 11:00:00"]
    table.to_csv(tmp_path / "weights" / "runs.csv", index=False)
    text = compare.compare(str(tmp_path / "weights"))
    assert "| late, second | 1, 2 of 2 | 60 |" in text


def test_a_difference_whose_interval_excludes_0_is_bold():
    assert compare._signed(0.1, 0.02, 0.2) == "**+0.100 (+0.020 to +0.200)**"
    assert compare._signed(-0.1, -0.2, 0.0) == "-0.100 (-0.200 to +0.000)"


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"runs\.csv: not found; train first"):
        compare.compare(str(tmp_path))
    (tmp_path / "runs.csv").write_text("name,accuracy\nrun,1\n")
    with pytest.raises(UsageError, match="no column macro_f1_cross_fitted"):
        compare.compare(str(tmp_path))
    (tmp_path / "runs.csv").write_text("")
    with pytest.raises(UsageError, match=r"no column name, so not a table of train\.py; move it"):
        compare.compare(str(tmp_path))


@pytest.mark.parametrize("given", ["--sweep lr=1,2", "--set lr=1", "--seed 0", "--epochs 5", "--recipe lite0"])
def test_flags_of_a_training_beside_compare_are_refused(tmp_path, monkeypatch, given):
    monkeypatch.setattr("sys.argv", ["train.py", "--compare", "--save", str(tmp_path), *given.split()])
    with pytest.raises(UsageError, match=f"{given.split()[0]} has no effect on what --compare writes; omit one"):
        train_script.main()
