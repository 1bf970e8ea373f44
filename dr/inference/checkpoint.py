"""Checkpoints: saved whole, loaded as tensors and primitives only."""

import io
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
import torchvision
from accelerate import init_empty_weights

from dr import GRADES, UsageError, __version__
from dr.core import files
from dr.datasets.preprocessed import Fold
from dr.grading import calibration, metrics, objectives
from dr.grading.calibration import Calibration
from dr.imaging import novelty
from dr.networks.build import GradingNetwork, build, load_tensors, same_shape
from dr.recipes.load import from_dict
from dr.recipes.load import load as load_recipe
from dr.recipes.schema import Recipe

PUBLISHED_THRESHOLDS = [0.5, 1.5, 2.5, 3.5]
PUBLISHED_PREPARED_PX = 512


@dataclass(frozen=True)
class HeldOut:
    """Predictions (N, P) and truth (N,) of the photographs of a fold, by the network that has not seen them."""

    fold: Fold
    predictions: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Checkpoint:
    """A trained grader: network, its objective and recipe, cuts (K-1,) where the objective has them, class names, the
    longest side in pixels that its photographs are prepared at and whether the background is cropped away. `held_out`
    where it was trained with a fold left out; `validation`, its predictions (N, P) and truth (N,), `calibration`,
    `training`, what its training photographs look like, and `seen_names`, prepared.name_hash of those and of
    validation, where it keeps them; `useless_on`, the sides on which it did not tell classes apart and was no better
    than always giving the most frequent one."""

    path: Path
    network: GradingNetwork
    objective: objectives.Objective
    recipe: Recipe
    thresholds: list[float] | None
    classes: tuple[str, ...]
    prepared_px: int
    crop: bool = True
    held_out: HeldOut | None = None
    validation: tuple[np.ndarray, np.ndarray] | None = None
    calibration: Calibration | None = None
    training: novelty.Reference | None = None
    seen_name_hashes: np.ndarray | None = None
    useless_on: Sequence[str] = ()


def versions() -> dict[str, str]:
    """Of what computed a result."""
    return {
        "dr": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a str of its own kind, which does not load with weights_only
        "torchvision": str(torchvision.__version__),
        "timm": timm.__version__,
        "opencv": cv2.__version__,
        "albumentations": version("albumentations"),
    }


def save(path: str | Path, content: Mapping) -> None:
    """`content` as one file that `torch.load(weights_only=True)` reads; whole or not at all. Raises OSError."""
    buffer = io.BytesIO()  # on a full disk torch's own writer raises a RuntimeError that does not say so
    torch.save(dict(content), buffer)
    files.write_bytes(path, buffer.getbuffer())


def _bare_state_dict(tensors: Mapping, path: Path) -> dict:
    """A published state_dict of efficientnet_v2_m with one output -> the fields of a checkpoint."""
    if not tensors or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in tensors.items()):
        raise UsageError(f"{path}: it is neither a checkpoint of train.py nor a state_dict of efficientnet_v2_m")
    return {
        "model": {key.removeprefix("module."): value for key, value in tensors.items()},  # saved from DataParallel
        "recipe": load_recipe(None).to_dict(),
        "thresholds": PUBLISHED_THRESHOLDS,
        "classes": list(GRADES),
        "data": {"size": PUBLISHED_PREPARED_PX},
    }


def load(path: str | Path) -> Checkpoint:
    """A checkpoint of train.py, or a bare published state_dict -> Checkpoint. Raises UsageError."""
    return read(load_tensors(path), Path(path))


