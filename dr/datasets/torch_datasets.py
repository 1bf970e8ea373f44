"""Preprocessed images as torch datasets, for training (augmented) and for evaluation, and the order of an epoch."""

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
    """A preprocessed image -> (S, S, 3) uint8 RGB. Raises UsageError if it is missing or cannot be decoded."""
    # not imread, which on Windows cannot open names outside the code page
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError as exc:
        raise UsageError(f"{path}: not found; run data.py again") from exc
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise UsageError(f"{path}: cannot be decoded; delete it and run data.py again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class TrainingImages(Dataset):
    """(epoch, index, draw) -> {"image": (3, P, P) uint8, "grade", "index"}.

    The augmentation depends on seed, epoch, index and draw (how often the image was drawn before in this epoch) alone:
    neither the number of workers nor resuming a run changes it.
    """

    def __init__(self, data: PreprocessedData, recipe: Recipe):
        self.paths = [data.root / path for path in data.train["path"]]
        self.grades = data.train["diagnosis"].to_numpy(copy=True)  # the array of pandas is read-only
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
        self.grades = table["diagnosis"].to_numpy(copy=True)  # the array of pandas is read-only
        self.size_px, self.crop_px = recipe.image_size, recipe.crop_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        image = resize_and_crop(read_image(self.paths[index]), size_px=self.size_px, crop_px=self.crop_px)
        return {"image": to_tensor(image), "grade": int(self.grades[index]), "index": index}


def channel_mean_std(data: PreprocessedData, recipe: Recipe) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel (RGB, in 0..1) over all pixels of the training images, resized but
    not augmented. Raises UsageError if a channel is constant."""
    images = EvaluationImages(data.root, data.train, recipe)
    total, squares, count = np.zeros(3), np.zeros(3), 0
    for index in range(len(images)):
        pixels = images[index]["image"].numpy().reshape(3, -1) / 255
        total, squares, count = total + pixels.sum(1), squares + (pixels**2).sum(1), count + pixels.shape[1]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0)).round(6)
    if not std.all():
        raise UsageError(
            f"{data.root}: a colour channel is constant in all training images, so normalisation=dataset would divide "
            "by 0; check the images, or use --set normalisation=backbone"
        )
    return tuple(mean.round(6).tolist()), tuple(std.tolist())


class EpochSampler(Sampler):
    """Yields (epoch, index, draw) in an order that depends on seed and epoch only. Draw 0 is the first of an image.

    sampling "shuffle": each image once. "sqrt" and "balanced": as many draws with replacement; the share of a grade is
    proportional to the square root of its frequency, or equal for all grades.
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
