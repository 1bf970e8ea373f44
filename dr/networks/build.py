"""Networks of recipes: a backbone by name (torchvision, then timm), a new last layer, pretrained weights."""

import difflib
from collections.abc import Callable
from functools import partial

import timm
import timm.layers
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from dr import UsageError
from dr.networks import surgery
from dr.networks.architecture import Architecture, is_remote, resolve
from dr.networks.weights import load_matching, pretrained_tensors
from dr.recipes.schema import Recipe

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, RGB in 0..1

WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": False}  # of GoogLeNet and Inception: one output only
STOCHASTIC_DEPTH = ("StochasticDepth", "DropPath")  # torchvision's layer and timm's
HIDDEN = 256  # units of the hidden layer of a head that has one


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 under autocast: a score needs more than bfloat16's 8 bits."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return F.linear(inputs.float(), self.weight, self.bias)


class GradingNetwork(nn.Module):
    """(N, 3, H, W) uint8 RGB -> (N, num_outputs) float32: normalisation, then the backbone, which has all weights.

    `architecture`: that of a backbone with a remote name, None for a name of torchvision or timm. `initial_weights`: a
    line about the file of weights that it started from, None without one. A frozen backbone stays in evaluation mode
    while the network trains, so that its batch statistics do not change.
    """

    def __init__(self, backbone: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.backbone = backbone
        self.architecture: Architecture | None = None
        self.initial_weights: str | None = None
        self._trained: set[str] | None = None  # modules of the backbone that train although it is frozen
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normalised = (images.float() - self.mean) / self.std
        return self.backbone(normalised.contiguous(memory_format=torch.channels_last)).float()

    def freeze(self, *, head: str) -> None:
        """Trains only the module `head` of the backbone, and the dropout beside it, from now on."""
        parent = head.rpartition(".")[0]
        beside = {
            f"{parent}.{name}".lstrip(".")
            for name, child in self.backbone.get_submodule(parent).named_children()
            if isinstance(child, nn.Dropout)
        }
        inside = {name for name, _ in self.backbone.named_modules() if f"{name}.".startswith(f"{head}.")}
        self._trained = {"", *beside, *inside}  # "": timm applies its last dropout in the backbone's own forward
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name.startswith(f"{head}."))
        self.train(self.training)

    def train(self, mode: bool = True) -> "GradingNetwork":
        super().train(mode)
        if self._trained is not None:
            for name, module in self.backbone.named_modules():
                module.training = mode and name in self._trained
        return self


# --- the backbone ---------------------------------------------------------------------------------


def _with_stochastic_depth(create: Callable[..., nn.Module], option: str, recipe: Recipe) -> nn.Module:
    """The model of `create`, with the recipe's stochastic depth by the library's `option`. Raises UsageError for a
    backbone that has none, or a fixed one."""
    if recipe.stochastic_depth is None:
        return create()
    refused = f"recipe: stochastic_depth is not supported by backbone {recipe.backbone}; leave it out"
    try:
        model = create(**{option: recipe.stochastic_depth})
    except TypeError as exc:  # the library has no such option, or sets its own value
        raise UsageError(refused) from exc
    if recipe.stochastic_depth and not any(type(layer).__name__ in STOCHASTIC_DEPTH for layer in model.modules()):
        raise UsageError(refused)  # some accept the option and ignore it
    return model


def _create_timm(name: str, *, registered: str, side: int, **options) -> nn.Module:
    """A model of timm for images of `side` pixels: those with position embeddings are built for one size. `registered`
    is the architecture that `name` stands for."""
    settings = timm.get_pretrained_cfg(registered)
    fixed = settings is not None and settings.fixed_input_size and settings.input_size[-1] != side
    if options.get("dynamic_img_size") or not (fixed or "img_size" in options):
        return timm.create_model(name, **options)
    try:
        return timm.create_model(name, **options | {"img_size": side})
    except TypeError:  # the model has a fixed size and no option for it
        return timm.create_model(name, **options)


