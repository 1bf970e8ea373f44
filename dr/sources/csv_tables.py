"""Label tables (CSV, text lists, Excel), checked row by row: a UsageError names the table, the row and the column."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.archive import IMAGE_SUFFIXES, is_ignored, nfc
from dr.sources.grade_words import to_number
from dr.sources.packed_tables import GZIP, ZIP, gunzip, unzip_table
from dr.sources.source import ImageArchive
from dr.sources.text_tables import text_rows
from dr.sources.workbooks import OLD_EXCEL, is_workbook, workbook_sheets

_PLAIN = (".csv", ".tsv", ".tab", ".txt", ".xlsx", ".xlsm")
TABLE_SUFFIXES = (*_PLAIN, *(f"{suffix}.{packer}" for suffix in _PLAIN for packer in ("zip", "gz")))
UNSUPPORTED_TABLES = frozenset({".xls", ".xlsb", ".ods", ".numbers"})


def is_table(name: str) -> bool:
    """Whether a file has the suffix of a table that is read, in any case, and is not `is_ignored`."""
    return name.lower().endswith(TABLE_SUFFIXES) and not is_ignored(name)


def unsupported_table(name: str) -> str | None:
    """Fault and remedy of a file with the suffix of a table that is not read, in one line; None for other files."""
    suffix = posixpath.splitext(name)[1].lower()
    if suffix not in UNSUPPORTED_TABLES or is_ignored(name):
        return None
    return f"{name}: tables in {suffix} are not read; save it as .xlsx or as CSV"


def read_rows(data: bytes, *, name: str) -> list[list[str]]:
    """Bytes of a table called `name` -> its rows of stripped values, blank rows included.

    Excel workbooks, zips and gzips are recognised by content; all else is text: delimited by comma, semicolon, tab or
    bar, or, in a .txt, by spaces. A .txt that is no table gives rows without meaning. Raises UsageError, which begins
    with `name`, for what cannot be read, and ModuleNotFoundError if a workbook needs the package openpyxl; UsageError
    also for a workbook with several sheets of the same columns, such as one for each split.
    """
    return _only_table(read_sheets(data, name=name), name=name)


def read_sheets(data: bytes, *, name: str) -> dict[str, list[list[str]]]:
    """As `read_rows`, of each sheet: {"[Train]": rows, "[Test]": rows}; {"": rows} of a file with only one."""
    sheets = _sheets(data, name=name, packed=False)
    return {
        f"[{nfc(title)}]" if len(sheets) > 1 else "": [[nfc(value.strip()) for value in row] for row in rows]
        for title, rows in sheets.items()
    } or {"": []}


def _only_table(sheets: Mapping[str, list[list[str]]], *, name: str) -> list[list[str]]:
    """The rows of the first sheet with a header of two columns, else of the first. Raises UsageError if another sheet
    has two of these columns: its rows would be lost."""
    columns = {title: _columns(rows) for title, rows in sheets.items()}
    first = next((title for title, names in columns.items() if names), next(iter(sheets)))
    same = [title for title, names in columns.items() if len(names & columns[first]) > 1]
    if len(same) > 1:
        raise UsageError(f"{name}: the sheets {' and '.join(same)} have the same columns; save each as a CSV")
    return sheets[first]


def _columns(rows: Sequence[Sequence[str]]) -> set[str]:
    """The first row with two values or more, in lower case, with rows below it."""
    header = next((row for row in rows[:-1] if sum(map(bool, row)) > 1), ())
    return {value.casefold().replace(" ", "") for value in header if value}


def _sheets(data: bytes, *, name: str, packed: bool) -> dict[str, list[list[str]]]:
    """{title: rows} as they are in the file. `packed`: the bytes come from a zip or gzip."""
    if data.startswith(OLD_EXCEL):
        raise UsageError(f"{name}: an old (.xls) or password-protected Excel file; save it as .xlsx or as CSV")
    if data.startswith((GZIP, *ZIP)) and packed and not is_workbook(data):
        raise UsageError(f"{name}: packed twice; unpack it")
    if data.startswith(GZIP):
        return _sheets(gunzip(data, name=name), name=name, packed=True)
    if not data.startswith(ZIP):
        return {"": text_rows(data, name=name)}
    if is_workbook(data):
        return workbook_sheets(data, name=name)
    if (fault := unsupported_table(name)) is not None:  # .xlsb and .ods are zips, too
        raise UsageError(fault)
    member, content = unzip_table(data, name=name, is_table=is_table)
    return _sheets(content, name=f"{name}: {member}", packed=True)


def read_table(data: bytes, *, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Bytes of a table with a header -> the requested columns as stripped strings, plus `row`, counted from 1 at the
    first row of the file.

    Raises UsageError naming table, row and column.
    """
    rows = read_rows(data, name=name)
    start, header = _header(rows)
    if not header:
        raise UsageError(f"{name}: the table is empty; expected a header {','.join(columns)} and one row per image")
    for column in columns:
        if column not in header:
            raise UsageError(f"{name}: no column {column!r} (the header is {','.join(header)}); add or rename it")
    places = [header.index(column) for column in columns]
    kept = []
    for number, row in enumerate(rows[start:], start=start + 1):
        if not any(row):
            continue
        if len(row) <= max(places):
            raise UsageError(f"{name}, row {number}: {len(row)} values, expected {len(header)}; correct the row")
        kept.append([row[place] for place in places] + [number])
    if not kept:
        raise UsageError(f"{name}: a header but no rows; add one row per image")
    return pd.DataFrame(kept, columns=[*columns, "row"])


def _header(rows: list[list[str]]) -> tuple[int, list[str]]:
    """-> (number of rows up to the first that is not blank, that row); (0, []) if all are."""
    return next(((number, row) for number, row in enumerate(rows, start=1) if any(row)), (0, []))


def read_member(archive: ImageArchive, member: str) -> bytes:
    """The bytes of a label table in an archive. Raises UsageError when they cannot be read."""
    try:
        return archive.read(member)
    except OSError as exc:
        raise UsageError(f"{archive.path}: {member} cannot be read: {exc}; download it again") from exc


def read_header(archive: ImageArchive, member: str) -> list[str]:
    """The first row with values of a label table in an archive. Raises UsageError when the file is not a table."""
    return _header(read_rows(read_member(archive, member), name=f"{archive.path}: {member}"))[1]


def columns_by_lower_case(names: Iterable[str]) -> dict[str, str]:
    """Columns of a table -> {lower-case name: name in the table}. Of columns that differ in case only, the lower-case
    one wins, else the first."""
    names = list(names)
    return {name.lower(): name for name in reversed(names)} | {name: name for name in names if name == name.lower()}


def parse_grade(text: str, *, name: str, row: int, column: str, num_classes: int | None = len(GRADES)) -> int:
    """'2' or '2.0' -> 2. Raises UsageError for anything but 0..num_classes - 1 (None: any number of classes)."""
    value = to_number(text)
    if value is None or value < 0 or not value.is_integer() or (num_classes is not None and value >= num_classes):
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
