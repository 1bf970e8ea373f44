"""Label tables of other shapes: one CSV with a folder of photographs, or pairs of CSVs without a header."""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from dr import GRADES, UsageError
from dr.archive import Archive, stem
from dr.classes import arrange, numbered
from dr.sources import (
    COLUMNS,
    EYE,
    SIDES,
    Source,
    by_path_ends,
    by_stem,
    header,
    normal_path,
    once_each,
    parse_grade,
    read_member,
    read_rows,
    read_table,
    refuse_empty,
    shallowest,
)

NO_HEADER = "these tables have no header: if this is one, take it out"
ID_COLUMNS, LABEL_COLUMNS = ("id_code", "image"), ("diagnosis", "level")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns as the user gave them; None: those that are known."""

    id: str | None = None
    label: str | None = None
    patient: str | None = None

    def given(self) -> bool:
        return any((self.id, self.label, self.patient))

    def chosen(self, found: list[str]) -> tuple[str, str] | None:
        """The columns of ids and of labels in a header; None where one is missing."""
        known = {name.lower(): name for name in reversed(found)}  # those that are known in any case of letters
        ids = [self.id] if self.id else [known[name] for name in ID_COLUMNS if name in known]
        labels = [self.label] if self.label else [known[name] for name in LABEL_COLUMNS if name in known]
        return (ids[0], labels[0]) if ids and labels and {ids[0], labels[0]} <= {*found} else None

    def __str__(self) -> str:
        ids, labels = self.id or " or ".join(ID_COLUMNS), self.label or " or ".join(LABEL_COLUMNS)
        return f"{ids} and {labels}"


def headers(archive: Archive) -> dict[str, list[str]]:
    """{member: its header} of the CSVs of an archive; a sample of a submission grades nothing."""
    found = {}
    for member in archive.names:
        name = posixpath.basename(member).lower()
        if name.endswith(".csv") and not name.startswith("._") and "submission" not in name:
            try:
                found[member] = header(archive, member)
            except UsageError:  # it is no table, and perhaps nobody needs it
                found[member] = []
    return found


# --- one CSV --------------------------------------------------------------------------------------


def label_table(archive: Archive, columns: Columns) -> Source | None:
    """One CSV with a header, ids and labels, anywhere beside its photographs, in whatever folders these are."""
    fitting = {member: pair for member, found in headers(archive).items() if (pair := columns.chosen(found))}
    if not fitting:
        return None
    if len(fitting) > 1:
        both = " and ".join(sorted(fitting)[:2])
        raise UsageError(f"{archive.path}: {both} have the columns {columns}; leave only one of them in it")
    ((member, (id_column, label_column)),) = fitting.items()
    name = f"{archive.path}: {member}"
    table = _named(read_member(archive, member), name=name, columns=(id_column, label_column, columns.patient))
    table, classes = _labelled(table, name=name, column=label_column, graded=columns.label is None)
    images = archive.images()
    members = by_path_ends(table["path"], images, place=str(archive.path))
    table["member"] = table["path"].map(members)
    if not members:
        such = f"such as {table['path'].iloc[0]} and {images[0]}"
        raise UsageError(
            f"{name}: none of its {len(table)} photographs is in {archive.path} ({such}); give the folder of both"
        )
    table["original"] = table["original"].str.replace("/", "_")  # part of a file's name
    for column, what in (("member", "are one photograph"), ("original", "would have one name")):
        _refuse_repeated(table, column, name=name, what=what)
    if columns.patient is None:
        table["patient"] = table["original"].str.replace(EYE, r"\1", regex=True)
    table = table.assign(source="main", side=None)[list(COLUMNS)]
    return Source("label table", archive, table, classes, unlisted=len(images) - len(members))


def _refuse_repeated(table: pd.DataFrame, column: str, *, name: str, what: str) -> None:
    """Raises UsageError for two rows that share a value."""
    repeated = table[table[column].notna() & table[column].duplicated(keep=False)].sort_values(column)
    if len(repeated):
        first, second = (repeated.iloc[place] for place in (0, 1))
        raise UsageError(
            f"{name}, row {second['row']}: {first['path']} of row {first['row']} and {second['path']} {what}; "
            "keep one of them"
        )


def _named(data: bytes, *, name: str, columns: tuple[str, str, str | None]) -> pd.DataFrame:
    """Bytes of a label table -> `path` as it stands there, without its ending, `original` (the same, with folders only
    where names alone are not unique), `diagnosis` and `patient` as text, `row`."""
    id_column, label_column, patient_column = columns
    table = read_table(data, name=name, columns=tuple(dict.fromkeys(filter(None, columns))))
    chosen = {"original": id_column, "diagnosis": label_column, "patient": patient_column or id_column}
    named = pd.DataFrame({key: table[column] for key, column in chosen.items()} | {"row": table["row"]})
    for key in ("original", "patient"):
        refuse_empty(named, name=name, column=key, shown=chosen[key])
    paths = [normal_path(original) for original in named["original"]]
    bare = [posixpath.basename(path) for path in paths]
    return named.assign(path=paths, original=bare if len(set(bare)) == len(set(paths)) else paths)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _labelled(table: pd.DataFrame, *, name: str, column: str, graded: bool) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Labels as they stand in the table -> (each photograph once, `diagnosis` int; class names). Labels are words where
    none is a number, so that one typing error does not make classes of all numbers; numbers are GRADES if `graded`."""
    if not any(_is_number(text) for text in table["diagnosis"]):
        refuse_empty(table, name=name, column="diagnosis", shown=column)
        classes, number = arrange(set(table["diagnosis"]))
        table = once_each(table, name=name, column=column)
        return table.assign(diagnosis=table["diagnosis"].map(number)), classes
    table["diagnosis"] = [
        parse_grade(text, name=name, row=row, column=column, num_classes=len(GRADES) if graded else None)
        for text, row in zip(table["diagnosis"], table["row"], strict=True)
    ]
    classes = GRADES if graded else numbered({"train": table["diagnosis"]}, place=f"{name}: {column}")
    return once_each(table, name=name, column=column), classes


