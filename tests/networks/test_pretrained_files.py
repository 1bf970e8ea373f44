"""Files of weights as other programs save them, of the backbone that is asked for and of others."""

import argparse
import datetime
import functools
import pathlib
import zipfile

import numpy as np
import pytest
import timm
import torch
from made import TINY, checkpoint_content
from safetensors.torch import save_file

from dr import UsageError
from dr.networks import known_backbones
from dr.networks.build import build
from dr.networks.weight_files import load_tensors
from dr.recipes.load import from_dict


def built(path, **options):
    recipe = from_dict(TINY.to_dict() | {"loss": None, "pretrained": str(path)} | options)
    return build(recipe, num_outputs=1)


@pytest.fixture(scope="module")
def model():
    return timm.create_model("test_efficientnet", num_classes=5)


def named(tensors, prefix):
    return {f"{prefix}{key}": value for key, value in tensors.items()}


def zeros(tensors):
    return {key: torch.zeros_like(value) for key, value in tensors.items()}


SAVED = {
    "plain": (lambda t: t, ""),
    "DataParallel": (lambda t: named(t, "module."), ' (names without "module.")'),
    "timm": (lambda t: {"epoch": 3, "arch": "test_efficientnet", "state_dict": t}, " (state_dict)"),
    "timm with EMA": (lambda t: {"state_dict": zeros(t), "state_dict_ema": t}, " (state_dict_ema)"),
    "EMA of DataParallel": (
        lambda t: {"model": zeros(t), "model_ema": named(t, "module.")},
        ' (model_ema, names without "module.")',
    ),
    "Lightning": (lambda t: {"state_dict": named(t, "model.") | {"loss.weight": torch.ones(5)}}, " (state_dict, names"),
    "EMA inside Lightning": (lambda t: {"state_dict": named(zeros(t), "net.") | named(t, "ema.net.")}, '"ema.net."'),
    "compiled DataParallel": (lambda t: {"net": named(t, "_orig_mod.module.backbone.")}, '"module.backbone.")'),
    "compiled part": (lambda t: named(named(t, "_orig_mod."), "encoder."), '(names without "encoder.")'),
    "a name of their own": (lambda t: {"my_network": {"weights": named(t, "0.cnn.")}}, "my_network.weights, names"),
    "model_state_dict": (lambda t: {"model_state_dict": t, "best_kappa": np.float64(0.9)}, " (model_state_dict)"),
    "MAE": (
        lambda t: {
            "model": t,
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": np.float32(1e-3)}]},
            "args": argparse.Namespace(nb_classes=5, output=pathlib.Path("out"), best=np.array([0.5, 1.0])),
        },
        " (model)",
    ),
    "torch 0.4": (lambda t: {k: v for k, v in t.items() if not k.endswith("num_batches_tracked")}, ""),
}


@pytest.mark.parametrize("kind", SAVED)
def test_weights_are_read_as_other_programs_save_them(kind, model, tmp_path):
    wrap, described = SAVED[kind]
    torch.save(wrap(model.state_dict()), tmp_path / "w.pth")
    network = built(tmp_path / "w.pth")
    for key, value in model.state_dict().items():
        if not key.startswith("classifier.") and not key.endswith("num_batches_tracked"):
            assert torch.equal(network.backbone.state_dict()[key], value), key
    assert described in network.initial_weights
    total = network.initial_weights.partition(": ")[2].split()
    assert total[0] == total[2]  # 73 of 73 tensors
    assert network.initial_weights.endswith("; the last layer is new")


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_are_known_by_their_content(name, model, tmp_path):
    save_file(named(model.state_dict(), "model."), tmp_path / name)
    assert torch.equal(built(tmp_path / name).backbone.conv_stem.weight, model.conv_stem.weight)


