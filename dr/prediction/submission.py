"""Sample submissions: which ids to grade, in which order, and under which header."""

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dr import UsageError
from dr.sources.archive import Archive
from dr.sources.columns import Columns
from dr.sources.csv_tables import is_table, read_member
from dr.sources.table import ImageNames, Table, read_one_table

AUTO = "auto"  # as a path: the sample submission in or near the images
HEADER = ("id_code", "diagnosis")  # of result.csv
_NAME = re.compile(r"(?i)sample[ _-]?submissions?(?: ?\(\d+\))?\.[a-z.]+")
_ID_NAMES, _LABEL_NAMES = ("id_code", "image"), ("diagnosis", "level")
_LEVELS_UP = 2  # Kaggle unpacks test_images.zip to test_images/test_images/


@dataclass(frozen=True)
class Sample:
    """A sample submission: its path for messages, its ids in order, and the names of their column and the grades'."""

    path: str
    ids: list[str]
    header: tuple[str, str] = HEADER


def read_sample(
    submission: str, *, images: str, archive: Archive, names: Iterable[str], columns: Columns | None = None
) -> Sample:
    """The sample submission at a path, of a table or of an archive that holds one; AUTO: the one in the images'
    `archive`, beside it or above. Raises UsageError."""
    columns = columns or Columns()
    if submission != AUTO:
        return _read(*_data(submission), names=names, columns=columns)
    found = _find(images, archive)
    if found is None:
        raise UsageError(
            f"--submission auto: no sample_submission.csv in {images}, beside it or above it; pass its path with "
            "--submission"
        )
    return _read(*found, names=names, columns=columns)


def _find(images: str, archive: Archive) -> tuple[str, bytes] | None:
    """(path, content) of the sample submission among the members of the archive, else in the folders above it."""
    member = _shallowest(archive)
    if member is not None:
        return f"{archive.path}: {member}", read_member(archive, member)
    for folder in list(Path(images).absolute().parents)[:_LEVELS_UP]:
        if not os.access(folder, os.R_OK):
            continue
        for file in sorted(folder.iterdir()):
            if _NAME.fullmatch(file.name) and is_table(file.name) and file.is_file():
                shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
                return str(shown), file.read_bytes()
    return None


def _shallowest(archive: Archive) -> str | None:
    """The sample submission of an archive that is the least deep; None without one."""
    found = [name for name in archive.names if _NAME.fullmatch(posixpath.basename(name)) and is_table(name)]
    return min(found, key=lambda member: (member.count("/"), member), default=None)


def _data(submission: str) -> tuple[str, bytes]:
    """(path, content) of the table at a path: a table, or a folder or zip that holds a sample submission."""
    path = Path(submission)
    if path.is_file() and is_table(path.name):
        return submission, path.read_bytes()
    archive = Archive(path)
    tables = [name for name in archive.names if is_table(name)]
    member = _shallowest(archive) or (tables[0] if len(tables) == 1 and not archive.images() else None)
    if member is None:
        raise UsageError(f"--submission {path}: no sample_submission.csv in it; pass the path of the table of ids")
    return f"{path}: {member}", read_member(archive, member)


def _read(path: str, data: bytes, *, names: Iterable[str], columns: Columns) -> Sample:
    """The content of a sample submission of images of these names. Raises UsageError."""
    images = ImageNames(names)
    table = read_one_table(data, place=path, images=images)
    if not table.rows:
        raise UsageError(f"{path}: no rows; pass a table with one row per image")
    id_column = _id_column(table, images=images, given=columns.id)
    ids = table.column(id_column)
    first: dict[str, int] = {}
    for name, row in zip(ids, table.numbers, strict=True):
        if not name:
            raise UsageError(f"{path}, row {row}: {id_column} is empty; fill it in, or remove the row")
        if first.setdefault(name, row) != row:
            raise UsageError(f"{path}, row {row}: {name} occurs twice; delete one of the rows")
    if not table.has_header:
        return Sample(path, ids)
    return Sample(path, ids, (id_column, _label_column(table, ids=id_column, given=columns.label)))


def _named(table: Table, name: str, *, flag: str) -> str:
    """The column `name`, in any case. Raises UsageError that names the flag."""
    alike = [column for column in table.header if column.casefold() == name.strip().casefold()]
    if name in table.header or len(alike) == 1:
        return name if name in table.header else alike[0]
    raise UsageError(f"{table.place}: no column {name!r} (the header is {','.join(table.header)}); correct {flag}")


def _id_column(table: Table, *, images: ImageNames, given: str | None) -> str:
    """The given column; else one with a usual name, if it names images or no other does; else the one that names most.
    Raises UsageError."""
    if given is not None:
        return _named(table, given, flag="--id_column")
    counts = {column: images.count(table.values(column)) for column in table.header}
    usual = [column for name in _ID_NAMES for column in table.header if column.casefold() == name]
    best = max(usual[:1] + list(table.header), key=lambda column: counts[column])
    if usual and (counts[usual[0]] or not counts[best]):
        return usual[0]
    if not counts[best]:
        header = ",".join(table.header)
        raise UsageError(
            f"{table.place}: no column names the images (the header is {header}); name it with --id_column"
        )
    return best


def _label_column(table: Table, *, ids: str, given: str | None) -> str:
    """The given column, the only one beside the ids, or one with a usual name; HEADER's in a table of ids alone. Raises
    UsageError."""
    if given is not None:
        return _named(table, given, flag="--label_column")
    others = [column for column in table.header if column != ids]
    usual = [column for column in others if column.casefold() in _LABEL_NAMES]
    if not others:
        return HEADER[1]
    if len(others) > 1 and not usual:
        some = " and ".join(map(repr, others[:3]))
        raise UsageError(f"{table.place}: {some} could each hold the grades; choose one with --label_column")
    return (usual or others)[0]


def unused_lines(images: str, archive: Archive, id_of: Mapping[str, str]) -> list[str]:
    """The images {name: id}, graded without a sample submission -> a line about one in or near them, if any."""
    try:
        found = _find(images, archive)
    except (OSError, UsageError):
        return []
    if found is None:
        return []
    path, data = found
    try:
        sample = _read(path, data, names=id_of, columns=Columns())
    except UsageError:
        return [f"{path} is not used; --submission auto grades its ids"]
    matched, listed = ImageNames(id_of).count(sample.ids), len(sample.ids)
    if not matched and not path.startswith(f"{archive.path}: "):
        return []  # of other images
    if not matched == listed == len(id_of):
        fault = f"result.csv has all {len(id_of)} images"
    elif different := sorted(set(id_of.values()).difference(sample.ids)):
        fault = f"result.csv writes them otherwise, as {different[0]},"
    elif sample.header != HEADER:
        fault = f"result.csv lacks the header {','.join(sample.header)}"
    else:
        return [f"{path}: result.csv has its {listed} ids; --submission auto also keeps their order"]
    return [f"{path} lists {listed} ids, but {fault} and is not a valid submission; use --submission auto"]