def read(tensors: Mapping, path: Path) -> Checkpoint:
    """What a file of weights holds -> Checkpoint; `path` says in errors where it came from. Raises UsageError."""
    content = tensors if "recipe" in tensors and "model" in tensors else _bare_state_dict(tensors, path)
    _check_fields(content, path)
    recipe = from_dict(dict(content["recipe"]), place=str(path))
    objective = objectives.build(recipe, num_classes=len(content["classes"]))
    _check_thresholds(content["thresholds"], objective, path)
    with init_empty_weights(include_buffers=False):  # the file fills them: random ones take seconds to draw
        network = build(recipe, num_outputs=objective.num_outputs, pretrained=False)
    own = network.backbone.state_dict()
    wrong = [key for key in own if not same_shape(content["model"].get(key), own[key])]
    if wrong or len(own) != len(content["model"]):
        key = wrong[0] if wrong else next(key for key in content["model"] if key not in own)
        raise UsageError(
            f"{path}: its tensors are not those of {recipe.backbone} "
            f"with {objective.num_outputs} output{'s'[: objective.num_outputs > 1]} (first: {key}); "
            "give the checkpoint that train.py wrote"
        )
    network.backbone.load_state_dict({key: content["model"][key].to(own[key].dtype) for key in own}, assign=True)
    network.to(memory_format=torch.channels_last)
    data, seen = content["data"], {}
    for side in ("validation", "test"):
        if side in content:
            seen[side] = tuple(content[side][name].numpy() for name in ("predictions", "truth"))
    held_out = None
    if "fold" in data and "test" in seen:  # a run that was stopped has no test yet
        held_out = HeldOut(Fold(**data["fold"]), *seen["test"])
    return Checkpoint(
        path=path,
        network=network.eval(),
        objective=objective,
        recipe=recipe,
        thresholds=content["thresholds"],
        classes=tuple(content["classes"]),
        prepared_px=data["size"],
        crop=data.get("crop", True),
        held_out=held_out,
        validation=seen.get("validation"),
        calibration=_calibration(content, seen.get("validation"), objective, path),
        training=_training(content, path),
        seen_name_hashes=data["names"].numpy() if "names" in data else None,
        useless_on=[
            side for side, skilled in metrics.below_majority(content.get("metrics", {})).items() if not skilled
        ],
    )


def _training(content: Mapping, path: Path) -> novelty.Reference | None:
    """What is kept of the training photographs. Raises UsageError where it is damaged."""
    try:
        return novelty.from_dict(content["training"]) if "training" in content else None
    except ValueError as exc:
        raise UsageError(f"{path}: {exc}; give the checkpoint that train.py wrote") from exc


def _calibration(
    content: Mapping, validation: tuple | None, objective: objectives.Objective, path: Path
) -> Calibration | None:
    """The one that is kept, else one fitted to the validation predictions, else None. Raises UsageError."""
    if "calibration" in content:
        try:
            return calibration.from_dict(content["calibration"], num_offsets=calibration.num_offsets(objective))
        except ValueError as exc:
            raise UsageError(
                f"{path}: its calibration is damaged ({exc}); give the checkpoint that train.py wrote"
            ) from exc
    if validation is None:
        return None
    predictions, truth = validation
    seen = calibration.evidence(objective, predictions)
    return calibration.fit(seen, truth, num_classes=objective.num_classes)


def _check_fields(content: Mapping, path: Path) -> None:
    """Raises UsageError naming the first field that a checkpoint needs and that is missing or of another kind."""
    classes, data = content.get("classes"), content.get("data")
    fits = {
        "model": isinstance(content["model"], Mapping),
        "recipe": isinstance(content["recipe"], Mapping),
        "classes": isinstance(classes, list) and len(classes) > 1 and all(isinstance(name, str) for name in classes),
        "thresholds": "thresholds" in content,
        "data": isinstance(data, Mapping)
        and isinstance(data.get("size"), int)
        and isinstance(data.get("names", torch.empty(0)), torch.Tensor),
    }
    for field, fit in fits.items():
        if not fit:
            raise UsageError(f"{path}: field {field!r} is missing or damaged; give the checkpoint that train.py wrote")


def _check_thresholds(thresholds: object, objective: objectives.Objective, path: Path) -> None:
    """Raises UsageError unless there is an ascending cut between each two grades, or None where there are no cuts."""
    if objective.has_thresholds:
        numbers = isinstance(thresholds, list) and all(
            isinstance(value, float) and math.isfinite(value) for value in thresholds
        )
        fit = numbers and len(thresholds) == objective.num_classes - 1 and thresholds == sorted(thresholds)
    else:
        fit = thresholds is None
    if not fit:
        raise UsageError(f"{path}: field 'thresholds' is missing or damaged; give the checkpoint that train.py wrote")
