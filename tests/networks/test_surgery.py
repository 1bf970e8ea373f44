import copy

import pytest
import torch
import torchvision
from made import TINY
from torch import nn

from dr import UsageError
from dr.networks import surgery
from dr.networks.build import build
from dr.networks.surgery import GeM, shake
from dr.recipes.load import from_dict


def backbone(name, *, num_outputs=2, **options):
    recipe = from_dict(TINY.to_dict() | {"loss": None, "backbone": name} | options)
    return build(recipe, num_outputs=num_outputs).backbone


def last_map(model, side_px=64):
    """Height of the feature map before the pooling."""
    sizes = []
    pool = next(m for m in model.modules() if type(m).__name__ in ("AdaptiveAvgPool2d", "SelectAdaptivePool2d"))
    pool = getattr(model, "avgpool", pool)
    pool.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    model.eval()(torch.zeros(1, 3, side_px, side_px))
    return sizes[0]


def test_silu_takes_the_place_of_every_relu():
    model = backbone("resnet18", activation="silu")
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())
    assert any(isinstance(m, nn.SiLU) for m in model.modules())
    with pytest.raises(UsageError, match="activation silu replaces ReLU, which tf_efficientnet_lite0 lacks"):
        backbone("tf_efficientnet_lite0", activation="silu")


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "test_efficientnet"])
def test_a_small_stem_leaves_out_the_first_two_halvings(name):
    assert last_map(backbone(name, stem="small"), side_px=64) == 4 * last_map(backbone(name), side_px=64)


def test_no_pool_leaves_out_a_resnets_max_pool_and_is_refused_elsewhere():
    assert last_map(backbone("resnet18", stem="no_pool")) == 2 * last_map(backbone("resnet18"))
    with pytest.raises(UsageError, match="stem no_pool is for ResNets, not for test_efficientnet"):
        backbone("test_efficientnet", stem="no_pool")


def test_the_stem_of_cifar_is_a_small_convolution_that_halves_nothing():
    model = backbone("resnet18", stem="cifar")
    assert model.conv1.weight.shape == (64, 3, 3, 3)
    assert last_map(model, side_px=28) == 4  # 28, 14, 7, 4
    with pytest.raises(UsageError, match="stem cifar is for ResNets, not for test_efficientnet"):
        backbone("test_efficientnet", stem="cifar")


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet"])
def test_gem_starts_between_mean_and_maximum_and_learns_its_power(name):
    model = backbone(name, pooling="gem")
    [gem] = [module for module in model.modules() if isinstance(module, GeM)]
    features = torch.rand(2, 3, 4, 4)
    pooled = GeM(flatten=True)(features)
    assert torch.allclose(pooled, features.pow(3).mean((2, 3)).pow(1 / 3))
    assert (features.mean((2, 3)) < pooled).all()
    assert (pooled < features.amax((2, 3))).all()
    model.train()(torch.rand(2, 3, 64, 64)).sum().backward()
    assert gem.p.grad != 0


@pytest.mark.parametrize(("kind", "layers"), [("relu_256", "ReLU"), ("leaky_relu_256", "LeakyReLU Dropout")])
def test_heads_have_a_hidden_layer_of_256(kind, layers):
    fc = backbone("resnet18", head=kind, num_outputs=1).fc
    assert [type(layer).__name__ for layer in fc] == ["Linear", *layers.split(), "Float32Linear"]
    assert fc[0].weight.shape == (256, 512)
    assert fc[-1].weight.shape == (1, 256)


def test_dropout_of_the_recipe_and_that_of_the_head_are_two_things():
    fc = backbone("resnet18", head="leaky_relu_256", dropout=0.3).fc
    assert fc[0].p == 0.3
    assert fc[1][2].p == 0.5


def test_pretrained_weights_fit_whatever_is_changed(tmp_path):
    changed = {"stem": "small", "activation": "silu", "shakedrop": 0.5, "pooling": "gem", "head": "relu_256"}
    source = backbone("resnet18")
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    model = backbone("resnet18", pretrained=str(tmp_path / "weights.pt"), **changed)
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


# --- ShakeDrop ------------------------------------------------------------------------------------


def draws(monkeypatch, *values):
    """Calls of torch.rand return these values in turn, each for all images."""
    given = iter(values)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, next(given)))


@pytest.mark.parametrize(
    ("drawn", "forward", "backward"),
    [
        ((0.1, 0.8, 0.3), 1.0, 1.0),  # b = 1: the branch as it is, whatever alpha and beta are
        ((0.9, 0.8, 0.3), 0.6, 0.3),  # b = 0: alpha = 2 * 0.8 - 1 forward, beta = 0.3 backward
        ((0.9, 0.1, 0.7), -0.8, 0.7),
    ],
)
def test_shakedrop_goes_forward_by_alpha_and_backward_by_beta_where_it_drops(monkeypatch, drawn, forward, backward):
    x = torch.tensor([[[[2.0]]], [[[-1.0]]]], requires_grad=True)
    draws(monkeypatch, *drawn)
    out = shake(x, keep=0.5, training=True)
    assert torch.allclose(out, forward * x)
    out.backward(torch.tensor([[[[1.0]]], [[[10.0]]]]))
    assert torch.allclose(x.grad.flatten(), backward * torch.tensor([1.0, 10.0]))


def test_shakedrop_evaluates_by_the_expectation_of_its_training():
    torch.manual_seed(0)
    x = torch.ones(200_000, 1, 1, 1)
    assert torch.equal(shake(x, keep=0.7, training=False), 0.7 * x)
    assert shake(x, keep=0.7, training=True).mean().item() == pytest.approx(0.7, abs=0.01)


