"""Sweeps with a fake training; the last tests train real networks."""

import statistics
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from made import TINY, planned, write_preprocessed

from dr import UsageError
from dr.cli.run import run_main
from dr.commands import train
from dr.core import device
from dr.networks.build import build
from dr.recipes.load import from_dict
from dr.training import loop
from dr.training.options import RunOptions
from dr.training.sweep.run import train_all
from dr.training.sweep.table import best_summary

METRICS = {"selected_by": "auc", "best_epoch": 3, "tta_views": 1,
           "macro_f1_cross_fitted_low": 0.4, "macro_f1_cross_fitted_high": 0.6,
           "kappa_cross_fitted": 0.5, "kappa_cross_fitted_low": 0.45, "kappa_cross_fitted_high": 0.55,
           "accuracy": 0.8, "accuracy_low": 0.7, "accuracy_high": 0.85,
           "auc": 0.9, "auc_low": 0.88, "auc_high": 0.92, "val_loss": 0.2, "minutes": 1.25,
           "majority": 0.5}  # fmt: skip


@pytest.fixture
def fake(monkeypatch):
    """Replace training: a run's macro-F1 is 0.5 + lr -> the calls, and the errors to raise by name of the run."""
    calls, fails = [], {}

    def trained(recipe, *, data, options):
        calls.append(SimpleNamespace(recipe=recipe, options=options))
        if options.name in fails:
            raise fails[options.name]
        return {"name": options.name, "macro_f1_cross_fitted": 0.5 + recipe.lr, **METRICS, "lr": 0.0, "seconds": 9.0}

    monkeypatch.setattr(loop, "train", trained)
    return SimpleNamespace(calls=calls, fails=fails)


def run(folder, trials, *, name="run", fingerprint="of the data"):
    data = SimpleNamespace(fingerprint=fingerprint)
    options = RunOptions(folder=str(folder), name=name, device="cpu", workers=0)
    return train_all(trials, data=data, options=options, command="python train.py")


def table(folder, name="run"):
    return pd.read_csv(folder / f"{name}/sweep.csv", keep_default_na=False)


def cells(folder, *, section=0):
    """The lines of a table in the Markdown, each as a list."""
    text = (folder / "run/sweep.md").read_text().split("Over seeds")[section]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]


def test_the_table_has_a_row_for_each_run_with_its_options_and_metrics(fake, tmp_path):
    rows = run(tmp_path, planned("lr=0.1,0.2"))
    written = table(tmp_path)
    assert list(written.columns[:4]) == ["lr", "best_epoch", "macro_f1_cross_fitted", "macro_f1_cross_fitted_low"]
    assert list(written.columns[-4:]) == ["minutes", "error", "name", "fingerprint"]
    assert written["lr"].tolist() == [0.1, 0.2]
    assert written["macro_f1_cross_fitted"].tolist() == [0.6, 0.7]
    assert [row["name"] for row in rows] == written["name"].tolist() == ["run__lr_0.1", "run__lr_0.2"]
    assert [call.recipe.lr for call in fake.calls] == [0.1, 0.2]
    assert fake.calls[0].options.recorded == {
        "recipe": "published",
        "overrides": planned("lr=0.1")[0].recorded["overrides"],
    }


def test_the_markdown_has_the_command_and_the_best_run_in_bold_with_intervals(fake, tmp_path):
    run(tmp_path, planned("lr=0.1,0.2"))
    assert (
        (tmp_path / "run/sweep.md")
        .read_text()
        .startswith("# Sweep run\n\n`python train.py`\n\n2 of 2 runs. In parentheses")
    )
    shared = ["0.500 (0.450 to 0.550)", "0.800 (0.700 to 0.850)", "0.900 (0.880 to 0.920)", "0.200", "1.25"]
    assert cells(tmp_path) == [
        ["lr", "best_epoch", "macro_f1_cross_fitted", "kappa_cross_fitted", "accuracy", "auc", "val_loss", "minutes"],
        ["---"] * 8,
        ["0.1", "3", "0.600 (0.400 to 0.600)", *shared],
        [f"**{cell}**" for cell in ["0.2", "3", "0.700 (0.400 to 0.600)", *shared]],
    ]


