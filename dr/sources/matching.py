"""A row of a label table -> its image in the archive."""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import partial

from dr import UsageError
from dr.sources.archive import Archive, is_ignored, stem
from dr.sources.copies import without_copies
from dr.sources.csv_tables import without_suffix
from dr.sources.split_names import splits_of


def shallowest(archive: Archive, names: tuple[str, ...]) -> str | None:
    """The shallowest member with one of these file names (any case), or None."""
    wanted = {name.lower() for name in names}
    found = [name for name in archive.names if posixpath.basename(name).lower() in wanted and not is_ignored(name)]
    return min(found, key=lambda member: (member.count("/"), member), default=None)


def images_beside(archive: Archive, table: str, folder: str) -> list[str]:
    """The images in `folder` beside a label table."""
    root = posixpath.join(posixpath.dirname(posixpath.normpath(table)), folder, "")
    return [name for name in archive.images() if posixpath.normpath(name).startswith(root)]


def images_of_split(archive: Archive, split: str, *, beside: str) -> Iterator[str]:
    """The images in no folder of another split (`test`, `b. Testing Set`). The folders around the table `beside` do not
    count."""
    around = set(beside.split("/"))
    folders = {part for name in archive.images() for part in name.split("/")[:-1]} - around
    others = {folder for folder, own in splits_of(folders).items() if own != split}
    for member in archive.images():
        if others.isdisjoint(member.split("/")[:-1]):
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


REMEDY = "remove one, or choose a folder with --root"


def by_path_ends(paths: Iterable[str], names: Iterable[str], *, place: str, remedy: str = REMEDY) -> dict[str, str]:
    """Paths of a table (`normal_path`) and names of images -> {path: the image that shares its longest end}.

    'a/b/1' precedes 'b/1', which precedes '1'. An end that several paths have matches none of them, except a path that
    is exactly that end. Case counts, unless a path matches nothing with it. Copies are left out (`without_copies`).
    Raises UsageError with the `remedy` if two images share the end: the label could belong to either.
    """
    distinct, names = sorted(set(paths)), without_copies(names)
    refuse = partial(_refuse_two, place=place, remedy=remedy)
    matched = _by_ends(distinct, {name: without_suffix(name) for name in names}, refuse=refuse)
    if len(matched) == len(distinct):
        return matched
    taken, folded = set(matched.values()), {path.casefold(): path for path in distinct}
    rest = {name: without_suffix(name).casefold() for name in names if name not in taken}
    others = _by_ends(sorted(folded), rest, refuse=refuse, without={path.casefold() for path in matched})
    return matched | {folded[path]: name for path, name in others.items()}


def _refuse_two(names: list[str], end: str, *, place: str, remedy: str) -> None:
    both = " and ".join(names[:2])
    raise UsageError(f"{place}: {both} both match {end} in the table; add their folders to it, {remedy}")


def _by_ends(
    distinct: list[str],
    names: Mapping[str, str],
    *,
    refuse: Callable[[list[str], str], None],
    without: Set[str] = frozenset(),
) -> dict[str, str]:
    """Paths but those in `without`, {image: its path without suffix} -> as `by_path_ends`. Two images of one end go to
    `refuse`."""
    counts = Counter(end for path in distinct for end in path_ends(path))
    candidates: dict[str, list[str]] = {}
    for name, path in names.items():
        for end in path_ends(path):
            if end in counts:
                candidates.setdefault(end, []).append(name)
    matched = {}
    for path in distinct:
        end = next((end for end in path_ends(path) if end in candidates), None)
        if path in without or end is None or (counts[end] > 1 and end != path):
            continue
        if len(candidates[end]) > 1:
            refuse(candidates[end], end)
        matched[path] = candidates[end][0]
    return matched
