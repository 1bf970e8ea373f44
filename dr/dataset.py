"""Prepared folder -> batches."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from dr import GRADES, UsageError
from dr.sources import parse_grade, read_table
from dr.transforms import eval_transform, seed, train_transform
from dr.workspace import FOLDER, SPLITS


@dataclass(frozen=True)
class Prepared:
    """What data.py wrote: tables with `path` and `diagnosis`, the longest side of a photograph in pixels, and a
    fingerprint (SHA-256 of both label tables) that says whether two runs saw the same data."""

    root: Path
    train: pd.DataFrame
    val: pd.DataFrame
    size_px: int
    fingerprint: str


def _read_labels(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such label table; run data.py first, or name its folder with --data")
    table = read_table(path.read_bytes(), name=str(path), columns=("path", "diagnosis"))
    table["diagnosis"] = [
        parse_grade(text, name=str(path), row=row, column="diagnosis")
        for text, row in zip(table["diagnosis"], table["row"], strict=True)
    ]
    for name, row in zip(table["path"], table["row"], strict=True):
        if not (path.parent / name).is_file():
            raise UsageError(f"{path}, row {row}: {name} is not there; run data.py again")
    return table.drop(columns="row")


def read_prepared(directory: str | Path) -> Prepared:
    """`directory` as given to data.py -d, or the kaggle_retina folder in it -> its tables. Raises UsageError naming
    table and row of anything that is missing or wrong."""
    root = Path(directory) / FOLDER
    if not root.is_dir():
        root = Path(directory)
    tables = {name: _read_labels(root / f"labels_{name}.csv") for name in SPLITS}
    if len(tables["val"]) < 2:
        raise UsageError(f"{root / 'labels_val.csv'}: it has {len(tables['val'])} photographs, too few to validate on")
    digest = hashlib.sha256()
    for name in SPLITS:
        digest.update((root / f"labels_{name}.csv").read_bytes())
    return Prepared(root, tables["train"], tables["val"], _size_px(root / "settings.json"), digest.hexdigest())


def _size_px(settings: Path) -> int:
    """The longest side that data.py prepared photographs at."""
    try:
        return int(json.loads(settings.read_text(encoding="utf-8"))["size"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{settings}: it is missing or damaged; run data.py again") from exc


def read_photograph(path: Path) -> np.ndarray:
    """A prepared photograph -> (S, S, 3) uint8 RGB. Raises UsageError when it cannot be decoded."""
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        raise UsageError(f"{path}: it cannot be decoded; delete it and run data.py again")
    return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)


def to_tensor(photo: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1)))


class TrainingPhotographs(Dataset):
    """(epoch, index) -> {"image": (3, P, P) uint8, "grade", "index"}, augmented by nothing but seed, epoch and index:
    how many workers load, and whether the run was resumed, changes nothing."""

    def __init__(self, data: Prepared, *, augmentation: str, size_px: int, seed: int):
        self.paths = [data.root / path for path in data.train["path"]]
        self.grades = data.train["diagnosis"].to_numpy(copy=True)  # pandas' own is read-only
        self.transform = train_transform(augmentation, size_px=size_px)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        seed(self.transform, self.seed, epoch, index)
        image = self.transform(image=read_photograph(self.paths[index]))["image"]
        return {"image": to_tensor(image), "grade": int(self.grades[index]), "index": index}


class ValidationPhotographs(Dataset):
    """index -> {"image": (3, P, P) uint8, "grade", "index"}."""

    def __init__(self, data: Prepared, *, size_px: int):
        self.paths = [data.root / path for path in data.val["path"]]
        self.grades = data.val["diagnosis"].to_numpy(copy=True)  # pandas' own is read-only
        self.transform = eval_transform(size_px=size_px)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        image = self.transform(image=read_photograph(self.paths[index]))["image"]
        return {"image": to_tensor(image), "grade": int(self.grades[index]), "index": index}


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order that depends on seed and epoch only.

    sampling "shuffle": each photograph once. "sqrt" and "balanced": as many draws with replacement, a grade's share in
    proportion to the square root of its frequency, or equal.
    """

    def __init__(self, grades: np.ndarray, *, sampling: str, seed: int):
        self.count, self.seed, self.epoch = len(grades), seed, 0
        frequency = np.bincount(grades, minlength=len(GRADES))
        power = {"shuffle": None, "sqrt": -0.5, "balanced": -1.0}[sampling]
        weights = None if power is None else np.maximum(frequency, 1)[grades] ** power
        self.probabilities = None if weights is None else weights / weights.sum()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.probabilities is None:
            order = rng.permutation(self.count)
        else:
            order = rng.choice(self.count, size=self.count, p=self.probabilities)
        yield from ((self.epoch, int(index)) for index in order)


def start_worker(_: int) -> None:
    """One thread for each loading process: more would fight over the cores."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def loader(dataset: Dataset, *, batch_size: int, workers: int, pin: bool, sampler=None, drop_last=False, collate=None):
    """A DataLoader whose workers stay alive between epochs; without `sampler` it goes through in order."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=start_worker,
        collate_fn=collate,
        generator=torch.Generator(),  # its own: seeds of workers must not be drawn from the numbers that dropout uses
    )
