"""The folder that data.py writes, read: label tables, class names, a fingerprint, the names of the images."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dr import GRADES, UsageError
from dr.sources.csv_tables import parse_grade, read_rows, read_table
from dr.sources.source import SPLITS

FOLDER = "kaggle_retina"
MIN_VALIDATION = 2  # images: thresholds are fitted on one half and scored on the other


class Fold(NamedTuple):
    """Fold `number` of `of` of the data with this fingerprint."""

    number: int
    of: int
    fingerprint: str


@dataclass(frozen=True)
class PreprocessedData:
    """A preprocessed folder.

    The tables have `path` and `diagnosis`; `test` is None if the source has no test split. `size_px`: longest side of
    an image. `crop`: whether the background was cropped away. `fingerprint`: SHA-256 of all label tables, size and
    cropping; two runs with equal fingerprints used the same data. `fold`: the fold that is the test split, if any.
    """

    root: Path
    train: pd.DataFrame
    val: pd.DataFrame
    size_px: int
    fingerprint: str
    test: pd.DataFrame | None = None
    classes: tuple[str, ...] = GRADES
    crop: bool = True
    fold: Fold | None = None


def read_preprocessed(directory: str | Path) -> PreprocessedData:
    """The argument of data.py -d, or the kaggle_retina folder in it -> its tables. Raises UsageError naming the table
    and row of anything missing or wrong."""
    root = Path(directory) / FOLDER
    if not root.is_dir():
        root = Path(directory)
    if not (root / "labels_train.csv").is_file():
        raise _missing(root / "labels_train.csv")
    size_px, classes, crop, patients_empty = _read_settings(root / "settings.json")
    names = [name for name in SPLITS if name != "test" or (root / "labels_test.csv").is_file()]
    tables = {
        name: _read_labels(root / f"labels_{name}.csv", num_classes=len(classes), patients_empty=patients_empty)
        for name in names
    }
    if len(tables["val"]) < MIN_VALIDATION:
        raise UsageError(
            f"{root / 'labels_val.csv'}: {len(tables['val'])} images are too few for validation; "
            "raise --val_fraction of data.py"
        )
    digest = hashlib.sha256()
    for name in names:
        digest.update((root / f"labels_{name}.csv").read_bytes())
    digest.update(f"{size_px} {crop}".encode())  # the same images, preprocessed differently, are different data
    return PreprocessedData(
        root, tables["train"], tables["val"], size_px, digest.hexdigest(), tables.get("test"), classes, crop
    )


def _missing(path: Path) -> UsageError:
    return UsageError(f"{path}: label table not found; run data.py first, or pass its folder with --data")


def _read_settings(path: Path) -> tuple[int, tuple[str, ...], bool, bool]:
    """-> longest side of an image in pixels, class names, whether data.py cropped, whether it left unknown patients
    empty."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        classes, crop = tuple(settings.get("classes", GRADES)), bool(settings.get("crop", True))
        return int(settings["size"]), classes, crop, "main_archive" not in settings
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{path}: missing or damaged; run data.py again") from exc


def _read_labels(path: Path, *, num_classes: int, patients_empty: bool) -> pd.DataFrame:
    """`patients_empty`: whether unknown patients are left empty. Version 0.2 wrote the name of the image."""
    if not path.is_file():
        raise _missing(path)
    data = path.read_bytes()
    header = read_rows(data, name=str(path))[0] if data.strip() else []
    columns = ["path", "diagnosis", *(name for name in ("source", "original", "patient", "group") if name in header)]
    table = read_table(data, name=str(path), columns=tuple(columns))
    table["diagnosis"] = [
        parse_grade(text, name=str(path), row=row, column="diagnosis", num_classes=num_classes)
        for text, row in zip(table["diagnosis"], table["row"], strict=True)
    ]
    for name, row in zip(table["path"], table["row"], strict=True):
        if not (path.parent / name).is_file():
            raise UsageError(f"{path}, row {row}: {name} not found; run data.py again")
    if "patient" in table and "original" in table and not patients_empty:
        table["patient"] = table["patient"].where(table["patient"] != table["original"], "")
    return table.drop(columns="row")


def name_hash(name: str) -> int:
    """64 bits of an image name without suffix. A checkpoint recognises images by it without naming patients."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def name_hashes(*tables: pd.DataFrame) -> np.ndarray:
    """Label tables -> (N,) int64, ascending: name_hash of each image by its name in its source."""
    rows = pd.concat(tables, join="inner")
    sources = rows.get("source", pd.Series("", index=rows.index))
    stems = [Path(path).stem.removeprefix(f"{source}_") for path, source in zip(rows["path"], sources, strict=True)]
    return np.sort(np.array([name_hash(name) for name in rows.get("original", stems)], np.int64))


def binary(data: PreprocessedData, *, positive_from: int) -> PreprocessedData:
    """Data of grades -> data of two classes: below `positive_from`, and from it on. Data of two classes is unchanged.
    Raises UsageError if the data has no such grade."""
    classes = data.classes
    if len(classes) == 2:
        return data
    if positive_from >= len(classes):
        raise UsageError(
            f"recipe: positive_from is {positive_from}, but the highest grade is {len(classes) - 1}; reduce it"
        )

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