def test_files_of_numpy_1_are_read_and_leave_nothing_allowed(model, tmp_path):
    allowed = set(torch.serialization.get_safe_globals())  # accelerate adds some
    torch.save({"model": model.state_dict(), "best": np.float64(0.5)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name.replace("w/", "old/", 1), new.read(name).replace(b"numpy._core.", b"numpy.core."))
    assert load_tensors(tmp_path / "old.pth")["best"] == 0.5
    assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (datetime.datetime(2026, 1, 1), "datetime.datetime"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (eval, "eval"),
    ],
)
def test_any_other_type_is_named_and_refused_in_one_line(value, name, tmp_path):
    torch.save({"model": {}, "other": value}, tmp_path / "w.pth")
    message = rf"w\.pth: holds an object of type {name}; only tensors and plain .* save its state_dict alone"
    with pytest.raises(UsageError, match=message) as caught:
        load_tensors(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_is_refused(tmp_path, recwarn):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "w.pt")
    recwarn.clear()
    with pytest.raises(UsageError, match=r"w\.pt: a TorchScript program, whose code is not run; save its state_dict"):
        load_tensors(tmp_path / "w.pt")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        (
            lambda: timm.create_model("resnet18").state_dict(),
            "the weights fit resnet18: use --set backbone=resnet18",
        ),
        (
            lambda: {"state_dict": named(timm.create_model("efficientnet_b0").state_dict(), "model.")},
            r"the weights fit efficientnet_b0\.\w+ and tf_efficientnet_b0: use --set backbone=efficientnet_b0\.\w+,",
        ),
        (
            lambda: {"arch": "test_vit", "state_dict": timm.create_model("test_vit").state_dict()},
            "the weights fit test_vit: use --set backbone=test_vit",
        ),
        (lambda: checkpoint_content(from_dict(TINY.to_dict() | {"backbone": "test_byobnet"})), "backbone=test_byobnet"),
        (lambda: {"a": torch.zeros(2)}, "only 0 of 73 tensors .* pass weights of the same backbone and stem"),
    ],
)
def test_weights_of_another_backbone_name_the_one_they_fit(content, fits, tmp_path):
    torch.save(content(), tmp_path / "w.pth")
    with pytest.raises(UsageError, match=fits):
        built(tmp_path / "w.pth")


def test_a_few_missing_tensors_are_stated_and_many_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(known_backbones, "LONGEST_S", 0)
    tensors = model.state_dict()
    torch.save({key: value for key, value in tensors.items() if key != "bn2.bias"}, tmp_path / "few.pth")
    line = built(tmp_path / "few.pth").initial_weights
    assert "72 of 73 tensors of the backbone, without 1, which start random: bn2.bias; the last" in line
    torch.save({key: value for key, value in tensors.items() if "bn" not in key}, tmp_path / "many.pth")
    with pytest.raises(UsageError, match=r"only \d\d of 73 tensors fit this backbone \(not bn1\.weight\)"):
        built(tmp_path / "many.pth")
    torch.save(tensors | {"bn2.bias": torch.zeros(3)}, tmp_path / "shape.pth")
    with pytest.raises(UsageError, match=r"only 72 of 73 tensors fit this backbone \(not bn2\.bias\)"):
        built(tmp_path / "shape.pth")


def test_unused_tensors_are_stated_and_quantised_ones_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(known_backbones, "LONGEST_S", 0)
    tensors = model.state_dict()
    deeper = tensors | {f"blocks.9.{number}.weight": torch.ones(2) for number in range(known_backbones.FEW + 1)}
    torch.save(deeper, tmp_path / "deeper.pth")
    line = built(tmp_path / "deeper.pth").initial_weights
    assert "73 of 73 tensors of the backbone; 9 tensors of the file are not used: blocks.9.0.weight, ...; the" in line
    torch.save({key: value.to(torch.int8) for key, value in tensors.items()}, tmp_path / "quantised.pth")
    with pytest.raises(UsageError, match="only 0 of 73 tensors fit this backbone"):
        built(tmp_path / "quantised.pth")


@pytest.mark.slow
def test_every_known_backbone_is_found_in_its_own_weights(monkeypatch):
    monkeypatch.setattr(known_backbones, "LONGEST_S", 60)
    monkeypatch.setattr(known_backbones, "MOST", 9)
    monkeypatch.setattr(known_backbones, "_shapes", functools.cache(known_backbones._shapes))
    for _, names in known_backbones._FAMILIES:
        for name in map(known_backbones._name, names):
            tensors = {key: torch.empty(shape, device="meta") for key, shape in known_backbones._shapes(name).items()}
            assert name in known_backbones.fitting_backbones({"state_dict": tensors}), name