def keeps(model):
    return [h.keywords["keep"] for m in model.modules() for h in m._forward_hooks.values() if hasattr(h, "keywords")]


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16), ("efficientnet_v2_s", 35)])
def test_shakedrop_decays_linearly_over_all_residual_blocks(name, blocks):
    probabilities = keeps(backbone(name, shakedrop=0.5))
    assert probabilities == pytest.approx([1 - 0.5 * number / blocks for number in range(1, blocks + 1)])


def test_a_residual_block_adds_its_shaken_branch():
    model = backbone("resnet18", shakedrop=0.5).eval()
    block = model.layer4[1]  # the last: keep is 0.5
    x = torch.rand(2, 512, 2, 2)
    branch = block.bn2.eval().forward(block.conv2(block.relu(block.bn1(block.conv1(x)))))
    assert torch.allclose(block(x), torch.relu(x + 0.5 * branch), atol=1e-5)


def test_a_copy_of_a_shaken_network_shakes_as_well():
    model = backbone("tf_efficientnet_lite0", shakedrop=0.5)
    copied = copy.deepcopy(model)
    assert keeps(copied) == keeps(model) != []
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(copied.eval()(x), model.eval()(x))
    assert not torch.equal(copied.train()(x), copied.train()(x))


def test_shakedrop_without_residual_blocks_is_refused():
    with pytest.raises(UsageError, match=r"shakedrop is for .* blocks with drop_path, not for vgg11"):
        surgery.operate(nn.Sequential(nn.Conv2d(3, 8, 3)), from_dict({"backbone": "vgg11", "shakedrop": 0.5}))


def test_small_images_pass_through_the_published_network():
    model = backbone("efficientnet_v2_s", stem="small", shakedrop=0.5, dropout=0.5, num_outputs=200)
    assert model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 200)
    assert model.classifier[0].p == 0.5


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet"])
def test_checkpointed_blocks_are_computed_twice_with_the_same_gradient(name):
    model, images = backbone(name), torch.randn(4, 3, 64, 64)
    plain = copy.deepcopy(model)
    surgery.checkpoint_gradients(model, name)
    calls, convolutions = [], [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        convolution.register_forward_hook(lambda *_: calls.append(1))
    for each in (plain, model):
        each(images).square().sum().backward()
    assert len(convolutions) < len(calls) <= 2 * len(convolutions)
    for (key, kept), (_, computed_again) in zip(plain.named_parameters(), model.named_parameters(), strict=True):
        assert torch.allclose(kept.grad, computed_again.grad, atol=1e-5), key
    for key, statistic in plain.named_buffers():  # moved by each batch once
        if "num_batches" not in key:
            assert torch.allclose(statistic, model.get_buffer(key)), key


def test_a_copy_of_a_checkpointed_network_computes_with_its_own_weights():
    model = backbone("resnet18").eval()
    surgery.checkpoint_gradients(model, "resnet18")
    averaged = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in averaged.layer4.parameters():
            parameter.zero_()
    assert not torch.allclose(averaged(torch.ones(1, 3, 64, 64)), model(torch.ones(1, 3, 64, 64)))


def test_gradients_of_networks_without_known_blocks_are_not_checkpointed():
    model = torchvision.models.shufflenet_v2_x0_5()
    with pytest.raises(UsageError, match="grad_checkpointing is not supported by shufflenet_v2_x0_5; leave it out, or"):
        surgery.checkpoint_gradients(model, "shufflenet_v2_x0_5")


# --- training in bfloat16 on a CPU ----------------------------------------------------------------


def in_bfloat16(layer, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return layer(x)


def test_depthwise_convolutions_slow_in_bfloat16_compute_in_float32():
    model = backbone("tf_efficientnet_lite0")
    slow = model.blocks[1][0].conv_dw  # 3 x 3, stride 2
    x = torch.randn(2, slow.in_channels, 16, 16).bfloat16()
    rounded = in_bfloat16(slow, x)
    surgery.widen_slow_convolutions(model)
    widened = in_bfloat16(slow, x)
    with torch.no_grad():
        assert torch.equal(widened, type(slow).forward(slow, x.float()).bfloat16())
    assert widened.dtype == rounded.dtype == torch.bfloat16
    assert not torch.equal(widened, rounded)


def test_all_other_convolutions_stay_as_they_are():
    model = backbone("tf_efficientnet_lite0")
    surgery.widen_slow_convolutions(model)
    widened = [m for m in model.modules() if "forward" in vars(m)]
    assert all(m.groups == m.in_channels and (m.stride != (1, 1) or m.kernel_size == (5, 5)) for m in widened)
    assert len(widened) == 11  # nine blocks of 5 x 5, two more that halve
    resnet = backbone("resnet18")
    surgery.widen_slow_convolutions(resnet)
    assert not any("forward" in vars(m) for m in resnet.modules())


def test_a_copy_of_a_widened_network_computes_with_its_own_weights():
    """The averaged network is such a copy."""
    model = backbone("tf_efficientnet_lite0")
    surgery.widen_slow_convolutions(model)
    layer, other = (m.blocks[1][0].conv_dw for m in (model, copy.deepcopy(model)))
    x = torch.randn(2, layer.in_channels, 16, 16)
    with torch.no_grad():
        before = other(x)
        layer.weight.zero_()
        assert torch.equal(other(x), before)
        assert not layer(x).any()
