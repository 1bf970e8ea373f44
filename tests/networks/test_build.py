import pickle

import pytest
import timm
import torch
import torchvision
from made import TINY

from dr import UsageError
from dr.networks.build import IMAGENET_MEAN, IMAGENET_STD, Float32Linear, build, check
from dr.networks.weight_files import load_tensors
from dr.recipes.load import from_dict


def recipe(**options):
    return from_dict(TINY.to_dict() | {"loss": None} | options)


def test_a_torchvision_backbone_gets_one_output_in_the_published_place():
    network = build(recipe(backbone="efficientnet_v2_m"), num_outputs=1)
    assert network.backbone.state_dict()["classifier.1.weight"].shape == (1, 1280)
    assert set(network.backbone.state_dict()) == set(torchvision.models.efficientnet_v2_m().state_dict())


@pytest.mark.parametrize("backbone", ["resnet18", "test_efficientnet", "test_vit"])
def test_images_become_one_float32_output_each(backbone):
    network = build(recipe(backbone=backbone), num_outputs=3).eval()
    images = torch.zeros(2, 3, 160, 160, dtype=torch.uint8)
    assert network(images).shape == (2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(images).dtype == torch.float32


def test_the_last_layer_computes_in_float32_under_autocast():
    layer = Float32Linear(64, 1)
    inputs = torch.randn(8, 64)
    expected = torch.nn.functional.linear(inputs, layer.weight, layer.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(inputs), expected)


def test_normalisation_is_that_of_the_backbone_unless_the_recipe_has_its_own():
    torchvisions = build(recipe(backbone="resnet18"), num_outputs=1)
    assert torch.allclose(torchvisions.mean.flatten(), 255 * torch.tensor(IMAGENET_MEAN))
    assert torch.allclose(torchvisions.std.flatten(), 255 * torch.tensor(IMAGENET_STD))
    timms = build(recipe(backbone="tf_efficientnet_lite0"), num_outputs=1)
    assert timms.mean.flatten().tolist() == [127.5, 127.5, 127.5]
    own = build(recipe(mean=[0.2, 0.3, 0.4], std=[0.1, 0.1, 0.1]), num_outputs=1)
    assert torch.allclose(own.mean.flatten(), 255 * torch.tensor([0.2, 0.3, 0.4]))


def test_normalised_images_reach_the_backbone():
    network = build(recipe(mean=[0.2, 0.2, 0.2], std=[0.1, 0.1, 0.1]), num_outputs=1)
    received = []
    network.backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1))
    network.backbone.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    network(torch.full((1, 3, 2, 2), 51, dtype=torch.uint8))  # 51 / 255 = 0.2
    assert received[0].abs().max() < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backbone": "vit_b_16", "image_size": 64},
            r"vit_b_16 cannot be used with images of 64 pixels \(Wrong image",
        ),
        ({"backbone": "resnet18"}, r"resnet18 has outputs of shape \(3,\), not 1 for each image; use another"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_before_training(options, message):
    with pytest.raises(UsageError, match=message):
        check(build(recipe(**options), num_outputs=3), recipe(**options), num_outputs=1)


def test_a_backbone_with_more_than_one_head_is_refused_and_auxiliary_outputs_are_dropped():
    with pytest.raises(UsageError, match="deit_tiny_distilled_patch16_224 does not end in one linear layer"):
        build(recipe(backbone="deit_tiny_distilled_patch16_224"), num_outputs=1)
    assert build(recipe(backbone="googlenet"), num_outputs=1).train()(torch.zeros(2, 3, 64, 64)).shape == (2, 1)


def test_a_wrong_name_lists_the_nearest_once_each_and_a_tag_of_timm_is_part_of_a_name():
    with pytest.raises(UsageError, match="is in neither torchvision nor timm; nearest are ") as caught:
        build(recipe(backbone="resnet19"), num_outputs=1)
    nearest = str(caught.value).partition("nearest are ")[2].split(", ")
    assert "resnet18" in nearest
    assert len(set(nearest)) == len(nearest)
    build(recipe(backbone="resnet18.a1_in1k"), num_outputs=1)


def test_the_packaged_imagenet_weights_fill_lite0_except_for_its_new_head():
    network = build(recipe(backbone="tf_efficientnet_lite0", pretrained="imagenet"), num_outputs=1)
    fresh = build(recipe(backbone="tf_efficientnet_lite0"), num_outputs=1)
    assert network.backbone.classifier.weight.shape == (1, 1280)
    # of the trained network: a stem with strong filters, batch statistics that are not 0 and 1
    assert network.backbone.bn1.running_var.std() > 0
    assert not torch.equal(network.backbone.conv_stem.weight, fresh.backbone.conv_stem.weight)


def test_weights_from_a_path_fill_all_except_the_head(tmp_path):
    source = timm.create_model("test_efficientnet", num_classes=1000)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    network = build(recipe(pretrained=str(tmp_path / "weights.pth")), num_outputs=1)
    assert torch.equal(network.backbone.conv_stem.weight, source.conv_stem.weight)
    assert network.backbone.classifier.weight.shape[0] == 1


def test_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(
        UsageError, match=r"only \d+ of \d+ tensors fit this backbone \(not .*the weights fit resnet18: use --set"
    ):
        build(recipe(pretrained=str(tmp_path / "resnet18.pth")), num_outputs=1)


def test_a_wrong_backbone_lists_the_nearest():
    with pytest.raises(UsageError, match=r"neither torchvision nor timm; nearest are .*resnet18"):
        build(recipe(backbone="resnet_18"), num_outputs=1)


def test_a_failed_download_names_the_two_remedies(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(UsageError, match=r"no route to host\); use --pretrained PATH .* or --pretrained none"):
        build(recipe(backbone="resnet18", pretrained="imagenet"), num_outputs=1)


class Evil:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated, or not a file of weights; copy it again"),
        (b"not weights", "not a file of weights; pass a NAME__best.pt of train.py, or a state_dict"),
        (pickle.dumps(Evil(), protocol=2), "more than tensors|an object of type"),
    ],
)
def test_files_without_weights_are_refused(tmp_path, content, message):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_tensors(path)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(
        UsageError, match=r"evil\.pt: holds an object of type print; only tensors and plain values are loaded"
    ):
        load_tensors(tmp_path / "evil.pt")
    assert "code was run" not in capsys.readouterr().out


