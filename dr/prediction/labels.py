"""The true grades of images, and their patients, from a label table of any known layout."""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.archive import stem
from dr.sources.class_names import class_of
from dr.sources.columns import Columns, TableColumns, recognise_columns
from dr.sources.csv_tables import drop_repeated_rows, refuse_empty, without_suffix
from dr.sources.matching import by_path_ends, normal_path
from dr.sources.split_names import splits_of
from dr.sources.table import ImageNames, Table, read_one_table
from dr.sources.table_labels import label_texts
from dr.sources.ungradable import MISSING, split_ungradable

MAX_NAMES = 3  # in one line; the others are counted
OWN = {"path", "diagnosis", "source", "original"}  # columns of the label tables that data.py writes
STANDARD = ({"id_code", "image"}, {"diagnosis", "level"})


@dataclass(frozen=True)
class Labels:
    """`grades`: the true grade, the index of its class, by id of the image, or by the path in the table where no image
    matches. `patients`: by id, None where the table has none. `ungraded`: the ids of images whose row has no grade.
    `originals`: names in the source by id, from data.py's own tables. `note`: which columns were taken, None for the
    standard ones."""

    grades: pd.Series
    patients: pd.Series | None = None
    ungraded: frozenset[str] = frozenset()
    originals: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


def read_labels(path: str, id_of: Mapping[str, str], *, classes: Sequence[str], columns: Columns) -> Labels:
    """The label table at `path` for images {name: id}. Raises UsageError with table, row and column; also where no
    image has a label, or the label could belong to two images."""
    place = f"--labels {path}"
    if not Path(path).is_file():
        fault = "a folder" if Path(path).is_dir() else "not found"
        raise UsageError(f"{place}: {fault}; pass a table id_code,diagnosis or image,level")
    images = ImageNames(id_of)
    table = read_one_table(Path(path).read_bytes(), place=place, images=images)
    if not table.rows:
        raise UsageError(f"{place}: no rows with labels; pass a table with one row per image")
    taken = recognise_columns(table, images=images, given=columns)
    if taken.numbers == "binary" and len(classes) > 2:
        raise UsageError(
            f"{place}: {taken.label[0]!r} holds 0 and 1, without and with retinopathy, but the checkpoint has "
            f"{len(classes)} classes; pass the column of grades with --label_column"
        )
    rows = _rows(table, taken, classes=classes)
    own = set(table.header) >= OWN
    matched = _match(rows["original"], _beside(rows["original"], id_of, table=path), own=own, place=place)
    _check(rows, matched, id_of, label=taken.label[0], place=place)
    rows["id"] = [id_of[matched[name]] if name in matched else name for name in rows["original"]]
    labels = replace(_by_id(rows, place=place), note=_note(path, taken))
    if not own:
        return labels
    names = dict(zip(map(normal_path, table.column(taken.id)), table.column("original"), strict=True))
    return replace(labels, originals={id_of[matched[path]]: names.get(path, path) for path in matched})


def _rows(table: Table, taken: TableColumns, *, classes: Sequence[str]) -> pd.DataFrame:
    """-> `original` (path without suffix), `diagnosis` (index of the class, missing without a grade), `patient`
    (missing where unknown), `row`. Raises UsageError for a label that is no class, and for an image with two labels."""
    column, texts = " or ".join(taken.label), label_texts(table, taken)
    ungraded = split_ungradable(texts)
    index = {text: class_of(text, classes) for text in set(texts)}
    for text, row in zip(texts, table.numbers, strict=True):
        if index[text] is None and text not in ungraded:
            raise UsageError(f"{table.place}, row {row}: {column} is {text!r}, expected {_expected(classes)}")
    rows = pd.DataFrame({"original": table.column(taken.id), "row": table.numbers})
    refuse_empty(rows, name=table.place, column="original", shown=taken.id)
    rows["original"] = [normal_path(original) for original in rows["original"]]
    rows["diagnosis"] = [index[text] for text in texts]
    rows["patient"] = _patients(table, taken)
    graded = rows.dropna(subset="diagnosis").astype({"diagnosis": int})
    graded = drop_repeated_rows(graded, name=table.place, column=column) if len(graded) else graded
    return pd.concat([graded, rows[~rows["original"].isin(graded["original"])]], ignore_index=True)


