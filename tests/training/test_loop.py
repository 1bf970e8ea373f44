import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, checkpoint_content, write_preprocessed
from torch.nn.functional import one_hot

import dr.training.state
from dr import UsageError
from dr.core import device, distributed, files
from dr.datasets import loader as loading
from dr.datasets import torch_datasets
from dr.datasets.preprocessed import fold, read_preprocessed
from dr.grading import calibration, metrics, objectives
from dr.grading.thresholds import apply_thresholds, optimal_thresholds
from dr.inference import checkpoint
from dr.inference.forward import TTA_VIEWS, Scorer, infer, mean_predictions
from dr.networks import surgery
from dr.networks.build import build
from dr.prediction.pipeline import predict
from dr.recipes.load import from_dict
from dr.training import finish as outcome
from dr.training import loop as training
from dr.training import runs_csv


def recipe(**choices):
    return from_dict(TINY.to_dict() | {"loss": None} | choices)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_preprocessed(write_preprocessed(tmp_path_factory.mktemp("data")))


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """The page takes longer than training: of this file only the run of `finished`, which is made before, has one."""
    monkeypatch.setattr("dr.training.report.write", lambda *_, **__: None)


def run(data, folder, *, name="run", **options):
    options = {"recipe": TINY, "device_name": "cpu", "workers": 0} | options
    return training.train(options.pop("recipe"), data=data, folder=str(folder), name=name, **options)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run of two epochs -> (folder, its row of runs.csv)."""
    folder = tmp_path_factory.mktemp("weights")
    return folder, run(data, folder, recorded={"recipe": "tiny", "overrides": ""})


def test_one_batch_is_over_fitted_in_a_few_steps():
    torch.manual_seed(0)
    model, objective = build(TINY, num_outputs=1), objectives.build(TINY)
    images = torch.randint(0, 255, (10, 3, 64, 64), dtype=torch.uint8)
    grades = torch.tensor([0, 1, 2, 3, 4] * 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = objective.loss(model(images), one_hot(grades, 5).float()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_a_run_writes_all_its_files_and_no_others(finished):
    folder, _ = finished
    names = {"run__best.pt", "run__last.pt", "run__history.csv", "run__classes.csv", "run__card.md"}
    names |= {"run__report.html", "runs.csv"}
    pictures = {"run__curves.png", "run__confusion.png", "run__scores.png", "run__reliability.png"}
    pictures |= {"run__classes.png", "run__split.png"}
    assert {path.name for path in folder.iterdir()} == names | pictures
    for name in pictures:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_best_checkpoint_loads_as_tensors_and_primitives_and_has_every_field(finished, data):
    folder, row = finished
    best = torch.load(folder / "run__best.pt", weights_only=True)
    assert 0 <= best["metrics"]["ece"] <= 1
    assert len(best["calibration"]["offsets"]) == 4
    assert best["training"]["limit"] > 0
    assert set(best) >= {"model", "recipe", "thresholds", "classes", "metrics", "versions", "data"}
    assert from_dict(best["recipe"]) == TINY
    assert best["classes"] == ["No DR", "Mild", "Moderate", "Severe", "Proliferative DR"]
    names = {Path(path).stem for table in (data.train, data.val) for path in table["path"]}
    assert len(best["data"].pop("names")) == len(names)
    assert len(best["data"].pop("inherited")) == 0
    assert best["data"] == {"fingerprint": data.fingerprint, "size": 96, "crop": True}
    history = pd.read_csv(folder / "run__history.csv")
    chosen = history.loc[history["macro_f1_cross_fitted"].idxmax()]
    assert best["metrics"]["epoch"] == chosen["epoch"] == row["best_epoch"]
    scores, truth = best["validation"]["predictions"][:, 0].numpy(), best["validation"]["truth"].numpy()
    assert best["thresholds"] == pytest.approx(calibration.calibrated_thresholds(scores, truth))
    assert best["metrics"]["macro_f1_optimal"] == pytest.approx(
        metrics.macro_f1(truth, apply_thresholds(scores, optimal_thresholds(scores, truth)))
    )


def test_the_history_has_a_row_for_each_epoch_with_every_figure(finished):
    history = pd.read_csv(finished[0] / "run__history.csv")
    assert history["epoch"].tolist() == [1, 2]
    figures = ["macro_f1_rounded", "macro_f1_optimal", "macro_f1_cross_fitted", "kappa", "accuracy"]
    recalls = [f"recall_{grade}" for grade in range(5)]
    for name in ("train_loss", "val_loss", "lr", *figures, *recalls):
        assert history[name].notna().all(), name
    assert (history["macro_f1_optimal"] >= history["macro_f1_rounded"]).all()


def test_the_row_of_runs_csv_says_what_was_run_and_how_good_it_is(finished, data):
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
    run(data, tmp_path, name="other", recipe=recipe(seed=11))
    same = torch.load(tmp_path / "run__best.pt", weights_only=True)
    other = torch.load(tmp_path / "other__best.pt", weights_only=True)
    assert torch.equal(first["validation"]["predictions"], same["validation"]["predictions"])
    assert not torch.equal(first["validation"]["predictions"], other["validation"]["predictions"])
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 2


@pytest.mark.parametrize(
    ("choices", "workers"), [({"ema_decay": 0.9, "scheduler": "cosine"}, 0), ({"optimizer": "sgd", "dropout": 0.5}, 1)]
)
def test_resumed_after_an_epoch_the_result_is_that_of_an_unbroken_run(data, tmp_path, monkeypatch, choices, workers):
    chosen = recipe(epochs=3, augmentation="rotation_colour", **choices)
    run(data, tmp_path / "unbroken", recipe=chosen, workers=workers)

    save, saved = training.save_last, []

    def stop_after_the_first(*arguments):
        save(*arguments)
        saved.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_last", stop_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "broken", recipe=chosen, workers=workers)
    monkeypatch.undo()
    assert saved == [1]
    run(data, tmp_path / "broken", recipe=chosen, workers=workers, go_on=True)

    unbroken, broken = (
        torch.load(tmp_path / folder / "run__last.pt", weights_only=True) for folder in ("unbroken", "broken")
    )
    for key, value in unbroken["model"].items():
        assert torch.equal(value, broken["model"][key]), key
    assert [row["val_loss"] for row in unbroken["history"]] == [row["val_loss"] for row in broken["history"]]
    assert [row["lr"] for row in unbroken["history"]] == [row["lr"] for row in broken["history"]]


def test_resuming_with_other_choices_or_data_is_refused(finished, data):
    with pytest.raises(UsageError, match=r"run__last\.pt: it was trained with lr=0\.01, not 0\.5"):
        run(data, finished[0], recipe=recipe(lr=0.5), go_on=True)
    with pytest.raises(UsageError, match="other label tables"):
        run(dataclasses.replace(data, fingerprint="another"), finished[0], go_on=True)
    with pytest.raises(UsageError, match=r"never__last\.pt: there is nothing to resume"):
        run(data, finished[0], name="never", go_on=True)


def test_a_new_run_under_an_old_name_keeps_the_old_files(data, tmp_path):
    (tmp_path / "run__best.pt").write_bytes(b"hours of work")
    (tmp_path / "run__longer__best.pt").write_bytes(b"another run")
    run(data, tmp_path, recipe=recipe(epochs=1))
    assert (tmp_path / "run__previous_1__best.pt").read_bytes() == b"hours of work"
    assert (tmp_path / "run__longer__best.pt").read_bytes() == b"another run"
    run(data, tmp_path, recipe=recipe(epochs=1))
    assert (tmp_path / "run__previous_1__best.pt").read_bytes() == b"hours of work"
    assert (tmp_path / "run__previous_2__last.pt").is_file()


def test_a_folder_or_name_that_cannot_be_written_is_told_before_training(data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file: there is a file of that name; name a folder"):
        run(data, tmp_path / "file")
    with pytest.raises(UsageError, match="--name a/b: it is the first part of file names and may hold no path"):
        run(data, tmp_path, name="a/b")


def weights_after(data, folder, **choices):
    """The first convolution after an epoch of a run with these choices."""
    run(data, folder, recipe=recipe(epochs=1, seed=3, **choices))
    return torch.load(folder / "run__last.pt", weights_only=True)["model"]["conv_stem.weight"]


@pytest.mark.parametrize(
    "choices",
    [
        *({"clip_norm": 0.001}, {"sampling": "balanced"}, {"label_smoothing": 0.3}, {"neighbour_smoothing": 0.2}),
        *({"mixup": 0.4}, {"cutmix": 1.0}, {"dropout": 0.5}, {"augmentation": "flips"}, {"weight_decay": 0.5}),
        *({"class_weights": "inverse"}, {"scheduler": "exponential", "gamma": 0.5, "warmup_fraction": 0.5}),
        *({"optimizer": "adam"}, {"optimizer": "rmsprop"}, {"optimizer": "sgd"}),
    ],
    ids=lambda choices: next(iter(choices)),
)
def test_every_choice_of_training_reaches_the_weights(tmp_path, choices):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", train=11))  # one grade more often than the others
    plain = weights_after(data, tmp_path / "plain", objective="classification", batch_size=11)
    changed = weights_after(data, tmp_path / "changed", objective="classification", batch_size=11, **choices)
    assert not torch.equal(plain, changed)


@pytest.mark.parametrize(
    ("choices", "kind", "settings"),
    [
        ({"optimizer": "sgd"}, torch.optim.SGD, {"momentum": 0.9, "nesterov": False}),
        ({"optimizer": "sgd", "nesterov": True}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ({"optimizer": "rmsprop", "momentum": 0.0}, torch.optim.RMSprop, {"momentum": 0.0, "alpha": 0.99}),
        ({"optimizer": "adam", "amsgrad": False}, torch.optim.Adam, {"amsgrad": False}),
        ({"optimizer": "adamw", "weight_decay": 0.05}, torch.optim.AdamW, {"amsgrad": True, "weight_decay": 0.05}),
    ],
)
def test_the_optimizer_is_the_one_named_with_its_settings(choices, kind, settings):
    made = dr.training.state._optimizer(recipe(**choices), build(TINY, num_outputs=1))
    assert type(made) is kind
    assert {key: made.param_groups[0][key] for key in settings} == settings
    assert all(group["weight_decay"] == made.param_groups[0]["weight_decay"] for group in made.param_groups)


def test_a_cosine_rises_during_warm_up_and_falls_to_nothing():
    chosen = recipe(scheduler="cosine", warmup_fraction=0.2, epochs=10, lr=0.01)
    optimizer = dr.training.state._optimizer(chosen, build(TINY, num_outputs=1))
    scheduler = dr.training.state._scheduler(chosen, optimizer, updates_per_epoch=5)
    rates = []
    for update in range(50):
        scheduler.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.01 / 100)
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)  # two of ten epochs rise
    assert rates[30] == pytest.approx(0.01 * (1 + np.cos(np.pi * 30 / 50)) / 2, rel=1e-3)  # Loshchilov and Hutter 2017
    assert rates[-1] < 0.0001


def test_mixed_pictures_have_targets_mixed_by_the_same_shares_and_smoothed():
    torch.manual_seed(1)
    images = torch.stack([torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 100)])
    grades = torch.tensor([0, 4])
    for choices in ({"mixup": 0.4}, {"cutmix": 1.0}):
        mixed, targets = training._mix(recipe(**choices), 5)(images, grades)
        share = mixed.mean(dim=(1, 2, 3)) / 100  # of the second picture in each
        assert torch.allclose(targets[:, 4], share, atol=1e-5)
        assert torch.allclose(targets.sum(dim=1), torch.ones(2))
        assert 0 < share[0] < 1
    same, smoothed = training._mix(recipe(label_smoothing=0.1), 5)(images, grades)
    assert torch.equal(same, images)
    assert torch.allclose(smoothed[0], torch.tensor([0.92, 0.02, 0.02, 0.02, 0.02]))
    _, near = training._mix(recipe(neighbour_smoothing=0.05), 5)(images, grades)
    assert torch.allclose(near[0], torch.tensor([0.95, 0.05, 0, 0, 0]))


def test_each_class_has_its_figures_and_its_row_of_the_confusion_matrix(tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", test=10))
    row = run(data, tmp_path / "w")
    table = pd.read_csv(tmp_path / "w" / "run__classes.csv")
    assert table["side"].tolist() == ["val, to which the cuts were fitted"] * 5 + ["test"] * 5
    assert table["class"].tolist() == list(data.classes) * 2
    tested = table[table["side"] == "test"]
    matrix = tested[[f"predicted_{k}" for k in range(5)]].to_numpy()
    assert matrix.sum(axis=1).tolist() == tested["n"].tolist() == [2] * 5
    assert np.trace(matrix) / 10 == pytest.approx(row["test_accuracy"])
    assert tested["f1"].mean() == pytest.approx(row["test_macro_f1"], abs=1e-4)
    assert tested["auc"].mean() == pytest.approx(row["test_auc"], abs=1e-4)


def test_cuts_are_those_of_the_views_that_predict(data, tmp_path):
    run(data, tmp_path, recipe=recipe(tta="flips"))
    best = torch.load(tmp_path / "run__best.pt", weights_only=True)
    scores, truth = best["validation"]["predictions"][:, 0].numpy(), best["validation"]["truth"].numpy()
    assert best["thresholds"] == pytest.approx(calibration.calibrated_thresholds(scores, truth))
    loaded = checkpoint.load(tmp_path / "run__best.pt")
    photographs = torch_datasets.EvaluationImages(data.root, data.val, loaded.recipe)
    batches = loading.loader(photographs, batch_size=5, workers=0, pin=False)
    scorer = Scorer(loaded.network, loaded.objective)
    accelerator = device.accelerator("cpu", precision="fp32")
    _, outputs = infer([scorer], batches, accelerator=accelerator, views=TTA_VIEWS["flips"])
    assert np.allclose(scores, mean_predictions([scorer], outputs)[:, 0], atol=1e-5)


def test_the_loss_of_validation_and_of_test_are_one_figure_whatever_the_weights_of_the_classes(tmp_path):
    folder = write_preprocessed(tmp_path / "data", train=11, test=15)
    root = folder / "kaggle_retina"
    for path in (root / "val").iterdir():  # the test is a copy of validation
        (root / "test" / path.name).write_bytes(path.read_bytes())
    chosen = recipe(objective="classification", class_weights="inverse", epochs=1)
    row = run(read_preprocessed(folder), tmp_path / "w", recipe=chosen)
    assert row["test_loss"] == pytest.approx(row["val_loss"], rel=1e-4)


def test_a_figure_that_is_not_defined_cannot_choose_the_best_epoch(tmp_path):
    folder = write_preprocessed(tmp_path / "data")
    table = pd.read_csv(folder / "kaggle_retina" / "labels_val.csv").assign(diagnosis=1)
    table.to_csv(folder / "kaggle_retina" / "labels_val.csv", index=False)
    with pytest.raises(UsageError, match=r"best_by auc is not defined on these .* use --set best_by=val_loss"):
        run(read_preprocessed(folder), tmp_path / "w", recipe=recipe(objective="classification", best_by="auc"))


def test_started_again_by_torchrun_a_run_goes_on_but_not_from_a_finished_one(data, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "restart_count", 1)
    run(data, tmp_path)
    run(data, tmp_path, recipe=recipe(lr=0.02))  # the finished one is another run
    assert (tmp_path / "run__previous_1__best.pt").is_file()
    monkeypatch.setattr(outcome, "finish", lambda *given, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(data, tmp_path, name="other")
    monkeypatch.undo()
    monkeypatch.setattr(distributed, "restart_count", 1)
    run(data, tmp_path, name="other")
    assert not list(tmp_path.glob("other__previous*"))


def test_a_run_under_an_old_name_keeps_every_old_file(data, tmp_path):
    for _ in range(2):
        run(data, tmp_path, recipe=recipe(keep_epochs=(1,), epochs=1))
    old = {path.name.replace("previous_1__", "") for path in tmp_path.glob("run__previous_1__*")}
    assert old == {path.name for path in tmp_path.glob("run__*") if "previous" not in path.name}
    assert "run__epoch_1.pt" in old


def test_a_loss_that_is_not_finite_stops_with_the_names_of_the_batch(data, tmp_path):
    broken = checkpoint_content()
    broken["model"] = {
        key: torch.full_like(value, torch.nan) if value.is_floating_point() else value
        for key, value in broken["model"].items()
    }
    torch.save(broken, tmp_path / "nan.pt")
    with pytest.raises(UsageError, match=r"the loss is not finite at the batch (photo_\d+\.jpeg, ){3}\.\.\.; lower lr"):
        run(data, tmp_path, recipe=recipe(pretrained=str(tmp_path / "nan.pt")))


def test_an_absent_device_is_named():
    with pytest.raises(UsageError, match="--device cuda:7: this machine has no such device"):
        device.accelerator("cuda:7")


def test_several_processes_take_the_device_that_each_has(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", 2)
    for name in ("cuda:1", "mps"):
        with pytest.raises(UsageError, match=f"--device {name}: each of 2 processes has its own; give auto, cpu or"):
            device.accelerator(name)


def test_photographs_too_few_to_go_round_are_told_before_training(data, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", 4)
    with pytest.raises(UsageError, match="4 processes with batches of 10 need 40 training photographs, here are 30"):
        training.loaders(TINY, data, order=None, workers=0, pin=False)


FAULTS = """
import resource, torch
from dr.core import device

