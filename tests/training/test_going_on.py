"""--resume: with no flags repeated, for more epochs, and the error where it is not possible."""

import json
import shlex

import pandas as pd
import pytest
import torch
from made import TINY
from runs import run, tiny

from dr import UsageError
from dr.commands import train
from dr.inference.checkpoint import Checkpoint
from dr.training.run_files import RunFiles

FLAGS = {"backbone", "pretrained", "image_size", "augmentation", "batch_size", "lr", "precision"}
PUBLISHED = [f"--set={key}={getattr(TINY, key)}" for key in sorted(FLAGS)]


@pytest.fixture
def command(data, tmp_path, monkeypatch, capsys):
    """Runs train.py in this process on `data` -> its output."""

    def command(*flags, folder=tmp_path / "w"):
        arguments = ["train.py", "-d", data.root.parent, "-s", folder, "--workers", 0, "--device", "cpu", *flags]
        monkeypatch.setattr("sys.argv", list(map(str, arguments)))
        monkeypatch.setattr("dr.training.runs_csv.summary_lines", lambda row: [])
        train.main()
        return capsys.readouterr().out

    return command


def last(folder, name="run"):
    return torch.load(folder / f"{name}__last.pt", weights_only=True)


@pytest.mark.parametrize(
    "options",
    [
        {"scheduler": "none", "ema_decay": 0.9, "dropout": 0.2},
        {"scheduler": "multistep", "milestones": (1,), "optimizer": "sgd"},
        {"scheduler": "plateau", "plateau_epochs": 1},
    ],
)
@pytest.mark.usefixtures("epochs_only")
def test_one_epoch_and_another_are_two_epochs_bit_for_bit(data, tmp_path, options):
    options = options | {"augmentation": "rotation_colour", "keep_epochs": (1, 2)}
    run(data, tmp_path / "straight", recipe=tiny(epochs=2, **options), keep_last=True)
    run(data, tmp_path / "longer", recipe=tiny(epochs=1, **options), keep_last=True)
    run(data, tmp_path / "longer", recipe=tiny(epochs=2, **options), keep_last=True, resume=True)
    straight, longer = last(tmp_path / "straight"), last(tmp_path / "longer")
    for key, value in straight["model"].items():
        assert torch.equal(value, longer["model"][key]), key
    assert straight["recipe"] == longer["recipe"]
    first, second = (saved["training_state"]["history"] for saved in (straight, longer))
    assert [(row["val_loss"], row["lr"]) for row in first] == [(row["val_loss"], row["lr"]) for row in second]
    for epoch in (1, 2):
        assert (tmp_path / "longer" / "run" / f"epoch_{epoch}.pt").is_file()


@pytest.mark.usefixtures("no_report")
def test_a_run_that_goes_on_keeps_an_earlier_best_epoch_and_is_selected_by_all(data, tmp_path):
    lasting = {"keep_last": True, "recorded": {"recipe": "published", "overrides": "epochs=1"}}
    run(data, tmp_path, recipe=tiny(epochs=1, scheduler="none"), **lasting)
    row = run(data, tmp_path, recipe=tiny(epochs=3, scheduler="none", tta="none"), resume=True, **lasting)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    best = Checkpoint.load(tmp_path / "run__best.pt")
    assert best.epoch == row["best_epoch"] == history["epoch"][history["macro_f1_cross_fitted"].idxmax()]
    assert best.recipe.epochs == 3
    assert best.selected_by == row["selected_by"] == "macro_f1_cross_fitted"  # of one epoch none was selected
    assert RunFiles(tmp_path, "run").classes.is_file()


