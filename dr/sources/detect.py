"""The arguments of `data.py -m` and `-a` -> sources of labelled images, recognised by their content."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path, PurePosixPath

from dr import GRADES, UsageError
from dr.core import split_files
from dr.imaging.optional import refuse_without_package
from dr.sources.archive import IMAGE_SUFFIXES, Archive, is_ignored, nfc
from dr.sources.candidate import Candidate, Format, ReadOptions
from dr.sources.class_folders import ClassFoldersFormat
from dr.sources.csv_pairs import CsvPairsFormat
from dr.sources.csv_tables import is_table
from dr.sources.dicom_headers import with_headers
from dr.sources.kaggle import COMPETITION, CompetitionFormat, eyepacs_2015
from dr.sources.label_table import LabelTableFormat
from dr.sources.medmnist import MedMNISTFormat
from dr.sources.patients import distinct_patients, with_patients
from dr.sources.source import Source
from dr.sources.ungradable import UNGRADABLE

# The formats in the order in which they are tried: the first that returns a source wins
FORMATS: list[Format] = [
    MedMNISTFormat(),
    CompetitionFormat(),
    CsvPairsFormat(),
    LabelTableFormat(),
    ClassFoldersFormat(),
]
_PACKED = re.compile(
    r"\.(?:zip|7z|rar|tar|tgz|tar\.\w{2,3}|z\d\d|(?:zip|7z|rar|tar)\.(?:\d{3}|part\w+))$", re.IGNORECASE
)
MAX_NAMED = 3  # unread archives; the others are counted
EXTRA = "train_image_resized.zip"  # Kaggle's name of the 2015 archive


def recognise(path: str, *, options: ReadOptions | None = None) -> Source:
    """`path` -> its source. With named columns, only formats that read them are tried. Raises UsageError."""
    candidate = Candidate(path, options or ReadOptions())
    formats = [each for each in FORMATS if each.reads_columns or not candidate.is_named()]
    source = next((source for each in formats if (source := each.open(candidate)) is not None), None)
    if source is None:
        raise UsageError(_why_unrecognised(candidate))
    trained = source.table[~source.table["source_split"].isin(["val", "test"])]["diagnosis"].unique()
    if len(trained) < 2:  # counted after numbering: two spellings may be one class
        name = source.classes[trained[0]]
        raise UsageError(f"{path}: all its images are of the class {name!r}; add images of at least one other class")
    if packed := _packed(source.archive.names):
        source = replace(source, notes=(*source.notes, f"{_some(packed)}: not read; unpack to use the images in it"))
    return _with_patients(source, candidate.options)


def _packed(names: Iterable[str]) -> list[str]:
    """The members that are archives themselves, packed tables aside."""
    return [name for name in names if _PACKED.search(name) and not is_table(name) and not is_ignored(name)]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _with_patients(source: Source, options: ReadOptions) -> Source:
    """The source with the patients that its headers, names and folders show. Raises UsageError for images that need a
    package."""
    refuse_without_package(source.table["member"].dropna(), place=str(source.archive.path))
    return with_patients(with_headers(source), pattern=options.patient_pattern)


def _why_unrecognised(candidate: Candidate) -> str:
    """One line: fault and remedy. Raises UsageError if every table of the archive is unreadable."""
    archive = candidate.archive
    if not archive.images():
        return _no_images(archive)
    if problem := next(iter(candidate.table_problems.values()), None):
        return problem
    candidate.check_readable()
    for member, table in candidate.tables.items():
        for column in table.header:
            if fault := candidate.image_names.lost_zeros(table.values(column)):
                return f"{archive.path}: {member}: {column} names no image: {fault}"
    headers = {member: table.header for member, table in candidate.tables.items() if not member.endswith(".txt")}
    tables = [f"{member} has {','.join(header[:6]) or 'none'}" for member, header in headers.items()]
    shown = f" ({'; '.join(tables[:3])})" if tables else ""
    if candidate.is_named() and not tables:
        remedy = "for class folders use --patient_pattern" if candidate.columns.patient else "leave out these flags"
        return f"{archive.path}: no label table, which --table and the flags of columns are for; {remedy}"
    if candidate.is_named():
        return f"{archive.path}: no label table with these columns{shown}; name existing columns"
    if tables:
        remedy = "name its columns with --id_column and --label_column"
    else:
        remedy = "to grade images without labels use predict.py; data.py needs a label table or class folders"
    layouts = "; ".join(each.layout for each in FORMATS)
    return f"{archive.path}: format not recognised{shown}; expected one of: {layouts}; {remedy}"


def _no_images(archive: Archive) -> str:
    if any(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in archive.names):
        return f"{archive.path}: all its images are in hidden folders, which are ignored; rename these folders"
    if packed := _packed(archive.names):
        remedy = "unpack them there, or pass the path of one archive"
        return f"{archive.path}: no images, but archives ({_some(packed)}); {remedy}"
    common = Counter(PurePosixPath(name).suffix.lower() for name in archive.names).most_common(1)
    shown = f" (most end in {common[0][0] or 'nothing'})" if common else ""
    suffixes = " ".join(sorted(IMAGE_SUFFIXES))
    return f"{archive.path}: no images: none of its files ends in {suffixes}{shown}; add or convert them"


def open_sources(main: str, extra: str | None = None, *, options: ReadOptions | None = None) -> dict[str, Source]:
    """-> {name of the archive without suffix: its source}, the main source first. Raises UsageError.

    `extra` None is EXTRA for the competition archive and nothing for other sources; "none" is nothing.
    """
    if extra not in (None, "none") and Path(main).resolve() == Path(extra).resolve():
        raise UsageError(f"-a {extra}: the same file as -m; pass the 2015 archive, or leave out -a")
    options = options or ReadOptions()
    first = recognise(main, options=options)
    sources = {_name(main, taken=()): first}
    if extra is None and first.kind == COMPETITION:
        extra = EXTRA
        if not split_files.exists(extra):
            raise UsageError(f"{extra}: 2015 archive not found; pass its path with -a, or use -a none to go without it")
    if extra not in (None, "none"):
        if tuple(name for name in first.classes if name != UNGRADABLE) != GRADES:
            raise UsageError(
                f"-a {extra}: this archive has the {len(GRADES)} grades of retinopathy, but {main} has "
                f"{len(first.classes)} classes of its own; leave out -a"
            )
        added = eyepacs_2015(Archive(extra), ungradable=options.ungradable)
        sources[_name(extra, taken=sources)] = _with_patients(added, options)
    return distinct_patients(sources)


def _name(path: str, *, taken: Collection[str]) -> str:
    """The name of a source: that of its folder, or of its file without suffix; with a number if it is taken."""
    file = Path(path).resolve()
    stem = file.name if file.is_dir() else re.sub(r"\.[A-Za-z]+(\.\d+)?$", "", file.name)  # x.zip, x.zip.001
    name = nfc(stem) or "images"
    numbered = (f"{name}_{number}" for number in count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)