device.accelerator("cpu", precision="fp32")
def faults_of(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of(10)  # the first ones settle where in the heap such a block lies
print(faults_of(10))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_a_cpu_keeps_the_memory_that_it_frees():
    """Else the kernel clears every page anew, which is half the time of a training step. In a process of its own, as
    what other tests have freed decides where a block comes to lie."""
    faults = subprocess.check_output([sys.executable, "-c", FAULTS], text=True, cwd=Path(__file__).parents[2])
    assert int(faults) < 2**24 * 4 / 4096  # pages of one such tensor


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_freed_memory_is_given_back_before_processes_are_forked_that_would_hold_it(data, tmp_path, monkeypatch):
    def resident():
        return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

    device.accelerator("cpu", precision="fp32")
    large = [torch.ones(2**24) for _ in range(6)]  # 384 MiB
    large.clear()
    kept = resident()
    device.release_freed_memory()
    assert kept - resident() > 300 * 2**20
    order, train_epoch, validate = [], training.train_epoch, training._validate
    monkeypatch.setattr(training, "train_epoch", lambda *given: (order.append("train"), train_epoch(*given))[1])
    monkeypatch.setattr(device, "release_freed_memory", lambda: order.append("give back"))
    monkeypatch.setattr(training, "_validate", lambda *given: (order.append("validate"), validate(*given))[1])
    run(data, tmp_path, recipe=recipe(epochs=1))
    assert order == ["train", "give back", "validate"]


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_validation_on_a_cpu_is_in_the_precision_that_predict_has(tmp_path, ema_decay):
    settings = write_preprocessed(tmp_path / "data") / "kaggle_retina" / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"crop": False}))
    data = read_preprocessed(tmp_path / "data")
    run(data, tmp_path, recipe=recipe(epochs=1, precision="bf16", ema_decay=ema_decay, clip_norm=None))
    saved = torch.load(tmp_path / "run__best.pt", weights_only=True)["validation"]["predictions"][:, 0]
    assert saved.dtype == torch.float64
    images = tmp_path / "images"
    images.mkdir()
    for path in data.val["path"]:
        shutil.copy(data.root / path, images)
    options = {"output": str(tmp_path / "out"), "workers": 0, "device_name": "cpu", "engine_name": "torch"}
    details = predict([str(tmp_path / "run__best.pt")], str(images), **options).details.set_index("file")
    scores = details.loc[[Path(path).name for path in data.val["path"]], "score"].to_numpy(float)
    assert np.abs(scores - saved.numpy()).max() < 1e-4  # details have four decimals; bfloat16 is off by more


