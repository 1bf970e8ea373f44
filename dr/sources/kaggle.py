"""The competition archive and the 2015 EyePACS archive, as Kaggle packs them."""

import posixpath

import pandas as pd

from dr import UsageError
from dr.sources.archive import Archive
from dr.sources.candidate import Candidate
from dr.sources.columns import TableColumns
from dr.sources.csv_tables import (
    columns_by_lower_case,
    read_header,
    read_member,
    read_table,
    refuse_empty,
    without_suffix,
)
from dr.sources.matching import by_stem, images_beside, shallowest
from dr.sources.source import COLUMNS, UNGRADABLE_COLUMNS, LabelledImages
from dr.sources.table_choice import have_splits
from dr.sources.table_labels import index_labels

COMPETITION = "competition archive"
_TABLES, _FOLDERS, _COLUMNS = ("train.csv",), ("train", "train_images"), ("id_code", "diagnosis")


class CompetitionFormat:
    """The 2019-style archive. A table of another split beside train.csv, or a column of splits, makes it a label table
    instead."""

    name = COMPETITION
    layout = "train.csv (id_code,diagnosis) beside train/"
    reads_columns = False

    def open(self, candidate: Candidate) -> LabelledImages | None:
        if not candidate.archive.images() or have_splits(candidate.label_tables):
            return None
        return competition(candidate.archive, ungradable=candidate.options.ungradable)


def competition(archive: Archive, *, ungradable: str = "drop") -> LabelledImages | None:
    """train.csv (id_code,diagnosis) beside train/, or None if the archive is another one."""
    table = shallowest(archive, _TABLES)
    if table is None or not any(images_beside(archive, table, folder) for folder in _FOLDERS):
        return None
    if not set(_COLUMNS) <= set(columns_by_lower_case(read_header(archive, table))):
        return None
    return _join(archive, COMPETITION, tables=_TABLES, folders=_FOLDERS, columns=_COLUMNS, keep=ungradable == "keep")


def eyepacs_2015(archive: Archive, *, ungradable: str = "drop") -> LabelledImages:
    """The 2015 archive: trainLabels.csv (image,level), images named PATIENT_left and PATIENT_right."""
    return _join(
        archive,
        "2015 archive",
        tables=("trainLabels.csv", "trainLabels_cropped.csv"),
        folders=("train", "resized_train", "resized_train_cropped"),
        columns=("image", "level"),
        keep=ungradable == "keep",
    )


def _join(
    archive: Archive,
    kind: str,
    *,
    tables: tuple[str, ...],
    folders: tuple[str, ...],
    columns: tuple[str, str],
    keep: bool,
) -> LabelledImages:
    """Label table and images of one archive -> its source; an image that the archive lacks has no member."""
    table = shallowest(archive, tables)
    if table is None:
        raise UsageError(f"{archive.path}: no label table {' or '.join(tables)}; check that this is the right archive")
    rows, chosen = _rows(archive, table, columns=columns)
    labels = index_labels([(None, rows)], chosen, keep=keep)
    grades, left_out = labels.tables[0], labels.ungradable[0]
    wanted, members = set(rows["original"]), {}
    by_folder = [by_stem(archive, images_beside(archive, table, folder)) for folder in folders]
    for found in sorted(by_folder, key=lambda found: len(wanted & found.keys()), reverse=True):
        members = found | members  # of two images with one name, cropped and not, from the folder that holds more
    grades["member"] = [members.get(original) for original in grades["original"]]
    if grades["member"].isna().all():
        expected = " or ".join(posixpath.join(posixpath.dirname(table), folder, "") for folder in folders)
        raise UsageError(f"{archive.path}: {table}: none of the {len(grades)} listed images is in {expected}; add them")
    left_out = left_out.assign(member=left_out["original"].map(members)).dropna(subset="member")
    return LabelledImages(
        kind,
        archive,
        grades.assign(patient=None, source_split=None)[list(COLUMNS)],
        labels.classes,
        unlabelled=len(members.keys() - wanted),
        ungradable=left_out[list(UNGRADABLE_COLUMNS)].reset_index(drop=True),
    )


def _rows(archive: Archive, table: str, *, columns: tuple[str, str]) -> tuple[pd.DataFrame, TableColumns]:
    """The rows of a label table as `index_labels` takes them, and its columns."""
    name = f"{archive.path}: {table}"
    header = columns_by_lower_case(read_header(archive, table))
    id_column, label_column = (header.get(column.lower(), column) for column in columns)
    rows = read_table(read_member(archive, table), name=name, columns=(id_column, label_column))
    refuse_empty(rows, name=name, column=id_column, shown=id_column)
    rows = rows.rename(columns={id_column: "original", label_column: "label"}).assign(table=name)
    rows["original"] = rows["original"].map(without_suffix)
    return rows, TableColumns(id=id_column, label=(label_column,))
