"""Label tables with a header, one or one for each side, and a folder of photographs."""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.archive import Archive, is_aside
from dr.sources.class_names import arrange, check_spelling, check_splits, is_number, numbered
from dr.sources.csv_pairs import of_side
from dr.sources.kaggle import (
    COLUMNS,
    EYE,
    SPLIT_OF,
    Source,
    by_path_ends,
    header,
    in_any_case,
    normal_path,
    once_each,
    parse_grade,
    read_member,
    read_table,
    refuse_empty,
)

ID_COLUMNS, LABEL_COLUMNS = ("id_code", "image"), ("diagnosis", "level")
NAMED_AFTER_SIDE = re.compile(f"(?i:({'|'.join(SPLIT_OF)}))(?![a-z])")  # train_1.csv, trainLabels.csv
MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "null"})  # as programs write that a value is not there


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
        known = in_any_case(found)
        ids = [self.id] if self.id else [known[name] for name in ID_COLUMNS if name in known]
        labels = [self.label] if self.label else [known[name] for name in LABEL_COLUMNS if name in known]
        return (ids[0], labels[0]) if ids and labels and {ids[0], labels[0]} <= {*found} else None

    def __str__(self) -> str:
        ids, labels = self.id or " or ".join(ID_COLUMNS), self.label or " or ".join(LABEL_COLUMNS)
        return f"{ids} and {labels}"


def headers(archive: Archive) -> dict[str, list[str]]:
    """{member: its header} of the CSVs of an archive, empty of those that are no table and perhaps nobody needs; a
    sample of a submission grades nothing."""
    found = {}
    for member in archive.names:
        name = posixpath.basename(member).lower()
        if name.endswith(".csv") and not is_aside(member) and "submission" not in name:
            try:
                found[member] = header(archive, member)
            except UsageError:
                found[member] = []
    return found


def check_splits_can_be_read(archive: Archive, columns: Columns, *, found: dict[str, list[str]]) -> None:
    """Raises UsageError for a table of `headers`, called test.csv or the like, that cannot be read and stands beside
    one that fits: its whole side would be left out without a word."""
    beside = {posixpath.dirname(member) for member, names in found.items() if columns.chosen(names)}
    for member, names in found.items():
        name = posixpath.basename(member).lower().removesuffix(".csv")
        if not names and posixpath.dirname(member) in beside and name in SPLIT_OF:
            header(archive, member)


def label_table(archive: Archive, columns: Columns, *, found: dict[str, list[str]]) -> Source | None:
    """Of the tables of `headers` one with ids and labels, anywhere beside its photographs, in whatever folders these
    are; or one for each side, named train..., val... and test..., which keep their photographs."""
    fitting = {member: pair for member, names in found.items() if (pair := columns.chosen(names))}
    if not fitting:
        return None
    side_of = {None: next(iter(fitting))} if len(fitting) == 1 else sides(fitting)
    if side_of is None:
        some = " and ".join(sorted(fitting)[:2])
        raise UsageError(
            f"{archive.path}: {some} have the columns {columns}; leave only one of them in it, or name them train.csv, "
            "val.csv and test.csv after their sides"
        )
    named = {side: _named(archive, member, (*fitting[member], columns.patient)) for side, member in side_of.items()}
    label_column = fitting[next(iter(side_of.values()))][1]
    labelled, classes = _labelled(named, column=label_column, graded=columns.label is None, place=str(archive.path))
    placed = [_placed(archive, one, side=side, beside=side_of[side]) for side, one in labelled.items()]
    table = pd.concat(placed, ignore_index=True)
    for column, what in (("member", "are one photograph"), ("original", "would have one name")):
        _refuse_repeated(table, column, what=what)
    unlisted = len(archive.images()) - int(table["member"].notna().sum())
    return Source("label table", archive, table.assign(source="main")[list(COLUMNS)], classes, unlisted=unlisted)


def sides(members: Iterable[str]) -> dict[str, str] | None:
    """Label tables -> {side: its table}, by the word that their names begin with; None where one names no side, two
    name one, or none is of training."""
    found: dict[str | None, str] = {}
    members = list(members)
    for member in members:
        word = NAMED_AFTER_SIDE.match(posixpath.basename(member))
        found[word and SPLIT_OF[word[1].lower()]] = member
    return found if None not in found and "train" in found and len(found) == len(members) > 1 else None


