"""The input of a format: a path, the options of the user, and the content of the archive."""

import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from dr import UsageError
from dr.sources.archive import Archive, nfc
from dr.sources.columns import Columns, TableColumns, recognise_columns
from dr.sources.csv_tables import is_table, read_member, read_sheets, unsupported_table
from dr.sources.eye_columns import one_row_per_image
from dr.sources.label_columns import STANDARD
from dr.sources.source import SPLIT_OF, Source
from dr.sources.table import ImageNames, Table, read_tables

_SHEET = re.compile(r"\[[^\[\]]*\]$")  # Excel allows no brackets in titles of sheets
NO_TABLE = "none"  # the value of --table that reads class folders beside a label table


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read a source whose layout leaves a choice.

    `table`: name or path of the label table, of several; NO_TABLE for class folders. `root`: the folder of the archive
    to read, of several with splits. `ungradable`: "drop" leaves out images with an ungradable label, "keep" makes them
    a class of their own. `patient_pattern`: a regular expression for the path of an image, whose group is the patient.
    """

    columns: Columns = field(default_factory=Columns)
    table: str | None = None
    root: str | None = None
    ungradable: str = "drop"
    patient_pattern: re.Pattern[str] | None = None


@dataclass(frozen=True)
class LabelledTable:
    """A table that names images and labels them."""

    member: str
    table: Table
    columns: TableColumns


def workbook_of(member: str) -> str:
    """'labels.xlsx[Train]' -> 'labels.xlsx': the file of a table."""
    return _SHEET.sub("", member)


@dataclass(frozen=True)
class Candidate:
    """A path that the formats try to recognise. Archive and tables are read once, when a format first asks."""

    path: str
    options: ReadOptions = field(default_factory=ReadOptions)

    @property
    def columns(self) -> Columns:
        """The columns that the user named."""
        return self.options.columns

    def is_named(self) -> bool:
        """Whether the user named a table or its columns: then the source is a label table and nothing else."""
        return self.columns.given() or self.options.table not in (None, NO_TABLE)

    @cached_property
    def archive(self) -> Archive:
        """The path as a zip or folder, without images outside of `options.root`. Raises UsageError if it is neither, or
        has no such folder with images."""
        archive = Archive(self.path)
        outside = {name for name in archive.images() if not nfc(name).startswith(self._root)}
        if outside and len(outside) == len(archive.images()):
            folders = sorted({posixpath.dirname(name) for name in outside} - {""})[:3]
            remedy = f"use one of its folders, as {', '.join(folders)}" if folders else "leave out --root"
            raise UsageError(f"{self.path}: no images in --root {self.options.root}; {remedy}")
        return archive.without(outside) if outside else archive

    @property
    def _root(self) -> str:
        """What the names of members in `options.root` start with; '' for the whole archive."""
        root = nfc(posixpath.normpath((self.options.root or ".").replace("\\", "/")).strip("/"))
        return "" if root == "." else f"{root}/"

    @cached_property
    def image_names(self) -> ImageNames:
        """The names that a label table may use."""
        return ImageNames(self.archive.images())

    @cached_property
    def tables(self) -> dict[str, Table]:
        """{member: table} of all tables, without sample submissions; {member[sheet]: table} of a workbook with several
        sheets. An unreadable one has no header.

        Raises UsageError for an unreadable test.csv (or the like) beside a label table: its whole split would be lost.
        """
        tables = {}
        for member in self.archive.names:
            if is_table(member) and "submission" not in posixpath.basename(member).lower():
                tables |= self._read(member)
        tables = {member: table for member, table in tables.items() if nfc(member).startswith(self._root)} or tables
        beside = {posixpath.dirname(member) for member, table in tables.items() if {*table.header} & {*STANDARD}}
        for member, table in tables.items():
            name = posixpath.basename(member).lower().partition(".")[0]
            if not table.header and posixpath.dirname(member) in beside and name in SPLIT_OF:
                self._check(member)
        return tables

    def _check(self, member: str) -> None:
        read_sheets(read_member(self.archive, member), name=self._place(member))

    def _read(self, member: str) -> dict[str, Table]:
        place = self._place(member)
        try:
            tables = read_tables(read_member(self.archive, member), place=place, images=self.image_names)
        except (UsageError, ModuleNotFoundError):  # a workbook needs openpyxl: only asked for if nothing else labels
            return {member: Table(place, (), (), ())}
        if not self.columns.given():
            tables = {sheet: one_row_per_image(table, self.image_names) for sheet, table in tables.items()}
        return {f"{member}{sheet}": table for sheet, table in tables.items()}

    def _place(self, member: str) -> str:
        return f"{self.archive.path}: {member}"

    @cached_property
    def _recognised(self) -> tuple[list[LabelledTable], dict[str, str]]:
        """-> the label tables, and {member: why not} of the other tables that name images."""
        labelled, problems = [], {}
        for member, table in self.tables.items():
            if not table.rows:
                continue
            try:
                columns = recognise_columns(table, images=self.image_names, given=self.columns)
            except UsageError as exc:
                problems[member] = str(exc)
                continue
            if columns.matched or self.columns.given() or {name.lower() for name in columns.label} <= {*STANDARD}:
                labelled.append(LabelledTable(member, table, columns))
        return labelled, problems

    @property
    def label_tables(self) -> list[LabelledTable]:
        """The tables that name images and have a label column; those with standard columns even if they name none."""
        return [] if self.options.table == NO_TABLE else self._recognised[0]

    @property
    def table_problems(self) -> dict[str, str]:
        """{table: its fault} of the tables that name images but are no label tables."""
        problems = self._recognised[1]
        named = {member for member in problems if self._names_images(self.tables[member])}
        return {member: problems[member] for member in sorted(named)}

    def unused_notes(self, *, known: Collection[str] = ()) -> list[str]:
        """Lines on tables that cannot be read (prose in a .txt can), that name images without labels, and on sheets
        without labels beside one with labels; without those whose names end in one of `known`."""
        labelled = {each.member for each in self.label_tables}
        books = {workbook_of(member) for member in labelled} - labelled
        sheets = [member for member in self.tables if workbook_of(member) in books and member not in labelled]
        without = dict.fromkeys([*self.table_problems, *sheets])
        notes = []
        for reason, members in {"unreadable as a table": self._unread(), "no label column": without}.items():
            members = [member for member in members if not member.endswith(tuple(known))]
            more = f" and {len(members) - 2:,} more" if len(members) > 3 else ""
            shown = members[:2] if more else members
            if members:
                notes.append(f"{', '.join(shown)}{more}: not used ({reason})")
        return notes

    def _unread(self) -> list[str]:
        return [member for member, table in self.tables.items() if not table.header]

    def check_readable(self) -> None:
        """For an archive that no format reads: raises UsageError (ModuleNotFoundError for a workbook without openpyxl)
        for a table that cannot be read, which may be the one with the labels."""
        for member in self._unread():
            self._check(member)
        for fault in filter(None, map(unsupported_table, self.archive.names)):
            raise UsageError(f"{self.archive.path}: {fault}")

    def _names_images(self, table: Table) -> bool:
        """Whether most values of a column name images: prose mentions some, too."""
        values = (set(table.values(column)) for column in table.header)
        return any(2 * self.image_names.count(each) >= len(each) for each in values)


class Format(Protocol):
    """A way to store labelled images. A new format is a class with these members and one entry in detect.FORMATS."""

    name: str
    layout: str  # what the error about an unrecognised archive lists
    reads_columns: bool  # whether it honours a named table and named columns; else it is not tried with them

    def open(self, candidate: Candidate) -> Source | None:
        """The source, or None if this is another format. Raises UsageError if it is this format with an error in it."""
        ...
