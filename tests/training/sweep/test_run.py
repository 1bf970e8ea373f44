"""Sweeps with a training that takes no time; the last test trains two networks."""

import statistics
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from made import TINY, planned, write_preprocessed

from dr import UsageError
from dr.cli import run as cli
from dr.commands import train
from dr.core import device
from dr.networks.build import build
from dr.recipes.load import from_dict
from dr.training import loop as training
from dr.training.sweep import run as sweep
from dr.training.sweep import table as sweep_table

FIGURES = {"selected_by": "auc", "best_epoch": 3, "views": 1,
           "macro_f1_cross_fitted_low": 0.4, "macro_f1_cross_fitted_high": 0.6,
           "kappa_cross_fitted": 0.5, "kappa_cross_fitted_low": 0.45, "kappa_cross_fitted_high": 0.55,
           "accuracy": 0.8, "auc": 0.9, "val_loss": 0.2, "minutes": 1.25,
           "majority": 0.5}  # fmt: skip


@pytest.fixture
def fake(monkeypatch):
    """Takes the place of training: a run's macro-F1 is 0.5 + lr -> the runs trained, and what fails by name."""
    calls, fails = [], {}

    def trained(recipe, *, name, **options):
        calls.append(SimpleNamespace(recipe=recipe, name=name, **options))
        if name in fails:
            raise fails[name]
        return {"name": name, "macro_f1_cross_fitted": 0.5 + recipe.lr, **FIGURES, "lr": 0.0, "seconds": 9.0}

    monkeypatch.setattr(training, "train", trained)
    return SimpleNamespace(calls=calls, fails=fails)


def run(folder, trials, *, name="run", fingerprint="of the data"):
    data = SimpleNamespace(fingerprint=fingerprint)
    return sweep.train_all(
        trials, data=data, folder=str(folder), name=name, command="python train.py", device_name="cpu", workers=0
    )


def table(folder, name="run"):
    return pd.read_csv(folder / f"{name}__sweep.csv", keep_default_na=False)


def cells(folder, *, section=0):
    """The lines of a table in the Markdown, each as a list."""
    text = (folder / "run__sweep.md").read_text().split("Over seeds")[section]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]


def test_the_table_has_a_row_for_each_run_with_its_choices_and_figures(fake, tmp_path):
    rows = run(tmp_path, planned("lr=0.1,0.2"))
    written = table(tmp_path)
    assert list(written.columns[:4]) == ["lr", "best_epoch", "macro_f1_cross_fitted", "macro_f1_cross_fitted_low"]
    assert list(written.columns[-4:]) == ["minutes", "error", "name", "recipe_and_data"]
    assert written["lr"].tolist() == [0.1, 0.2]
    assert written["macro_f1_cross_fitted"].tolist() == [0.6, 0.7]
    assert [row["name"] for row in rows] == written["name"].tolist() == ["run__lr_0.1", "run__lr_0.2"]
    assert [call.recipe.lr for call in fake.calls] == [0.1, 0.2]
    assert fake.calls[0].recorded == {"recipe": "published", "overrides": planned("lr=0.1")[0].recorded["overrides"]}


