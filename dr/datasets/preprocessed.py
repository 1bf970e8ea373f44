"""What data.py wrote: its tables, read; a fold of them held out, their grades as two classes, the names in them."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dr import GRADES, UsageError
from dr.datasets.persons import persons
from dr.sources.kaggle import SPLITS, parse_grade, read_rows, read_table

FOLDER = "kaggle_retina"
LEAST_VALIDATION = 2  # photographs: cuts are fitted to one half and tried on the other


class Fold(NamedTuple):
    """Part `number` of `of` of the data with this fingerprint."""

    number: int
    of: int
    fingerprint: str


@dataclass(frozen=True)
class PreprocessedData:
    """What data.py wrote: tables with `path` and `diagnosis` (`test` only where the source has one), class names, the
    longest side of a photograph in pixels, whether its background was cropped away, and a fingerprint (SHA-256 of all
    label tables, size and cropping) that says whether two runs saw the same data. `fold`: what the test
    is, where it was held out here."""

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
    known = read_rows(data, name=str(path))[0] if data.strip() else []
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


def read_preprocessed(directory: str | Path) -> PreprocessedData:
    """`directory` as given to data.py -d, or the kaggle_retina folder in it -> its tables. Raises UsageError naming
    table and row of anything that is missing or wrong."""
    root = Path(directory) / FOLDER
    if not root.is_dir():
        root = Path(directory)
    if not (root / "labels_train.csv").is_file():
        raise _missing(root / "labels_train.csv")
    size_px, classes, crop = _read_settings(root / "settings.json")
    names = [name for name in SPLITS if name != "test" or (root / "labels_test.csv").is_file()]
    tables = {name: _read_labels(root / f"labels_{name}.csv", num_classes=len(classes)) for name in names}
    if len(tables["val"]) < LEAST_VALIDATION:
        raise UsageError(f"{root / 'labels_val.csv'}: it has {len(tables['val'])} photographs, too few to validate on")
    digest = hashlib.sha256()
    for name in names:
        digest.update((root / f"labels_{name}.csv").read_bytes())
    digest.update(f"{size_px} {crop}".encode())  # the same photographs, prepared in another way, are other data
    return PreprocessedData(
        root, tables["train"], tables["val"], size_px, digest.hexdigest(), tables.get("test"), classes, crop
    )


def _read_settings(path: Path) -> tuple[int, tuple[str, ...], bool]:
    """-> longest side that data.py prepared photographs at, class names, whether it cropped."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return int(settings["size"]), tuple(settings.get("classes", GRADES)), bool(settings.get("crop", True))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{path}: it is missing or damaged; run data.py again") from exc


def name_hash(name: str) -> int:
    """64 bits of a photograph's name without its ending: a checkpoint knows again what it has seen, and names no
    patient."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def name_hashes(*tables: pd.DataFrame) -> np.ndarray:
    """Label tables -> (N,) int64, ascending: name_hash of each photograph by its name in its source."""
    rows = pd.concat(tables, join="inner")
    sources = rows.get("source", pd.Series("", index=rows.index))
    stems = [Path(path).stem.removeprefix(f"{source}_") for path, source in zip(rows["path"], sources, strict=True)]
    return np.sort(np.array([name_hash(stem) for stem in stems], np.int64))


def seen_name_hashes(data: PreprocessedData) -> np.ndarray:
    """-> `hashed_names` of the photographs of training and validation."""
    return name_hashes(data.train, data.val)


def _people(table: pd.DataFrame) -> pd.Series:
    """`path` and, where there are such columns, `source`, `patient`, `group` -> a name for each photograph, equal for
    those that must not be parted: a patient's, copies, and what these join."""
    known = table.assign(source=table.get("source", ""), patient=table.get("patient", table["path"]))
    group = known.get("group", known["path"])
    person = persons(known.assign(group=group.where(group != "", known["path"])))
    patient = known["source"] + "/" + known["patient"]
    return patient.groupby(person).transform("first")  # by name, as the folds are drawn in the order of these


def fold(data: PreprocessedData, number: int, of: int) -> PreprocessedData:
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


def binary(data: PreprocessedData, *, positive_from: int) -> PreprocessedData:
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
