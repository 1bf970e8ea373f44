import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, write_preprocessed
from runs import run, tiny

from dr import UsageError
from dr.core import device
from dr.datasets import loader as loading
from dr.datasets import torch_datasets
from dr.datasets.folds import fold
from dr.datasets.preprocessed import read_preprocessed
from dr.grading import calibration, metrics
from dr.grading.thresholds import apply_thresholds, optimal_thresholds
from dr.inference.checkpoint import Checkpoint
from dr.inference.forward import TTA_VIEWS, Scorer, infer, mean_predictions
from dr.prediction.options import PredictOptions
from dr.prediction.pipeline import predict
from dr.recipes.load import from_dict
from dr.training import finish, runs_csv

pytestmark = pytest.mark.usefixtures("no_report")


def test_a_run_writes_all_its_files_and_no_others(finished):
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == {"run__best.pt", "run__last.pt", "runs.csv", "run"}
    plots = {f"{name}.png" for name in ("curves", "confusion", "scores", "reliability", "classes", "split")}
    names = {"history.csv", "classes.csv", "predictions_val.csv", "card.md", "report.html"}
    assert {path.name for path in (folder / "run").iterdir()} == names | plots
    for name in plots:
        assert (folder / "run" / name).read_bytes().startswith(b"\x89PNG")


def test_the_best_checkpoint_holds_tensors_and_primitives_and_every_field(finished, data):
    folder, row = finished
    best = torch.load(folder / "run__best.pt", weights_only=True)
    assert 0 <= best["metrics"]["val"]["ece"] <= 1
    assert len(best["calibration"]["offsets"]) == 4
    assert best["training_reference"]["limit"] > 0
    assert set(best) >= {"model", "recipe", "thresholds", "classes", "metrics", "versions", "data"}
    assert from_dict(best["recipe"]) == TINY
    assert best["classes"] == ["No DR", "Mild", "Moderate", "Severe", "Proliferative DR"]
    names = {Path(path).stem for table in (data.train, data.val) for path in table["path"]}
    assert len(best["data"].pop("name_hashes")) == len(names)
    assert len(best["data"].pop("pretrained_name_hashes")) == 0
    assert best["data"] == {"fingerprint": data.fingerprint, "size_px": 96, "crop": True}
    history = pd.read_csv(folder / "run/history.csv")
    chosen = history.loc[history["macro_f1_cross_fitted"].idxmax()]
    assert best["epoch"] == chosen["epoch"] == row["best_epoch"]
    val = best["predictions"]["val"]
    scores, truth = val["predictions"][:, 0].numpy(), val["truth"].numpy()
    assert best["thresholds"] == pytest.approx(calibration.calibrated_thresholds(scores, truth))
    assert best["metrics"]["val"]["macro_f1_optimal"] == pytest.approx(
        metrics.macro_f1(truth, apply_thresholds(scores, optimal_thresholds(scores, truth)))
    )


def test_the_history_has_a_row_for_each_epoch_with_every_metric(finished):
    history = pd.read_csv(finished[0] / "run/history.csv")
    assert history["epoch"].tolist() == [1, 2]
    names = ["macro_f1_rounded", "macro_f1_optimal", "macro_f1_cross_fitted", "kappa_applied", "accuracy"]
    recalls = [f"recall_{grade}" for grade in range(5)]
    for name in ("train_loss", "val_loss", "lr", *names, *recalls):
        assert history[name].notna().all(), name
    assert (history["macro_f1_optimal"] >= history["macro_f1_rounded"]).all()


def test_the_row_of_runs_csv_has_the_run_and_its_metrics(finished, data):
    table = pd.read_csv(finished[0] / "runs.csv")
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["name"], row["recipe"], row["device"]) == ("run", "tiny", "cpu")
    assert row["data_fingerprint"] == data.fingerprint
    assert row["version_torch"] == str(torch.__version__)
    assert row["macro_f1_cross_fitted_low"] <= row["macro_f1_cross_fitted"] <= row["macro_f1_cross_fitted_high"]


def test_two_runs_with_one_seed_agree_and_another_seed_does_not(finished, data, tmp_path):
    first = torch.load(finished[0] / "run__best.pt", weights_only=True)
    run(data, tmp_path)
    run(data, tmp_path, name="other", recipe=tiny(seed=11))
    same = torch.load(tmp_path / "run__best.pt", weights_only=True)
    other = torch.load(tmp_path / "other__best.pt", weights_only=True)
    first, same, other = (saved["predictions"]["val"]["predictions"] for saved in (first, same, other))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 2


