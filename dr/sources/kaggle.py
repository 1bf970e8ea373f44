"""The competition archive and the 2015 archive -> one table of photographs. Label tables are checked row by row."""

import csv
import io
import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.archive import IMAGE_SUFFIXES, Archive, composed, is_aside, stem

COLUMNS = ("source", "original", "patient", "diagnosis", "member", "side")
COMPETITION = "competition archive"
# The sides of a split, test only where the source has one: as their folders and tables may be called elsewhere
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
SPLIT_OF = {spelling: side for side, spellings in SPLITS.items() for spelling in spellings}
EYE = r"^(.+)_((?i:left|right))$"  # as EyePACS names photographs: both eyes of a patient


@dataclass(frozen=True)
class Source:
    """Graded photographs of one kind. `table` has COLUMNS: `original` is unique, `member` is what `archive` reads the
    photograph by (missing where there is none), `side` is "train", "val", "test", or None where the source is not
    split. Without `crop` its pictures are used as they are: neither cropped nor written with losses. `unlisted`: how
    many photographs stand in no row of the table, or in no folder of a class."""

    kind: str
    archive: Archive  # or what offers its path, names, size(), member() and read()
    table: pd.DataFrame
    classes: tuple[str, ...] = GRADES
    crop: bool = True
    unlisted: int = 0


def read_rows(data: bytes, *, name: str) -> list[list[str]]:
    """Bytes of a CSV, its columns separated by commas, semicolons, tabs or bars -> its rows of stripped values, blank
    ones too. Byte-order marks and CRLF are accepted. Raises UsageError naming the table."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{name}: it is not UTF-8 text (byte {exc.start}); save it as CSV in UTF-8") from exc
    if "\0" in text:
        raise UsageError(f"{name}: it is not a text file; save it as CSV in UTF-8")
    try:
        rows = csv.reader(io.StringIO(text, newline=None), delimiter=_separator(text))
        return [[composed(value.strip()) for value in row] for row in rows]
    except csv.Error as exc:
        raise UsageError(f"{name}: it is not a CSV table ({exc}); is a quotation mark never closed?") from exc


def _separator(text: str) -> str:
    """Of the columns of a table: the comma, unless its first line has none and a semicolon, a tab or a bar instead."""
    first = text.partition("\n")[0]
    return next((mark for mark in ",;\t|" if mark in first), ",")


def read_table(data: bytes, *, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Bytes of a CSV with a header -> the columns asked for, as stripped strings, plus `row` (1 is the header).

    Raises UsageError naming table, row and column.
    """
    rows = read_rows(data, name=name)
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


def header(archive: Archive, member: str) -> list[str]:
    """The first row of a label table. Raises UsageError when it is no table."""
    rows = read_rows(read_member(archive, member), name=f"{archive.path}: {member}")
    return rows[0] if rows else []


def in_any_case(names: Iterable[str]) -> dict[str, str]:
    """Columns of a table -> {name in small letters: as it stands there}: of several that differ in case alone the one
    in small letters, else the first."""
    names = list(names)
    return {name.lower(): name for name in reversed(names)} | {name: name for name in names if name == name.lower()}


def parse_grade(text: str, *, name: str, row: int, column: str, num_classes: int | None = len(GRADES)) -> int:
    """'2' or '2.0' -> 2. Raises UsageError for anything that is not one of the classes 0..num_classes - 1 (None: any
    number of them)."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value < 0 or not value.is_integer() or (num_classes is not None and value >= num_classes):
        shown = repr(text) if text else "empty"
        expected = "a whole number from 0" if num_classes is None else f"0 to {num_classes - 1}"
        raise UsageError(f"{name}, row {row}: {column} is {shown}, expected {expected}")
    return int(value)


def once_each(table: pd.DataFrame, *, name: str, column: str) -> pd.DataFrame:
    """`original`, `diagnosis`, `row` -> the same with each photograph once, named without a photograph's ending, which
    may or may not stand in the table. Raises UsageError for one that is listed with two grades."""
    table = table.assign(original=[without_ending(original) for original in table["original"]])
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
    """Raises UsageError for the first row whose `column`, `shown` in the file, is empty."""
    empty = table[table[column] == ""]
    if len(empty):
        raise UsageError(f"{name}, row {empty['row'].iloc[0]}: {shown} is empty")


def read_grades(data: bytes, *, name: str, id_column: str, grade_column: str) -> pd.DataFrame:
    """Bytes of a label table -> DataFrame `original` (str, unique), `diagnosis` (int), `row`.

    A photograph listed twice with one grade counts once; with two grades it is a UsageError.
    """
    table = read_table(data, name=name, columns=(id_column, grade_column))
    table = table.rename(columns={id_column: "original", grade_column: "diagnosis"})
    refuse_empty(table, name=name, column="original", shown=id_column)
    table["diagnosis"] = [
        parse_grade(text, name=name, row=row, column=grade_column)
        for text, row in zip(table["diagnosis"], table["row"], strict=True)
    ]
    return once_each(table, name=name, column=grade_column)


def without_ending(name: str) -> str:
    """'a.PNG' -> 'a'; a name that does not end like a photograph's stays as it is."""
    root, ending = posixpath.splitext(name)
    return composed(root if ending.lower() in IMAGE_SUFFIXES else name)