def _placed(archive: Archive, table: pd.DataFrame, *, side: str | None, beside: str) -> pd.DataFrame:
    """A label table -> the same with the `member` of each photograph: of a side from no folder of another side, or
    where these have none, from all."""
    images = archive.images()
    members: dict[str, str] = {}
    for candidates in (images,) if side is None else (list(of_side(archive, side, beside=beside)), images):
        members = members or by_path_ends(table["path"], candidates, place=str(archive.path))
    if not members:
        such = f"such as {table['path'].iloc[0]} and {images[0]}"
        name = table["table"].iloc[0]
        raise UsageError(
            f"{name}: none of its {len(table)} photographs is in {archive.path} ({such}); give the folder of both"
        )
    original = table["original"].str.replace("/", "_")  # part of a file's name
    patient = table["patient"].where(table["patient"].notna(), original.str.replace(EYE, r"\1", regex=True))
    original = original if side is None else f"{side}_" + original  # two sides may use one name
    return table.assign(original=original, patient=patient, member=table["path"].map(members), side=side)


def _refuse_repeated(table: pd.DataFrame, column: str, *, what: str) -> None:
    """Raises UsageError for two rows that share a value."""
    repeated = table[table[column].notna() & table[column].duplicated(keep=False)].sort_values(column, kind="stable")
    if len(repeated):
        first, second = (repeated.iloc[place] for place in (0, 1))
        where = "" if first["table"] == second["table"] else f"{first['table']}, "
        raise UsageError(
            f"{second['table']}, row {second['row']}: {first['path']} of {where}row {first['row']} and "
            f"{second['path']} {what}; keep one of them"
        )


def _named(archive: Archive, member: str, columns: tuple[str, str, str | None]) -> pd.DataFrame:
    """A label table -> `path` as it stands there, without its ending, `original` (the same, with folders only where
    names alone are not unique), `diagnosis` and `patient` (missing where no column names patients) as text, `row`,
    `table`."""
    id_column, label_column, patient_column = columns
    name = f"{archive.path}: {member}"
    known = tuple(dict.fromkeys(filter(None, columns)))
    table = read_table(read_member(archive, member), name=name, columns=known)
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


def _refuse_other_than_words(table: pd.DataFrame, *, column: str) -> None:
    """Raises UsageError for the first row of a label table of words that has a number, or nothing."""
    missing = table["diagnosis"].str.casefold().isin(MISSING)
    wrong = table[missing | table["diagnosis"].map(is_number)]
    if len(wrong):
        text = wrong["diagnosis"].iloc[0]
        said = f"is {text!r}, where most labels are words" if text else "is empty"
        raise UsageError(
            f"{table['table'].iloc[0]}, row {wrong['row'].iloc[0]}: {column} {said}; write a class, or take out the row"
        )


def _labelled(
    tables: dict[str | None, pd.DataFrame], *, column: str, graded: bool, place: str
) -> tuple[dict[str | None, pd.DataFrame], tuple[str, ...]]:
    """{side: labels as they stand in its table} -> the same (each photograph once, `diagnosis` int), class names.
    Labels are words or numbers, whichever are more: one typing error does not make classes of all numbers. Numbers are
    GRADES if `graded`."""
    texts = [text for table in tables.values() for text in table["diagnosis"] if text.casefold() not in MISSING]
    words = 2 * sum(map(is_number, texts)) < len(texts)
    if words:
        check_spelling(texts, place=place)
    classes, number = arrange(texts) if words else (GRADES, {})
    labelled = {}
    for side, table in tables.items():
        name = table["table"].iloc[0]
        if words:
            _refuse_other_than_words(table, column=column)
            table = once_each(table, name=name, column=column)
            labelled[side] = table.assign(diagnosis=table["diagnosis"].map(number))
            continue
        rows = zip(table["diagnosis"], table["row"], strict=True)
        most = len(GRADES) if graded else None
        known = [parse_grade(text, name=name, row=row, column=column, num_classes=most) for text, row in rows]
        labelled[side] = once_each(table.assign(diagnosis=known), name=name, column=column)
    found = {side or "train": set(table["diagnosis"]) for side, table in labelled.items()}
    if words:
        check_splits({side: {classes[k] for k in known} for side, known in found.items()}, place=name)
    elif not graded:
        classes = numbered(found, place=f"{name}: {column}")
    return labelled, classes