def test_a_folder_or_name_that_cannot_be_written_is_refused_before_training(data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file: a file blocks this folder; choose another"):
        run(data, tmp_path / "file")
    with pytest.raises(UsageError, match="--name a/b: not a plain name; use a name without a path"):
        run(data, tmp_path, name="a/b")


def test_each_class_has_its_metrics_and_its_row_of_the_confusion_matrix(tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", test=10))
    row = run(data, tmp_path / "w")
    table = pd.read_csv(tmp_path / "w" / "run/classes.csv")
    assert table["split"].tolist() == ["val"] * 5 + ["test"] * 5
    assert table["optimistic"].tolist() == [True] * 5 + [False] * 5
    assert table["class"].tolist() == list(data.classes) * 2
    tested = table[table["split"] == "test"]
    matrix = tested[[f"predicted_{k}" for k in range(5)]].to_numpy()
    assert matrix.sum(axis=1).tolist() == tested["n"].tolist() == [2] * 5
    assert np.trace(matrix) / 10 == pytest.approx(row["test_accuracy"])
    assert tested["f1"].mean() == pytest.approx(row["test_macro_f1"], abs=1e-4)
    assert tested["auc"].mean() == pytest.approx(row["test_auc"], abs=1e-4)


def test_thresholds_are_fitted_to_the_tta_views_of_the_recipe(data, tmp_path):
    run(data, tmp_path, recipe=tiny(tta="flips"))
    best = torch.load(tmp_path / "run__best.pt", weights_only=True)
    val = best["predictions"]["val"]
    scores, truth = val["predictions"][:, 0].numpy(), val["truth"].numpy()
    assert best["thresholds"] == pytest.approx(calibration.calibrated_thresholds(scores, truth))
    loaded = Checkpoint.load(tmp_path / "run__best.pt")
    images = torch_datasets.EvaluationImages(data.root, data.val, loaded.recipe)
    batches = loading.loader(images, batch_size=5, workers=0, pin=False)
    scorer = Scorer(loaded.network, loaded.objective)
    accelerator = device.accelerator("cpu", precision="fp32")
    _, outputs = infer([scorer], batches, accelerator=accelerator, views=TTA_VIEWS["flips"])
    assert np.allclose(scores, mean_predictions([scorer], outputs)[:, 0], atol=1e-5)


def test_validation_and_test_loss_agree_with_class_weights(tmp_path):
    folder = write_preprocessed(tmp_path / "data", train=11, test=15)
    root = folder / "kaggle_retina"
    for path in (root / "val").iterdir():  # the test is a copy of validation
        (root / "test" / path.name).write_bytes(path.read_bytes())
    recipe = tiny(objective="classification", class_weights="inverse", epochs=1)
    row = run(read_preprocessed(folder), tmp_path / "w", recipe=recipe)
    assert row["test_loss"] == pytest.approx(row["val_loss"], rel=1e-4)


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_validation_on_a_cpu_has_the_precision_of_prediction(tmp_path, ema_decay):
    settings = write_preprocessed(tmp_path / "data") / "kaggle_retina" / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"crop": False}))
    data = read_preprocessed(tmp_path / "data")
    run(data, tmp_path, recipe=tiny(epochs=1, precision="bf16", ema_decay=ema_decay, clip_norm=None))
    saved = torch.load(tmp_path / "run__best.pt", weights_only=True)["predictions"]["val"]["predictions"][:, 0]
    assert saved.dtype == torch.float64
    images = tmp_path / "images"
    images.mkdir()
    for path in data.val["path"]:
        shutil.copy(data.root / path, images)
    options = {"output": str(tmp_path / "out"), "workers": 0, "device": "cpu", "engine": "torch"}
    given = {"models": [str(tmp_path / "run__best.pt")], "images": str(images)}
    details = predict(PredictOptions(**given, **options)).details.set_index("file")
    scores = details.loc[[Path(path).name for path in data.val["path"]], "score"].to_numpy(float)
    assert np.abs(scores - saved.numpy()).max() < 1e-4  # details have four decimals; bfloat16 is off by more


def test_the_first_line_describes_the_training(data, tmp_path, capsys):
    run(data, tmp_path, recipe=tiny(epochs=1))
    first = capsys.readouterr().out.splitlines()[0]
    assert first == (
        "test_efficientnet at 64 pixels, regression; 30 training and 15 validation images; epochs 1 to 1, 3 batches of "
        "10; cpu, fp32"
    )


@pytest.mark.parametrize(("objective", "noted"), [("ordinal", True), ("classification", False)])
def test_unordered_classes_with_an_ordered_objective_are_noted(tmp_path, capsys, objective, noted):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", classes=("daisy", "iris", "lily", "rose", "tulip")))
    run(data, tmp_path, recipe=tiny(epochs=1, objective=objective))
    note = (
        f"note: {objective} treats the classes as ordered: daisy, iris, lily, rose, tulip; if they are not, use --set "
    )
    assert (note in capsys.readouterr().out) == noted


@pytest.mark.parametrize("objective", ["regression", "ordinal", "binary"])
def test_a_class_of_ungradable_images_is_refused_as_a_rank(tmp_path, objective):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", classes=("No DR", "Mild", "Ungradable")))
    with pytest.raises(UsageError, match=r"but 'Ungradable' is none; use --set objective=classif"):
        run(data, tmp_path, recipe=tiny(epochs=1, objective=objective))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"objective": "ordinal", "neighbour_smoothing": 0.05}, {"macro_f1_rounded", "macro_f1_optimal"}),
        ({"objective": "classification", "loss": "focal", "class_weights": "inverse", "monitor": "auc"}, set()),
        (
            {"objective": "binary", "positive_from": 2, "thresholds": "round", "monitor": "accuracy"},
            {"macro_f1_rounded"},
        ),
    ],
)
def test_every_objective_trains_and_is_tested_with_its_metrics(tmp_path, options, names):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", test=10))
    row = run(data, tmp_path / "w", recipe=tiny(tta="flips", normalisation="dataset", **options))
    assert names | {"kappa_applied", "accuracy", "auc", "test_loss", "test_accuracy", "test_auc", "test_kappa"} <= set(
        row
    )
    assert 0 <= row["test_macro_f1_low"] <= row["test_macro_f1"] <= row["test_macro_f1_high"] <= 1
    best = torch.load(tmp_path / "w" / "run__best.pt", weights_only=True)
    assert best["recipe"]["mean"] == torch_datasets.channel_mean_std(data, TINY)[0]
    expected = ("below Moderate", "Moderate or worse") if options["objective"] == "binary" else data.classes
    assert tuple(best["classes"]) == expected
    assert (best["thresholds"] is None) == (options["objective"] == "classification")


def test_measured_normalisation_is_that_of_the_training_images(data):
    mean, std = torch_datasets.channel_mean_std(data, TINY)
    images = [cv2.cvtColor(cv2.imread(str(data.root / path)), cv2.COLOR_BGR2RGB) for path in data.train["path"]]
    small = [cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in images]
    pixels = np.stack(small).reshape(-1, 3)
    assert np.allclose(mean, pixels.mean(0) / 255, atol=1e-3)
    assert np.allclose(std, pixels.std(0) / 255, atol=1e-3)


def test_training_stops_when_patience_ends_and_keeps_the_weights_of_the_epochs_listed(data, tmp_path):
    row = run(data, tmp_path, recipe=tiny(epochs=9, lr=1e-9, patience=2, keep_epochs=(2,), monitor="accuracy"))
    history = pd.read_csv(tmp_path / "run/history.csv")
    assert len(history) == row["best_epoch"] + 2 < 9
    assert torch.load(tmp_path / "run/epoch_2.pt", weights_only=True)["epoch"] == 2


def test_kept_epochs_have_thresholds_fitted_to_the_tta_views(data, tmp_path):
    run(data, tmp_path, recipe=tiny(tta="d4", keep_epochs=(1, 2), monitor="last"))
    best, *kept = (
        torch.load(tmp_path / name, weights_only=True) for name in ("run__best.pt", "run/epoch_1.pt", "run/epoch_2.pt")
    )
    assert kept[1]["thresholds"] == best["thresholds"] != kept[0]["thresholds"]
    assert kept[1].keys() == kept[0].keys() == best.keys() - {"calibration", "training_reference"}
    assert kept[0]["predictions"] == kept[0]["intervals"] == {}


