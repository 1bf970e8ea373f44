"""What a format is asked to recognise: a path, the columns that the user named, and what the archive holds."""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from dr import UsageError
from dr.sources.archive import Archive, is_ignored
from dr.sources.csv_tables import columns_by_lower_case, read_header
from dr.sources.source import SPLIT_OF, Source

ID_COLUMNS, LABEL_COLUMNS = ("id_code", "image"), ("diagnosis", "level")
SPLIT_PREFIX = re.compile(f"(?i:({'|'.join(SPLIT_OF)}))(?![a-z])")  # train_1.csv, trainLabels.csv


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns of a label table that the user named. None: the standard ones."""

    id: str | None = None
    label: str | None = None
    patient: str | None = None

    def given(self) -> bool:
        """Whether the user named a column."""
        return any((self.id, self.label, self.patient))

    def select(self, header: list[str]) -> tuple[str, str] | None:
        """The id column and the label column of a header, or None if one is missing."""
        standard = columns_by_lower_case(header)
        ids = [self.id] if self.id else [standard[name] for name in ID_COLUMNS if name in standard]
        labels = [self.label] if self.label else [standard[name] for name in LABEL_COLUMNS if name in standard]
        return (ids[0], labels[0]) if ids and labels and {ids[0], labels[0]} <= {*header} else None

    def __str__(self) -> str:
        ids, labels = self.id or " or ".join(ID_COLUMNS), self.label or " or ".join(LABEL_COLUMNS)
        return f"{ids} and {labels}"


@dataclass(frozen=True)
class Candidate:
    """A path that the formats try to recognise. Archive and headers are read once, when a format first asks."""

    path: str
    columns: Columns = field(default_factory=Columns)

    @cached_property
    def archive(self) -> Archive:
        """The path as a zip or folder. Raises UsageError if it is neither."""
        return Archive(self.path)

    @cached_property
    def headers(self) -> dict[str, list[str]]:
        """{CSV member: its header}. The header of an unreadable CSV is empty; sample submissions are left out.

        Raises UsageError for an unreadable test.csv (or the like) beside a label table: its whole split would be lost.
        """
        headers = {}
        for member in self.archive.names:
            name = posixpath.basename(member).lower()
            if name.endswith(".csv") and not is_ignored(member) and "submission" not in name:
                try:
                    headers[member] = read_header(self.archive, member)
                except UsageError:
                    headers[member] = []
        folders = {posixpath.dirname(member) for member, header in headers.items() if self.columns.select(header)}
        for member, header in headers.items():
            name = posixpath.basename(member).lower().removesuffix(".csv")
            if not header and posixpath.dirname(member) in folders and name in SPLIT_OF:
                read_header(self.archive, member)
        return headers

    @cached_property
    def label_tables(self) -> dict[str, tuple[str, str]]:
        """{CSV member with an id and a label column: these columns}."""
        selected = {member: self.columns.select(header) for member, header in self.headers.items()}
        return {member: pair for member, pair in selected.items() if pair}

    @cached_property
    def split_tables(self) -> dict[str, str] | None:
        """`label_tables` as {split: table}, if they are one table for each split."""
        return tables_by_split(self.label_tables)


class Format(Protocol):
    """A way to store labelled images. A new format is a class with these members and one entry in detect.FORMATS."""

    name: str
    layout: str  # what the error about an unrecognised archive lists
    reads_columns: bool  # whether it honours --id_column, --label_column and --patient_column; else it is not tried

    def open(self, candidate: Candidate) -> Source | None:
        """The source, or None if this is another format. Raises UsageError if it is this format with an error in it."""
        ...


def tables_by_split(members: Iterable[str]) -> dict[str, str] | None:
    """Label tables -> {split: table}, by the word that each file name begins with.

    None if a table names no split, two name the same one, or none is for training.
    """
    members = list(members)
    tables: dict[str | None, str] = {}
    for member in members:
        word = SPLIT_PREFIX.match(posixpath.basename(member))
        tables[word and SPLIT_OF[word[1].lower()]] = member
    return tables if None not in tables and "train" in tables and len(tables) == len(members) > 1 else None