# --- pairs without a header -----------------------------------------------------------------------


def csv_pairs(archive: Archive) -> Source | None:
    """train_img.csv with train_label.csv, and the same for val and test where there are: a value in each row, the first
    row included; photographs of those names in whatever folders."""
    start = shallowest(archive, ("train_img.csv",))
    if start is None:
        return None
    folder = posixpath.dirname(start)
    beside = {posixpath.basename(name).lower(): name for name in archive.names if posixpath.dirname(name) == folder}
    found = []
    for side, spellings in SIDES.items():
        for word in spellings:
            pair = [beside.get(f"{word}_{kind}.csv") for kind in ("img", "label")]
            if any(pair):
                found.append(_read_pair(archive, pair, word=word, side=side))
    table = pd.concat(found, ignore_index=True)
    classes = numbered({side: rows["diagnosis"] for side, rows in table.groupby("side")}, place=str(archive.path))
    patient = table["original"].where(~table["name"].str.match(EYE), table["name"].str.replace(EYE, r"\1", regex=True))
    table = table.assign(source="main", patient=patient)
    return Source("CSV pairs", archive, table[list(COLUMNS)], classes)


def _values(archive: Archive, member: str) -> list[tuple[str, int]]:
    """The one value of each row that is not blank, with the row's number."""
    name = f"{archive.path}: {member}"
    values = []
    for number, row in enumerate(read_rows(read_member(archive, member), name=name), start=1):
        if any(row):
            if len(row) > 1:
                raise UsageError(f"{name}, row {number}: it has {len(row)} values, expected one")
            values.append((row[0], number))
    return values


def _read_pair(archive: Archive, pair: list[str | None], *, word: str, side: str) -> pd.DataFrame:
    """-> `original` (with its side: two folders may use one name), `name`, `diagnosis`, `member`, `side`."""
    if None in pair:
        missing = f"{word}_{('img', 'label')[pair.index(None)]}.csv"
        raise UsageError(f"{archive.path}: {pair[0] or pair[1]} has no {missing} beside it; add it")
    images, labels = (_values(archive, member) for member in pair)
    if len(images) != len(labels):
        raise UsageError(
            f"{archive.path}: {pair[0]} has {len(images)} rows, but {pair[1]} has {len(labels)}; each needs its label"
        )
    if not images:
        raise UsageError(f"{archive.path}: {pair[0]} is empty; expected a photograph's name in each row")
    place = f"{archive.path}: {pair[1]}"
    first, row = labels[0]
    if row == 1 and not _is_number(first):
        raise UsageError(f"{place}, row 1: label is {first!r}, expected a whole number from 0; {NO_HEADER}")
    table = pd.DataFrame(images, columns=["original", "row"])
    table["diagnosis"] = [
        parse_grade(text, name=place, row=row, column="label", num_classes=None) for text, row in labels
    ]
    table = once_each(table, name=f"{archive.path}: {pair[0]}", column="label")
    members = _photographs(archive, set(table["original"]), side=side, beside=pair[0])
    for name, row in zip(table["original"], table["row"], strict=True):
        if name not in members:
            other = next((image for image in archive.images() if stem(image) == name), None)
            where = f" of {side} ({other} is of another side)" if other else ""
            remedy = f"add it; {NO_HEADER}" if row == 1 else "add it"
            raise UsageError(f"{archive.path}: {pair[0]}, row {row}: there is no photograph {name}{where}; {remedy}")
    table = table.assign(name=table["original"], side=side, member=[members[name] for name in table["original"]])
    return table.assign(original=f"{side}_" + table["name"])


def _photographs(archive: Archive, wanted: set[str], *, side: str, beside: str) -> dict[str, str]:
    """{name: photograph} of the names that a side wants, from no folder of another side. If these have none, from all:
    both sides may lie in one folder called train. A side that has some borrows none: its 7.png is not train's."""
    for images in (_of_side(archive, side, beside=beside), archive.images()):
        if members := by_stem(archive, (image for image in images if stem(image) in wanted)):
            return members
    return {}


def _of_side(archive: Archive, side: str, *, beside: str) -> Iterable[str]:
    """The photographs that stand in no folder of another side (`test`, `test_img`), not counting the folders around the
    table `beside`."""
    others = "|".join(word for other, words in SIDES.items() if other != side for word in words)
    around = set(beside.split("/"))
    for member in archive.images():
        folders = [part.lower() for part in member.split("/")[:-1] if part not in around]
        if not any(re.match(rf"({others})(?![a-z])", folder) for folder in folders):
            yield member
