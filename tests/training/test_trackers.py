import sys
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from runs import run, tiny

from dr import UsageError
from dr.training import loop, trackers
from dr.training.run_files import RunFiles

pytestmark = pytest.mark.usefixtures("epochs_only")


def scalars(logs):
    """{tag: [(step, value), ...]} of all event files of TensorBoard in a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(logs))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def test_tensorboard_has_the_metrics_of_each_epoch_and_a_resumed_run_continues_them(data, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    save = loop._save

    def stop_after_the_first(*arguments, **options):
        save(*arguments, **options)
        if arguments[0].epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(loop, "_save", stop_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path, recipe=tiny(epochs=3), log="tensorboard")
    run(data, tmp_path, recipe=tiny(epochs=3), log="tensorboard", resume=True)
    paths = RunFiles(tmp_path, "run")
    history, logged = pd.read_csv(paths.history), scalars(paths.logs)
    assert set(logged) == set(history.columns) - {"epoch"}
    assert [step for step, _ in logged["val_loss"]] == [1, 3]
    assert [value for _, value in logged["val_loss"]] == pytest.approx(history["val_loss"].tolist()[::2])
    [hyperparameters] = paths.logs.rglob("hparams.yml")  # of the first start alone
    assert "backbone: test_efficientnet" in hyperparameters.read_text()
    run(data, tmp_path, recipe=tiny(epochs=1), log="tensorboard")
    assert (tmp_path / "run__previous_1" / "logs").is_dir()
    assert [step for step, _ in scalars(paths.logs)["val_loss"]] == [1]


def test_without_the_flag_nothing_is_logged(data, tmp_path):
    run(data, tmp_path, recipe=tiny(epochs=1))
    assert not RunFiles(tmp_path, "run").logs.exists()


@pytest.fixture
def wandb(monkeypatch):
    """A fake of the package -> its calls: ("init", options), ("config", values), ("log", values, step), ("finish",)."""
    calls = []
    fake = ModuleType("wandb")
    fake.__spec__ = SimpleNamespace(name="wandb")
    fake.config = SimpleNamespace(update=lambda values, **_: calls.append(("config", values)))

    def init(**options):
        calls.append(("init", options))
        return SimpleNamespace(
            id=options["id"] or "abc",
            log=lambda values, step, **_: calls.append(("log", values, step)),
            finish=lambda: calls.append(("finish",)),
        )

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return calls


def test_weights_and_biases_gets_one_run_that_a_resumed_training_continues(wandb, tmp_path):
    paths = RunFiles(tmp_path, "lite0")
    for epoch in (1, 2):
        with trackers.tracking("wandb", paths=paths, hyperparameters={"lr": 0.1, "mixup": None, "std": (1.0,)}) as log:
            log({"epoch": epoch, "val_loss": 0.5})
    (_, first), config, logged, _, (_, second), *rest = wandb
    assert config == ("config", {"lr": 0.1, "mixup": "none", "std": "(1.0,)"})
    assert logged == ("log", {"val_loss": 0.5}, 1)
    assert (first["project"], first["name"], first["dir"]) == ("retinopathy-grading", "lite0", str(paths.logs))
    assert (first["id"], second["id"]) == (None, "abc")
    assert rest == [("log", {"val_loss": 0.5}, 2), ("finish",)]


def test_a_tracker_is_closed_when_training_fails(wandb, tmp_path):
    tracking = trackers.tracking("wandb", paths=RunFiles(tmp_path, "run"), hyperparameters={})
    with pytest.raises(ZeroDivisionError), tracking:
        raise ZeroDivisionError
    assert wandb[-1] == ("finish",)


def test_a_tracker_that_is_not_installed_is_refused_with_its_remedy(data, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^--log mlflow: mlflow is not installed; pip install mlflow$"):
        run(data, tmp_path, log="mlflow")
    assert not list(tmp_path.iterdir())