def _patients(table: Table, taken: TableColumns) -> list[str | None]:
    """The patient of each row, None where unknown. data.py's own tables name them within a source."""
    if taken.patient is None:
        return [None] * len(table.rows)
    patients = [None if text.casefold() in MISSING else text for text in table.column(taken.patient)]
    if not set(table.header) >= OWN:
        return patients
    return [text and f"{source}/{text}" for source, text in zip(table.column("source"), patients, strict=True)]


def _expected(classes: Sequence[str]) -> str:
    """The allowed labels, for a message."""
    if tuple(classes) == GRADES:
        return f"0 to {len(GRADES) - 1}"
    return f"one of {', '.join(classes[:MAX_NAMES])}{', ...' if len(classes) > MAX_NAMES else ''}"


def _beside(paths: pd.Series, id_of: Mapping[str, str], *, table: str) -> Mapping[str, str]:
    """The images {name: id} that a table may mean: where names repeat and its file name stands for a split, those in no
    folder of another split. IDRiD counts from 001 in training and test."""
    stems = Counter(stem(name) for name in id_of)
    own = splits_of([Path(table).name]).get(Path(table).name)
    if own is None or not any(stems[end] > 1 for path in paths for end in _name_ends(path)):
        return id_of
    folders = splits_of({part for name in id_of for part in name.split("/")[:-1]})
    others = {folder for folder, split in folders.items() if split != own}
    return {name: each for name, each in id_of.items() if others.isdisjoint(name.split("/")[:-1])} or id_of


def _name_ends(path: str) -> list[str]:
    """'val/test_x_1' -> 'test_x_1', 'x_1', '1': the name and what is left of it after each underscore."""
    name = posixpath.basename(path)
    return [name, *(name[after.end() :] for after in re.finditer("_", name))]


def _match(paths: pd.Series, id_of: Mapping[str, str], *, own: bool, place: str) -> dict[str, str]:
    """{path in the table: image}. In data.py's own tables (`own`) the name of an image may have its folders or its
    split in front: `test_IDRiD_001`. Raises UsageError where two images match."""
    remedy = "or pass one of their folders with --images"
    matched = by_path_ends(paths, id_of, place=place, remedy=remedy)
    if matched or not own:
        return matched
    stems = {stem(name) for name in id_of}
    bare = {path: next((end for end in _name_ends(path) if end in stems), path) for path in paths}
    found = by_path_ends(bare.values(), id_of, place=place, remedy=remedy)
    return {path: found[end] for path, end in bare.items() if end in found}


def _check(rows: pd.DataFrame, matched: Mapping[str, str], id_of: Mapping[str, str], *, label: str, place: str) -> None:
    """Raises UsageError where no image has a label, before the first image is read."""
    if not matched:
        raise UsageError(
            f"{place}: none of its {len(rows)} ids matches one of the {len(id_of)} images (for example "
            f"{rows['original'].iloc[0]} and {without_suffix(next(iter(id_of)))}); pass the table of these images"
        )
    if rows.loc[rows["original"].isin(matched), "diagnosis"].isna().all():
        raise UsageError(f"{place}: no image has a grade in the column {label!r}; pass another with --label_column")


def _by_id(rows: pd.DataFrame, *, place: str) -> Labels:
    """Rows with `id` -> labels. Raises UsageError where one image has two grades."""
    graded = rows[rows["diagnosis"].notna()].set_index("id")["diagnosis"].astype(int)
    several = graded.groupby(level=0).nunique()
    if (several > 1).any():
        raise UsageError(f"{place}: {several.idxmax()} has two grades; keep one of them")
    grades = graded[~graded.index.duplicated()]
    named = rows.dropna(subset="patient").drop_duplicates("id").set_index("id")["patient"]
    ungraded = frozenset(rows["id"]) - set(grades.index)
    return Labels(grades, named if len(named) else None, ungraded)


def _note(path: str, taken: TableColumns) -> str | None:
    """Which columns were taken, for a table whose columns have other names than the standard ones."""
    standard = [{name.lower()} <= usual for name, usual in zip((taken.id, *taken.label), STANDARD, strict=False)]
    if all(standard) and len(taken.label) == 1 and taken.patient is None:
        return None
    return f"{path}: {taken}"
