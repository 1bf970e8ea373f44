"""A row of a label table -> its image in the archive, and its patient."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from dr import UsageError
from dr.sources.archive import Archive, is_ignored, stem
from dr.sources.csv_tables import without_suffix
from dr.sources.source import EYE, SPLITS


def shallowest(archive: Archive, names: tuple[str, ...]) -> str | None:
    """The shallowest member with one of these file names (any case), or None."""
    wanted = {name.lower() for name in names}
    found = [name for name in archive.names if posixpath.basename(name).lower() in wanted and not is_ignored(name)]
    return min(found, key=lambda member: (member.count("/"), member), default=None)


def images_beside(archive: Archive, table: str, folder: str) -> list[str]:
    """The images in `folder` beside a label table."""
    root = posixpath.join(posixpath.dirname(posixpath.normpath(table)), folder, "")
    return [name for name in archive.images() if posixpath.normpath(name).startswith(root)]


def images_of_split(archive: Archive, split: str, *, beside: str) -> Iterable[str]:
    """The images in no folder of another split (`test`, `test_img`). The folders around the table `beside` do not
    count."""
    others = "|".join(word for other, words in SPLITS.items() if other != split for word in words)
    around = set(beside.split("/"))
    for member in archive.images():
        folders = [part.lower() for part in member.split("/")[:-1] if part not in around]
        if not any(re.match(rf"({others})(?![a-z])", folder) for folder in folders):
            yield member


def by_stem(archive: Archive, members: Iterable[str]) -> dict[str, str]:
    """Members -> {stem (file name without suffix): member}. Raises UsageError if two share a stem: the label could
    belong to either."""
    found = {}
    for member in members:
        name = stem(member)
        if name in found:
            raise UsageError(f"{archive.path}: {found[name]} and {member} have the same name; rename one")
        found[name] = member
    return found


def path_ends(path: str) -> list[str]:
    """'a/b/1' -> 'a/b/1', 'b/1', '1'."""
    parts = path.split("/")
    return ["/".join(parts[place:]) for place in range(len(parts))]


def normal_path(path: str) -> str:
    """A path as tables write it (backslashes, '.', a suffix) -> with forward slashes and without '.' and suffix."""
    return without_suffix(posixpath.normpath(path.replace("\\", "/")))


def by_path_ends(paths: Iterable[str], names: Iterable[str], *, place: str) -> dict[str, str]:
    """Paths of a table (`normal_path`) and names of images -> {path: the image that shares its longest end}.

    'a/b/1' precedes 'b/1', which precedes '1'. An end that several paths have matches none of them, except a path that
    is exactly that end. Raises UsageError if two images share the end: the label could belong to either.
    """
    distinct = sorted(set(paths))
    counts = Counter(end for path in distinct for end in path_ends(path))
    candidates: dict[str, list[str]] = {}
    for name in names:
        for end in path_ends(without_suffix(name)):
            if end in counts:
                candidates.setdefault(end, []).append(name)
    matched = {}
    for path in distinct:
        end = next((end for end in path_ends(path) if end in candidates), None)
        if end is None or (counts[end] > 1 and end != path):
            continue
        if len(candidates[end]) > 1:
            both = " and ".join(candidates[end][:2])
            raise UsageError(f"{place}: {both} both match {end} in the table; add their folders to it, or remove one")
        matched[path] = candidates[end][0]
    return matched


def patients(names: pd.Series, *, otherwise: pd.Series) -> pd.Series:
    """File names without suffix -> the patient of each: PATIENT of the EyePACS names PATIENT_left and PATIENT_right;
    else the value of `otherwise`."""
    return names.str.replace(EYE, r"\1", regex=True).where(names.str.match(EYE), otherwise)
