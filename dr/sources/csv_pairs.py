"""Pairs of CSVs without a header, one with image names and one with labels for each split."""

import posixpath

import pandas as pd

from dr import UsageError
from dr.sources.archive import Archive, stem
from dr.sources.candidate import Candidate
from dr.sources.class_names import is_number
from dr.sources.columns import TableColumns
from dr.sources.csv_tables import read_member, read_rows
from dr.sources.matching import by_stem, images_of_split, shallowest
from dr.sources.source import COLUMNS, SPLITS, UNGRADABLE_COLUMNS, LabelledImages
from dr.sources.table_choice import have_splits
from dr.sources.table_labels import index_labels

NO_HEADER = "these tables have no header: remove this row if it is one"


class CsvPairsFormat:
    """train_img.csv with train_label.csv, optionally the same for val and test. No table has a header.
    The images may be in any folder."""

    name = "CSV pairs"
    layout = "train_img.csv with train_label.csv"
    reads_columns = False

    def open(self, candidate: Candidate) -> LabelledImages | None:
        archive = candidate.archive
        start = shallowest(archive, ("train_img.csv",))
        if start is None or not archive.images() or have_splits(candidate.label_tables):
            return None
        pairs = _read_pairs(archive, folder=posixpath.dirname(start))
        labels = index_labels(
            [(table["source_split"].iloc[0], table) for table in pairs],
            TableColumns(id="image", label=("label",), numbers="classes"),
            keep=candidate.options.ungradable == "keep",
        )
        table = pd.concat(labels.tables, ignore_index=True).assign(patient=None)
        ungradable = pd.concat(labels.ungradable, ignore_index=True)[list(UNGRADABLE_COLUMNS)]
        unlabelled = len(archive.images()) - pd.concat(pairs)["member"].nunique()
        return LabelledImages(
            self.name, archive, table[list(COLUMNS)], labels.classes, unlabelled=unlabelled, ungradable=ungradable
        )


def _read_pairs(archive: Archive, *, folder: str) -> list[pd.DataFrame]:
    """The table of each split that has a pair in `folder`."""
    beside = {posixpath.basename(name).lower(): name for name in archive.names if posixpath.dirname(name) == folder}
    tables = []
    for split, spellings in SPLITS.items():
        for word in spellings:
            pair = [beside.get(f"{word}_{kind}.csv") for kind in ("img", "label")]
            if any(pair):
                tables.append(_read_pair(archive, pair, word=word, split=split))
    return tables


def _values(archive: Archive, member: str) -> list[tuple[str, int]]:
    """The value of each row that is not blank, with the row number."""
    name = f"{archive.path}: {member}"
    values = []
    for number, row in enumerate(read_rows(read_member(archive, member), name=name), start=1):
        if any(row):
            if len(row) > 1:
                raise UsageError(f"{name}, row {number}: {len(row)} values, expected one")
            values.append((row[0], number))
    return values


def _read_pair(archive: Archive, pair: list[str | None], *, word: str, split: str) -> pd.DataFrame:
    """-> `original` (prefixed with the split: two folders may reuse a name), `label`, `row`, `table` (of labels),
    `member`, `source_split`."""
    if None in pair:
        missing = f"{word}_{('img', 'label')[pair.index(None)]}.csv"
        raise UsageError(f"{archive.path}: {missing} is missing beside {pair[0] or pair[1]}; add it")
    images, labels = (_values(archive, member) for member in pair)
    if len(images) != len(labels):
        raise UsageError(
            f"{archive.path}: {pair[0]} has {len(images)} rows, but {pair[1]} has {len(labels)}; write one label for "
            "each image"
        )
    if not images:
        raise UsageError(f"{archive.path}: {pair[0]} is empty; expected an image name in each row")
    place = f"{archive.path}: {pair[1]}"
    first, row = labels[0]
    if row == 1 and not is_number(first):
        raise UsageError(f"{place}, row 1: label is {first!r}, expected a whole number from 0; {NO_HEADER}")
    table = pd.DataFrame(images, columns=["original", "row"])
    table["label"] = [text for text, _ in labels]
    table["table"] = place
    return _with_members(archive, table, split=split, names=pair[0])


def _with_members(archive: Archive, table: pd.DataFrame, *, split: str, names: str) -> pd.DataFrame:
    """The table `names` of a split -> the same with `member` and `source_split`. Raises UsageError for a name
    without an image."""
    members = _members(archive, set(table["original"]), split=split, beside=names)
    for name, row in zip(table["original"], table["row"], strict=True):
        if name not in members:
            other = next((image for image in archive.images() if stem(image) == name), None)
            where = f" of {split} ({other} is of another split)" if other else ""
            remedy = f"add it; {NO_HEADER}" if row == 1 else "add it"
            raise UsageError(f"{archive.path}: {names}, row {row}: no image {name}{where}; {remedy}")
    table = table.assign(source_split=split, member=[members[name] for name in table["original"]])
    return table.assign(original=f"{split}_" + table["original"])


def _members(archive: Archive, wanted: set[str], *, split: str, beside: str) -> dict[str, str]:
    """{name: image} of the wanted names, searched outside the folders of other splits.

    If none is found there, all folders are searched: two splits may share one folder called train. A split with some
    images takes none from another split: its 7.png is not the 7.png of train.
    """
    for images in (images_of_split(archive, split, beside=beside), archive.images()):
        if members := by_stem(archive, (image for image in images if stem(image) in wanted)):
            return members
    return {}
