"""Cross-validation: one fold of the training and validation images becomes the test split."""

import dataclasses
import hashlib

import numpy as np
import pandas as pd

from dr import UsageError
from dr.datasets.persons import persons
from dr.datasets.preprocessed import MIN_VALIDATION, Fold, PreprocessedData


def fold(data: PreprocessedData, number: int, of: int) -> PreprocessedData:
    """Fold `number` (1..of) of all training and validation images becomes the test split.

    Folds keep patients and duplicates together and are stratified by grade. The other images stay in their split.
    Raises UsageError if grades, patients or remaining images are too few, or if the data has a test split.
    """
    if data.test is not None:
        raise UsageError(f"{data.root}: the data has its own test split, so --fold cannot make one; leave out --fold")
    both = pd.concat({"train": data.train, "val": data.val}, join="inner", names=["split"])
    held_out = _held_out(both, number, of)
    split = both.index.get_level_values("split")
    remaining = {name: both[(split == name) & ~held_out].reset_index(drop=True) for name in ("train", "val")}
    for name, least in (("train", 1), ("val", MIN_VALIDATION)):
        if len(remaining[name]) < least:
            raise UsageError(
                f"--fold {number}/{of}: {len(remaining[name])} images would remain in {name}, fewer than {least}; "
                "use more folds, or preprocess more images"
            )
    return dataclasses.replace(
        data,
        **remaining,
        test=both[held_out].reset_index(drop=True),
        fingerprint=fingerprint(data.fingerprint, number, of),
        fold=Fold(number, of, data.fingerprint),
    )


def fingerprint(whole: str, number: int, of: int) -> str:
    """The fingerprint of the whole data -> that of a fold of it."""
    return hashlib.sha256(f"{whole} fold {number}/{of}".encode()).hexdigest()


def _held_out(table: pd.DataFrame, number: int, of: int) -> np.ndarray:
    """-> (N,) bool, the images of the fold."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import, and few runs need it

    people = _people(table)
    scarcest = table["diagnosis"].value_counts().min()
    if scarcest < of:
        raise UsageError(f"--fold {number}/{of}: a grade has only {scarcest} images; use at most {scarcest} folds")
    if people.nunique() < of:
        raise UsageError(f"--fold {number}/{of}: only {people.nunique()} patients; use at most that many folds")
    folds = StratifiedGroupKFold(of, shuffle=True, random_state=0).split(table, table["diagnosis"], people)
    held_out = np.zeros(len(table), bool)
    held_out[next(rows for turn, (_, rows) in enumerate(folds, start=1) if turn == number)] = True
    return held_out


def _people(table: pd.DataFrame) -> pd.Series:
    """`path` and optional `source`, `original`, `patient`, `group` -> a name per image, equal for images that must stay
    together: those of a patient, duplicates, and what these join."""
    known = table.assign(source=table.get("source", ""), patient=table.get("patient", ""))
    group = known.get("group", known["path"])
    person = persons(known.assign(group=group.where(group != "", known["path"])))
    own = known.get("original", known["path"])
    patient = known["source"] + "/" + known["patient"].where(known["patient"] != "", own)
    return patient.groupby(person).transform("first")  # names, because the folds are drawn in their order
