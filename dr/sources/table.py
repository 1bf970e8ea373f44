"""A label table as rows of text, with or without a header."""

import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from dr import UsageError
from dr.sources.archive import is_image, nfc
from dr.sources.class_names import is_number
from dr.sources.copies import without_copies
from dr.sources.csv_tables import read_sheets, without_suffix

STANDARD_NAMES = frozenset({"id", "id_code", "image", "name", "filename", "diagnosis", "level", "label", "grade"})
SAMPLED_ROWS = 50  # which show how many values a row has; half of them may be a title


class ImageNames:
    """The names of the images beside a table, to tell whether a value names one of them."""

    def __init__(self, members: Iterable[str]):
        counts = Counter(without_suffix(posixpath.basename(name)) for name in without_copies(members))
        self.stems = set(counts)
        self.repeated = {stem for stem, count in counts.items() if count > 1}  # in several folders
        self._folded = {stem.casefold(): stem for stem in self.stems}

    def stem_of(self, value: str) -> str | None:
        """The name that a value (a name or path, with or without suffix, in any case) shares with an image, or None."""
        name = posixpath.basename(value.replace("\\", "/"))
        for stem in (name, without_suffix(name)):  # a name may end in what looks like a suffix
            if stem in self.stems:
                return stem
            if stem.casefold() in self._folded:
                return self._folded[stem.casefold()]
        return None

    def lost_zeros(self, values: Iterable[str]) -> str | None:
        """Fault and remedy in one line if numbers name images only with leading zeros, which Excel drops; else None."""
        full = {stem.lstrip("0") or "0": stem for stem in self.stems if stem.isdecimal()}
        lost = sorted(
            {value for value in values if value.isdecimal() and self.stem_of(value) is None and value in full}
        )
        if not lost:
            return None
        return (
            f"{lost[0]} lacks the leading zeros of the image {full[lost[0]]}; format the column as text and save again"
        )

    def count(self, values: Iterable[str]) -> int:
        """How many different images the values name."""
        return len({self.stem_of(value) for value in set(values)} - {None})


@dataclass(frozen=True)
class Table:
    """`header`: unique column names, made up where the file has none. `numbers`: the row of the file, from 1, of each
    of `rows`."""

    place: str  # for messages
    header: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int]
    has_header: bool = True

    def named(self, name: str, *, flag: str) -> str:
        """The column that the user named, in any case. Raises UsageError that names the flag."""
        name = nfc(name.strip())
        if name in self.header:
            return name
        alike = [column for column in self.header if column.casefold() == name.casefold()]
        if len(alike) != 1:
            header = "the header is" if self.has_header else "no header: its columns are"
            raise UsageError(f"{self.place}: no column {name!r} ({header} {','.join(self.header)}); correct {flag}")
        return alike[0]

    def column(self, name: str) -> list[str]:
        """The values of one column. Raises UsageError for a row that is too short to have one."""
        place = self.header.index(name)
        for row, number in zip(self.rows, self.numbers, strict=True):
            if len(row) <= place:
                raise UsageError(
                    f"{self.place}, row {number}: {len(row)} values, expected {len(self.header)}; correct the row"
                )
        return [row[place] for row in self.rows]

    def values(self, name: str) -> list[str]:
        """As `column`, '' where a row is too short: for looking, before it is known what the table is."""
        place = self.header.index(name)
        return [row[place] if len(row) > place else "" for row in self.rows]


def make_table(rows: Sequence[Sequence[str]], *, place: str, images: ImageNames) -> Table:
    """Rows of a file -> its table. The first row below a title is the header, unless it names an image as the others
    do."""
    numbered = [(row, number) for number, row in enumerate(rows, start=1) if any(row)]
    numbered = numbered[_title_rows([row for row, _ in numbered[:SAMPLED_ROWS]], images=images) :]
    first = numbered[0][0] if numbered else []
    has_header = _is_header(first) or not _names_image(first, images)
    kept = numbered[1:] if has_header else numbered
    width = max((len(row) for row, _ in numbered), default=0)
    header = _unique([*(first if has_header else ()), *[""] * (width - (len(first) if has_header else 0))])
    return Table(place, header, [row for row, _ in kept], [number for _, number in kept], has_header)


def _is_header(row: Sequence[str]) -> bool:
    return bool({value.lower() for value in row} & STANDARD_NAMES)


def _names_image(row: Sequence[str], images: ImageNames) -> bool:
    return any(is_image(value) or images.stem_of(value) for value in row if value)


def _title_rows(rows: Sequence[Sequence[str]], *, images: ImageNames) -> int:
    """How many rows are a title above the header, as clinics export it: they have fewer values than the header and most
    rows. 0 where a row of images follows at once: then the first row is a header without some of its names."""
    filled = [sum(map(bool, row)) for row in rows]
    usual = median(filled) if filled else 0
    for number, row in enumerate(rows):
        if filled[number] >= usual or _is_header(row):
            return 0 if _names_image(row, images) or any(map(is_number, row)) else number
        if _names_image(row, images):
            break
    return 0


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """Column names, with the position added to empty and repeated ones."""
    unique: list[str] = []
    for position, name in enumerate(names, start=1):
        repeated = f"{name} (column {position})" if name else f"column {position}"
        unique.append(repeated if not name or name in unique else name)
    return tuple(unique)


def read_tables(data: bytes, *, place: str, images: ImageNames) -> dict[str, Table]:
    """Bytes of a file -> {"": its table}, or {"[Train]": table, "[Test]": table} of a workbook with several sheets.
    Raises as `read_rows`."""
    sheets = read_sheets(data, name=place)
    return {title: make_table(rows, place=place + title, images=images) for title, rows in sheets.items()}


def read_one_table(data: bytes, *, place: str, images: ImageNames) -> Table:
    """The table of a file; of several sheets the one that names images, else the first. Raises UsageError where several
    sheets name images."""
    tables = read_tables(data, place=place, images=images)
    naming = [table for table in tables.values() if any(images.count(table.values(name)) for name in table.header)]
    if len(naming) > 1:
        titles = " and ".join(table.place.removeprefix(place) for table in naming)
        raise UsageError(f"{place}: the sheets {titles} each name images; save the one to use as CSV")
    return (naming or list(tables.values()))[0]