def test_the_markdown_says_the_command_and_has_the_best_run_in_bold_with_intervals(fake, tmp_path):
    run(tmp_path, planned("lr=0.1,0.2"))
    assert (tmp_path / "run__sweep.md").read_text().startswith("# Sweep run\n\n`python train.py`\n\n2 of 2 runs; ")
    assert cells(tmp_path) == [
        ["lr", "best_epoch", "macro_f1_cross_fitted", "kappa_cross_fitted", "accuracy", "auc", "val_loss", "minutes"],
        ["---"] * 8,
        ["0.1", "3", "0.600 (0.400 to 0.600)", "0.500 (0.450 to 0.550)", "0.800", "0.900", "0.200", "1.25"],
        [f"**{cell}**" for cell in
         ("0.2", "3", "0.700 (0.400 to 0.600)", "0.500 (0.450 to 0.550)", "0.800", "0.900", "0.200", "1.25")],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("best_by", "best"),
    [("val_loss", "run__lr_0.1: val_loss 0.200"), ("auc", "run__lr_0.2: auc 0.900"),
     ("last", "run__lr_0.1: macro_f1_cross_fitted 0.700")],
)  # fmt: skip
def test_the_best_run_is_the_best_by_the_figure_that_its_epochs_are_chosen_by(best_by, best):
    trials = planned("lr=0.1,0.2", best_by=best_by)
    rows = [
        {"name": "run__lr_0.1", "macro_f1_cross_fitted": "0.7", "auc": "nan", "val_loss": "0.2"},
        {"name": "run__lr_0.2", "macro_f1_cross_fitted": "0.6", "auc": "0.9", "val_loss": "0.3"},
    ]
    assert sweep_table.best_summary(trials, rows) == f"best run {best}"


def test_where_best_by_is_swept_runs_are_compared_by_macro_f1():
    rows = [{"name": "one", "macro_f1_cross_fitted": "0.7"}, {"name": "other", "val_loss": "0.1"}]
    trials = planned("best_by=val_loss,auc", best_by=None)
    assert sweep_table.best_summary(trials, rows) == "best run one: macro_f1_cross_fitted 0.700"


def test_test_figures_are_columns_where_the_data_has_a_test(fake, tmp_path, monkeypatch):
    without = training.train
    tested = {
        "test_accuracy": 0.71,
        "test_accuracy_low": 0.6,
        "test_accuracy_high": 0.8,
        "test_loss": 0.4,
        "test_majority": 0.5,
    }
    for name in ("test_macro_f1", "test_kappa", "test_auc"):
        tested |= {name: 0.55, f"{name}_low": 0.5, f"{name}_high": 0.6}
    monkeypatch.setattr(training, "train", lambda *args, **options: without(*args, **options) | tested)
    run(tmp_path, planned("lr=0.1"))
    header, _, row = cells(tmp_path)
    shown = dict(zip(header, row, strict=True))
    assert shown["test_loss"] == "**0.400**"
    assert shown["test_accuracy"] == "**0.710 (0.600 to 0.800)**"
    assert header.index("val_loss") < header.index("test_accuracy") < header.index("test_macro_f1")
    assert table(tmp_path)["test_accuracy_high"].tolist() == [0.8]


def test_a_run_from_other_weights_under_the_old_path_is_trained_again(fake, tmp_path):
    start = tmp_path / "start.pt"
    trials = planned("lr=0.1", pretrained=str(start))
    for seed, trained in ((1, 1), (1, 1), (2, 2)):
        torch.manual_seed(seed)
        torch.save(build(TINY, num_outputs=1).backbone.state_dict(), start)
        run(tmp_path, trials)
        assert len(fake.calls) == trained


