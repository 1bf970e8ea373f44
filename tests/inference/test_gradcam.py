import cv2
import numpy as np
import pytest
import torch
from made import TINY
from pytorch_grad_cam import GradCAM

from dr import UsageError
from dr.grading import objectives
from dr.inference import gradcam
from dr.networks.build import build
from dr.recipes.load import from_dict

SIDE, LARGE, SPOT = 64, 128, 32


def tiny_network(backbone, *, objective="regression", num_classes=5, size=SIDE, **options):
    torch.manual_seed(0)
    recipe = from_dict(
        TINY.to_dict() | {"backbone": backbone, "image_size": size, "objective": objective, "loss": None} | options
    )
    aim = objectives.build(recipe, num_classes=num_classes)
    return build(recipe, num_outputs=aim.num_outputs, pretrained=False).eval(), aim


def noise(count=2, *, size=SIDE, seed=0):
    return torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def heated(network, aim, images, grades=None):
    grades = np.zeros(len(images), int) if grades is None else grades
    return gradcam.heat(network, aim, images, grades=grades, layer=gradcam.last_map(network, images[:1]))


BACKBONES = ["resnet18", "efficientnet_b0", "test_efficientnet", "test_resnet", "test_convnext", "vit_tiny_patch16_224"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_layer_before_the_pooling_is_found_in_any_backbone(backbone):
    size = 224 if "224" in backbone else SIDE
    network, aim = tiny_network(backbone, objective="classification", size=size)
    heats = heated(network, aim, noise(5, size=size), np.arange(5))
    assert heats.shape == (5, size, size)
    assert heats.dtype == np.float32
    assert heats.min() >= 0
    assert heats.max() <= 1
    assert heats.std(axis=(1, 2)).max() > 0.01  # of a random network, some classes have nothing that speaks for them


def test_the_last_map_is_the_output_of_the_last_convolution_stage():
    network, _ = tiny_network("resnet18")
    assert gradcam.last_map(network, noise(1)) is network.backbone.layer4
    network, _ = tiny_network("efficientnet_b0")
    assert gradcam.last_map(network, noise(1)) is network.backbone.features


def test_tokens_become_a_map_row_by_row_without_prefix_tokens():
    tokens = torch.arange(10.0)[None, :, None].expand(1, 10, 4)  # a class token, then 3 x 3 places
    assert gradcam._as_map(tokens)[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    by_channel_last = torch.rand(1, 7, 7, 5)
    assert torch.equal(gradcam._as_map(by_channel_last), by_channel_last.permute(0, 3, 1, 2))


def with_lesions(count=12, *, seed=0):
    """Noise, half of it with a dark spot in one of the quarters -> images, truth, boxes (y, x) of the spot."""
    rng = np.random.default_rng(seed)
    images = rng.integers(120, 180, (count, 3, LARGE, LARGE)).astype(np.uint8)
    truth, places = np.arange(count) % 2, rng.integers(0, LARGE - SPOT, (count, 2))
    for image, (y, x), sick in zip(images, places, truth, strict=True):
        if sick:
            image[:, y : y + SPOT, x : x + SPOT] //= 6
    return torch.from_numpy(images), truth, places


@pytest.fixture(scope="module", params=["regression", "ordinal", "classification", "binary"])
def overfitted(request):
    network, aim = tiny_network("test_resnet", objective=request.param, num_classes=2, size=LARGE)
    images, truth, places = with_lesions()
    targets = torch.nn.functional.one_hot(torch.from_numpy(truth), 2).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network.train()
    for _ in range(40):
        optimizer.zero_grad()
        aim.loss(network(images), targets).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval(), aim, images, truth, places


def test_the_heat_is_on_the_lesion(overfitted):
    network, aim, images, truth, places = overfitted
    heats = heated(network, aim, images, np.ones(len(images), int))
    on, beside = [], []
    for heat, (y, x) in zip(heats[truth == 1], places[truth == 1], strict=True):
        spot = np.zeros((LARGE, LARGE), bool)
        spot[y : y + SPOT, x : x + SPOT] = True
        on.append(heat[spot].mean())
        beside.append(heat[~spot].mean())
    assert np.mean(on) > 2 * np.mean(beside)


def test_the_state_of_the_network_is_restored(overfitted):
    network, aim, images, *_ = overfitted
    network.train()
    first, second, *_ = network.parameters()
    first.requires_grad_(False)
    second.grad = torch.ones_like(second)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    heated(network, aim, images)
    assert all(module.training for module in network.modules())
    assert not first.requires_grad
    assert second.requires_grad
    assert second.grad.eq(1).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    first.requires_grad_(True)
    second.grad = None
    network.eval()


def test_layers_before_the_map_have_no_backward_pass():
    network, aim = tiny_network("resnet18")
    remembered = {}
    for name in ("layer3", "layer4", "avgpool"):
        network.backbone.get_submodule(name).register_forward_hook(
            lambda module, _, output, name=name: remembered.update({name: output.requires_grad})
        )
    gradcam.heat(network, aim, noise(), grades=np.zeros(2), layer=network.backbone.layer4)
    assert not remembered["layer3"]
    assert remembered["avgpool"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_heat_equals_that_of_the_package_grad_cam(backbone):
    size = 224 if "224" in backbone else SIDE
    network, aim = tiny_network(backbone, size=size)
    layer, images = gradcam.last_map(network, noise(1, size=size)), noise(size=size)
    with GradCAM(network, [layer], reshape_transform=gradcam._as_map) as cam:
        cam.compute_input_gradient = True
        wanted = cam(images.float(), [lambda output: output[0]] * len(images))
    wanted /= np.maximum(wanted.max(axis=(1, 2), keepdims=True), 1e-30)  # it stays below 1 where gradients are tiny
    assert np.allclose(heated(network, aim, images), wanted, atol=1e-5)


def test_the_requested_class_is_explained(overfitted):
    network, aim, images, *_ = overfitted
    none, any_ = (heated(network, aim, images, np.full(len(images), grade)) for grade in (0, 1))
    if isinstance(aim, objectives.Regression):
        assert np.array_equal(none, any_)  # it has a score and no classes
    else:
        assert not np.allclose(none, any_, atol=0.05)


def test_a_network_without_a_feature_map_is_a_usage_error():
    network, _ = tiny_network("resnet18", size=16)
    with pytest.raises(
        UsageError, match=r"ResNet: no feature map of more than one cell .* of 4 pixels.*use --explain 0"
    ):
        gradcam.last_map(network, noise(1, size=4))


def test_an_overlay_colours_hot_regions_only():
    image = np.full((40, 60, 3), 100, np.uint8)
    heat = np.zeros((40, 60), np.float32)
    heat[10:20, 10:20] = 1
    shown = gradcam.overlay(image, heat)
    assert shown.shape == image.shape
    assert shown.dtype == np.uint8
    assert (shown[30:, 40:] == 100).all()
    expected = 0.4 * 100 + 0.6 * cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_WINTER)[0, 0, ::-1]
    assert np.abs(shown[15, 15] - expected).max() <= 1
    assert gradcam.overlay(image, heat[::2, ::2]).shape == image.shape