def test_a_truncated_file_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-500])
    with pytest.raises(UsageError, match=r"cut\.pt: truncated"):
        load_tensors(tmp_path / "cut.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.pt: file of weights not found; check the path"):
        load_tensors(tmp_path / "none.pt")


def test_dropout_is_set_before_the_last_layer():
    assert build(recipe(backbone="efficientnet_v2_m", dropout=0.7), num_outputs=1).backbone.classifier[0].p == 0.7
    assert build(recipe(dropout=0.7), num_outputs=1).backbone.drop_rate == 0.7
    assert build(recipe(backbone="resnet18", dropout=0.7), num_outputs=1).backbone.fc[0].p == 0.7


@pytest.mark.parametrize(
    ("backbone", "kind"), [("test_efficientnet", "DropPath"), ("efficientnet_b0", "StochasticDepth")]
)
def test_stochastic_depth_grows_with_depth_up_to_the_recipes_and_renames_no_tensor(backbone, kind):
    def built(**options):
        return build(recipe(backbone=backbone, **options), num_outputs=1, pretrained=False)

    deep = built(stochastic_depth=0.4)
    rates = [getattr(m, "drop_prob", getattr(m, "p", None)) for m in deep.modules() if type(m).__name__ == kind]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]
    assert 0.2 < rates[-1] <= 0.4
    assert deep.state_dict().keys() == built().state_dict().keys()


def test_a_backbone_without_stochastic_depth_is_named():
    for backbone in ("resnet18", "swin_t", "mobilenet_v3_small"):  # unknown to it, its own, ignored
        with pytest.raises(UsageError, match=f"stochastic_depth is not supported by backbone {backbone}; leave it"):
            build(recipe(backbone=backbone, stochastic_depth=0.1), num_outputs=1, pretrained=False)
    with pytest.raises(UsageError, match="shakedrop replaces stochastic_depth; set one of them to none"):
        recipe(stochastic_depth=0.1, shakedrop=0.5)


@pytest.mark.parametrize("options", [{"backbone": "resnet18", "shakedrop": 0.5}, {"backbone": "test_efficientnet"}])
def test_batch_statistics_of_all_processes_rename_no_tensor_and_change_no_evaluation(options):
    chosen = recipe(**options)
    one = build(chosen, num_outputs=1).eval()
    several = build(chosen, num_outputs=1, sync_batch_norm=True).eval()
    several.load_state_dict(one.state_dict())
    kinds = {type(module) for module in several.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)}
    assert all(issubclass(kind, torch.nn.SyncBatchNorm) for kind in kinds)
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.allclose(one(images), several(images), atol=1e-5)
