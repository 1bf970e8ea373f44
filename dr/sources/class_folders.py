"""Images in one folder per class: train/, val/ and test/ of such folders, or one level of them."""

import posixpath
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.archive import Archive, nfc
from dr.sources.candidate import Candidate
from dr.sources.class_names import arrange, check_spelling, check_splits, order_line, taken_line
from dr.sources.csv_tables import read_member, without_suffix
from dr.sources.folder_names import why_not_classes
from dr.sources.grade_words import grade_of
from dr.sources.source import COLUMNS, UNGRADABLE_COLUMNS, LabelledImages
from dr.sources.split_names import splits_of
from dr.sources.ungradable import UNGRADABLE, split_ungradable

PLAIN = "images"  # a folder that names no class: Tiny ImageNet has one in each class folder
ANNOTATIONS = "val_annotations.txt"  # the labels of Tiny ImageNet's val/images/, which has no class folders
TINY_TABLES = (ANNOTATIONS, "_boxes.txt", "wnids.txt", "words.txt")
REMEDY = "put the images of each class into one folder, or list them with their labels in a table"

_NUMBERS = {str(grade) for grade in range(len(GRADES))}

Parts = tuple[str, ...]


class ClassFoldersFormat:
    """Images in one folder per class, with or without folders of splits around them."""

    name = "class folders"
    layout = "folders named after classes, in train/ or not"
    reads_columns = False

    def open(self, candidate: Candidate) -> LabelledImages | None:
        """Errors name a table of the archive that names its images but has no label column."""
        try:
            source = class_folders(candidate.archive, ungradable=candidate.options.ungradable)
        except UsageError as exc:
            candidate.check_readable()
            problem = next(iter(candidate.table_problems.values()), None)
            if problem is None:
                raise
            raise UsageError(f"{exc}; or {problem.removeprefix(f'{candidate.archive.path}: ')}") from exc
        if source is None:
            return None
        return replace(source, notes=(*source.notes, *candidate.unused_notes(known=TINY_TABLES)))


def class_folders(archive: Archive, *, ungradable: str = "drop") -> LabelledImages | None:
    """An archive with class folders -> its images; None without such folders. Raises UsageError if the folders
    contradict each other, or cannot be classes."""
    images = _images_by_parts(archive)
    roots = _roots_of_splits(images)
    rows = list(_splits(archive, images, roots[0]) if roots else _one_level(images, place=str(archive.path)))
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["source_split", "class", "original", "member"])
    bare = [without_suffix(posixpath.basename(member)) for member in table["member"]]
    if len(set(bare)) == len(bare):
        table["original"] = bare
    repeated = table[table["original"].duplicated(keep=False)].sort_values("original")["member"].tolist()
    if repeated:
        raise UsageError(f"{archive.path}: {repeated[0]} and {repeated[1]} would have the same name; rename one")
    _refuse_no_classes(table, place=str(archive.path))
    words = set(table["class"]) - split_ungradable(table["class"].unique())
    table, classes, left_out = _indexed(table, keep=ungradable == "keep", place=str(archive.path))
    elsewhere = sum(parts[: len(root)] == root for root in roots[1:] for parts in images)
    unlabelled = [parts for parts in images if not _is_tiny_test(parts)]
    return LabelledImages(
        ClassFoldersFormat.name,
        archive,
        table.assign(patient=None)[list(COLUMNS)],
        classes,
        unlabelled=max(0, len(unlabelled) - len(table) - len(left_out) - elsewhere),
        ungradable=left_out,
        notes=(*_notes(roots, elsewhere), *filter(None, [taken_line(words), order_line(classes)])),
    )


def _is_tiny_test(parts: Parts) -> bool:
    """Whether an image is in test/images/, which has no labels in Tiny ImageNet."""
    return len(parts) > 2 and parts[-2].lower() == PLAIN and splits_of([parts[-3]]) == {parts[-3]: "test"}


def are_grade_folders(archive: Archive) -> bool:
    """Whether most images are in folders that are named after at least two grades of retinopathy."""
    images = archive.images()
    named = {part for name in images for part in name.split("/")[:-1] if _is_grade(part)}
    grades = [next((part for part in name.split("/")[-2::-1] if part in named), None) for name in images]
    return len({*grades} - {None}) >= 2 and 2 * grades.count(None) < len(grades)


def _refuse_no_classes(table: pd.DataFrame, *, place: str) -> None:
    """Raises UsageError where the folders are splits, hospitals, cameras or patients."""
    splits = table.groupby("class")["source_split"].nunique()
    reason = why_not_classes(Counter(table["class"]), repeated=bool((splits > 1).any()))
    if reason:
        raise UsageError(f"{place}: {reason}; {REMEDY}")


def _notes(roots: list[Parts], elsewhere: int) -> tuple[str, ...]:
    """Which of several folders with splits is read."""
    if len(roots) < 2:
        return ()
    used, *others = ("/".join(root) for root in roots)
    flags = " or ".join(f"--root {shlex.quote(other)}" for other in others[:3])
    return (f"{len(roots)} folders hold splits: {used} is used, {elsewhere:,} images are not; for another use {flags}",)


def _images_by_parts(archive: Archive) -> dict[Parts, str]:
    """{the parts of its path: member} of each image."""
    images: dict[Parts, str] = {}
    for name in archive.images():
        first = images.setdefault(tuple(nfc(posixpath.normpath(name)).split("/")), name)
        if first != name:
            raise UsageError(f"{archive.path}: {first} and {name} would have the same name; rename one")
    return images


