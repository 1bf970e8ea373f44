"""The worst errors of a network, for a person to review: of the network, of the label or of the image."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from dr import UsageError
from dr.datasets.torch_datasets import read_image
from dr.grading.objective import Objective
from dr.imaging.resize import resize_and_crop, to_tensor
from dr.inference import gradcam
from dr.inference.checkpoint import Checkpoint
from dr.inference.records import GradedSplit

MAX_ERRORS = 12
SHOWN_PX = 320  # longer side of an image


@dataclass(frozen=True)
class GradingError:
    """A wrongly graded image: its row in the label table, true and predicted class, `Objective.values` of the
    prediction, the image (H, W, 3) uint8 RGB and the same with its heat map, None where the network has none."""

    row: int
    truth: int
    grade: int
    value: float
    image: np.ndarray
    heat_map: np.ndarray | None


def worst(objective: Objective, graded: GradedSplit, *, most: int = MAX_ERRORS) -> np.ndarray:
    """-> rows (M,) of at most `most` wrongly graded images, the worst first: by distance between grade and truth where
    classes are ordered, then by `Objective.error`."""
    truth, grades = graded.truth, graded.grades
    error = objective.error(graded.predictions, truth)
    distance = np.abs(grades - truth) if objective.ordered else np.zeros(len(truth))
    order = np.lexsort((-error, -distance))
    return order[truth[order] != grades[order]][:most]


def show(
    checkpoint: Checkpoint, paths: list[Path], rows: np.ndarray, graded: GradedSplit
) -> tuple[list[GradingError], str | None]:
    """The paths of all images (N), the rows (M,) of those to show -> errors, and the reason for missing heat maps or
    None. Images are transformed as in validation."""
    if not len(rows):
        return [], None
    recipe = checkpoint.recipe
    images = [read_image(paths[row]) for row in rows]
    inputs = [resize_and_crop(image, size_px=recipe.image_size, crop_px=recipe.crop_size) for image in images]
    heats, reason = _heats(checkpoint, inputs, graded.grades[rows])
    values = checkpoint.objective.values(graded.predictions, graded.grades)
    errors = []
    for row, image, given, heat in zip(rows, images, inputs, heats, strict=True):
        # the heat map covers the network's input: where that was cropped or stretched, the input is shown
        whole = recipe.crop_size is None and image.shape[0] == image.shape[1]
        shown = scaled(image if whole else given)
        heat_map = None if heat is None else gradcam.overlay(shown, heat)
        truth, grade = int(graded.truth[row]), int(graded.grades[row])
        errors.append(GradingError(int(row), truth, grade, float(values[row]), shown, heat_map))
    return errors, reason


def _heats(
    checkpoint: Checkpoint, inputs: list[np.ndarray], grades: np.ndarray
) -> tuple[list[np.ndarray | None], str | None]:
    """Network inputs (P, P, 3) uint8 RGB, their grades -> heat of each (h, w), and the reason for missing ones
    or None."""
    network, objective = checkpoint.network, checkpoint.objective
    try:
        images = torch.stack([to_tensor(image) for image in inputs])
        layer = gradcam.last_map(network, images[:1])
        heats = [  # one at a time: training may have filled the memory
            gradcam.heat(network, objective, image[None], grades=grade[None], layer=layer)[0]
            for image, grade in zip(images, grades, strict=True)
        ]
    except UsageError as exc:
        return [None] * len(inputs), str(exc).partition("; ")[0]
    return heats, None


def scaled(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> with a longer side of SHOWN_PX; small images are enlarged without smoothing."""
    scale = SHOWN_PX / max(image.shape[:2])
    size = tuple(max(1, round(scale * edge)) for edge in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