def test_a_finished_run_that_is_resumed_is_one_row_of_runs(data, tmp_path):
    for go_on in (False, True):
        run(data, tmp_path, recipe=recipe(epochs=1), go_on=go_on)
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 1


def test_a_run_does_not_go_on_with_photographs_of_another_size(tmp_path):
    folder = write_preprocessed(tmp_path / "data")
    run(read_preprocessed(folder), tmp_path, recipe=recipe(epochs=1))
    settings = folder / "kaggle_retina" / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"size": 64}))
    with pytest.raises(
        UsageError, match=r"on photographs prepared in another way, or by an earlier version; resume with the"
    ):
        run(read_preprocessed(folder), tmp_path, recipe=recipe(epochs=1), go_on=True)


def test_what_is_trained_is_told_before_the_first_epoch(data, tmp_path, capsys):
    run(data, tmp_path, recipe=recipe(epochs=1))
    first = capsys.readouterr().out.splitlines()[0]
    assert first == (
        "test_efficientnet at 64 pixels, regression: 30 photographs to train with, 15 to validate; epochs 1 to 1 of 3 "
        "batches of 10; cpu, fp32"
    )


@pytest.mark.parametrize(("objective", "told"), [("ordinal", True), ("classification", False)])
def test_classes_whose_order_means_nothing_are_told_where_it_counts(tmp_path, capsys, objective, told):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", classes=("daisy", "rose", "tulip")))
    run(data, tmp_path, recipe=recipe(epochs=1, objective=objective))
    note = (
        f"note: {objective} takes each class for a step above the one before: daisy, rose, tulip; if they are no steps"
    )
    assert (note in capsys.readouterr().out) == told