@pytest.mark.parametrize(
    ("monitor", "best"),
    [("val_loss", "run__lr_0.1: val_loss 0.200"), ("auc", "run__lr_0.2: auc 0.900"),
     ("last", "run__lr_0.1: macro_f1_cross_fitted 0.700")],
)  # fmt: skip
def test_runs_are_ranked_by_the_metric_that_selects_their_epochs(monitor, best):
    trials = planned("lr=0.1,0.2", monitor=monitor)
    rows = [
        {"name": "run__lr_0.1", "macro_f1_cross_fitted": "0.7", "auc": "nan", "val_loss": "0.2"},
        {"name": "run__lr_0.2", "macro_f1_cross_fitted": "0.6", "auc": "0.9", "val_loss": "0.3"},
    ]
    assert best_summary(trials, rows) == f"best run {best}"


def test_runs_are_ranked_by_macro_f1_where_monitor_is_swept():
    rows = [{"name": "one", "macro_f1_cross_fitted": "0.7"}, {"name": "other", "val_loss": "0.1"}]
    trials = planned("monitor=val_loss,auc", monitor=None)
    assert best_summary(trials, rows) == "best run one: macro_f1_cross_fitted 0.700"


def test_test_metrics_are_columns_where_the_data_has_a_test_split(fake, tmp_path, monkeypatch):
    without = loop.train
    tested = {
        "test_accuracy": 0.71,
        "test_accuracy_low": 0.6,
        "test_accuracy_high": 0.8,
        "test_loss": 0.4,
        "test_majority": 0.5,
    }
    for name in ("test_macro_f1", "test_kappa", "test_auc"):
        tested |= {name: 0.55, f"{name}_low": 0.5, f"{name}_high": 0.6}
    monkeypatch.setattr(loop, "train", lambda *args, **options: without(*args, **options) | tested)
    run(tmp_path, planned("lr=0.1"))
    header, _, row = cells(tmp_path)
    shown = dict(zip(header, row, strict=True))
    assert shown["test_loss"] == "**0.400**"
    assert shown["test_accuracy"] == "**0.710 (0.600 to 0.800)**"
    assert header.index("val_loss") < header.index("test_loss") < header.index("test_macro_f1")
    assert table(tmp_path)["test_accuracy_high"].tolist() == [0.8]


def test_a_run_from_other_weights_with_the_same_path_is_trained_again(fake, tmp_path):
    start = tmp_path / "start.pt"
    trials = planned("lr=0.1", pretrained=str(start))
    for seed, trained in ((1, 1), (1, 1), (2, 2)):
        torch.manual_seed(seed)
        torch.save(build(TINY, num_outputs=1).backbone.state_dict(), start)
        run(tmp_path, trials)
        assert len(fake.calls) == trained