def _creator(recipe: Recipe, architecture: Architecture | None) -> tuple[Callable[..., nn.Module], str]:
    """-> a function that creates the backbone, and the library's option for stochastic depth. Raises UsageError."""
    if recipe.backbone in torchvision.models.list_models(torchvision.models):
        options = WITHOUT_AUXILIARY if recipe.backbone in ("googlenet", "inception_v3") else {}
        create = partial(torchvision.models.get_model, recipe.backbone, weights=None, **options)
        return create, "stochastic_depth_prob"
    side = recipe.crop_size or recipe.image_size
    if architecture is not None:
        name = architecture.name
        return partial(_create_timm, name, registered=name, side=side, **architecture.args), "drop_path_rate"
    if is_remote(recipe.backbone):
        # the reader of the checkpoint adds the remedy
        raise UsageError(f"backbone {recipe.backbone}: the checkpoint lacks its architecture")
    if not any(character in recipe.backbone for character in ":/\\") and timm.is_model(recipe.backbone):
        return partial(_create_timm, recipe.backbone, registered=recipe.backbone, side=side), "drop_path_rate"
    known = dict.fromkeys([*torchvision.models.list_models(torchvision.models), *timm.list_models()])
    close = difflib.get_close_matches(recipe.backbone, known, n=5, cutoff=0.3)
    raise UsageError(
        f"recipe: backbone {recipe.backbone!r} is in neither torchvision nor timm; nearest are {', '.join(close)}"
    )


def _create(recipe: Recipe, architecture: Architecture | None) -> nn.Module:
    create, option = _creator(recipe, architecture)
    try:
        return _with_stochastic_depth(create, option, recipe)
    except (UsageError, MemoryError):
        raise
    except Exception as exc:  # each model refuses a size or an argument in its own way
        side, reason = recipe.crop_size or recipe.image_size, (str(exc) or type(exc).__name__).splitlines()[0]
        raise UsageError(
            f"recipe: backbone {recipe.backbone} cannot be built for images of {side} pixels ({reason}); change "
            "image_size, or use another backbone"
        ) from exc


def _create_pretrained(recipe: Recipe, architecture: Architecture | None) -> nn.Module:
    """The model of timm with its default weights, downloaded unless they are cached."""
    name, args = (architecture.name, architecture.args) if architecture else (recipe.backbone, {})
    side = recipe.crop_size or recipe.image_size
    return _create_timm(recipe.backbone, registered=name, side=side, pretrained=True, **args)


# --- the head -------------------------------------------------------------------------------------


def _head(kind: str, *, num_inputs: int, num_outputs: int) -> nn.Module:
    """The layers of a recipe's `head`."""
    if kind == "linear":
        return Float32Linear(num_inputs, num_outputs)
    last = Float32Linear(HIDDEN, num_outputs)
    if kind == "relu_256":
        return nn.Sequential(nn.Linear(num_inputs, HIDDEN), nn.ReLU(), last)
    return nn.Sequential(nn.Linear(num_inputs, HIDDEN), nn.LeakyReLU(), nn.Dropout(0.5), last)


def _find_head(model: nn.Module, recipe: Recipe) -> str:
    """The name of the last layer, which becomes the head. Raises UsageError for a backbone with another ending."""
    if hasattr(model, "get_classifier") and isinstance(model.get_classifier(), nn.Identity):
        model.reset_classifier(1)  # published without a classifier, as DINOv2
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if hasattr(model, "get_classifier"):  # timm's: the last linear layer of some belongs to a block, not to the head
        linear = {name: module for name, module in linear.items() if module is model.get_classifier()}
    if not linear:
        raise UsageError(
            f"recipe: backbone {recipe.backbone} does not end in one linear layer, so its head cannot be replaced; "
            "use another backbone"
        )
    return list(linear)[-1]


