"""What `data.py -m` and `-a` are given -> sources of graded photographs, recognised by their content."""

from collections import Counter
from pathlib import Path, PurePosixPath

from dr import GRADES, UsageError
from dr.sources import kaggle
from dr.sources.archive import IMAGE_SUFFIXES, Archive
from dr.sources.class_folders import class_folders
from dr.sources.csv_pairs import csv_pairs
from dr.sources.kaggle import Source, header
from dr.sources.label_table import Columns, check_splits_can_be_read, headers, label_table, sides
from dr.sources.medmnist import medmnist

EXTRA = "train_image_resized.zip"  # the 2015 archive as Kaggle names it
LOOKED_FOR = (
    "train.csv (id_code,diagnosis) beside train/; train_img.csv with train_label.csv; one table with the columns "
    "{columns} and its photographs; folders named after classes, in train/ or not; or a MedMNIST .npz"
)


def recognise(path: str, *, columns: Columns | None = None) -> Source:
    """`path` -> what it holds. A label table wins over folders; with `columns`, nothing else is looked for. Raises
    UsageError."""
    columns = columns or Columns()
    if Path(path).suffix.lower() == ".npz" and not Path(path).is_dir() and not columns.given():
        source = medmnist(path)
    else:
        source = _in_archive(Archive(path), columns)
    trained = source.table[~source.table["side"].isin(["val", "test"])]["diagnosis"].unique()
    if len(trained) < 2:  # of the classes as they are numbered: two spellings may be one
        name = source.classes[trained[0]]
        raise UsageError(f"{path}: all its photographs are of the class {name!r}; there must be two or more")
    return source


def _in_archive(archive: Archive, columns: Columns) -> Source:
    if not archive.images():
        raise UsageError(_no_photographs(archive))
    source, found = None, headers(archive)
    check_splits_can_be_read(archive, columns, found=found)
    # a competition's archive with graded tables of other sides beside train.csv has a split of its own
    if not columns.given() and not sides(member for member, names in found.items() if columns.chosen(names)):
        source = kaggle.competition(archive) or csv_pairs(archive)
    source = source or label_table(archive, columns, found=found)
    if source is None and not columns.given():
        source = _class_folders(archive, found)
    if source is None:
        raise UsageError(_unknown(archive, columns, found))
    return source


def _class_folders(archive: Archive, found: dict[str, list[str]]) -> Source | None:
    """As `class_folders`; its errors name a table of `headers` that may have been meant."""
    try:
        return class_folders(archive)
    except UsageError as exc:
        tables = [(member, names) for member, names in found.items() if len(names) > 1]
        if not tables:
            raise
        member, names = tables[0]
        columns = ",".join(names[:6])
        raise UsageError(
            f"{exc}; or name the columns of {member} ({columns}) with --id_column and --label_column"
        ) from exc


def _no_photographs(archive: Archive) -> str:
    if any(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in archive.names):
        return f"{archive.path}: its photographs lie in hidden folders alone, which are passed over; rename these"
    found = Counter(PurePosixPath(name).suffix.lower() for name in archive.names).most_common(1)
    seen = f" (most end in {found[0][0] or 'nothing'})" if found else ""
    endings = " ".join(sorted(IMAGE_SUFFIXES))
    return f"{archive.path}: it holds no photographs: none of its files ends in {endings}{seen}; add or convert them"


def _unknown(archive: Archive, columns: Columns, found: dict[str, list[str]]) -> str:
    """Why an archive with these tables is of no kind, in a line. Raises UsageError where none of them can be read."""
    if not any(found.values()):
        for member in found:
            header(archive, member)
    tables = [f"{member} has {','.join(names[:6]) or 'none'}" for member, names in found.items()]
    seen = f" ({'; '.join(tables[:3])})" if tables else ""
    if columns.given():
        return f"{archive.path}: it holds no label table with the columns {columns}{seen}; name columns that are there"
    if tables:
        remedy = "name its columns with --id_column and --label_column"
    else:
        remedy = "photographs alone have no grades: predict.py gives them some, data.py needs a table or class folders"
    looked_for = "; ".join(filter(None, [LOOKED_FOR.format(columns=columns), remedy]))
    return f"{archive.path}: its format is not recognised{seen}; looked for {looked_for}"


def open_sources(main: str, extra: str | None = None, *, columns: Columns | None = None) -> dict[str, Source]:
    """-> {"main": ..., "2015": ... where there is one}. `extra` None is EXTRA for the competition archive and nothing
    for others, "none" is nothing. Raises UsageError."""
    if extra not in (None, "none") and Path(main).resolve() == Path(extra).resolve():
        raise UsageError(f"-a {extra}: it is what -m names; give the 2015 archive, or leave out -a")
    opened = {"main": recognise(main, columns=columns)}
    if extra is None and opened["main"].kind == kaggle.COMPETITION:
        extra = EXTRA
        if not Path(extra).exists():
            raise UsageError(f"{extra}: the 2015 archive is not there; give it with -a, or -a none to do without")
    if extra not in (None, "none"):
        if opened["main"].classes != GRADES:
            raise UsageError(
                f"-a {extra}: it has the {len(GRADES)} grades of retinopathy, but {main} has "
                f"{len(opened['main'].classes)} classes of its own; leave out -a"
            )
        opened["2015"] = kaggle.eyepacs_2015(Archive(extra))
    return opened
