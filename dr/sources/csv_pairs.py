"""Pairs of CSVs without a header, one with names and one with labels for each side, and their photographs."""

import posixpath
import re
from collections.abc import Iterable

import pandas as pd

from dr import UsageError
from dr.sources.archive import Archive, stem
from dr.sources.class_names import is_number, numbered
from dr.sources.kaggle import (
    COLUMNS,
    EYE,
    SPLITS,
    Source,
    by_stem,
    once_each,
    parse_grade,
    read_member,
    read_rows,
    shallowest,
)

NO_HEADER = "these tables have no header: if this is one, take it out"


def csv_pairs(archive: Archive) -> Source | None:
    """train_img.csv with train_label.csv, and the same for val and test where there are: a value in each row, the first
    row included; photographs of those names in whatever folders."""
    start = shallowest(archive, ("train_img.csv",))
    if start is None:
        return None
    folder = posixpath.dirname(start)
    beside = {posixpath.basename(name).lower(): name for name in archive.names if posixpath.dirname(name) == folder}
    found = []
    for side, spellings in SPLITS.items():
        for word in spellings:
            pair = [beside.get(f"{word}_{kind}.csv") for kind in ("img", "label")]
            if any(pair):
                found.append(_read_pair(archive, pair, word=word, side=side))
    table = pd.concat(found, ignore_index=True)
    classes = numbered({side: rows["diagnosis"] for side, rows in table.groupby("side")}, place=str(archive.path))
    patient = table["original"].where(~table["name"].str.match(EYE), table["name"].str.replace(EYE, r"\1", regex=True))
    table = table.assign(source="main", patient=patient)
    unlisted = len(archive.images()) - table["member"].nunique()
    return Source("CSV pairs", archive, table[list(COLUMNS)], classes, unlisted=unlisted)


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
    if row == 1 and not is_number(first):
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
    for images in (of_side(archive, side, beside=beside), archive.images()):
        if members := by_stem(archive, (image for image in images if stem(image) in wanted)):
            return members
    return {}


def of_side(archive: Archive, side: str, *, beside: str) -> Iterable[str]:
    """The photographs that stand in no folder of another side (`test`, `test_img`), not counting the folders around the
    table `beside`."""
    others = "|".join(word for other, words in SPLITS.items() if other != side for word in words)
    around = set(beside.split("/"))
    for member in archive.images():
        folders = [part.lower() for part in member.split("/")[:-1] if part not in around]
        if not any(re.match(rf"({others})(?![a-z])", folder) for folder in folders):
            yield member