def test_an_accuracy_not_above_the_majority_class_is_marked_and_noted(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(METRICS, "majority", 0.8)
    run(tmp_path, planned("lr=0.1,0.2"))
    text = (tmp_path / "run/sweep.md").read_text()
    assert text.count("0.800†") == 2
    assert "† accuracy does not exceed the majority-class baseline." in text
    assert (
        capsys.readouterr().out.count("note: validation accuracy 0.800 does not exceed the majority-class baseline")
        == 2
    )
    monkeypatch.setitem(METRICS, "majority", 0.5)
    run(tmp_path, planned("lr=0.3"))
    assert "†" not in (tmp_path / "run/sweep.md").read_text()


def test_seeds_become_mean_and_sample_standard_deviation(fake, tmp_path, monkeypatch):
    values = {(0.1, 1): 0.5, (0.1, 2): 0.6, (0.1, 3): 0.8, (0.2, 1): 0.7}
    real = loop.train
    monkeypatch.setattr(
        loop, "train",
        lambda recipe, **options: real(recipe, **options)
        | {"macro_f1_cross_fitted": values[recipe.lr, recipe.seed]},
    )  # fmt: skip
    fake.fails |= {f"run__lr_0.2__seed_{seed}": UsageError("the loss is not finite") for seed in (2, 3)}
    run(tmp_path, planned("lr=0.1,0.2", "seed=1,2,3"))
    header, _, first, second = cells(tmp_path, section=1)
    assert header[:3] == ["lr", "seeds", "macro_f1_cross_fitted"]
    assert "best_epoch" not in header
    assert first[:3] == ["0.1", "3", f"{statistics.mean([0.5, 0.6, 0.8]):.3f} ± 0.153"]
    assert second[:3] == ["0.2", "1", "0.700"]
    assert len(cells(tmp_path)) == 2 + 6


def test_without_a_sweep_over_seeds_there_is_no_second_table(fake, tmp_path):
    run(tmp_path, planned("lr=0.1,0.2"))
    assert "Over seeds" not in (tmp_path / "run/sweep.md").read_text()
    run(tmp_path, planned("seed=1,2", lr=0.1))
    assert cells(tmp_path, section=1)[2][:2] == ["2", "0.600 ± 0.000"]


def test_finished_runs_are_not_trained_again(fake, tmp_path):
    trials = planned("lr=0.1,0.2")
    first = run(tmp_path, trials)
    before = [path.read_bytes() for path in sorted((tmp_path / "run").iterdir())]
    assert run(tmp_path, trials) == first
    assert len(fake.calls) == 2
    assert [path.read_bytes() for path in sorted((tmp_path / "run").iterdir())] == before


def test_a_longer_sweep_trains_what_is_missing_and_a_shorter_one_loses_nothing(fake, tmp_path):
    run(tmp_path, planned("lr=0.1,0.2"))
    run(tmp_path, planned("lr=0.3,0.2"))
    assert [call.recipe.lr for call in fake.calls] == [0.1, 0.2, 0.3]
    assert [line[0] for line in cells(tmp_path)[2:]] == ["**0.3**", "0.2"]
    assert table(tmp_path)["lr"].tolist() == [0.3, 0.2, 0.1]
    run(tmp_path, planned("lr=0.1,0.3", "seed=10"))
    assert len(fake.calls) == 3
    assert table(tmp_path)["name"].tolist() == ["run__lr_0.1", "run__lr_0.3", "run__lr_0.2"]


def test_other_options_or_data_with_the_same_name_replace_the_row(fake, tmp_path):
    run(tmp_path, planned("lr=0.1"))
    run(tmp_path, planned("lr=0.1", epochs=5))
    run(tmp_path, planned("lr=0.1", epochs=5), fingerprint="of other data")
    assert [call.recipe.epochs for call in fake.calls] == [2, 5, 5]
    assert len(table(tmp_path)) == 1


def test_a_stopped_sweep_continues_with_the_run_it_stopped_in(fake, tmp_path):
    fake.fails["run__lr_0.2"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, planned("lr=0.1,0.2,0.3"))
    assert table(tmp_path)["name"].tolist() == ["run__lr_0.1"]
    assert "1 of 3 runs" in (tmp_path / "run/sweep.md").read_text()
    fake.fails.clear()
    run(tmp_path, planned("lr=0.1,0.2,0.3"))
    assert [call.recipe.lr for call in fake.calls] == [0.1, 0.2, 0.2, 0.3]


def last_checkpoint(recipe: dict) -> dict:
    """The content of a NAME__last.pt without weights."""
    state = {"raw_model": None, "optimizer": {}, "scheduler": None, "scaler": None, "epoch": 1, "updates": 3}
    return {
        "model": {},
        "recipe": recipe,
        "thresholds": [0.5, 1.5, 2.5, 3.5],
        "classes": list("01234"),
        "data": {"fingerprint": "of the data", "size_px": 96},
        "training_state": state | {"random": [{"torch": torch.get_rng_state()}], "history": []},
    }


def test_a_stopped_run_is_resumed_only_with_the_same_recipe_and_data(fake, tmp_path):
    [trial] = planned("lr=0.1")
    last = tmp_path / "run__lr_0.1__last.pt"
    saved = last_checkpoint(trial.recipe.to_dict())
    other_recipe = saved | {"recipe": saved["recipe"] | {"epochs": 9}}
    other_data = saved | {"data": saved["data"] | {"fingerprint": "of other data"}}
    best = tmp_path / "run__lr_0.1__best.pt"
    two = 2 * saved["training_state"]["random"]
    of_two_processes = saved | {"training_state": saved["training_state"] | {"random": two}}
    for content in (saved, other_recipe, other_data, of_two_processes, {}):
        torch.save(content, last)
        best.touch()
        run(tmp_path, [trial])
        (tmp_path / "run/sweep.csv").unlink()
    last.write_bytes(b"damaged")
    run(tmp_path, [trial])
    (tmp_path / "run/sweep.csv").unlink()
    torch.save(saved, last)
    best.unlink()
    run(tmp_path, [trial])
    assert [call.options.resume for call in fake.calls] == [True] + 6 * [False]


def test_measured_mean_and_deviation_do_not_change_the_recipe(fake, tmp_path):
    [trial] = planned("lr=0.1", normalisation="dataset")
    fitted = trial.recipe.to_dict() | {"mean": (0.1, 0.2, 0.3), "std": (0.1, 0.1, 0.1)}
    torch.save(last_checkpoint(fitted), tmp_path / f"{trial.name}__last.pt")
    (tmp_path / f"{trial.name}__best.pt").touch()
    run(tmp_path, [trial])
    assert fake.calls[0].options.resume


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UsageError("the loss is not finite"), "the loss is not finite"),
        (torch.OutOfMemoryError("out of memory"), "out of memory"),
        (ValueError("Expected more than 1 value"), "ValueError: Expected more than 1 value"),
    ],
)
def test_a_run_that_fails_is_a_row_with_its_error_and_is_repeated(fake, tmp_path, error, message):
    fake.fails["run__lr_0.1"] = error
    rows = run(tmp_path, planned("lr=0.1,0.2"))
    assert [row["error"] for row in rows] == table(tmp_path)["error"].tolist() == [message, ""]
    assert cells(tmp_path)[2] == ["0.1", "", "", "", "", "", "", "", message]
    fake.fails.clear()
    run(tmp_path, planned("lr=0.1,0.2"))
    assert [call.recipe.lr for call in fake.calls] == [0.1, 0.2, 0.1]
    assert table(tmp_path)["error"].tolist() == ["", ""]