def _indexed(table: pd.DataFrame, *, keep: bool, place: str) -> tuple[pd.DataFrame, tuple[str, ...], pd.DataFrame]:
    """`class`, `source_split` -> the table with `diagnosis`, the class names, and the images of ungradable classes
    (UNGRADABLE_COLUMNS), empty with `keep`."""
    left_out = table["class"].isin(split_ungradable(table["class"].unique()))
    ungradable, table = table[left_out], table[~left_out].copy()
    if table.empty:
        raise UsageError(f"{place}: every folder has an ungradable label; add folders of grades")
    check_spelling(table["class"].unique(), place=place)
    classes, number = arrange(table["class"].unique())
    table["diagnosis"] = table["class"].map(number)
    if keep and len(ungradable):
        table = pd.concat([table, ungradable.assign(diagnosis=len(classes))], ignore_index=True)
        classes, ungradable = (*classes, UNGRADABLE), ungradable[:0]
    spelling = table.groupby("diagnosis")["class"].first()  # splits may spell a class differently
    by_split = table["diagnosis"].map(spelling).groupby(table["source_split"].fillna("train"))
    check_splits({split: set(names) for split, names in by_split}, place=place)
    return table, classes, ungradable.rename(columns={"class": "label"})[list(UNGRADABLE_COLUMNS)]


def _original(parts: Parts) -> str:
    """('train', 'cat', 'images', '1.png') -> 'train_cat_1': a file name that shows the origin."""
    *folders, name = parts
    return "_".join([*(folder for folder in folders if folder.lower() != PLAIN), without_suffix(name)])


def _roots_of_splits(images: dict[Parts, str]) -> list[Parts]:
    """The folders with a subfolder for training that holds class folders, the shallowest first; none within another."""
    named = splits_of({part for parts in images for part in parts[:-2]})
    found = {
        parts[:depth]
        for parts in images
        for depth, part in enumerate(parts[:-2])
        if named.get(part) == "train" and parts[depth + 1].lower() != PLAIN and parts[depth + 1] not in named
    }
    roots: list[Parts] = []
    for root in sorted(found, key=lambda parts: (len(parts), parts)):
        if not any(root[: len(other)] == other for other in roots):
            roots.append(root)
    return roots


def _splits(archive: Archive, images: dict[Parts, str], root: Parts) -> Iterator[tuple]:
    """Rows (source_split, class, original, member) of the images in root/SPLIT/CLASS/."""
    annotated = _annotations(archive, root)
    within = [parts[len(root) :] for parts in images if parts[: len(root)] == root]
    split_of = splits_of({below[0] for below in within if len(below) > 1})
    has_classes = {split_of.get(below[0]) for below in within if len(below) > 2}
    for parts, member in images.items():
        below = parts[len(root) :]
        if parts[: len(root)] != root or len(below) < 2 or below[0] not in split_of:
            continue  # in no split
        split = split_of[below[0]]
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


def _one_level(images: dict[Parts, str], *, place: str) -> Iterator[tuple]:
    """Rows of the images in CLASS/ or CLASS/SPLIT/, below the folders that all share. No rows if the folders are not
    classes."""

    def folders(depth: int) -> set[str]:
        return {parts[depth] for parts in images if len(parts) > depth + 1}

    shared = 0
    while len(folders(shared)) == 1 and folders(shared + 1):
        shared += 1
    names = {name.lower() for name in folders(shared)}
    stray = [member for parts, member in images.items() if len(parts) < shared + 2]
    if len(names) < 2 or PLAIN in names or len(stray) > len(images) / 2:
        return
    if stray:
        raise UsageError(f"{place}: {stray[0]} is in no class folder; move it to one, or remove it")
    _refuse_graded_within(images, shared, place=place)
    split_of = _splits_within(images, shared)
    for parts, member in images.items():
        yield split_of.get(parts[shared + 1]), parts[shared], _original(parts[shared:]), member


def _splits_within(images: dict[Parts, str], shared: int) -> dict[str, str]:
    """The splits of CLASS/SPLIT/: {folder: split}, if all images are in folders of splits, training among them."""
    within = {parts[shared + 1] if len(parts) > shared + 2 else None for parts in images}
    named = splits_of(within - {None})
    return named if within == named.keys() and {"train"} < set(named.values()) else {}


def _refuse_graded_within(images: dict[Parts, str], shared: int, *, place: str) -> None:
    """Raises UsageError if the folders hold folders of grades, or each the same folders: they are sites, cameras or
    patients, not classes."""
    within: dict[str, set[str]] = {}
    for parts in images:
        within.setdefault(parts[shared], set()).update(parts[shared + 1 : -1][:1])
    inner = set().union(*within.values()) - {PLAIN}
    if sum(map(_is_grade, within)) >= 2 or not inner or splits_of(inner).keys() == inner:
        return
    graded = len([name for name in inner if _is_grade(name)])
    alike = len(inner) > 1 and all(names == inner for names in within.values())
    if (graded >= 2 and 2 * graded > len(inner)) or alike:
        raise UsageError(
            f"{place}: the folders {', '.join(sorted(within)[:2])} each hold folders such as "
            f"{', '.join(sorted(inner)[:5])}; pass one of them, or put the images of each grade into one folder"
        )


def _is_grade(name: str) -> bool:
    return grade_of(name) is not None or name in _NUMBERS