def _replace_head(model: nn.Module, name: str, *, num_outputs: int, recipe: Recipe) -> None:
    parent = model.get_submodule(name.rpartition(".")[0])
    head = _head(recipe.head, num_inputs=model.get_submodule(name).in_features, num_outputs=num_outputs)
    setattr(parent, name.rpartition(".")[2], head)
    if recipe.dropout is not None:
        drops = [child for child in parent.children() if isinstance(child, nn.Dropout)]
        if drops:
            drops[-1].p = recipe.dropout
        elif hasattr(model, "drop_rate"):
            model.drop_rate = recipe.dropout  # timm's way
        else:
            setattr(parent, name.rpartition(".")[2], nn.Sequential(nn.Dropout(recipe.dropout), head))


# --- the network ----------------------------------------------------------------------------------


def _normalisation(
    backbone: nn.Module, recipe: Recipe, architecture: Architecture | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the input in 0..1, RGB: the recipe's, else the backbone's, else ImageNet's."""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if architecture is not None:
        mean, std = architecture.mean, architecture.std
    elif hasattr(backbone, "pretrained_cfg"):
        mean, std = tuple(backbone.pretrained_cfg["mean"]), tuple(backbone.pretrained_cfg["std"])
    return recipe.mean or mean, recipe.std or std


def build(
    recipe: Recipe,
    *,
    num_outputs: int,
    pretrained: bool = True,
    sync_batch_norm: bool = False,
    architecture: Architecture | None = None,
) -> GradingNetwork:
    """The network of a recipe, channels_last.

    With `pretrained` it has the weights that the recipe names. Without, its weights are random, to be replaced by those
    of a checkpoint, and no repository is read: a backbone with a remote name needs the checkpoint's `architecture`.
    With `sync_batch_norm` batch statistics are computed over all processes. Raises UsageError.
    """
    if architecture is None and pretrained:
        architecture = resolve(recipe.backbone)
    backbone = _create(recipe, architecture)
    if recipe.layer_decay is not None and not hasattr(backbone, "group_matcher"):
        raise UsageError(
            f"recipe: layer_decay is not supported by backbone {recipe.backbone} of torchvision; use a backbone of timm"
        )
    name = _find_head(backbone, recipe)
    mean, std = _normalisation(backbone, recipe, architecture)
    tensors = initial = None
    if pretrained:
        download = partial(_create_pretrained, recipe, architecture)
        tensors = pretrained_tensors(backbone, recipe, head=name, download=download)
    if sync_batch_norm:
        backbone = timm.layers.convert_sync_batchnorm(backbone)  # torch's own drops the extras of timm's layers
    surgery.operate(backbone, recipe)
    _replace_head(backbone, name, num_outputs=num_outputs, recipe=recipe)
    if tensors is not None:
        initial = load_matching(backbone, tensors, head=name, recipe=recipe)
    if recipe.pooling == "gem":
        surgery.pool_by_gem(backbone, recipe.backbone)
    network = GradingNetwork(backbone, mean=mean, std=std)
    network.architecture, network.initial_weights = architecture, initial
    if recipe.freeze == "backbone":
        network.freeze(head=name)
    return network.to(memory_format=torch.channels_last)


def check(network: GradingNetwork, recipe: Recipe, *, num_outputs: int) -> None:
    """Raises UsageError for a network that does not accept the recipe's images or does not output `num_outputs` numbers
    for each, before hours of training."""
    side = recipe.crop_size or recipe.image_size
    try:
        with torch.inference_mode():
            shape = tuple(network.eval()(torch.zeros(1, 3, side, side, dtype=torch.uint8)).shape)
    except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError) as exc:  # each network has its own
        reason = (str(exc) or type(exc).__name__).splitlines()[0]
        raise UsageError(
            f"recipe: backbone {recipe.backbone} cannot be used with images of {side} pixels ({reason}); change "
            "image_size, or use another backbone"
        ) from exc
    if shape != (1, num_outputs):
        raise UsageError(
            f"recipe: backbone {recipe.backbone} has outputs of shape {shape[1:]}, not {num_outputs} for each image; "
            "use another backbone"
        )
