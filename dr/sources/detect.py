"""The arguments of `data.py -m` and `-a` -> sources of labelled images, recognised by their content."""

from collections import Counter
from pathlib import Path, PurePosixPath

from dr import GRADES, UsageError
from dr.sources.archive import IMAGE_SUFFIXES, Archive
from dr.sources.candidate import Candidate, Columns, Format
from dr.sources.class_folders import ClassFoldersFormat
from dr.sources.csv_pairs import CsvPairsFormat
from dr.sources.csv_tables import read_header
from dr.sources.kaggle import COMPETITION, CompetitionFormat, eyepacs_2015
from dr.sources.label_table import LabelTableFormat
from dr.sources.medmnist import MedMNISTFormat
from dr.sources.source import Source

# The formats in the order in which they are tried: the first that returns a source wins
FORMATS: list[Format] = [
    MedMNISTFormat(),
    CompetitionFormat(),
    CsvPairsFormat(),
    LabelTableFormat(),
    ClassFoldersFormat(),
]
EXTRA = "train_image_resized.zip"  # Kaggle's name of the 2015 archive


def recognise(path: str, *, columns: Columns | None = None) -> Source:
    """`path` -> its source. With `columns`, only formats that read named columns are tried. Raises UsageError."""
    candidate = Candidate(path, columns or Columns())
    formats = [each for each in FORMATS if each.reads_columns or not candidate.columns.given()]
    source = next((source for each in formats if (source := each.open(candidate)) is not None), None)
    if source is None:
        raise UsageError(_why_unrecognised(candidate))
    trained = source.table[~source.table["source_split"].isin(["val", "test"])]["diagnosis"].unique()
    if len(trained) < 2:  # counted after numbering: two spellings may be one class
        name = source.classes[trained[0]]
        raise UsageError(f"{path}: all its images are of the class {name!r}; add images of at least one other class")
    return source


def _why_unrecognised(candidate: Candidate) -> str:
    """One line: fault and remedy. Raises UsageError if every table of the archive is unreadable."""
    archive, columns = candidate.archive, candidate.columns
    if not archive.images():
        return _no_images(archive)
    headers = candidate.headers
    if not any(headers.values()):
        for member in headers:
            read_header(archive, member)
    tables = [f"{member} has {','.join(header[:6]) or 'none'}" for member, header in headers.items()]
    shown = f" ({'; '.join(tables[:3])})" if tables else ""
    if columns.given():
        return f"{archive.path}: no label table with the columns {columns}{shown}; name existing columns"
    if tables:
        remedy = "name its columns with --id_column and --label_column"
    else:
        remedy = "to grade images without labels use predict.py; data.py needs a label table or class folders"
    layouts = "; ".join(each.layout for each in FORMATS)
    return f"{archive.path}: format not recognised{shown}; expected one of: {layouts}; {remedy}"


def _no_images(archive: Archive) -> str:
    if any(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in archive.names):
        return f"{archive.path}: all its images are in hidden folders, which are ignored; rename these folders"
    common = Counter(PurePosixPath(name).suffix.lower() for name in archive.names).most_common(1)
    shown = f" (most end in {common[0][0] or 'nothing'})" if common else ""
    suffixes = " ".join(sorted(IMAGE_SUFFIXES))
    return f"{archive.path}: no images: none of its files ends in {suffixes}{shown}; add or convert them"


def open_sources(main: str, extra: str | None = None, *, columns: Columns | None = None) -> dict[str, Source]:
    """-> {"main": ..., "2015": ... if any}. Raises UsageError.

    `extra` None is EXTRA for the competition archive and nothing for other sources; "none" is nothing.
    """
    if extra not in (None, "none") and Path(main).resolve() == Path(extra).resolve():
        raise UsageError(f"-a {extra}: the same file as -m; pass the 2015 archive, or leave out -a")
    sources = {"main": recognise(main, columns=columns)}
    if extra is None and sources["main"].kind == COMPETITION:
        extra = EXTRA
        if not Path(extra).exists():
            raise UsageError(f"{extra}: 2015 archive not found; pass its path with -a, or use -a none to go without it")
    if extra not in (None, "none"):
        if sources["main"].classes != GRADES:
            raise UsageError(
                f"-a {extra}: this archive has the {len(GRADES)} grades of retinopathy, but {main} has "
                f"{len(sources['main'].classes)} classes of its own; leave out -a"
            )
        sources["2015"] = eyepacs_2015(Archive(extra))
    return sources
