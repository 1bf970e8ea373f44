"""Prepared folder -> batches."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from dr import GRADES, UsageError, ranks, split
from dr.recipes import Recipe
from dr.sources import SIDES, parse_grade, read_table
from dr.transforms import eval_transform, seed, train_transform
from dr.workspace import FOLDER

LEAST_VALIDATION = 2  # photographs: cuts are fitted to one half and tried on the other


class Fold(NamedTuple):
    """Part `number` of `of` of the data with this fingerprint."""

    number: int
    of: int
    fingerprint: str


@dataclass(frozen=True)
class Prepared:
    """What data.py wrote: tables with `path` and `diagnosis` (`test` only where the source has one), class names, the
    longest side of a photograph in pixels, whether its background was cropped away, and a fingerprint (SHA-256 of all
    label tables) that says whether two runs saw the same data. `fold`: what the test is, where it was held out here."""

    root: Path
    train: pd.DataFrame
    val: pd.DataFrame
    size_px: int
    fingerprint: str
    test: pd.DataFrame | None = None
    classes: tuple[str, ...] = GRADES
    crop: bool = True
    fold: Fold | None = None


def _missing(path: Path) -> UsageError:
    return UsageError(f"{path}: there is no such label table; run data.py first, or name its folder with --data")


def _read_labels(path: Path, *, num_classes: int) -> pd.DataFrame:
    if not path.is_file():
        raise _missing(path)
    data = path.read_bytes()
    known = data.partition(b"\n")[0].decode("utf-8-sig", errors="replace").strip().split(",")
    columns = ["path", "diagnosis", *(name for name in ("source", "patient", "group") if name in known)]
    table = read_table(data, name=str(path), columns=tuple(columns))
    table["diagnosis"] = [
        parse_grade(text, name=str(path), row=row, column="diagnosis", num_classes=num_classes)
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
    if not (root / "labels_train.csv").is_file():
        raise _missing(root / "labels_train.csv")
    size_px, classes, crop = _read_settings(root / "settings.json")
    names = [name for name in SIDES if name != "test" or (root / "labels_test.csv").is_file()]
    tables = {name: _read_labels(root / f"labels_{name}.csv", num_classes=len(classes)) for name in names}
    if len(tables["val"]) < LEAST_VALIDATION:
        raise UsageError(f"{root / 'labels_val.csv'}: it has {len(tables['val'])} photographs, too few to validate on")
    digest = hashlib.sha256()
    for name in names:
        digest.update((root / f"labels_{name}.csv").read_bytes())
    return Prepared(
        root, tables["train"], tables["val"], size_px, digest.hexdigest(), tables.get("test"), classes, crop
    )


def _read_settings(path: Path) -> tuple[int, tuple[str, ...], bool]:
    """-> longest side that data.py prepared photographs at, class names, whether it cropped."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return int(settings["size"]), tuple(settings.get("classes", GRADES)), bool(settings.get("crop", True))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{path}: it is missing or damaged; run data.py again") from exc


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

    def __init__(self, data: Prepared, recipe: Recipe):
        self.paths = [data.root / path for path in data.train["path"]]
        self.grades = data.train["diagnosis"].to_numpy(copy=True)  # pandas' own is read-only
        self.transform = train_transform(recipe.augmentation, size_px=recipe.image_size, crop_px=recipe.crop_size)
        self.seed = recipe.seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        seed(self.transform, self.seed, epoch, index)
        image = self.transform(image=read_photograph(self.paths[index]))["image"]
        return {"image": to_tensor(image), "grade": int(self.grades[index]), "index": index}