def shallowest(archive: Archive, names: tuple[str, ...]) -> str | None:
    """The shallowest member with one of these file names (any case); None where there is none."""
    wanted = {name.lower() for name in names}
    found = [name for name in archive.names if posixpath.basename(name).lower() in wanted and not is_aside(name)]
    return min(found, key=lambda member: (member.count("/"), member), default=None)


def read_member(archive: Archive, member: str) -> bytes:
    """The bytes of a label table. Raises UsageError when they cannot be read."""
    try:
        return archive.read(member)
    except OSError as exc:
        raise UsageError(f"{archive.path}: {member} cannot be read: {exc}; download it again") from exc


def by_stem(archive: Archive, members: Iterable[str]) -> dict[str, str]:
    """Members -> {stem (the name without folder and ending): member}. Raises UsageError when two share a stem: a grade
    could then belong to either."""
    found = {}
    for member in members:
        name = stem(member)
        if name in found:
            raise UsageError(f"{archive.path}: {found[name]} and {member} have the same name; rename one")
        found[name] = member
    return found


def path_ends(path: str) -> list[str]:
    """'a/b/1' -> 'a/b/1', 'b/1', '1'."""
    parts = path.split("/")
    return ["/".join(parts[place:]) for place in range(len(parts))]


def normal_path(path: str) -> str:
    """As a table may write it, with backslashes, '.' or an ending -> forward slashes, none of these."""
    return without_ending(posixpath.normpath(path.replace("\\", "/")))


def by_path_ends(paths: Iterable[str], names: Iterable[str], *, place: str) -> dict[str, str]:
    """Paths of a table (`normal_path`) and names of photographs -> {path: the photograph that shares its longest end},
    'a/b/1' before 'b/1' before '1'. An end that several paths have counts for none of them, but for a path that is that
    end. Raises UsageError where two photographs have it: a grade could belong to either."""
    distinct = sorted(set(paths))
    counts = Counter(end for path in distinct for end in path_ends(path))
    found: dict[str, list[str]] = {}
    for name in names:
        for end in path_ends(without_ending(name)):
            if end in counts:
                found.setdefault(end, []).append(name)
    meant = {}
    for path in distinct:
        end = next((end for end in path_ends(path) if end in found), None)
        if end is None or (counts[end] > 1 and end != path):
            continue
        if len(found[end]) > 1:
            both = " and ".join(found[end][:2])
            raise UsageError(f"{place}: {both} are both {end} of the table; write their folders there, or take one out")
        meant[path] = found[end][0]
    return meant


def images_beside(archive: Archive, table: str, folder: str) -> list[str]:
    """The photographs in `folder` beside a label table."""
    root = posixpath.join(posixpath.dirname(posixpath.normpath(table)), folder, "")
    return [name for name in archive.images() if posixpath.normpath(name).startswith(root)]


def _join(
    archive: Archive, *, tables: tuple[str, ...], folders: tuple[str, ...], columns: tuple[str, str]
) -> tuple[pd.DataFrame, int]:
    """Label table and photographs of one archive -> `original`, `diagnosis`, `member` (missing where there is none),
    and how many photographs stand in no row."""
    table = shallowest(archive, tables)
    if table is None:
        raise UsageError(f"{archive.path}: it holds no label table {' or '.join(tables)}; is it the right archive?")
    name = f"{archive.path}: {table}"
    found = in_any_case(header(archive, table))
    id_column, grade_column = (found.get(column.lower(), column) for column in columns)
    grades = read_grades(read_member(archive, table), name=name, id_column=id_column, grade_column=grade_column)
    wanted, members = set(grades["original"]), {}
    inside = [by_stem(archive, images_beside(archive, table, folder)) for folder in folders]
    for found in sorted(inside, key=lambda found: len(wanted & found.keys()), reverse=True):
        members = found | members  # of two of one name, cropped and not, the one in the folder that holds more
    grades["member"] = [members.get(original) for original in grades["original"]]
    if grades["member"].isna().all():
        expected = " or ".join(posixpath.join(posixpath.dirname(table), folder, "") for folder in folders)
        raise UsageError(f"{name}: none of its {len(grades)} photographs is in {expected}")
    return grades.drop(columns="row"), len(members) - int(grades["member"].notna().sum())


def competition(archive: Archive) -> Source | None:
    """The 2019-style archive: train.csv (id_code,diagnosis) beside train/; None where it is another. Patients are not
    known: each photograph is a patient of its own."""
    tables, folders, columns = ("train.csv",), ("train", "train_images"), ("id_code", "diagnosis")
    member = shallowest(archive, tables)
    if member is None or not any(images_beside(archive, member, folder) for folder in folders):
        return None
    if not set(columns) <= set(in_any_case(header(archive, member))):
        return None
    table, unlisted = _join(archive, tables=tables, folders=folders, columns=columns)
    table = table.assign(source="main", patient=table["original"], side=None)
    return Source(COMPETITION, archive, table[list(COLUMNS)], unlisted=unlisted)


def eyepacs_2015(archive: Archive) -> Source:
    """The 2015 archive: trainLabels.csv (image,level), photographs named `<patient>_<left|right>`."""
    table, unlisted = _join(
        archive,
        tables=("trainLabels.csv", "trainLabels_cropped.csv"),
        folders=("train", "resized_train", "resized_train_cropped"),
        columns=("image", "level"),
    )
    patient = table["original"].str.replace(EYE, r"\1", regex=True)
    table = table.assign(source="2015", patient=patient, side=None)
    return Source("2015 archive", archive, table[list(COLUMNS)], unlisted=unlisted)
