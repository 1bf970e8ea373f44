"""Label tables as CSV, checked row by row: every UsageError names the table, the row and the column."""

import csv
import io
import posixpath
from collections.abc import Iterable

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.archive import IMAGE_SUFFIXES, nfc
from dr.sources.source import ImageArchive


def read_rows(data: bytes, *, name: str) -> list[list[str]]:
    """Bytes of a CSV delimited by comma, semicolon, tab or bar -> its rows of stripped values, blank rows included.

    Accepts byte-order marks and CRLF. Raises UsageError naming the table.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{name}: not UTF-8 text (byte {exc.start}); save it as CSV in UTF-8") from exc
    if "\0" in text:
        raise UsageError(f"{name}: not a text file; save it as CSV in UTF-8")
    try:
        rows = csv.reader(io.StringIO(text, newline=None), delimiter=_delimiter(text))
        return [[nfc(value.strip()) for value in row] for row in rows]
    except csv.Error as exc:
        raise UsageError(f"{name}: not a CSV table ({exc}); check for an unclosed quotation mark") from exc


def _delimiter(text: str) -> str:
    """The comma, unless the first line has none but has a semicolon, a tab or a bar."""
    first = text.partition("\n")[0]
    return next((mark for mark in ",;\t|" if mark in first), ",")


def read_table(data: bytes, *, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Bytes of a CSV with a header -> the requested columns as stripped strings, plus `row` (the header is row 1).

    Raises UsageError naming table, row and column.
    """
    rows = read_rows(data, name=name)
    if not rows or not any(rows[0]):
        raise UsageError(f"{name}: the table is empty; expected a header {','.join(columns)} and one row per image")
    header = rows[0]
    for column in columns:
        if column not in header:
            raise UsageError(f"{name}: no column {column!r} (the header is {','.join(header)}); add or rename it")
    places = [header.index(column) for column in columns]
    kept = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if len(row) <= max(places):
            raise UsageError(f"{name}, row {number}: {len(row)} values, expected {len(header)}; correct the row")
        kept.append([row[place] for place in places] + [number])
    if not kept:
        raise UsageError(f"{name}: a header but no rows; add one row per image")
    return pd.DataFrame(kept, columns=[*columns, "row"])


def read_member(archive: ImageArchive, member: str) -> bytes:
    """The bytes of a label table in an archive. Raises UsageError when they cannot be read."""
    try:
        return archive.read(member)
    except OSError as exc:
        raise UsageError(f"{archive.path}: {member} cannot be read: {exc}; download it again") from exc


def read_header(archive: ImageArchive, member: str) -> list[str]:
    """The first row of a label table in an archive. Raises UsageError when the file is not a table."""
    rows = read_rows(read_member(archive, member), name=f"{archive.path}: {member}")
    return rows[0] if rows else []


def columns_by_lower_case(names: Iterable[str]) -> dict[str, str]:
    """Columns of a table -> {lower-case name: name in the table}. Of columns that differ in case only, the lower-case
    one wins, else the first."""
    names = list(names)
    return {name.lower(): name for name in reversed(names)} | {name: name for name in names if name == name.lower()}


def parse_grade(text: str, *, name: str, row: int, column: str, num_classes: int | None = len(GRADES)) -> int:
    """'2' or '2.0' -> 2. Raises UsageError for anything but 0..num_classes - 1 (None: any number of classes)."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value < 0 or not value.is_integer() or (num_classes is not None and value >= num_classes):
        shown = repr(text) if text else "empty"
        expected = "a whole number from 0" if num_classes is None else f"0 to {num_classes - 1}"
        raise UsageError(f"{name}, row {row}: {column} is {shown}, expected {expected}; correct it")
    return int(value)


def drop_repeated_rows(table: pd.DataFrame, *, name: str, column: str) -> pd.DataFrame:
    """`original`, `diagnosis`, `row` -> one row per image, `original` without the suffix of an image file.

    Raises UsageError for an image that has two different labels.
    """
    table = table.assign(original=[without_suffix(original) for original in table["original"]])
    first = table.drop_duplicates("original").set_index("original")
    clash = table[table["diagnosis"].to_numpy() != first.loc[table["original"], "diagnosis"].to_numpy()]
    if len(clash):
        again = clash.iloc[0]
        before = first.loc[again["original"]]
        raise UsageError(
            f"{name}, row {again['row']}: {again['original']} has {column} {again['diagnosis']}, "
            f"but {before['diagnosis']} in row {before['row']}; keep one of them"
        )
    return first.reset_index()


def refuse_empty(table: pd.DataFrame, *, name: str, column: str, shown: str) -> None:
    """Raises UsageError for the first row with an empty `column`, which the file calls `shown`."""
    empty = table[table[column] == ""]
    if len(empty):
        raise UsageError(f"{name}, row {empty['row'].iloc[0]}: {shown} is empty; fill it in, or remove the row")


def read_grades(data: bytes, *, name: str, id_column: str, grade_column: str) -> pd.DataFrame:
    """Bytes of a label table -> `original` (str, unique), `diagnosis` (int, 0..4), `row`.

    An image listed twice with one grade counts once. Raises UsageError if its grades differ.
    """
    table = read_table(data, name=name, columns=(id_column, grade_column))
    table = table.rename(columns={id_column: "original", grade_column: "diagnosis"})
    refuse_empty(table, name=name, column="original", shown=id_column)
    table["diagnosis"] = [
        parse_grade(text, name=name, row=row, column=grade_column)
        for text, row in zip(table["diagnosis"], table["row"], strict=True)
    ]
    return drop_repeated_rows(table, name=name, column=grade_column)


def without_suffix(name: str) -> str:
    """'a.PNG' -> 'a'. A name without the suffix of an image file is unchanged."""
    root, suffix = posixpath.splitext(name)
    return nfc(root if suffix.lower() in IMAGE_SUFFIXES else name)