@pytest.mark.parametrize(("precision", "widened"), [("bf16", True), ("fp32", False)])
def test_training_on_a_cpu_widens_what_bfloat16_slows(data, precision, widened):
    chosen = recipe(backbone="tf_efficientnet_lite0", ema_decay=0.9)
    accelerator = device.accelerator("cpu", precision=precision)
    started = dr.training.state.start(chosen, data=data, accelerator=accelerator, updates_per_epoch=3, pretrained=False)
    for network in (started.bare_model, started.evaluated):
        assert any("forward" in vars(m) for m in network.backbone.modules()) == widened


def test_half_precision_without_a_gpu_is_refused():
    with pytest.raises(UsageError, match="precision fp16 needs a GPU"):
        device.accelerator("cpu", precision="fp16")


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [("cuda", (9, 0), "bf16"), ("cuda", (8, 0), "bf16"), ("cuda", (7, 0), "fp16"), ("cuda", (6, 0), "fp16"),
     ("cuda", (5, 2), "fp32"), ("cpu", {"amx_bf16": True}, "bf16"), ("cpu", {"avx512_bf16": True}, "bf16"),
     ("cpu", {"avx2": True}, "fp32"), ("mps", None, "fp32")],
)  # fmt: skip
def test_precision_is_what_the_device_does_well(monkeypatch, kind, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capability, raising=False)
    assert device.best_precision(torch.device(kind)) == expected


