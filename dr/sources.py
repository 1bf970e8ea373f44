"""The competition archive and the 2015 archive -> one table of photographs. Label tables are checked row by row."""

import csv
import io
from pathlib import PurePosixPath

import pandas as pd

from dr import GRADES, UsageError
from dr.archive import IMAGE_SUFFIXES, Archive

COLUMNS = ("source", "original", "patient", "diagnosis", "member")


def read_table(data: bytes, *, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Bytes of a CSV with a header -> the columns asked for, as stripped strings, plus `row` (1 is the header).

    Byte-order marks, CRLF and spaces around values are accepted. Raises UsageError naming table, row and column.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{name}: it is not UTF-8 text (byte {exc.start}); save it as CSV in UTF-8") from exc
    if "\0" in text:
        raise UsageError(f"{name}: it is not a text file; save it as CSV in UTF-8")
    try:
        rows = [[value.strip() for value in row] for row in csv.reader(io.StringIO(text, newline=None))]
    except csv.Error as exc:
        raise UsageError(f"{name}: it is not a CSV table ({exc}); is a quotation mark never closed?") from exc
    if not rows or not any(rows[0]):
        raise UsageError(f"{name}: it is empty; expected a header {','.join(columns)} and a row for each photograph")
    header = rows[0]
    for column in columns:
        if column not in header:
            raise UsageError(f"{name}: it has no column {column!r} (its header is {','.join(header)})")
    places = [header.index(column) for column in columns]
    kept = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if len(row) <= max(places):
            raise UsageError(f"{name}, row {number}: it has {len(row)} values, expected {len(header)}")
        kept.append([row[place] for place in places] + [number])
    if not kept:
        raise UsageError(f"{name}: it has a header but no rows")
    return pd.DataFrame(kept, columns=[*columns, "row"])


def parse_grade(text: str, *, name: str, row: int, column: str) -> int:
    """'2' or '2.0' -> 2. Raises UsageError for anything that is not one of the grades."""
    highest = len(GRADES) - 1
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value not in range(highest + 1):
        shown = repr(text) if text else "empty"
        raise UsageError(f"{name}, row {row}: {column} is {shown}, expected 0 to {highest}")
    return int(value)


def read_grades(data: bytes, *, name: str, id_column: str, grade_column: str) -> pd.DataFrame:
    """Bytes of a label table -> DataFrame `original` (str, unique), `diagnosis` (int), `row`.

    A photograph listed twice with one grade counts once; with two grades it is a UsageError. `original` is the name
    without a photograph's ending, which may or may not stand in the table.
    """
    table = read_table(data, name=name, columns=(id_column, grade_column))
    table = table.rename(columns={id_column: "original", grade_column: "diagnosis"})
    empty = table[table["original"] == ""]
    if len(empty):
        raise UsageError(f"{name}, row {empty['row'].iloc[0]}: {id_column} is empty")
    table["original"] = [without_ending(original) for original in table["original"]]
    table["diagnosis"] = [
        parse_grade(text, name=name, row=row, column=grade_column)
        for text, row in zip(table["diagnosis"], table["row"], strict=True)
    ]
    first = table.drop_duplicates("original").set_index("original")
    clash = table[table["diagnosis"].to_numpy() != first.loc[table["original"], "diagnosis"].to_numpy()]
    if len(clash):
        again = clash.iloc[0]
        before = first.loc[again["original"]]
        raise UsageError(
            f"{name}, row {again['row']}: {again['original']} has {grade_column} {again['diagnosis']}, "
            f"but {before['diagnosis']} in row {before['row']}; keep one of them"
        )
    return first.reset_index()


def without_ending(name: str) -> str:
    """'a.PNG' -> 'a'; a name that does not end like a photograph's stays as it is."""
    ending = PurePosixPath(name).suffix
    return name.removesuffix(ending) if ending.lower() in IMAGE_SUFFIXES else name


def find_table(archive: Archive, names: tuple[str, ...]) -> str:
    """The shallowest member with one of these file names (any case). Raises UsageError naming what was expected."""
    wanted = {name.lower() for name in names}
    found = [member for member in archive.names if PurePosixPath(member).name.lower() in wanted]
    if not found:
        raise UsageError(f"{archive.path}: it holds no label table {' or '.join(names)}; is it the right archive?")
    return min(found, key=lambda member: (member.count("/"), member))


def photographs_beside(archive: Archive, table: str, folders: tuple[str, ...]) -> dict[str, str]:
    """Stem (the name without its ending) -> member, of the photographs in `folders` beside a label table.

    Raises UsageError when two photographs share a stem: a grade could then belong to either.
    """
    root = PurePosixPath(table).parent
    members = {}
    for member in archive.images():
        path = PurePosixPath(member)
        if any(path.is_relative_to(root / folder) for folder in folders):
            if path.stem in members:
                raise UsageError(f"{archive.path}: {members[path.stem]} and {member} have the same name; rename one")
            members[path.stem] = member
    return members


def _join(
    archive: Archive, *, tables: tuple[str, ...], folders: tuple[str, ...], columns: tuple[str, str]
) -> pd.DataFrame:
    """Label table and photographs of one archive -> `original`, `diagnosis`, `member` (missing where there is none)."""
    table = find_table(archive, tables)
    name = f"{archive.path}: {table}"
    try:
        data = archive.read(table)
    except OSError as exc:
        raise UsageError(f"{name} cannot be read: {exc}; download it again") from exc
    grades = read_grades(data, name=name, id_column=columns[0], grade_column=columns[1])
    members = photographs_beside(archive, table, folders)
    grades["member"] = [members.get(original) for original in grades["original"]]
    if grades["member"].isna().all():
        expected = " or ".join(f"{PurePosixPath(table).parent / folder}/" for folder in folders)
        raise UsageError(f"{name}: none of its {len(grades)} photographs is in {expected}")
    return grades.drop(columns="row")


def competition(archive: Archive) -> pd.DataFrame:
    """The 2019-style archive (train.csv: id_code,diagnosis) -> DataFrame of COLUMNS. Patients are not known: each
    photograph is a patient of its own."""
    table = _join(archive, tables=("train.csv",), folders=("train", "train_images"), columns=("id_code", "diagnosis"))
    return table.assign(source="main", patient=table["original"])[list(COLUMNS)]


def eyepacs_2015(archive: Archive) -> pd.DataFrame:
    """The 2015 archive (trainLabels.csv: image,level; `<patient>_<left|right>`) -> DataFrame of COLUMNS."""
    table = _join(
        archive,
        tables=("trainLabels.csv", "trainLabels_cropped.csv"),
        folders=("train", "resized_train", "resized_train_cropped"),
        columns=("image", "level"),
    )
    patient = table["original"].str.replace(r"_(left|right)$", "", regex=True)
    return table.assign(source="2015", patient=patient)[list(COLUMNS)]
