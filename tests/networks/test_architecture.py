"""Backbones by a repository's name: the architecture is kept, and loading a checkpoint opens no connection."""

import json
import socket

import pytest
import timm
import torch
from made import TINY, checkpoint_content, write_preprocessed

from dr import UsageError
from dr.datasets.preprocessed import read_preprocessed
from dr.inference.checkpoint import Checkpoint
from dr.networks import architecture
from dr.networks.build import build
from dr.recipes.load import from_dict
from dr.training.loop import train
from dr.training.options import RunOptions

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A small ViT for 128 pixels, as timm exports it -> (folder, model)."""
    folder = tmp_path_factory.mktemp("export")
    model = timm.create_model("test_vit", img_size=128)
    timm.models.save_for_hf(model, folder, model_args={"img_size": 128}, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": MEAN, "std": STD}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


def recipe(backbone, **options):
    return from_dict(TINY.to_dict() | {"loss": None, "backbone": backbone, "pretrained": "imagenet"} | options)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_repository_gives_architecture_weights_and_normalisation(export):
    folder, model = export
    network = build(recipe(f"local-dir:{folder}"), num_outputs=3)
    assert network.architecture.name == "test_vit"
    assert network.mean.flatten().tolist() == pytest.approx([255 * value for value in MEAN])
    assert torch.equal(network.backbone.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    assert network.backbone.pos_embed.shape == (1, 1 + (64 // 16) ** 2, 64)  # resized from 128 pixels to TINY's 64
    assert network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 3)


def test_a_checkpoint_of_a_hub_backbone_is_trained_saved_and_loaded_without_a_connection(
    export, tmp_path, monkeypatch, request, no_report
):
    folder, _ = export
    monkeypatch.setitem(
        architecture._REMOTE, "hf-hub:", lambda _: architecture.load_model_config_from_path(folder)
    )  # of owner/name
    backbone = "hf-hub:owner/name"
    data = read_preprocessed(write_preprocessed(tmp_path / "data", train=10, val=5))
    train(
        recipe(backbone, pretrained="none", epochs=1),
        data=data,
        options=RunOptions(name="run", folder=str(tmp_path), device="cpu", workers=0),
    )
    monkeypatch.undo()
    request.getfixturevalue("no_network")
    loaded = Checkpoint.load(tmp_path / "run__best.pt")
    assert loaded.recipe.backbone == backbone
    assert loaded.network.architecture.name == "test_vit"
    assert loaded.network.mean.flatten().tolist() == pytest.approx([255 * value for value in MEAN])
    assert loaded.network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).isfinite().all()


@pytest.mark.parametrize("backbone", ["hf-hub:owner/name", "local-dir:/nowhere"])
def test_a_checkpoint_without_its_architecture_is_refused_without_a_connection(backbone, tmp_path, no_network):
    content = checkpoint_content()
    content["recipe"] = dict(content["recipe"]) | {"backbone": backbone, "pretrained": "imagenet"}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(
        UsageError, match=f"{backbone}: the checkpoint lacks its architecture; pass the checkpoint that train"
    ):
        Checkpoint.load(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["hf-hub:owner/name", "local-dir:missing", "hf-hub:", "hf-hub:\ud800"])
def test_a_repository_that_cannot_be_read_names_the_remedies(name, no_network):
    with pytest.raises(UsageError, match=r"cannot be read \(.*\); check the name and the connection, or use a name of"):
        architecture.resolve(name)


def test_names_of_torchvision_and_timm_need_no_description():
    assert architecture.resolve("resnet18") is None
    assert architecture.resolve("vit_small_patch14_dinov2.lvd142m") is None


VALID = {"name": "test_vit", "args": {"img_size": 128}, "mean": MEAN, "std": STD}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "no_such_model"}, "timm has no model 'no_such_model'"),
        ({"name": "hf-hub:owner/name"}, "timm has no model"),
        ({"args": {"pretrained": True}}, "the argument pretrained is not allowed"),
        ({"args": {"checkpoint_path": "x"}}, "the argument checkpoint_path is not allowed"),
        ({"args": {"x": object()}}, "valid JSON"),
        ({"args": None}, "valid dictionary"),
        ({"mean": [1, 2]}, "."),
        ({"std": [0.5, 0.5, 0.0]}, "std must be greater than 0"),
        ({"std": [0.5, 0.5, float("nan")]}, "finite"),
        ({"more": 1}, "Unexpected keyword"),
        ({1: 1}, "TypeError"),
    ],
)
def test_a_damaged_architecture_is_one_line(change, message):
    assert architecture.Architecture.from_dict(VALID, place="a.pt").to_dict()["name"] == "test_vit"
    with pytest.raises(UsageError, match=f"^a.pt: architecture: .*{message}.*; pass the checkpoint") as refused:
        architecture.Architecture.from_dict(VALID | change, place="a.pt")
    assert len(str(refused.value).splitlines()) == 1


def test_arguments_that_the_model_does_not_take_are_one_line():
    wrong = architecture.Architecture.from_dict(VALID | {"args": {"colour": 1}}, place="a.pt")
    with pytest.raises(UsageError, match=r"backbone hf-hub:o/n cannot be built for images of 64 pixels \(.*colour"):
        build(recipe("hf-hub:o/n"), num_outputs=1, pretrained=False, architecture=wrong)
