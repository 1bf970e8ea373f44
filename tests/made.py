"""Small synthetic images, preprocessed folders and checkpoints for the tests of training and prediction."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from dr import GRADES
from dr.grading import objectives
from dr.inference.versions import versions
from dr.networks.build import build
from dr.recipes.load import from_dict
from dr.recipes.schema import Recipe
from dr.training.sweep.plan import Trial, plan

# timm's network for tests: 0.3 million weights, milliseconds per batch
TINY = from_dict(
    {
        "backbone": "test_efficientnet",
        "pretrained": "none",
        "image_size": 64,
        "augmentation": "none",
        "batch_size": 10,
        "epochs": 2,
        "lr": 0.01,
        "precision": "fp32",
    }
)


SOURCES_OF_GRADES = pd.DataFrame(
    {"validation": [61, 12, 32, 7, 8], "train: main": [243, 48, 128, 28, 33], "train: 2015": [1400, 240, 435, 66, 24]}
)


def draw_fundus(grade: int, *, seed: int, side_px: int = 96) -> np.ndarray:
    """(side_px, side_px, 3) uint8 BGR: an orange disc on black with 6 dark dots for each grade."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side_px, side_px, 3), np.uint8)
    centre, radius = side_px // 2, round(0.46 * side_px)
    cv2.circle(image, (centre, centre), radius, (40, 90, int(rng.integers(170, 210))), cv2.FILLED)
    for angle, distance in rng.uniform((0, 0), (2 * np.pi, 0.8), size=(6 * grade, 2)):
        x, y = centre + radius * distance * np.cos(angle), centre + radius * distance * np.sin(angle)
        cv2.circle(image, (round(x), round(y)), max(2, side_px // 30), (10, 10, 60), cv2.FILLED)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def write_images(folder: Path, grades: list[int], *, seed: int = 0, suffix: str = ".png", **size) -> list[Path]:
    """One image for each grade, named image_0, image_1, ... -> their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"image_{number}{suffix}" for number in range(len(grades))]
    for number, (path, grade) in enumerate(zip(paths, grades, strict=True)):
        cv2.imwrite(str(path), draw_fundus(grade, seed=seed + number, **size))
    return paths


def write_preprocessed(folder: Path, *, classes: tuple[str, ...] = GRADES, **counts: int) -> Path:
    """Write a folder as data.py does, with `counts` images (train=30, val=15, no test) of grades 0, 1, ..., K-1, 0, ...
    -> `folder`."""
    root = folder / "kaggle_retina"
    for number, (split, count) in enumerate(({"train": 30, "val": 15} | counts).items()):
        grades = [i % len(classes) for i in range(count)]
        paths = write_images(root / split, grades, seed=1000 * number, suffix=".jpeg")
        table = pd.DataFrame({"path": [f"{split}/{path.name}" for path in paths], "diagnosis": grades})
        table.to_csv(root / f"labels_{split}.csv", index=False)
    (root / "settings.json").write_text(json.dumps({"size": 96, "classes": classes}))
    return folder


def checkpoint_content(
    recipe: Recipe = TINY,
    *,
    thresholds: tuple[float, ...] | None = (0.5, 1.5, 2.5, 3.5),
    classes: tuple[str, ...] = ("0", "1", "2", "3", "4"),
) -> dict:
    """The content of a checkpoint with random weights."""
    network = build(recipe, num_outputs=objectives.build(recipe, num_classes=len(classes)).num_outputs)
    return {
        "model": network.backbone.state_dict(),
        "recipe": recipe.to_dict(),
        "thresholds": None if thresholds is None else list(thresholds),
        "classes": list(classes),
        "versions": versions(),
        "data": {"fingerprint": "", "size_px": 96},
    }


def write_checkpoint(path: Path, content: dict) -> None:
    """Save `content`, also if it is not that of a checkpoint."""
    torch.save(content, path)


def planned(*texts: str, name: str = "run", **options) -> list[Trial]:
    """The trials of `--sweep` texts over TINY with other `options`; an option of None is omitted, to be swept."""
    options = {key: value for key, value in TINY.to_dict().items() if key not in ("lr", "seed")} | options
    overrides = {key: value for key, value in options.items() if value is not None}
    return plan(list(texts), recipe=None, overrides=overrides, name=name)


def crop_pair(caption: str = "10_left, 2 Moderate", box=(30, 0, 110, 90)) -> tuple:
    """A row of crops_sheet."""
    before = np.zeros((90, 140, 3), np.uint8)
    before[..., 2] = 200  # red, as OpenCV orders it
    return before, box, np.full((64, 64, 3), 90, np.uint8), caption


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def damaged_values() -> list:
    """Values that a field of a damaged or malicious file may have."""
    return [
        None, True, "", "text", "\ud800", "a\nb", "x" * 2**20, 0, -1, 2**40, 2**200, 10**5000, 0.5, -1e308,
        float("nan"), float("inf"), [], [1.0, "a"], {}, {1: 2}, {"a": {}}, (), _nested(3000), b"bytes",
        torch.zeros(3), torch.zeros(0), torch.zeros(10, 1, dtype=torch.int32), torch.full((10, 1), torch.nan),
        torch.full((10,), -7), torch.zeros(10, 1, device="meta"), torch.eye(3).to_sparse(),
        torch.zeros(1).expand(10, 1), torch.zeros(1, dtype=torch.complex64), torch.zeros(2**40, device="meta"),
    ]  # fmt: skip


def replaced(value, path, new):
    """A copy of the branches along `path`, with `new` at its end."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy
