"""Published weights of others, layer-wise learning rates and frozen backbones, on a small ViT."""

import pytest
import timm
import torch
from made import TINY, write_preprocessed

from dr import UsageError
from dr.datasets.preprocessed import read_preprocessed
from dr.networks.build import build
from dr.recipes.load import from_dict
from dr.training.loop import train
from dr.training.optimizer import build_optimizer
from dr.training.options import RunOptions


def recipe(backbone="test_vit", **options):
    return from_dict(TINY.to_dict() | {"loss": None, "backbone": backbone} | options)


# --- weights of others ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit():
    return timm.create_model("test_vit")  # 160 pixels


@pytest.mark.parametrize(
    "nest",
    [
        lambda t: t,
        lambda t: {"model": t, "epoch": 3},  # RETFound
        lambda t: {"state_dict": {f"module.{key}": value for key, value in t.items()}},
        lambda t: {"teacher": {f"backbone.{key}": value for key, value in t.items()}},  # DINOv2, DINOv3
    ],
)
def test_exports_of_others_are_read_and_their_positions_resized(vit, nest, tmp_path):
    decoder = {"mask_token": torch.zeros(1, 1, 64), "decoder_blocks.0.norm1.weight": torch.zeros(8)}  # of pretraining
    tensors = {key: value for key, value in vit.state_dict().items() if not key.startswith("head.")} | decoder
    torch.save(nest(tensors), tmp_path / "vit.pth")
    network = build(recipe(image_size=96, pretrained=str(tmp_path / "vit.pth")), num_outputs=2)
    assert torch.equal(network.backbone.blocks[1].mlp.fc1.weight, vit.blocks[1].mlp.fc1.weight)
    assert network.backbone.pos_embed.shape == (1, 1 + (96 // 16) ** 2, 64)
    assert torch.equal(network.backbone.pos_embed[:, 0], vit.pos_embed[:, 0])  # the class token has no place
    expected = timm.layers.resample_abs_pos_embed(vit.pos_embed, [6, 6], num_prefix_tokens=1)
    assert torch.allclose(network.backbone.pos_embed, expected, atol=1e-6)
    assert network(torch.zeros(1, 3, 96, 96, dtype=torch.uint8)).shape == (1, 2)


def test_a_backbone_that_is_published_without_a_classifier_gets_a_head():
    network = build(recipe("vit_tiny_patch16_dinov3" if timm.is_model("vit_tiny_patch16_dinov3") else
                           "vit_small_patch14_dinov2", image_size=56), num_outputs=2)  # fmt: skip
    assert network(torch.zeros(1, 3, 56, 56, dtype=torch.uint8)).shape == (1, 2)


@pytest.mark.parametrize("tensors", [{"a": torch.zeros(2)}, {"pos_embed": torch.zeros(3)}, {}])
def test_weights_of_another_architecture_are_refused_in_one_line(tensors, tmp_path):
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"--pretrained .*other\.pth: .*; pass weights of the"):
        build(recipe(pretrained=str(tmp_path / "other.pth")), num_outputs=2)


# --- layer-wise learning rates ------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["none", "cosine"])
def test_each_layer_has_the_learning_rate_of_the_next_times_the_decay(scheduler):
    options = recipe(layer_decay=0.5, lr=0.1, scheduler=scheduler)
    network = build(options, num_outputs=2)
    names = {parameter: name for name, parameter in network.backbone.named_parameters()}
    rates = {
        names[parameter]: group["lr"] if scheduler == "none" else 0.1 * group["lr_scale"]
        for group in build_optimizer(options, network).param_groups
        for parameter in group["params"]
    }
    depth = len(network.backbone.blocks)
    assert set(rates) == set(names.values())
    assert rates["head.weight"] == 0.1
    for block in range(depth):
        assert rates[f"blocks.{block}.attn.qkv.weight"] == pytest.approx(0.1 * 0.5 ** (depth - block))
    assert rates["patch_embed.proj.weight"] == pytest.approx(0.1 * 0.5 ** (depth + 1))


def test_without_layer_decay_all_parameters_have_one_learning_rate():
    network = build(recipe(), num_outputs=2)
    [group] = build_optimizer(recipe(), network).param_groups
    assert group["lr"] == recipe().lr
    assert len(group["params"]) == len(list(network.parameters()))


def test_layer_decay_of_a_backbone_without_layers_is_refused():
    with pytest.raises(UsageError, match="layer_decay is not supported by backbone resnet18 of torchvision; use a"):
        build(recipe("resnet18", layer_decay=0.5), num_outputs=2)


# --- frozen backbones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet"])
def test_a_linear_probe_trains_the_head_alone(backbone, tmp_path, no_report):
    data = read_preprocessed(write_preprocessed(tmp_path / "data", train=10, val=5))
    probe = recipe(backbone, freeze="backbone", epochs=2, dropout=0.2, seed=3, image_size=64)
    torch.manual_seed(0)
    start = build(probe, num_outputs=1).backbone.state_dict()
    torch.save(start, tmp_path / "start.pt")
    probe = from_dict(probe.to_dict() | {"pretrained": str(tmp_path / "start.pt")})
    train(
        probe,
        data=data,
        options=RunOptions(name="run", folder=str(tmp_path / "w"), device="cpu", workers=0, keep_last=True),
    )
    end = torch.load(tmp_path / "w" / "run__last.pt", weights_only=True)
    network = build(probe, num_outputs=1)
    trained = {name.removeprefix("backbone.") for name, p in network.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == {"weight", "bias"}
    assert len(trained) == 2
    for name, tensor in end["model"].items():  # batch statistics included
        if name not in trained and not name.startswith(next(iter(trained)).rpartition(".")[0]):
            assert torch.equal(tensor, start[name]), name
    assert len(end["training_state"]["optimizer"]["param_groups"][0]["params"]) == 2


def test_a_frozen_backbone_stays_in_evaluation_mode_except_for_the_dropout_before_the_head():
    network = build(recipe("efficientnet_b0", freeze="backbone"), num_outputs=1).train()
    training = {name for name, module in network.backbone.named_modules() if module.training}
    assert training == {"", "classifier.0", "classifier.1"}
    assert not any(module.training for module in network.eval().modules())
