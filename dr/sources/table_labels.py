"""Labels of tables as text -> class names and the index of each label, without those that cannot be graded."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.class_names import arrange, check_spelling, check_splits, is_number, numbered, taken_line
from dr.sources.columns import TableColumns
from dr.sources.csv_tables import drop_repeated_rows, parse_grade, without_suffix
from dr.sources.eyes import eye_of
from dr.sources.matching import normal_path
from dr.sources.table import Table
from dr.sources.ungradable import MISSING, UNGRADABLE, split_ungradable

Parts = Sequence[tuple[str | None, pd.DataFrame]]  # (split, table)
BINARY = ("No DR", "DR")


@dataclass(frozen=True)
class Labels:
    """`tables`: one row per image with its index into `classes` as `diagnosis`. `ungradable`: the rows left out of
    each. `words`: one line on which words are read as which grades."""

    tables: list[pd.DataFrame]
    classes: tuple[str, ...]
    ungradable: list[pd.DataFrame]
    words: str | None = None


def index_labels(parts: Parts, columns: TableColumns, *, keep: bool) -> Labels:
    """(split, table with `original`, `label`, `row`, `table`) -> `Labels`. `keep`: ungradable labels become the
    last class, UNGRADABLE.

    Labels are words or numbers, whichever are the majority: one typing error does not turn numbers into classes.
    Raises UsageError naming table, row and column.
    """
    column, place = " or ".join(columns.label), parts[0][1]["table"].iloc[0]
    left_out = split_ungradable(label for _, table in parts for label in table["label"])
    gradable = [(split, table[~table["label"].isin(left_out)]) for split, table in parts]
    ungradable = [table[table["label"].isin(left_out)] for _, table in parts]
    texts = [label for _, table in gradable for label in table["label"]]
    if not texts:
        raise UsageError(f"{place}: {column} has no labels; name the column of labels with --label_column")
    if not any(len(table) for split, table in gradable if split in ("train", None)):
        raise UsageError(f"{place}: no training image has a grade in {column}; add labels")
    if 2 * sum(map(is_number, texts)) < len(texts):
        labelled, classes = _by_words(gradable, texts, place=place, column=column)
    else:
        labelled, classes = _by_numbers(gradable, place=place, column=column, numbers=columns.numbers)
    for graded, table in zip(labelled, ungradable, strict=True):
        _refuse_both(graded, table, column=column)
    if not keep or not any(map(len, ungradable)):
        return Labels(labelled, classes, ungradable, taken_line(texts))
    kept = [table.assign(diagnosis=len(classes)) for table in ungradable]
    joined = [
        drop_repeated_rows(pd.concat(both), name=place, column=column) for both in zip(labelled, kept, strict=True)
    ]
    return Labels(joined, (*classes, UNGRADABLE), [table[:0] for table in ungradable], taken_line(texts))


def _by_words(parts: Parts, texts: list[str], *, place: str, column: str) -> tuple[list[pd.DataFrame], tuple[str, ...]]:
    check_spelling(texts, place=place)
    for _, table in parts:
        _refuse_numbers(table, column=column)
    classes, number = arrange(texts)
    unique = [_unique(table.assign(diagnosis=table["label"]), column=column) for _, table in parts]
    labelled = [table.assign(diagnosis=table["diagnosis"].map(number).astype(int)) for table in unique]
    used: dict[str, set[str]] = {}
    for (split, _), table in zip(parts, labelled, strict=True):
        used.setdefault(split or "train", set()).update(classes[k] for k in table["diagnosis"])
    check_splits(used, place=place)
    return labelled, classes


def _by_numbers(parts: Parts, *, place: str, column: str, numbers: str) -> tuple[list[pd.DataFrame], tuple[str, ...]]:
    fixed = {"grades": GRADES, "binary": BINARY}.get(numbers)
    labelled = []
    for _, table in parts:
        indices = [
            parse_grade(text, name=name, row=row, column=column, num_classes=fixed and len(fixed))
            for text, row, name in zip(table["label"], table["row"], table["table"], strict=True)
        ]
        labelled.append(_unique(table.assign(diagnosis=indices), column=column))
    if fixed:
        return labelled, fixed
    used: dict[str, set[int]] = {}
    for (split, _), table in zip(parts, labelled, strict=True):
        used.setdefault(split or "train", set()).update(table["diagnosis"])
    return labelled, numbered(used, place=f"{place}: {column}")


def _unique(table: pd.DataFrame, *, column: str) -> pd.DataFrame:
    return drop_repeated_rows(table, name=table["table"].iloc[0], column=column) if len(table) else table


def _refuse_both(graded: pd.DataFrame, ungradable: pd.DataFrame, *, column: str) -> None:
    """Raises UsageError for the first image that one row grades and another labels as ungradable."""
    rows = dict(zip(graded["original"], graded["row"], strict=True)) if len(graded) else {}
    for name, label, row, place in ungradable[["original", "label", "row", "table"]].itertuples(index=False):
        if (name := without_suffix(name)) in rows:
            shown = repr(label) if label else "empty"
            raise UsageError(
                f"{place}, row {row}: {name} has a grade in row {rows[name]}, but {column} is {shown} here; keep one"
            )


def _refuse_numbers(table: pd.DataFrame, *, column: str) -> None:
    """Raises UsageError for the first row of a table of words with a number."""
    wrong = table[table["label"].map(is_number).astype(bool)]
    if len(wrong):
        first = wrong.iloc[0]
        raise UsageError(
            f"{first['table']}, row {first['row']}: {column} is {first['label']!r}, but most labels are words; write "
            "a class, or remove the row"
        )


def label_texts(table: Table, columns: TableColumns) -> list[str]:
    """(N,) labels as written. Of two columns, one for each eye: the only label of the row, else that of the eye in the
    name of its image. Raises UsageError for two different labels and a name without an eye."""
    if len(columns.label) == 1:
        return table.column(columns.label[0])
    texts = []
    for *both, name, row in zip(*map(table.column, (*columns.label, columns.id)), table.numbers, strict=True):
        filled = [text for text in both if text.casefold() not in MISSING]
        eye = eye_of(posixpath.basename(normal_path(name)))
        if len({*filled}) == 2 and eye is None:
            raise UsageError(
                f"{table.place}, row {row}: {' and '.join(columns.label)} differ and {name} shows no eye; choose a "
                f"column with --label_column {columns.label[0]!r}"
            )
        texts.append(both[eye.eye == "right"] if len({*filled}) == 2 else "".join(filled[:1]))
    return texts