def test_without_a_finished_run_there_is_no_best(fake, tmp_path):
    fake.fails["run__lr_0.1"] = UsageError("a | b")
    trials = planned("lr=0.1")
    assert best_summary(trials, run(tmp_path, trials)) == "no run was finished"
    assert r"a \| b" in (tmp_path / "run/sweep.md").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone=test_efficientnet,test_eficientnet", "backbone 'test_eficientnet' is in neither torchvision nor"),
        ("pretrained=none,lost.pt", r"lost\.pt: file of weights not found"),
        ("precision=fp32,fp16", "precision fp16 needs a GPU"),
    ],
)
def test_what_a_later_run_lacks_is_reported_before_the_first(fake, tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "weights", planned(text, **{text.partition("=")[0]: None}))
    assert fake.calls == []
    assert not (tmp_path / "weights").exists()


def test_a_file_that_is_not_the_table_of_a_sweep_is_refused(fake, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/sweep.csv").write_text("my,own\n1,2\n")
    with pytest.raises(UsageError, match=r"run/sweep\.csv: not the table of a sweep; move it, or use another"):
        run(tmp_path, planned("lr=0.1"))
    assert (tmp_path / "run/sweep.csv").read_text() == "my,own\n1,2\n"


# --- the script ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory):
    return write_preprocessed(tmp_path_factory.mktemp("preprocessed"), train=20, val=10)


@pytest.fixture
def script(preprocessed, no_report, tmp_path, monkeypatch, capsys):
    """train.py in an empty folder on the images of `preprocessed` -> (exit code, out, err)."""
    monkeypatch.setattr(device, "best_precision", lambda _: "fp32")  # on any machine
    monkeypatch.chdir(tmp_path)

    def call(*flags):
        tiny = ["--set", "backbone=test_efficientnet", "--set", "image_size=64", "--set", "augmentation=none",
                "--pretrained", "none", "-b", "10", "-e", "1", "--workers", "0", "--device", "cpu"]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["train.py", "-d", str(preprocessed), "-s", "out", "-n", "run", *tiny, *flags])
        with pytest.raises(SystemExit) as exit_info:
            run_main(train.main, go_on="start again")
        return exit_info.value.code, *capsys.readouterr()

    return call


def test_the_script_prints_the_best_run_and_the_path_of_the_table(fake, script, tmp_path):
    code, out, err = script("--sweep", "lr=0.1,0.2", "--sweep", "milestones=[30,45],[10]")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "run 1 of 4: run__lr_0.1__milestones_30_45"
    assert out.splitlines()[-2:] == [
        "best run run__lr_0.2__milestones_30_45: macro_f1_cross_fitted 0.700 (0.400 to 0.600)",
        "wrote out/run/sweep.md",
    ]
    assert "--sweep lr=0.1,0.2 --sweep 'milestones=[30,45],[10]'`" in (tmp_path / "out" / "run/sweep.md").read_text()
    assert fake.calls[0].options.workers == 0
    code, out, _ = script("--sweep", "lr=0.1,0.2", "--sweep", "milestones=[30,45],[10]", "--resume")
    assert out.splitlines()[3] == "run 4 of 4: run__lr_0.2__milestones_10, already finished"
    assert (code, len(fake.calls)) == (0, 4)


def test_failed_runs_are_named_on_stderr_and_the_exit_code_is_1(fake, script):
    fake.fails["run__lr_0.1"] = UsageError("the loss is not finite")
    code, out, err = script("--sweep", "lr=0.1,0.2")
    assert code == 1
    assert err == "not trained: run__lr_0.1: the loss is not finite\n"
    assert out.splitlines()[-1] == "wrote out/run/sweep.md"
    assert len(fake.calls) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sweep", "epochs=1,2"], "error: --sweep epochs=1,2: epochs is also set by --set or its own flag"),
        (["--sweep", "lr=0.1", "-d", "nowhere"], "nowhere: folder not found; run data.py first"),
        (["--sweep", "lr=0.1", "--device", "cuda:9"], "device cuda:9: torch finds no such device on this machine"),
    ],
)
def test_what_every_run_needs_is_reported_at_once(fake, script, tmp_path, flags, message):
    code, out, err = script(*flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert fake.calls == []
    assert not list(tmp_path.iterdir())


def test_the_table_of_two_real_runs_agrees_with_runs_csv(script, tmp_path):
    code, _, err = script("--sweep", "seed=1,2")
    assert code == 0, err
    written, recorded = table(tmp_path / "out"), pd.read_csv(tmp_path / "out" / "runs.csv")
    assert written["name"].tolist() == recorded["name"].tolist() == ["run__seed_1", "run__seed_2"]
    for metric in ("macro_f1_cross_fitted", "macro_f1_cross_fitted_low", "kappa_cross_fitted", "accuracy", "val_loss"):
        assert written[metric].tolist() == recorded[metric].tolist(), metric
    assert from_dict(torch.load(tmp_path / "out" / "run__seed_2__best.pt", weights_only=True)["recipe"]).seed == 2
    assert cells(tmp_path / "out", section=1)[2][0] == "2"


def test_a_real_run_from_other_weights_with_the_same_path_starts_again(script, tmp_path):
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.save(build(TINY, num_outputs=1).backbone.state_dict(), tmp_path / "start.pt")
        code, _, err = script("--sweep", "seed=1", "--pretrained", "start.pt")
        assert code == 0, err
        losses.append(table(tmp_path / "out")["val_loss"].item())
    assert losses[0] != losses[1]


def test_a_stopped_real_run_continues_after_its_last_finished_epoch(script, tmp_path, monkeypatch):
    save = loop._save

    def stop_after_the_first(*arguments, **options):
        save(*arguments, **options)
        raise KeyboardInterrupt

    flags = ["--sweep", "lr=0.01", "-e", "2", "--set", "normalisation=dataset"]
    with monkeypatch.context() as stopping:
        stopping.setattr(loop, "_save", stop_after_the_first)
        assert script(*flags)[0] == 130
    code, _, err = script(*flags)
    assert code == 0, err
    assert not list((tmp_path / "out").glob("*previous*"))
    history = pd.read_csv(tmp_path / "out" / "run__lr_0.01/history.csv")
    assert history["epoch"].tolist() == [1, 2]


def test_a_sweep_over_folds_holds_out_each_fold_and_joins_their_predictions(script, tmp_path, preprocessed):
    code, out, err = script("--sweep", "fold=1/2,2/2")
    assert code == 0, err
    names = ["run__fold_1_2", "run__fold_2_2"]
    assert "wrote out/run/oof.csv: out-of-fold predictions of folds 1, 2 of 2\n" in out
    assert pd.read_csv(tmp_path / "out" / "runs.csv")["fold"].tolist() == ["1/2", "2/2"]
    assert table(tmp_path / "out")["name"].tolist() == names
    text = (tmp_path / "out/run/sweep.md").read_text()
    assert "Over folds, mean ± standard deviation:" in text
    joined = pd.read_csv(tmp_path / "out/run/oof.csv")
    assert len(joined) == 30
    assert joined["path"].is_unique
    assert joined.equals(pd.read_csv(tmp_path / f"out/{names[1]}/oof.csv"))
    assert not list((tmp_path / "out").glob("*__last.pt"))
    code, out, _ = script("--sweep", "fold=1/2,2/2")
    assert out.count("already finished") == 2
    code, _, err = script("--sweep", "fold=1/2", "--fold", "1/2")
    assert (code, err) == (2, "error: --sweep fold: --fold already holds out a fold; leave out --fold\n")
