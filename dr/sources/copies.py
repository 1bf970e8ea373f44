"""Lesion masks and cropped copies, which share their names with the labelled images."""

import posixpath
from collections.abc import Iterable

from dr.sources.archive import stem
from dr.sources.split_names import words_of

_MASKS = frozenset({"mask", "masks", "groundtruth", "groundtruths", "segmentation", "segmentations", "annotation",
                    "annotations", "lesion", "lesions"})  # fmt: skip


def without_copies(members: Iterable[str]) -> list[str]:
    """Names of images -> the same without cropped copies in X_cropped/ beside X/ (EyePACS 2015 on Kaggle), and without
    images in mask folders that share their name with an image elsewhere (FGADR)."""
    members = list(members)
    known = set(members)
    plain = [name for name in members if not ("_cropped/" in name and name.replace("_cropped/", "/") in known)]
    folders = {posixpath.dirname(name) for name in plain}
    masks = {folder for folder in folders if not _MASKS.isdisjoint(words_of(folder))}
    if not masks:
        return plain
    elsewhere = {stem(name) for name in plain if posixpath.dirname(name) not in masks}
    return [name for name in plain if posixpath.dirname(name) not in masks or stem(name) not in elsewhere]