@pytest.mark.parametrize(
    ("choices", "figures"),
    [
        ({"objective": "ordinal", "neighbour_smoothing": 0.05}, {"macro_f1_rounded", "macro_f1_optimal"}),
        ({"objective": "classification", "loss": "focal", "class_weights": "inverse", "best_by": "auc"}, set()),
        (
            {"objective": "binary", "positive_from": 2, "thresholds": "round", "best_by": "accuracy"},
            {"macro_f1_rounded"},
        ),
    ],
)
def test_every_objective_trains_tests_once_and_says_how_well_it_does(tmp_path, choices, figures):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", test=10))
    row = run(data, tmp_path / "w", recipe=recipe(tta="flips", normalisation="measured", **choices))
    assert figures | {"kappa", "accuracy", "auc", "test_loss", "test_accuracy", "test_auc", "test_kappa"} <= set(row)
    assert 0 <= row["test_macro_f1_low"] <= row["test_macro_f1"] <= row["test_macro_f1_high"] <= 1
    best = torch.load(tmp_path / "w" / "run__best.pt", weights_only=True)
    assert best["recipe"]["mean"] == torch_datasets.channel_mean_std(data, TINY)[0]
    expected = ("below Moderate", "Moderate or worse") if choices["objective"] == "binary" else data.classes
    assert tuple(best["classes"]) == expected
    assert (tmp_path / "w" / "run__test_confusion.png").is_file()
    assert (best["thresholds"] is None) == (choices["objective"] == "classification")


