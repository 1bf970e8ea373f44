"""Images in one folder per class: train/, val/ and test/ of such folders, or one level of them."""

import posixpath
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.archive import Archive, nfc, stem
from dr.sources.candidate import Candidate
from dr.sources.class_names import arrange, check_spelling, check_splits
from dr.sources.csv_tables import read_member, without_suffix
from dr.sources.matching import patients
from dr.sources.source import COLUMNS, SPLIT_OF, SPLITS, LabelledImages

PLAIN = "images"  # a folder that names no class: Tiny ImageNet has one in each class folder
ANNOTATIONS = "val_annotations.txt"  # the labels of Tiny ImageNet's val/images/, which has no class folders

Parts = tuple[str, ...]


class ClassFoldersFormat:
    """Images in one folder per class, with or without folders of splits around them."""

    name = "class folders"
    layout = "folders named after classes, in train/ or not"
    reads_columns = False

    def open(self, candidate: Candidate) -> LabelledImages | None:
        """Errors name a CSV of the archive that may be the label table."""
        try:
            return class_folders(candidate.archive)
        except UsageError as exc:
            tables = [(member, header) for member, header in candidate.headers.items() if len(header) > 1]
            if not tables:
                raise
            member, header = tables[0]
            columns = ",".join(header[:6])
            raise UsageError(
                f"{exc}; or name the columns of {member} ({columns}) with --id_column and --label_column"
            ) from exc


def class_folders(archive: Archive) -> LabelledImages | None:
    """An archive with class folders -> its images; None without such folders. Raises UsageError if the folders
    contradict each other."""
    images = _images_by_parts(archive)
    root = _root_of_splits(images)
    rows = list(_one_level(images, place=archive.path) if root is None else _splits(archive, images, root))
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["source_split", "class", "original", "member"])
    repeated = table[table["original"].duplicated(keep=False)].sort_values("original")["member"].tolist()
    if repeated:
        raise UsageError(f"{archive.path}: {repeated[0]} and {repeated[1]} would have the same name; rename one")
    table, classes = _numbered(table, place=str(archive.path))
    patient = patients(table["member"].map(stem), otherwise=table["original"])
    table = table.assign(source="main", patient=patient)
    unlabelled = 0 if PLAIN in {part.lower() for parts in images for part in parts} else len(images) - len(table)
    return LabelledImages(ClassFoldersFormat.name, archive, table[list(COLUMNS)], classes, unlabelled=unlabelled)


def _images_by_parts(archive: Archive) -> dict[Parts, str]:
    """{the parts of its path: member} of each image."""
    images: dict[Parts, str] = {}
    for name in archive.images():
        first = images.setdefault(tuple(nfc(posixpath.normpath(name)).split("/")), name)
        if first != name:
            raise UsageError(f"{archive.path}: {first} and {name} would have the same name; rename one")
    return images


def _numbered(table: pd.DataFrame, *, place: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """`class`, `source_split` -> the table with `diagnosis`, and the class names."""
    check_spelling(table["class"].unique(), place=place)
    classes, number = arrange(table["class"].unique())
    table["diagnosis"] = table["class"].map(number)
    spelling = table.groupby("diagnosis")["class"].first()  # splits may spell a class differently
    by_split = table["diagnosis"].map(spelling).groupby(table["source_split"].fillna("train"))
    check_splits({split: set(names) for split, names in by_split}, place=place)
    return table, classes


def _original(parts: Parts) -> str:
    """('train', 'cat', 'images', '1.png') -> 'train_cat_1': a file name that shows the origin."""
    *folders, name = parts
    return "_".join([*(folder for folder in folders if folder.lower() != PLAIN), without_suffix(name)])


def _root_of_splits(images: dict[Parts, str]) -> Parts | None:
    """The shallowest folder with a subfolder train/ that holds class folders, or None."""
    roots = [
        parts[:depth]
        for parts in images
        for depth, part in enumerate(parts[:-2])
        if part.lower() in SPLITS["train"] and parts[depth + 1].lower() != PLAIN
    ]
    return min(roots, key=lambda parts: (len(parts), parts), default=None)


def _splits(archive: Archive, images: dict[Parts, str], root: Parts) -> Iterator[tuple]:
    """Rows (source_split, class, original, member) of the images in root/SPLIT/CLASS/."""
    annotated = _annotations(archive, root)
    within = [parts[len(root) :] for parts in images if parts[: len(root)] == root]
    has_classes = {SPLIT_OF.get(below[0].lower()) for below in within if len(below) > 2}
    for parts, member in images.items():
        below = parts[len(root) :]
        if parts[: len(root)] != root or len(below) < 2 or below[0].lower() not in SPLIT_OF:
            continue  # in no split
        split = SPLIT_OF[below[0].lower()]
        if split == "val" and below[-1] in annotated:
            yield split, annotated[below[-1]], _original(below), member
        elif len(below) == 2 and split == "test" and split not in has_classes:
            continue  # unlabelled images to be graded
        elif len(below) == 2:
            raise UsageError(f"{archive.path}: {member} is in no class folder; move it to one")
        elif split == "train" or below[1].lower() != PLAIN:  # test/images/ of Tiny ImageNet has no labels
            yield split, below[1], _original((split, *below[1:])), member


def _annotations(archive: Archive, root: Parts) -> dict[str, str]:
    """{image of val/images/: its class}, empty if the table is missing."""
    wanted = "/".join((*root, "val", ANNOTATIONS))
    member = next((name for name in archive.names if nfc(posixpath.normpath(name)) == wanted), None)
    if member is None:
        return {}
    lines = nfc(read_member(archive, member).decode("utf-8", errors="replace")).splitlines()
    return {name: rest.split("\t")[0] for name, tab, rest in (line.partition("\t") for line in lines) if tab}


def _one_level(images: dict[Parts, str], *, place: Path) -> Iterator[tuple]:
    """Rows of the images in CLASS/, below the folders that all share. No rows if the folders are not classes."""

    def folders(depth: int) -> set[str]:
        return {parts[depth] for parts in images if len(parts) > depth + 1}

    shared = 0
    while len(folders(shared)) == 1 and folders(shared + 1):
        shared += 1
    names = {name.lower() for name in folders(shared)}
    stray = [member for parts, member in images.items() if len(parts) < shared + 2]
    if len(names) < 2 or names & {*SPLIT_OF, PLAIN} or len(stray) > len(images) / 2:
        return
    if stray:
        raise UsageError(f"{place}: {stray[0]} is in no class folder; move it to one, or remove it")
    _refuse_graded_within(images, shared, place=place)
    for parts, member in images.items():
        yield None, parts[shared], _original(parts[shared:]), member


def _refuse_graded_within(images: dict[Parts, str], shared: int, *, place: Path) -> None:
    """Raises UsageError if each folder holds the same folders of grades: they are sites or cameras, not classes."""
    within: dict[str, set[str]] = {}
    for parts in images:
        within.setdefault(parts[shared], set()).update(parts[shared + 1 : -1][:1])
    upper, (first, *others) = list(within), within.values()
    if len(first) < 2 or any(names != first for names in others):
        return
    if arrange(first)[0] == GRADES[: len(first)] and arrange(upper)[0] != GRADES[: len(upper)]:
        raise UsageError(
            f"{place}: the folders {', '.join(upper[:2])} each hold the folders of grades {', '.join(sorted(first))}; "
            "pass one of them, or put the images of each grade into one folder"
        )
