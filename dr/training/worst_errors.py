"""The worst mistakes of a network, to be looked at: some are its own, some are of the label or the photograph."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from dr import UsageError
from dr.datasets.torch_datasets import read_image
from dr.grading.objectives import Classification, Objective
from dr.imaging.resize import resize_and_crop, to_tensor
from dr.inference import gradcam
from dr.inference.checkpoint import Checkpoint

MOST = 12
SIDE_PX = 320


@dataclass(frozen=True)
class Mistake:
    """One photograph: the place of its row in the label table, true class, grade given, score or (classification) the
    probability of the grade given, the photograph and the same with its heat (S, S, 3) uint8 RGB; no heat where the
    network has none to show."""

    row: int
    truth: int
    grade: int
    value: float
    photo: np.ndarray
    heated: np.ndarray | None


def distance(objective: Objective, predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """predictions (N, P), truth (N,) -> how wrong each is (N,): how far its score lies from the true grade; of classes
    without an order, how unlikely the true one was."""
    if isinstance(objective, Classification):
        return 1 - objective.probabilities(predictions)[np.arange(len(truth)), truth]
    return np.abs(objective.scores(predictions) - truth)


def worst(
    objective: Objective, predictions: np.ndarray, truth: np.ndarray, grades: np.ndarray, *, most: int = MOST
) -> np.ndarray:
    """-> rows (M,) of at most so many photographs that were given a wrong grade, the worst first: the most grades
    away, where grades have an order, then by `distance`."""
    wrong = distance(objective, predictions, truth)
    apart = np.zeros(len(truth)) if isinstance(objective, Classification) else np.abs(grades - truth)
    order = np.lexsort((-wrong, -apart))
    return order[truth[order] != grades[order]][:most]


def show(
    network: Checkpoint,
    paths: list[Path],
    rows: np.ndarray,
    *,
    predictions: np.ndarray,
    truth: np.ndarray,
    grades: np.ndarray,
) -> tuple[list[Mistake], str | None]:
    """paths, predictions, truth and grades of all photographs (N), rows (M,) of those to show -> mistakes, and why no
    heat is shown, None where it is. Looks at the photographs as validation does."""
    if not len(rows):
        return [], None
    recipe = network.recipe
    photos = [read_image(paths[row]) for row in rows]
    seen = [resize_and_crop(photo, size_px=recipe.image_size, crop_px=recipe.crop_size) for photo in photos]
    why, heats = None, [None] * len(rows)
    try:
        images = torch.stack([to_tensor(image) for image in seen])
        layer = gradcam.last_map(network.network, images[:1])
        heats = [  # one by one: training may have filled the memory with as many as it could take
            gradcam.heat(network.network, network.objective, image[None], grades=grade[None], layer=layer)[0]
            for image, grade in zip(images, grades[rows], strict=True)
        ]
    except UsageError as exc:
        why = str(exc).partition("; give")[0]
    values = network.objective.scores(predictions)
    if isinstance(network.objective, Classification):
        values = network.objective.probabilities(predictions)[np.arange(len(grades)), grades]
    found = []
    for row, photo, image, heat in zip(rows, photos, seen, heats, strict=True):
        # the heat lies on what the network saw: of a photograph that was cut or stretched, that is shown
        whole = recipe.crop_size is None and photo.shape[0] == photo.shape[1]
        shown = _scaled(photo if whole else image)
        heated = None if heat is None else gradcam.overlay(shown, heat)
        found.append(Mistake(int(row), int(truth[row]), int(grades[row]), float(values[row]), shown, heated))
    return found, why


def _scaled(photo: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> with a longer side of SIDE_PX, enlarged without smoothing where the network saw so few pixels."""
    scale = SIDE_PX / max(photo.shape[:2])
    size = tuple(max(1, round(scale * side)) for side in photo.shape[1::-1])
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