def test_an_accuracy_no_better_than_the_most_frequent_class_is_marked_and_told(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(FIGURES, "majority", 0.8)
    run(tmp_path, planned("lr=0.1,0.2"))
    text = (tmp_path / "run__sweep.md").read_text()
    assert text.count("0.800†") == 2
    assert "† accuracy no better than that of always answering with the most frequent class." in text
    assert capsys.readouterr().out.count("note: its validation accuracy of 0.800 is no better than") == 2
    monkeypatch.setitem(FIGURES, "majority", 0.5)
    run(tmp_path, planned("lr=0.3"))
    assert "†" not in (tmp_path / "run__sweep.md").read_text()


def test_seeds_become_mean_and_sample_standard_deviation(fake, tmp_path, monkeypatch):
    values = {(0.1, 1): 0.5, (0.1, 2): 0.6, (0.1, 3): 0.8, (0.2, 1): 0.7}
    figures = training.train
    monkeypatch.setattr(
        training, "train",
        lambda recipe, **options: figures(recipe, **options)
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


def test_without_seeds_swept_there_is_no_second_table(fake, tmp_path):
    run(tmp_path, planned("lr=0.1,0.2"))
    assert "Over seeds" not in (tmp_path / "run__sweep.md").read_text()
    run(tmp_path, planned("seed=1,2", lr=0.1))
    assert cells(tmp_path, section=1)[2][:2] == ["2", "0.600 ± 0.000"]


def test_finished_runs_are_not_trained_again(fake, tmp_path):
    trials = planned("lr=0.1,0.2")
    first = run(tmp_path, trials)
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert run(tmp_path, trials) == first
    assert len(fake.calls) == 2
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before


def test_a_longer_sweep_trains_what_is_missing_and_a_shorter_one_loses_nothing(fake, tmp_path):
    run(tmp_path, planned("lr=0.1,0.2"))
    run(tmp_path, planned("lr=0.3,0.2"))
    assert [call.recipe.lr for call in fake.calls] == [0.1, 0.2, 0.3]
    assert [line[0] for line in cells(tmp_path)[2:]] == ["**0.3**", "0.2"]
    assert table(tmp_path)["lr"].tolist() == [0.3, 0.2, 0.1]
    run(tmp_path, planned("lr=0.1,0.3", "seed=10"))
    assert len(fake.calls) == 3
    assert table(tmp_path)["name"].tolist() == ["run__lr_0.1", "run__lr_0.3", "run__lr_0.2"]


def test_other_choices_or_data_under_the_same_name_are_trained_and_take_the_rows_place(fake, tmp_path):
    run(tmp_path, planned("lr=0.1"))
    run(tmp_path, planned("lr=0.1", epochs=5))
    run(tmp_path, planned("lr=0.1", epochs=5), fingerprint="of other data")
    assert [call.recipe.epochs for call in fake.calls] == [2, 5, 5]
    assert len(table(tmp_path)) == 1


def test_a_stopped_sweep_has_written_the_runs_before_and_goes_on_with_the_next(fake, tmp_path):
    fake.fails["run__lr_0.2"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, planned("lr=0.1,0.2,0.3"))
    assert table(tmp_path)["name"].tolist() == ["run__lr_0.1"]
    assert "1 of 3 runs" in (tmp_path / "run__sweep.md").read_text()
    fake.fails.clear()
    run(tmp_path, planned("lr=0.1,0.2,0.3"))
    assert [call.recipe.lr for call in fake.calls] == [0.1, 0.2, 0.2, 0.3]


def test_a_stopped_run_goes_on_only_with_the_same_recipe_and_data(fake, tmp_path):
    [trial] = planned("lr=0.1")
    last = tmp_path / "run__lr_0.1__last.pt"
    saved = {"recipe": trial.recipe.to_dict(), "data": {"fingerprint": "of the data"}, "optimizer": {}, "random": [{}]}
    other_recipe = saved | {"recipe": saved["recipe"] | {"epochs": 9}}
    other_data = saved | {"data": {"fingerprint": "of other data"}}
    best = tmp_path / "run__lr_0.1__best.pt"
    of_two_processes = saved | {"random": [{}, {}]}
    for content in (saved, other_recipe, other_data, of_two_processes, {}):
        torch.save(content, last)
        best.touch()
        run(tmp_path, [trial])
        (tmp_path / "run__sweep.csv").unlink()
    last.write_bytes(b"damaged")
    run(tmp_path, [trial])
    (tmp_path / "run__sweep.csv").unlink()
    torch.save(saved, last)
    best.unlink()
    run(tmp_path, [trial])
    assert [call.go_on for call in fake.calls] == [True] + 6 * [False]


def test_mean_and_deviation_measured_by_a_run_do_not_make_it_another_recipe(fake, tmp_path):
    [trial] = planned("lr=0.1", normalisation="measured")
    fitted = trial.recipe.to_dict() | {"mean": (0.1, 0.2, 0.3), "std": (0.1, 0.1, 0.1)}
    torch.save(
        {"recipe": fitted, "data": {"fingerprint": "of the data"}, "optimizer": {}, "random": [{}]},
        tmp_path / f"{trial.name}__last.pt",
    )
    (tmp_path / f"{trial.name}__best.pt").touch()
    run(tmp_path, [trial])
    assert fake.calls[0].go_on


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UsageError("the loss is not finite"), "the loss is not finite"),
        (torch.OutOfMemoryError("out of memory"), "out of memory"),
        (ValueError("Expected more than 1 value"), "ValueError: Expected more than 1 value"),
    ],
)
def test_a_run_that_fails_is_a_row_with_its_error_and_is_tried_again(fake, tmp_path, error, told):
    fake.fails["run__lr_0.1"] = error
    rows = run(tmp_path, planned("lr=0.1,0.2"))
    assert [row["error"] for row in rows] == table(tmp_path)["error"].tolist() == [told, ""]
    assert cells(tmp_path)[2] == ["0.1", "", "", "", "", "", "", "", told]
    fake.fails.clear()
    run(tmp_path, planned("lr=0.1,0.2"))
    assert [call.recipe.lr for call in fake.calls] == [0.1, 0.2, 0.1]
    assert table(tmp_path)["error"].tolist() == ["", ""]


def test_where_every_run_fails_there_is_no_best(fake, tmp_path):
    fake.fails["run__lr_0.1"] = UsageError("a | b")
    trials = planned("lr=0.1")
    assert sweep_table.best_summary(trials, run(tmp_path, trials)) == "no run was finished"
    assert r"a \| b" in (tmp_path / "run__sweep.md").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone=test_efficientnet,test_eficientnet", "backbone 'test_eficientnet' is in neither torchvision nor"),
        ("pretrained=none,lost.pt", r"lost\.pt: there is no such file of weights"),
        ("precision=fp32,fp16", "precision fp16 needs a GPU"),
    ],
)
def test_what_only_a_later_run_lacks_is_told_before_the_first(fake, tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "weights", planned(text, **{text.partition("=")[0]: None}))
    assert fake.calls == []
    assert not (tmp_path / "weights").exists()


def test_a_file_that_is_not_the_table_of_a_sweep_is_left_alone(fake, tmp_path):
    (tmp_path / "run__sweep.csv").write_text("my,own\n1,2\n")
    with pytest.raises(UsageError, match=r"run__sweep\.csv: it is not the table of a sweep; move it, or give another"):
        run(tmp_path, planned("lr=0.1"))
    assert (tmp_path / "run__sweep.csv").read_text() == "my,own\n1,2\n"


# --- the script ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_preprocessed(tmp_path_factory.mktemp("prepared"), train=20, val=10)


@pytest.fixture
def script(prepared, tmp_path, monkeypatch, capsys):
    """train.py in an empty folder with the prepared photographs of `prepared` -> (exit code, out, err)."""
    monkeypatch.setattr(device, "best_precision", lambda _: "fp32")  # whatever this machine does well
    monkeypatch.chdir(tmp_path)

    def call(*flags):
        tiny = ["--set", "backbone=test_efficientnet", "--set", "image_size=64", "--set", "augmentation=none",
                "--pretrained", "none", "-b", "10", "-e", "1", "--workers", "0", "--device", "cpu"]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["train.py", "-d", str(prepared), "-s", "out", "-n", "run", *tiny, *flags])
        with pytest.raises(SystemExit) as exit_info:
            cli.run(train.main, go_on="start again")
        return exit_info.value.code, *capsys.readouterr()

    return call


