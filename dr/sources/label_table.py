"""Label tables with a header, one or one for each split, and a folder of images."""

import posixpath

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.archive import Archive
from dr.sources.candidate import Candidate
from dr.sources.class_names import arrange, check_spelling, check_splits, is_number, numbered
from dr.sources.csv_tables import drop_repeated_rows, parse_grade, read_member, read_table, refuse_empty
from dr.sources.matching import by_path_ends, images_of_split, normal_path, patients
from dr.sources.source import COLUMNS, LabelledImages

MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "null"})  # how programs write a missing value
Tables = dict[str | None, pd.DataFrame]  # {split: its table}, or {None: the only table}


class LabelTableFormat:
    """One table with ids and labels anywhere beside its images; or one for each split (train..., val..., test...)."""

    name = "label table"
    layout = "one table with the columns id_code or image and diagnosis or level, and its images"
    reads_columns = True

    def open(self, candidate: Candidate) -> LabelledImages | None:
        archive, columns = candidate.archive, candidate.columns
        selected = candidate.label_tables if archive.images() else {}
        if not selected:
            return None
        members = {None: next(iter(selected))} if len(selected) == 1 else candidate.split_tables
        if members is None:
            some = " and ".join(sorted(selected)[:2])
            raise UsageError(
                f"{archive.path}: {some} have the columns {columns}; keep only one of them, or name them train.csv, "
                "val.csv and test.csv after their splits"
            )
        tables = {
            split: _read(archive, member, (*selected[member], columns.patient)) for split, member in members.items()
        }
        label_column = selected[next(iter(members.values()))][1]
        tables, classes = _labelled(tables, column=label_column, graded=columns.label is None, place=str(archive.path))
        matched = [_with_members(archive, table, split=split, beside=members[split]) for split, table in tables.items()]
        table = pd.concat(matched, ignore_index=True)
        for column, problem in (("member", "are one image"), ("original", "would have one name")):
            _refuse_repeated(table, column, problem=problem)
        unlabelled = len(archive.images()) - int(table["member"].notna().sum())
        table = table.assign(source="main")[list(COLUMNS)]
        return LabelledImages(self.name, archive, table, classes, unlabelled=unlabelled)


def _read(archive: Archive, member: str, columns: tuple[str, str, str | None]) -> pd.DataFrame:
    """A label table -> `path` as written but without suffix, `original` (the same, with folders only if names alone are
    not unique), `diagnosis` and `patient` (missing without such a column) as text, `row`, `table`."""
    id_column, label_column, patient_column = columns
    name = f"{archive.path}: {member}"
    table = read_table(read_member(archive, member), name=name, columns=tuple(dict.fromkeys(filter(None, columns))))
    refuse_empty(table, name=name, column=id_column, shown=id_column)
    if patient_column:
        refuse_empty(table, name=name, column=patient_column, shown=patient_column)
    paths = [normal_path(original) for original in table[id_column]]
    bare = [posixpath.basename(path) for path in paths]
    return pd.DataFrame(
        {
            "path": paths,
            "original": bare if len(set(bare)) == len(set(paths)) else paths,
            "diagnosis": table[label_column],
            "patient": table[patient_column] if patient_column else None,
            "row": table["row"],
            "table": name,
        }
    )


def _labelled(tables: Tables, *, column: str, graded: bool, place: str) -> tuple[Tables, tuple[str, ...]]:
    """Tables with labels as text -> the same with one row per image and `diagnosis` int, and the class names.

    Labels are words or numbers, whichever are the majority: one typing error does not turn numbers into classes.
    Numbers are GRADES if `graded`.
    """
    texts = [text for table in tables.values() for text in table["diagnosis"] if text.casefold() not in MISSING]
    if 2 * sum(map(is_number, texts)) < len(texts):
        return _labelled_by_words(tables, texts, column=column, place=place)
    return _labelled_by_numbers(tables, column=column, graded=graded)


def _labelled_by_words(tables: Tables, texts: list[str], *, column: str, place: str) -> tuple[Tables, tuple[str, ...]]:
    check_spelling(texts, place=place)
    classes, number = arrange(texts)
    labelled = {}
    for split, table in tables.items():
        name = table["table"].iloc[0]
        _refuse_other_than_words(table, column=column)
        unique = drop_repeated_rows(table, name=name, column=column)
        labelled[split] = unique.assign(diagnosis=unique["diagnosis"].map(number))
    used = {split or "train": {classes[k] for k in table["diagnosis"]} for split, table in labelled.items()}
    check_splits(used, place=name)
    return labelled, classes


def _labelled_by_numbers(tables: Tables, *, column: str, graded: bool) -> tuple[Tables, tuple[str, ...]]:
    labelled = {}
    for split, table in tables.items():
        name = table["table"].iloc[0]
        numbers = [
            parse_grade(text, name=name, row=row, column=column, num_classes=len(GRADES) if graded else None)
            for text, row in zip(table["diagnosis"], table["row"], strict=True)
        ]
        labelled[split] = drop_repeated_rows(table.assign(diagnosis=numbers), name=name, column=column)
    if graded:
        return labelled, GRADES
    used = {split or "train": set(table["diagnosis"]) for split, table in labelled.items()}
    return labelled, numbered(used, place=f"{name}: {column}")


def _refuse_other_than_words(table: pd.DataFrame, *, column: str) -> None:
    """Raises UsageError for the first row of a table of words with a number or an empty label."""
    missing = table["diagnosis"].str.casefold().isin(MISSING)
    wrong = table[missing | table["diagnosis"].map(is_number)]
    if len(wrong):
        text = wrong["diagnosis"].iloc[0]
        fault = f"is {text!r}, but most labels are words" if text else "is empty"
        raise UsageError(
            f"{table['table'].iloc[0]}, row {wrong['row'].iloc[0]}: {column} {fault}; write a class, or remove the row"
        )


def _with_members(archive: Archive, table: pd.DataFrame, *, split: str | None, beside: str) -> pd.DataFrame:
    """A label table -> the same with the `member` of each image, searched outside the folders of other splits, or in
    all folders if none is found there."""
    images = archive.images()
    members: dict[str, str] = {}
    for candidates in (images,) if split is None else (list(images_of_split(archive, split, beside=beside)), images):
        members = members or by_path_ends(table["path"], candidates, place=str(archive.path))
    if not members:
        examples = f"{table['path'].iloc[0]} does not match {images[0]}"
        raise UsageError(
            f"{table['table'].iloc[0]}: none of the {len(table)} listed images is in {archive.path} ({examples}); "
            "pass the folder that holds table and images"
        )
    original = table["original"].str.replace("/", "_")  # part of a file name
    patient = table["patient"].where(table["patient"].notna(), patients(original, otherwise=original))
    original = original if split is None else f"{split}_" + original  # two splits may reuse a name
    return table.assign(original=original, patient=patient, member=table["path"].map(members), source_split=split)


def _refuse_repeated(table: pd.DataFrame, column: str, *, problem: str) -> None:
    """Raises UsageError for two rows that share a value."""
    repeated = table[table[column].notna() & table[column].duplicated(keep=False)].sort_values(column, kind="stable")
    if len(repeated):
        first, second = (repeated.iloc[place] for place in (0, 1))
        where = "" if first["table"] == second["table"] else f"{first['table']}, "
        raise UsageError(
            f"{second['table']}, row {second['row']}: {first['path']} of {where}row {first['row']} and "
            f"{second['path']} {problem}; keep one of them"
        )