class EvaluationPhotographs(Dataset):
    """index of a label table -> {"image": (3, P, P) uint8, "grade", "index"}."""

    def __init__(self, root: Path, table: pd.DataFrame, recipe: Recipe):
        self.paths = [root / path for path in table["path"]]
        self.grades = table["diagnosis"].to_numpy(copy=True)  # pandas' own is read-only
        self.transform = eval_transform(size_px=recipe.image_size, crop_px=recipe.crop_size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        image = self.transform(image=read_photograph(self.paths[index]))["image"]
        return {"image": to_tensor(image), "grade": int(self.grades[index]), "index": index}


def name_hash(name: str) -> int:
    """64 bits of a photograph's name without its ending: a checkpoint knows again what it has seen, and names no
    patient."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def seen_names(data: Prepared) -> np.ndarray:
    """-> (N,) int64, ascending: name_hash of each photograph of training and validation, by its name in its source."""
    both = pd.concat([data.train, data.val], join="inner")
    sources = both.get("source", pd.Series("", index=both.index))
    stems = [Path(path).stem.removeprefix(f"{source}_") for path, source in zip(both["path"], sources, strict=True)]
    return np.sort(np.array([name_hash(stem) for stem in stems], np.int64))


def measured_mean_std(data: Prepared, recipe: Recipe) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel (RGB, in 0..1) over all pixels of the training photographs, as the
    network sees them without augmentation."""
    photographs = EvaluationPhotographs(data.root, data.train, recipe)
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


def _people(table: pd.DataFrame) -> pd.Series:
    """`path` and, where there are such columns, `source`, `patient`, `group` -> a name for each photograph, equal for
    those that must not be parted: a patient's, copies, and what these join."""
    known = table.assign(source=table.get("source", ""), patient=table.get("patient", table["path"]))
    group = known.get("group", known["path"])
    person = split.persons(known.assign(group=group.where(group != "", known["path"])))
    patient = known["source"] + "/" + known["patient"]
    return patient.groupby(person).transform("first")  # by name, as the folds are drawn in the order of these


def fold(data: Prepared, number: int, of: int) -> Prepared:
    """Part `number` (1..of) of all training and validation photographs becomes the test, whole patients with their
    copies, each grade alike; what is left of training and validation stays as it was. Raises UsageError where grades,
    patients or what is left are too few, or a photograph has been held out as a test already."""
    from sklearn.model_selection import StratifiedGroupKFold  # a second to import, and few runs need it

    if data.test is not None:
        raise UsageError(f"{data.root}: it has a test of its own, so --fold cannot make one; leave --fold out")
    both = pd.concat({"train": data.train, "val": data.val}, join="inner", names=["split"])
    people = _people(both)
    scarcest = both["diagnosis"].value_counts().min()
    if scarcest < of:
        raise UsageError(f"--fold {number}/{of}: a grade has {scarcest} photographs, fewer than folds; give fewer")
    if people.nunique() < of:
        raise UsageError(f"--fold {number}/{of}: there are {people.nunique()} patients, fewer than folds; give fewer")
    folds = StratifiedGroupKFold(of, shuffle=True, random_state=0).split(both, both["diagnosis"], people)
    held_out = np.zeros(len(both), bool)
    held_out[next(rows for turn, (_, rows) in enumerate(folds, start=1) if turn == number)] = True
    of_side = both.index.get_level_values("split")
    sides = {name: both[(of_side == name) & ~held_out].reset_index(drop=True) for name in ("train", "val")}
    for name, least in (("train", 1), ("val", LEAST_VALIDATION)):
        if len(sides[name]) < least:
            raise UsageError(
                f"--fold {number}/{of}: {len(sides[name])} photographs would be left of {name}, fewer than {least}; "
                "give more folds, or prepare more photographs"
            )
    digest = hashlib.sha256(f"{data.fingerprint} fold {number}/{of}".encode()).hexdigest()
    return dataclasses.replace(
        data,
        **sides,
        test=both[held_out].reset_index(drop=True),
        fingerprint=digest,
        fold=Fold(number, of, data.fingerprint),
    )


def binary(data: Prepared, *, positive_from: int) -> Prepared:
    """Grades from `positive_from` on against those below, as two classes. Raises UsageError for a grade that is not
    there; data of two classes stays as it is."""
    classes = data.classes
    if len(classes) == 2:
        return data
    if positive_from >= len(classes):
        raise UsageError(f"recipe: positive_from is {positive_from}, but the highest grade is {len(classes) - 1}")

    def relabelled(table: pd.DataFrame | None) -> pd.DataFrame | None:
        return None if table is None else table.assign(diagnosis=(table["diagnosis"] >= positive_from).astype(int))

    below = classes[0] if positive_from == 1 else f"below {classes[positive_from]}"
    return dataclasses.replace(
        data,
        train=relabelled(data.train),
        val=relabelled(data.val),
        test=relabelled(data.test),
        classes=(below, f"{classes[positive_from]} or worse"),
    )


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order that depends on seed and epoch only.

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
    """A DataLoader whose workers stay alive between epochs; without `sampler` it goes through in order.

    Of N processes each loads every N-th batch: step by step they see together what one process with batches N times as
    large would see. With `drop_last` all load equally many.
    """
    if workers:
        get_temp_dir()  # workers take over this one: folders of their own would stay where they are killed
    batches = BatchSampler(SequentialSampler(dataset) if sampler is None else sampler, batch_size, drop_last)
    return DataLoader(
        dataset,
        batch_sampler=BatchSamplerShard(batches, ranks.COUNT, ranks.RANK, even_batches=False),
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=start_worker,
        collate_fn=collate,
        generator=torch.Generator(),  # its own: seeds of workers must not be drawn from the numbers that dropout uses
    )
