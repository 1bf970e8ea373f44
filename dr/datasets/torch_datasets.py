"""Prepared photographs as torch takes them: of training, augmented, and of evaluation; in which order."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from torch.utils.data import Dataset, Sampler

from dr import UsageError
from dr.datasets.augmentation import seed, train_transform
from dr.datasets.preprocessed import PreprocessedData
from dr.imaging.resize import resize_and_crop, to_tensor
from dr.recipes.schema import Recipe


def read_image(path: Path) -> np.ndarray:
    """A prepared photograph -> (S, S, 3) uint8 RGB. Raises UsageError when it cannot be decoded."""
    # not imread, which on Windows opens no names beyond the code page
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError as exc:
        raise UsageError(f"{path}: it is not there; run data.py again") from exc
    photo = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if photo is None:
        raise UsageError(f"{path}: it cannot be decoded; delete it and run data.py again")
    return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)


class TrainingImages(Dataset):
    """(epoch, index, draw) -> {"image": (3, P, P) uint8, "grade", "index"}, augmented by nothing but seed, epoch, index
    and how often the photograph was drawn before in this epoch: how many workers load, and whether the run was resumed,
    changes nothing."""

    def __init__(self, data: PreprocessedData, recipe: Recipe):
        self.paths = [data.root / path for path in data.train["path"]]
        self.grades = data.train["diagnosis"].to_numpy(copy=True)  # pandas' own is read-only
        self.transform = train_transform(recipe.augmentation, size_px=recipe.image_size, crop_px=recipe.crop_size)
        self.seed = recipe.seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int, int]) -> dict:
        epoch, index, draw = key
        seed(self.transform, self.seed, epoch, index, draw)
        image = self.transform(image=read_image(self.paths[index]))["image"]
        return {"image": to_tensor(image), "grade": int(self.grades[index]), "index": index}


class EvaluationImages(Dataset):
    """index of a label table -> {"image": (3, P, P) uint8, "grade", "index"}."""

    def __init__(self, root: Path, table: pd.DataFrame, recipe: Recipe):
        self.paths = [root / path for path in table["path"]]
        self.grades = table["diagnosis"].to_numpy(copy=True)  # pandas' own is read-only
        self.size_px, self.crop_px = recipe.image_size, recipe.crop_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        image = resize_and_crop(read_image(self.paths[index]), size_px=self.size_px, crop_px=self.crop_px)
        return {"image": to_tensor(image), "grade": int(self.grades[index]), "index": index}


def channel_mean_std(data: PreprocessedData, recipe: Recipe) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel (RGB, in 0..1) over all pixels of the training photographs, as the
    network sees them without augmentation."""
    photographs = EvaluationImages(data.root, data.train, recipe)
    total, squares, pixels = np.zeros(3), np.zeros(3), 0
    for index in range(len(photographs)):
        image = photographs[index]["image"].numpy().reshape(3, -1) / 255
        total, squares, pixels = total + image.sum(1), squares + (image**2).sum(1), pixels + image.shape[1]
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0)).round(6)
    if not std.all():
        raise UsageError(
            f"{data.root}: its training photographs are the same everywhere (standard deviation 0 in a colour), which "
            "normalisation=measured cannot divide by; look at them, or choose --set normalisation=own"
        )
    return tuple(mean.round(6).tolist()), tuple(std.tolist())


class EpochSampler(Sampler):
    """Yields (epoch, index, draw) in an order that depends on seed and epoch only; draw 0 is a photograph's first.

    sampling "shuffle": each photograph once. "sqrt" and "balanced": as many draws with replacement, a grade's share in
    proportion to the square root of its frequency, or equal.
    """

    def __init__(self, grades: np.ndarray, *, sampling: str, seed: int):
        self.count, self.seed, self.epoch = len(grades), seed, 0
        frequency = np.bincount(grades)
        power = {"shuffle": None, "sqrt": -0.5, "balanced": -1.0}[sampling]
        weights = None if power is None else np.maximum(frequency, 1)[grades] ** power
        self.probabilities = None if weights is None else weights / weights.sum()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.probabilities is None:
            order = rng.permutation(self.count)
        else:
            order = rng.choice(self.count, size=self.count, p=self.probabilities)
        drawn = Counter()
        for index in order.tolist():
            yield self.epoch, index, drawn[index]
            drawn[index] += 1