@pytest.mark.usefixtures("epochs_only")
def test_a_run_that_goes_on_counts_as_unfinished_until_it_ends(data, tmp_path, monkeypatch):
    run(data, tmp_path, recipe=tiny(epochs=1, scheduler="none"), keep_last=True)
    with monkeypatch.context() as stopping:
        stopping.setattr("dr.training.loop.run_epoch", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(data, tmp_path, recipe=tiny(epochs=2, scheduler="none"), keep_last=True, resume=True)
    assert RunFiles(tmp_path, "run").interrupted()


@pytest.mark.usefixtures("epochs_only")
def test_no_flag_of_a_run_is_repeated_and_none_may_contradict(command, tmp_path):
    command(*PUBLISHED, "--set", "scheduler=none", "--fold", "1/3", "-e", 1, "-n", "run", "--keep_last")
    out = command("-n", "run", "--resume", "-e", 2, "--keep_last")
    assert "18 training and 12 validation images; epochs 2 to 2, 1 batches" in out  # of the fold
    recorded = last(tmp_path / "w")["training_state"]["recorded"]
    assert recorded["recipe"] == "published"
    assert "scheduler=none" in recorded["overrides"]
    assert "epochs=2" in recorded["overrides"]
    # the flags of the run may be repeated, in any part
    command("-n", "run", "--resume", "--fold", "1/3", "--set", "lr=0.01", "-b", 10, "--keep_last")
    for flags, reason in (
        (["--set", "lr=0.5"], "trained with lr=0.01, not 0.5"),
        (["-b", 5], "trained with batch_size=10, not 5"),
        (["--fold", "2/3"], "trained with --fold 1/3, not --fold 2/3"),
        (["-r", "five_grade_resnet", "--set", "crop_size=none"], r"trained with \w+="),
        (["-e", 1], "already trained for 2 epochs; pass more than 2"),
    ):
        with pytest.raises(UsageError, match=rf"run__last\.pt: {reason}"):
            command("-n", "run", "--resume", *flags)


@pytest.mark.usefixtures("epochs_only")
def test_the_recipe_of_a_run_may_be_named_without_its_overrides(command, tmp_path):
    options = TINY.to_dict() | {"scheduler": "none", "objective": "classification", "loss": "cross_entropy"}
    lines = [f"{key} = {json.dumps(options[key])}" for key in (*FLAGS, "scheduler", "objective", "loss")]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    (tmp_path / "other.toml").write_text("\n".join([*lines, "weight_decay = 0.5"]))
    overrides = ["--set", "milestones=[3, 4]", "--set", "objective=ordinal", "--set", "lr=0.02"]
    command("-r", tmp_path / "mine.toml", *overrides, "-e", 1, "-n", "run", "--keep_last")
    with pytest.raises(UsageError, match=r"trained with weight_decay=0\.01, not 0\.5; resume with the same options"):
        command("-r", tmp_path / "other.toml", "-n", "run", "--resume", "-e", 2)
    assert "epochs 2 to 2" in command("-r", tmp_path / "mine.toml", "-n", "run", "--resume", "-e", 2)


def suggested(error):
    """The command in an error, without its interpreter."""
    return shlex.split(str(error.value).partition("to start a new run from its weights: ")[2])[2:]


@pytest.mark.usefixtures("no_report")
def test_a_run_that_cannot_be_resumed_ends_with_the_command_of_a_new_run(command, tmp_path, monkeypatch):
    flags = [*PUBLISHED, "--set", "scheduler=cosine", "--fold", "1/3", "-n", "run", "-e", 1, "--keep_last"]
    command(*flags)
    with pytest.raises(UsageError, match=r"scheduler=cosine depends on epochs=1, not 3; to start a new") as caught:
        command("-n", "run", "--resume", "-e", 3)
    (tmp_path / "w" / "run__last.pt").unlink()  # as at the end of a run without --keep_last
    with pytest.raises(
        UsageError, match=r"run__last\.pt: removed when the run finished \(--keep_last keeps"
    ) as removed:
        command("-n", "run", "--resume", "-e", 3)
    assert "\n" not in str(removed.value)
    assert suggested(caught) == suggested(removed)
    assert "--fold 1/3" in str(removed.value)  # else the new run would be validated on images of the test
    out = command(*suggested(removed))
    assert "epochs 1 to 2" in out
    assert "run__best.pt: 73 of 73 tensors of the backbone; the last layer is new" in out
    assert (tmp_path / "w" / "run_longer__best.pt").is_file()


def test_a_name_without_a_run_lists_those_that_can_be_resumed(command, tmp_path):
    (tmp_path / "w").mkdir()
    with pytest.raises(UsageError, match=r"never__last\.pt: nothing to resume; start without --resume"):
        command("-n", "never", "--resume")
    (tmp_path / "w" / "other__last.pt").touch()
    with pytest.raises(UsageError, match="nothing to resume; pass -n other, or start without --resume"):
        command("-n", "never", "--resume")


@pytest.mark.usefixtures("epochs_only")
def test_the_end_by_patience_names_the_option_that_continues(command, monkeypatch):
    monkeypatch.setattr("dr.training.loop.selection_value", lambda row, monitor: -row["epoch"])  # ever worse
    command(*PUBLISHED, "--set", "scheduler=none", "--set", "patience=1", "-n", "run", "-e", 5, "--keep_last")
    assert "patience=1 ended training after epoch 2; --set patience=none continues it" in command(
        "-n", "run", "--resume", "--keep_last"
    )
    assert "epochs 3 to 5" in command("-n", "run", "--resume", "--set", "patience=none")
