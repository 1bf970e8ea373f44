"""The competition archive and the 2015 EyePACS archive, as Kaggle packs them."""

import posixpath

import pandas as pd

from dr import UsageError
from dr.sources.archive import Archive
from dr.sources.candidate import Candidate
from dr.sources.csv_tables import columns_by_lower_case, read_grades, read_header, read_member
from dr.sources.matching import by_stem, images_beside, patients, shallowest
from dr.sources.source import COLUMNS, LabelledImages

COMPETITION = "competition archive"
_TABLES, _FOLDERS, _COLUMNS = ("train.csv",), ("train", "train_images"), ("id_code", "diagnosis")


class CompetitionFormat:
    """The 2019-style archive. A split table beside train.csv makes it a label table instead."""

    name = COMPETITION
    layout = "train.csv (id_code,diagnosis) beside train/"
    reads_columns = False

    def open(self, candidate: Candidate) -> LabelledImages | None:
        if not candidate.archive.images() or candidate.split_tables:
            return None
        return competition(candidate.archive)


def competition(archive: Archive) -> LabelledImages | None:
    """train.csv (id_code,diagnosis) beside train/, or None if the archive is another one. Its patients are unknown:
    each image counts as a patient."""
    table = shallowest(archive, _TABLES)
    if table is None or not any(images_beside(archive, table, folder) for folder in _FOLDERS):
        return None
    if not set(_COLUMNS) <= set(columns_by_lower_case(read_header(archive, table))):
        return None
    images, unlabelled = _join(archive, tables=_TABLES, folders=_FOLDERS, columns=_COLUMNS)
    images = images.assign(source="main", patient=images["original"], source_split=None)
    return LabelledImages(COMPETITION, archive, images[list(COLUMNS)], unlabelled=unlabelled)


def eyepacs_2015(archive: Archive) -> LabelledImages:
    """The 2015 archive: trainLabels.csv (image,level), images named PATIENT_left and PATIENT_right."""
    images, unlabelled = _join(
        archive,
        tables=("trainLabels.csv", "trainLabels_cropped.csv"),
        folders=("train", "resized_train", "resized_train_cropped"),
        columns=("image", "level"),
    )
    patient = patients(images["original"], otherwise=images["original"])
    images = images.assign(source="2015", patient=patient, source_split=None)
    return LabelledImages("2015 archive", archive, images[list(COLUMNS)], unlabelled=unlabelled)


def _join(
    archive: Archive, *, tables: tuple[str, ...], folders: tuple[str, ...], columns: tuple[str, str]
) -> tuple[pd.DataFrame, int]:
    """Label table and images of one archive -> `original`, `diagnosis`, `member` (missing where the archive lacks the
    image), and the number of images without a row."""
    table = shallowest(archive, tables)
    if table is None:
        raise UsageError(f"{archive.path}: no label table {' or '.join(tables)}; check that this is the right archive")
    name = f"{archive.path}: {table}"
    header = columns_by_lower_case(read_header(archive, table))
    id_column, grade_column = (header.get(column.lower(), column) for column in columns)
    grades = read_grades(read_member(archive, table), name=name, id_column=id_column, grade_column=grade_column)
    wanted, members = set(grades["original"]), {}
    by_folder = [by_stem(archive, images_beside(archive, table, folder)) for folder in folders]
    for found in sorted(by_folder, key=lambda found: len(wanted & found.keys()), reverse=True):
        members = found | members  # of two images with one name, cropped and not, from the folder that holds more
    grades["member"] = [members.get(original) for original in grades["original"]]
    if grades["member"].isna().all():
        expected = " or ".join(posixpath.join(posixpath.dirname(table), folder, "") for folder in folders)
        raise UsageError(f"{name}: none of the {len(grades)} listed images is in {expected}; add them")
    return grades.drop(columns="row"), len(members) - int(grades["member"].notna().sum())