def test_measured_normalisation_is_that_of_the_training_photographs(data):
    mean, std = torch_datasets.channel_mean_std(data, TINY)
    photographs = [cv2.cvtColor(cv2.imread(str(data.root / path)), cv2.COLOR_BGR2RGB) for path in data.train["path"]]
    small = [cv2.resize(photograph, (64, 64), interpolation=cv2.INTER_AREA) for photograph in photographs]
    pixels = np.stack(small).reshape(-1, 3)
    assert np.allclose(mean, pixels.mean(0) / 255, atol=1e-3)
    assert np.allclose(std, pixels.std(0) / 255, atol=1e-3)


def test_training_stops_when_patience_ends_and_keeps_the_weights_of_chosen_epochs(data, tmp_path):
    row = run(data, tmp_path, recipe=recipe(epochs=9, lr=1e-9, patience=2, keep_epochs=(2,), best_by="accuracy"))
    history = pd.read_csv(tmp_path / "run__history.csv")
    assert len(history) == row["best_epoch"] + 2 < 9
    assert torch.load(tmp_path / "run__epoch_2.pt", weights_only=True)["metrics"]["epoch"] == 2


def test_weights_kept_of_an_epoch_have_cuts_of_the_views_that_they_are_used_with(data, tmp_path):
    run(data, tmp_path, recipe=recipe(tta="d4", keep_epochs=(1, 2), best_by="last"))
    best, *kept = (
        torch.load(tmp_path / f"run__{name}.pt", weights_only=True) for name in ("best", "epoch_1", "epoch_2")
    )
    assert kept[1]["thresholds"] == best["thresholds"] != kept[0]["thresholds"]
    assert kept[1].keys() == kept[0].keys() == best.keys() - {"validation", "calibration", "training"}


