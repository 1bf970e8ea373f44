import numpy as np
import pandas as pd
import pytest
import torch
from made import TINY, write_preprocessed
from runs import run, tiny

from dr.datasets.preprocessed import read_preprocessed
from dr.networks import surgery
from dr.networks.build import build
from dr.training import epoch
from dr.training.optimizer import build_optimizer, build_scheduler

pytestmark = pytest.mark.usefixtures("epochs_only")


def weights_after(data, folder, **options):
    """The weights of the first convolution after one epoch with these options."""
    run(data, folder, recipe=tiny(epochs=1, seed=3, objective="classification", batch_size=11, **options))
    return torch.load(folder / "run__last.pt", weights_only=True)["model"]["conv_stem.weight"]


@pytest.fixture(scope="module")
def eleven(tmp_path_factory):
    """Eleven training images, one class with one more than the others."""
    return read_preprocessed(write_preprocessed(tmp_path_factory.mktemp("eleven"), train=11))


@pytest.fixture(scope="module")
def plain(eleven, tmp_path_factory):
    """The weights of a run without any of the options below."""
    return weights_after(eleven, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "options",
    [
        *({"clip_norm": 0.001}, {"sampling": "balanced"}, {"label_smoothing": 0.3}, {"neighbour_smoothing": 0.2}),
        *({"mixup": 0.4}, {"cutmix": 1.0}, {"dropout": 0.5}, {"augmentation": "flips"}, {"weight_decay": 0.5}),
        *({"class_weights": "inverse"}, {"scheduler": "exponential", "gamma": 0.5, "warmup_fraction": 0.5}),
        *({"optimizer": "adam"}, {"optimizer": "rmsprop"}, {"optimizer": "sgd"}),
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_training_option_changes_the_weights(eleven, plain, tmp_path, options):
    assert not torch.equal(plain, weights_after(eleven, tmp_path, **options))


@pytest.mark.parametrize(
    ("options", "kind", "settings"),
    [
        ({"optimizer": "sgd"}, torch.optim.SGD, {"momentum": 0.9, "nesterov": False}),
        ({"optimizer": "sgd", "nesterov": True}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ({"optimizer": "rmsprop", "momentum": 0.0}, torch.optim.RMSprop, {"momentum": 0.0, "alpha": 0.99}),
        ({"optimizer": "adam", "amsgrad": False}, torch.optim.Adam, {"amsgrad": False}),
        ({"optimizer": "adamw", "weight_decay": 0.05}, torch.optim.AdamW, {"amsgrad": True, "weight_decay": 0.05}),
    ],
)
def test_the_optimizer_has_the_kind_and_settings_of_the_recipe(options, kind, settings):
    made = build_optimizer(tiny(**options), build(TINY, num_outputs=1))
    assert type(made) is kind
    assert {key: made.param_groups[0][key] for key in settings} == settings
    assert all(group["weight_decay"] == made.param_groups[0]["weight_decay"] for group in made.param_groups)


def test_a_cosine_schedule_rises_during_warm_up_and_falls_to_zero():
    chosen = tiny(scheduler="cosine", warmup_fraction=0.2, epochs=10, lr=0.01)
    optimizer = build_optimizer(chosen, build(TINY, num_outputs=1))
    scheduler = build_scheduler(chosen, optimizer, updates_per_epoch=5)
    rates = []
    for update in range(50):
        scheduler.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.01 / 100)
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)  # two of ten epochs rise
    assert rates[30] == pytest.approx(0.01 * (1 + np.cos(np.pi * 30 / 50)) / 2, rel=1e-3)  # Loshchilov and Hutter 2017
    assert rates[-1] < 0.0001


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scheduler": "exponential", "gamma": 0.5}, [0.01, 0.005, 0.0025, 0.00125]),
        ({"scheduler": "multistep", "milestones": [1, 3], "gamma": 0.1}, [0.01, 0.001, 0.001, 0.0001]),
        ({"scheduler": "step", "step_epochs": 2, "gamma": 0.1}, [0.01, 0.01, 0.001, 0.001]),
    ],
)
def test_schedulers_lower_the_learning_rate_after_the_right_epochs(data, tmp_path, options, expected):
    run(data, tmp_path, recipe=tiny(epochs=4, **options))
    assert pd.read_csv(tmp_path / "run/history.csv")["lr"].tolist() == pytest.approx(expected)


def test_a_plateau_of_the_validation_loss_lowers_the_learning_rate(data, tmp_path, monkeypatch):
    validate, losses = epoch.validate, iter([0.9, 0.8, 0.8, 0.8, 0.8])
    monkeypatch.setattr(epoch, "validate", lambda *given: (validate(*given)[0], next(losses)))
    run(data, tmp_path, recipe=tiny(epochs=5, scheduler="plateau", plateau_epochs=1, gamma=0.1))
    rates = pd.read_csv(tmp_path / "run/history.csv")["lr"].tolist()
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.001])


@pytest.mark.parametrize(
    ("parts", "whole"),
    [({"batch_size": 5, "accumulate": 2}, {"batch_size": 10}),
     # six batches are an update of four and one of two, as three are one of two and one of one
     ({"batch_size": 5, "accumulate": 4}, {"batch_size": 10, "accumulate": 2})],
)  # fmt: skip
def test_accumulated_batches_update_the_weights_like_one_large_batch(data, tmp_path, parts, whole):
    stateless = {"backbone": "test_convnext", "image_size": 32, "optimizer": "sgd", "epochs": 1, "ema_decay": 0.5}
    for name, options in (("parts", parts), ("whole", whole)):
        run(data, tmp_path, name=name, recipe=tiny(**stateless, **options))
    saved = [torch.load(tmp_path / f"{name}__last.pt", weights_only=True) for name in ("parts", "whole")]
    states = [each["training_state"] for each in saved]
    assert states[0]["updates"] == states[1]["updates"] == -(-3 // whole.get("accumulate", 1))
    for first, second in (saved, states):
        for name in ("model", "raw_model"):
            for key, value in first.get(name, {}).items():
                assert torch.allclose(value, second[name][key], atol=1e-5), key
    losses = [state["history"][0]["train_loss"] for state in states]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_gradient_checkpointing_changes_no_result(data, tmp_path, monkeypatch):
    checkpointed, apply = [], surgery.checkpoint_gradients
    monkeypatch.setattr(surgery, "checkpoint_gradients", lambda *given: (checkpointed.append(given[1]), apply(*given)))
    options = {"optimizer": "sgd", "epochs": 1, "ema_decay": 0.5, "backbone": "resnet18", "image_size": 32}
    for name, twice in (("kept", False), ("twice", True)):
        run(data, tmp_path, name=name, recipe=tiny(**options, grad_checkpointing=twice))
    assert checkpointed == ["resnet18"]
    kept, twice = (pd.read_csv(tmp_path / f"{name}/history.csv") for name in ("kept", "twice"))
    assert twice["val_loss"].tolist() == pytest.approx(kept["val_loss"].tolist(), rel=1e-3)
