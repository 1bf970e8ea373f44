"""Photographs in a folder for each class: train/, val/ and test/ of such folders, or one level of them."""

import posixpath
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from dr import GRADES, UsageError
from dr.sources.archive import Archive, composed, stem
from dr.sources.class_names import arrange, check_spelling, check_splits
from dr.sources.kaggle import COLUMNS, EYE, SPLIT_OF, SPLITS, Source, read_member, without_ending

PLAIN = "images"  # a folder that says nothing about the class: Tiny ImageNet has one in each of its classes
ANNOTATIONS = "val_annotations.txt"  # of Tiny ImageNet, whose val/images/ has no folders of classes

Parts = tuple[str, ...]


def class_folders(archive: Archive) -> Source | None:
    """None where the photographs stand in no such folders. Raises UsageError for folders that contradict each other."""
    images: dict[Parts, str] = {}
    for name in archive.images():
        first = images.setdefault(tuple(composed(posixpath.normpath(name)).split("/")), name)
        if first != name:
            raise UsageError(f"{archive.path}: {first} and {name} would have the same name; rename one")
    root = _root_of_sides(images)
    rows = list(_one_level(images, place=archive.path) if root is None else _sides(archive, images, root))
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["side", "class", "original", "member"])
    repeated = table[table["original"].duplicated(keep=False)].sort_values("original")["member"].tolist()
    if repeated:
        raise UsageError(f"{archive.path}: {repeated[0]} and {repeated[1]} would have the same name; rename one")
    check_spelling(table["class"].unique(), place=str(archive.path))
    classes, number = arrange(table["class"].unique())
    table["diagnosis"] = table["class"].map(number)
    spelling = table.groupby("diagnosis")["class"].first()  # sides may spell a class in different ways
    by_side = table["diagnosis"].map(spelling).groupby(table["side"].fillna("train"))
    check_splits({side: set(names) for side, names in by_side}, place=str(archive.path))
    named = table["member"].map(stem)
    patient = table["original"].where(~named.str.match(EYE), named.str.replace(EYE, r"\1", regex=True))
    table = table.assign(source="main", patient=patient)
    unlisted = 0 if PLAIN in {part.lower() for parts in images for part in parts} else len(images) - len(table)
    return Source("class folders", archive, table[list(COLUMNS)], classes, unlisted=unlisted)


def _original(parts: Parts) -> str:
    """('train', 'cat', 'images', '1.png') -> 'train_cat_1': a name that is a file's and tells where it comes from."""
    *folders, name = parts
    return "_".join([*(folder for folder in folders if folder.lower() != PLAIN), without_ending(name)])


def _root_of_sides(images: dict[Parts, str]) -> Parts | None:
    """The shallowest folder that holds train/ with folders in it; None where there is none."""
    found = [
        parts[:place]
        for parts in images
        for place, part in enumerate(parts[:-2])
        if part.lower() in SPLITS["train"] and parts[place + 1].lower() != PLAIN
    ]
    return min(found, key=lambda parts: (len(parts), parts), default=None)


def _sides(archive: Archive, images: dict[Parts, str], root: Parts) -> Iterator[tuple]:
    """Rows (side, class, original, member) of the photographs in root/<side>/<class>/."""
    annotated = _annotations(archive, root)
    within = [parts[len(root) :] for parts in images if parts[: len(root)] == root]
    has_classes = {SPLIT_OF.get(below[0].lower()) for below in within if len(below) > 2}
    for parts, member in images.items():
        below = parts[len(root) :]
        if parts[: len(root)] != root or len(below) < 2 or below[0].lower() not in SPLIT_OF:
            continue  # of no side
        side = SPLIT_OF[below[0].lower()]
        if side == "val" and below[-1] in annotated:
            yield side, annotated[below[-1]], _original(below), member
        elif len(below) == 2 and side == "test" and side not in has_classes:
            continue  # photographs to be graded
        elif len(below) == 2:
            raise UsageError(f"{archive.path}: {member} stands in no folder of a class; move it to one")
        elif side == "train" or below[1].lower() != PLAIN:  # else they have no classes: Tiny ImageNet's test
            yield side, below[1], _original((side, *below[1:])), member


def _annotations(archive: Archive, root: Parts) -> dict[str, str]:
    """{photograph of val/images/: its class}, empty where there is no such table."""
    wanted = "/".join((*root, "val", ANNOTATIONS))
    member = next((name for name in archive.names if composed(posixpath.normpath(name)) == wanted), None)
    if member is None:
        return {}
    lines = composed(read_member(archive, member).decode("utf-8", errors="replace")).splitlines()
    return {name: rest.split("\t")[0] for name, tab, rest in (line.partition("\t") for line in lines) if tab}


def _one_level(images: dict[Parts, str], *, place: Path) -> Iterator[tuple]:
    """Rows of the photographs in <class>/, below whatever folders are common to all; none where they are no classes."""

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
        raise UsageError(f"{place}: {stray[0]} stands in no folder of a class; move it to one, or take it out")
    _refuse_graded_within(images, shared, place=place)
    for parts, member in images.items():
        yield None, parts[shared], _original(parts[shared:]), member


def _refuse_graded_within(images: dict[Parts, str], shared: int, *, place: Path) -> None:
    """Raises UsageError where each of these folders holds the same folders of grades: they are clinics or cameras."""
    within: dict[str, set[str]] = {}
    for parts in images:
        within.setdefault(parts[shared], set()).update(parts[shared + 1 : -1][:1])
    upper, (first, *others) = list(within), within.values()
    if len(first) < 2 or any(names != first for names in others):
        return
    if arrange(first)[0] == GRADES[: len(first)] and arrange(upper)[0] != GRADES[: len(upper)]:
        raise UsageError(
            f"{place}: its folders {', '.join(upper[:2])} each hold the folders of grades {', '.join(sorted(first))}; "
            "give one of them, or put photographs of a grade into one folder"
        )