def test_overlap_with_the_data_of_the_initial_weights_is_reported_and_kept(data, tmp_path, capsys):
    run(data, tmp_path, name="first", recipe=tiny(epochs=1))
    start, parted = str(tmp_path / "first__best.pt"), fold(data, 1, 3)
    capsys.readouterr()
    run(parted, tmp_path, name="second", recipe=tiny(epochs=1, pretrained=start))
    notes = [line for line in capsys.readouterr().out.splitlines() if "was trained or validated on" in line]
    assert [line.split(start)[0] for line in notes] == [
        f"note: {len(parted.val)} of {len(parted.val)} validation images match, by name, images that ",
        f"note: {len(parted.test)} of {len(parted.test)} test images match, by name, images that ",
    ]
    assert "validation images match, by name, images" in (tmp_path / "second/card.md").read_text()
    run(parted, tmp_path, name="second", recipe=tiny(epochs=2, pretrained=start))
    run(parted, tmp_path, name="second", recipe=tiny(epochs=2, pretrained=start), resume=True)
    first, second = (torch.load(tmp_path / f"{name}__best.pt", weights_only=True) for name in ("first", "second"))
    assert first["notes"] == []
    assert len(second["notes"]) == 2
    assert set(first["data"]["name_hashes"].tolist()) == set(second["data"]["name_hashes"].tolist())


@pytest.mark.parametrize(("options", "noted"), [({}, True), ({"monitor": "last"}, False), ({"epochs": 1}, False)])
def test_selecting_the_epoch_on_validation_is_noted(data, tmp_path, options, noted):
    lines = runs_csv.summary_lines(run(data, tmp_path, recipe=tiny(**options)))
    note = "note: this epoch was selected on the validation set, so its metrics are optimistic; use a test set or "
    assert any(line.startswith(note) for line in lines) == noted
    card = (tmp_path / "run/card.md").read_text()
    assert ("The epoch was selected by `macro_f1_cross_fitted` on validation" in card) == noted
    assert "Test metrics are not affected" not in card
    with_test = runs_csv.summary_lines(run(fold(data, 1, 3), tmp_path, name="tested", recipe=tiny(**options)))
    assert not any(line.startswith(note) for line in with_test)
    assert ("Test metrics are not affected." in (tmp_path / "tested/card.md").read_text()) == noted


@pytest.mark.parametrize(("monitor", "expected"), [("val_loss", "idxmin"), ("kappa_cross_fitted", "idxmax")])
def test_the_best_epoch_is_selected_by_the_metric_of_the_recipe(data, tmp_path, monitor, expected):
    row = run(data, tmp_path, recipe=tiny(epochs=3, monitor=monitor))
    history = pd.read_csv(tmp_path / "run/history.csv")
    assert row["best_epoch"] == history["epoch"][getattr(history[monitor], expected)()]
    assert run(data, tmp_path, recipe=tiny(monitor="last"))["best_epoch"] == 2


def test_a_network_no_better_than_the_majority_class_is_noted(data, tmp_path):
    row = run(data, tmp_path, recipe=tiny(lr=1e-9, epochs=1, thresholds="round"))  # it learns nothing
    lines = runs_csv.summary_lines(row)
    assert len(lines) == 3  # a single epoch is not selected
    assert lines[0].startswith("best epoch 1: macro-F1, cross-fitted 0.")
    assert "lowest recall, cross-fitted 0.000 (0.000 to 0.561) Proliferative DR" in lines[0]
    assert lines[1] == (
        "note: validation recall is 0 for Proliferative DR (0 of 3), Severe (0 of 3), Moderate (0 of 3), Mild (0 of 3)"
    )
    assert lines[2] == (
        f"note: validation accuracy {row['accuracy']:.3f} does not exceed the majority-class baseline 0.200"
    )


def test_a_fold_keeps_predictions_of_its_held_out_images(data, tmp_path):
    run(fold(data, 2, 3), tmp_path, recipe=tiny(epochs=1))
    held_out = Checkpoint.load(tmp_path / "run__best.pt").held_out
    assert held_out.fold == (2, 3, data.fingerprint)
    assert held_out.truth.tolist() == fold(data, 2, 3).test["diagnosis"].tolist()
    assert held_out.predictions.shape == (15, 1)


def test_a_checkpoint_overwritten_by_another_run_is_not_tested(data, tmp_path, monkeypatch):
    run(fold(data, 1, 3), tmp_path, name="other", recipe=tiny(epochs=1))
    real_finish = finish.finish

    def swapped(this, paths, **options):
        (tmp_path / "other__best.pt").replace(paths.best)
        return real_finish(this, paths, **options)

    monkeypatch.setattr(finish, "finish", swapped)
    with pytest.raises(UsageError, match=r"run__best\.pt: overwritten by another run; use a --name of its own"):
        run(fold(data, 2, 3), tmp_path, recipe=tiny(epochs=1))