def test_what_the_weights_to_start_from_have_seen_is_told_and_kept(data, tmp_path, capsys):
    run(data, tmp_path, name="first", recipe=recipe(epochs=1))
    start, parted = str(tmp_path / "first__best.pt"), fold(data, 1, 3)
    capsys.readouterr()
    run(parted, tmp_path, name="second", recipe=recipe(epochs=1, pretrained=start))
    told = [line for line in capsys.readouterr().out.splitlines() if "was trained or validated with" in line]
    assert [line.split(start)[0] for line in told] == [
        f"note: {len(parted.val)} of {len(parted.val)} validation photographs have names that ",
        f"note: {len(parted.test)} of {len(parted.test)} test photographs have names that ",
    ]
    assert "validation photographs have names that" in (tmp_path / "second__card.md").read_text()
    run(parted, tmp_path, name="second", recipe=recipe(epochs=2, pretrained=start))
    run(parted, tmp_path, name="second", recipe=recipe(epochs=2, pretrained=start), go_on=True)
    first, second = (torch.load(tmp_path / f"{name}__best.pt", weights_only=True) for name in ("first", "second"))
    assert first["seen_before"] == []
    assert len(second["seen_before"]) == 2
    assert set(first["data"]["names"].tolist()) == set(second["data"]["names"].tolist())


@pytest.mark.parametrize(("choices", "told"), [({}, True), ({"best_by": "last"}, False), ({"epochs": 1}, False)])
def test_that_an_epoch_was_chosen_on_validation_is_told(data, tmp_path, choices, told):
    lines = runs_csv.summary_lines(run(data, tmp_path, recipe=recipe(**choices)))
    note = "note: the epoch was chosen on these photographs, so the figures flatter; those of a test, or "
    assert any(line.startswith(note) for line in lines) == told
    card = (tmp_path / "run__card.md").read_text()
    assert ("The epoch was chosen by `macro_f1_cross_fitted` of validation" in card) == told
    assert "The test does not" not in card
    with_test = runs_csv.summary_lines(run(fold(data, 1, 3), tmp_path, name="tested", recipe=recipe(**choices)))
    assert not any(line.startswith(note) for line in with_test)
    assert ("The test does not." in (tmp_path / "tested__card.md").read_text()) == told


@pytest.mark.parametrize(("best_by", "expected"), [("val_loss", "idxmin"), ("kappa_cross_fitted", "idxmax")])
def test_the_best_epoch_is_by_the_figure_that_the_recipe_names(data, tmp_path, best_by, expected):
    row = run(data, tmp_path, recipe=recipe(epochs=3, best_by=best_by))
    history = pd.read_csv(tmp_path / "run__history.csv")
    assert row["best_epoch"] == history["epoch"][getattr(history[best_by], expected)()]
    assert run(data, tmp_path, recipe=recipe(best_by="last"))["best_epoch"] == 2


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"scheduler": "exponential", "gamma": 0.5}, [0.01, 0.005, 0.0025, 0.00125]),
        ({"scheduler": "multistep", "milestones": [1, 3], "gamma": 0.1}, [0.01, 0.001, 0.001, 0.0001]),
        ({"scheduler": "step", "step_epochs": 2, "gamma": 0.1}, [0.01, 0.01, 0.001, 0.001]),
    ],
)
def test_schedulers_lower_the_learning_rate_when_they_should(data, tmp_path, choices, expected):
    run(data, tmp_path, recipe=recipe(epochs=4, **choices))
    assert pd.read_csv(tmp_path / "run__history.csv")["lr"].tolist() == pytest.approx(expected)


def test_a_plateau_lowers_the_learning_rate_once_the_validation_loss_falls_no_more(data, tmp_path, monkeypatch):
    validate, losses = training._validate, iter([0.9, 0.8, 0.8, 0.8, 0.8])
    monkeypatch.setattr(training, "_validate", lambda *given: (validate(*given)[0], next(losses)))
    run(data, tmp_path, recipe=recipe(epochs=5, scheduler="plateau", plateau_epochs=1, gamma=0.1))
    rates = pd.read_csv(tmp_path / "run__history.csv")["lr"].tolist()
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.001])


def test_a_network_no_better_than_the_most_frequent_class_is_told_so(data, tmp_path):
    row = run(data, tmp_path, recipe=recipe(lr=1e-9, epochs=1, thresholds="round"))  # it has learned nothing
    lines = runs_csv.summary_lines(row)
    assert len(lines) == 2  # one epoch was not chosen
    assert lines[0].startswith("best epoch 1: macro-F1 cross-fitted 0.")
    assert lines[1] == (
        f"note: its validation accuracy of {row['accuracy']:.3f} is no better than always answering with "
        "the most frequent class (0.200)"
    )