def test_the_script_ends_with_the_best_run_and_where_the_table_is(fake, script, tmp_path):
    code, out, err = script("--sweep", "lr=0.1,0.2", "--sweep", "milestones=[30,45],[10]")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "run 1 of 4: run__lr_0.1__milestones_30_45"
    assert out.splitlines()[-2:] == [
        "best run run__lr_0.2__milestones_30_45: macro_f1_cross_fitted 0.700 (0.400 to 0.600)",
        "wrote out/run__sweep.md",
    ]
    assert "--sweep lr=0.1,0.2 --sweep 'milestones=[30,45],[10]'`" in (tmp_path / "out" / "run__sweep.md").read_text()
    assert fake.calls[0].workers == 0
    code, out, _ = script("--sweep", "lr=0.1,0.2", "--sweep", "milestones=[30,45],[10]", "--resume")
    assert out.splitlines()[3] == "run 4 of 4: run__lr_0.2__milestones_10, finished before"
    assert (code, len(fake.calls)) == (0, 4)


def test_failed_runs_are_named_on_stderr_and_the_exit_code_is_1(fake, script):
    fake.fails["run__lr_0.1"] = UsageError("the loss is not finite")
    code, out, err = script("--sweep", "lr=0.1,0.2")
    assert code == 1
    assert err == "not trained: run__lr_0.1: the loss is not finite\n"
    assert out.splitlines()[-1] == "wrote out/run__sweep.md"
    assert len(fake.calls) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sweep", "epochs=1,2"], "error: --sweep epochs=1,2: epochs is also given by --set or a flag of its own"),
        (["--sweep", "lr=0.1", "-d", "nowhere"], "nowhere: there is no such folder; run data.py first"),
        (["--sweep", "lr=0.1", "--device", "cuda:9"], "--device cuda:9: this machine has no such device"),
    ],
)
def test_what_no_run_could_do_without_is_told_at_once(fake, script, tmp_path, flags, message):
    code, out, err = script(*flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert fake.calls == []
    assert not list(tmp_path.iterdir())


def test_two_real_runs_end_in_a_table_whose_figures_are_those_of_runs_csv(script, tmp_path):
    code, _, err = script("--sweep", "seed=1,2")
    assert code == 0, err
    written, recorded = table(tmp_path / "out"), pd.read_csv(tmp_path / "out" / "runs.csv")
    assert written["name"].tolist() == recorded["name"].tolist() == ["run__seed_1", "run__seed_2"]
    for figure in ("macro_f1_cross_fitted", "macro_f1_cross_fitted_low", "kappa_cross_fitted", "accuracy", "val_loss"):
        assert written[figure].tolist() == recorded[figure].tolist(), figure
    assert from_dict(torch.load(tmp_path / "out" / "run__seed_2__best.pt", weights_only=True)["recipe"]).seed == 2
    assert cells(tmp_path / "out", section=1)[2][0] == "2"


def test_a_real_run_from_other_weights_under_the_old_path_starts_anew(script, tmp_path):
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.save(build(TINY, num_outputs=1).backbone.state_dict(), tmp_path / "start.pt")
        code, _, err = script("--sweep", "seed=1", "--pretrained", "start.pt")
        assert code == 0, err
        losses.append(table(tmp_path / "out")["val_loss"].item())
    assert losses[0] != losses[1]


def test_a_real_run_that_was_stopped_goes_on_after_its_last_whole_epoch(script, tmp_path, monkeypatch):
    save = training.save_last

    def stop_after_the_first(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    flags = ["--sweep", "lr=0.01", "-e", "2", "--set", "normalisation=measured"]
    with monkeypatch.context() as stopping:
        stopping.setattr(training, "save_last", stop_after_the_first)
        assert script(*flags)[0] == 130
    code, _, err = script(*flags)
    assert code == 0, err
    assert not list((tmp_path / "out").glob("*previous*"))
    history = pd.read_csv(tmp_path / "out" / "run__lr_0.01__history.csv")
    assert history["epoch"].tolist() == [1, 2]