@pytest.mark.parametrize(
    ("parts", "whole"),
    [({"batch_size": 5, "accumulate": 2}, {"batch_size": 10}),
     # six batches are an update of four and one of two, as three are one of two and one of one
     ({"batch_size": 5, "accumulate": 4}, {"batch_size": 10, "accumulate": 2})],
)  # fmt: skip
def test_batches_of_one_update_move_the_weights_as_one_large_batch(data, tmp_path, parts, whole):
    stateless = {"backbone": "test_convnext", "image_size": 32, "optimizer": "sgd", "epochs": 1, "ema_decay": 0.5}
    for name, choices in (("parts", parts), ("whole", whole)):
        run(data, tmp_path, name=name, recipe=recipe(**stateless, **choices))
    saved = [torch.load(tmp_path / f"{name}__last.pt", weights_only=True) for name in ("parts", "whole")]
    assert saved[0]["updates"] == saved[1]["updates"] == -(-3 // whole.get("accumulate", 1))
    for field in ("model", "raw_model"):
        for key, value in saved[0][field].items():
            assert torch.allclose(value, saved[1][field][key], atol=1e-5), key
    losses = [each["history"][0]["train_loss"] for each in saved]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_gradient_checkpointing_changes_memory_and_time_alone(data, tmp_path, monkeypatch):
    checkpointed, apply = [], surgery.checkpoint_gradients
    monkeypatch.setattr(surgery, "checkpoint_gradients", lambda *given: (checkpointed.append(given[1]), apply(*given)))
    choices = {"optimizer": "sgd", "epochs": 2, "ema_decay": 0.5, "backbone": "resnet18", "image_size": 32}
    for name, twice in (("kept", False), ("twice", True)):
        run(data, tmp_path, name=name, recipe=recipe(**choices, grad_checkpointing=twice))
    assert checkpointed == ["resnet18"]
    kept, twice = (pd.read_csv(tmp_path / f"{name}__history.csv") for name in ("kept", "twice"))
    assert twice["val_loss"].tolist() == pytest.approx(kept["val_loss"].tolist(), rel=1e-3)


def test_a_fold_marks_what_its_checkpoint_has_not_seen(data, tmp_path):
    run(fold(data, 2, 3), tmp_path, recipe=recipe(epochs=1))
    held_out = checkpoint.load(tmp_path / "run__best.pt").held_out
    assert held_out.fold == (2, 3, data.fingerprint)
    assert held_out.truth.tolist() == fold(data, 2, 3).test["diagnosis"].tolist()
    assert held_out.predictions.shape == (15, 1)


def test_a_run_under_the_name_of_one_that_is_trained_now_is_refused(data, tmp_path):
    with files.lock_file(tmp_path / "run__last.pt", wait=False):
        code = (
            "import sys; sys.path += ['tests', 'tests/training']; from test_loop import read_preprocessed, run; "
            f"run(read_preprocessed({str(data.root)!r}), {str(tmp_path)!r})"
        )
        root = Path(__file__).parents[2]
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert "run__last.pt: another process writes it; wait for its end, or give another --name" in ended.stderr


def test_a_checkpoint_that_another_run_has_written_meanwhile_is_not_tested(data, tmp_path, monkeypatch):
    run(fold(data, 1, 3), tmp_path, name="other", recipe=recipe(epochs=1))
    finish = outcome.finish

    def swapped(this, paths, **options):
        (tmp_path / "other__best.pt").replace(paths.best)
        return finish(this, paths, **options)

    monkeypatch.setattr(outcome, "finish", swapped)
    with pytest.raises(UsageError, match=r"run__best\.pt: another run has written it meanwhile; give each run a"):
        run(fold(data, 2, 3), tmp_path, recipe=recipe(epochs=1))


def test_a_batch_of_one_is_refused_where_batch_normalisation_sees_one_value(tmp_path):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", train=5))
    with pytest.raises(UsageError, match="a batch of 1 photograph at 32 pixels is too small for batch normalisation"):
        run(data, tmp_path, recipe=recipe(batch_size=1, image_size=32, epochs=1, backbone="resnet18"))


def test_what_schedulers_leave_in_every_process_is_not_waited_for(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "PMI_SIZE"):
        monkeypatch.setenv(name, "4")
    assert device.accelerator("cpu").num_processes == 1
    assert os.environ["WORLD_SIZE"] == "4"


def test_resuming_without_the_best_checkpoint_says_what_is_missing(data, tmp_path):
    run(data, tmp_path, recipe=recipe(epochs=1))
    (tmp_path / "run__best.pt").unlink()
    with pytest.raises(UsageError, match=r"run__best\.pt: it is not there; --resume needs it beside run__last\.pt"):
        run(data, tmp_path, recipe=recipe(epochs=1), go_on=True)
