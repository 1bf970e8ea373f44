"""Which images to grade, and their ids."""

import posixpath
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dr import UsageError
from dr.core import split_files
from dr.imaging.optional import refuse_without_package
from dr.sources.archive import IMAGE_SUFFIXES, Archive, is_image, nfc, stem
from dr.sources.csv_tables import without_suffix
from dr.sources.matching import normal_path, path_ends
from dr.sources.split_names import splits_of


def find_images(images: str | Path, *, exclude: Collection[Path] = ()) -> tuple[Archive, list[str]]:
    """A folder, a zip or one image -> (archive, names of its images, without the files in `exclude`). Raises UsageError
    where there are none."""
    path = Path(images)
    endings = " ".join(sorted(IMAGE_SUFFIXES))
    if path.is_file() and is_image(path.name):
        refuse_without_package([path.name], place=str(path))
        return Archive(path.parent, names=[path.name]), [path.name]
    is_zip = path.suffix.lower() == ".zip" or split_files.is_part(path) or zipfile.is_zipfile(path)
    if path.is_file() and not is_zip:
        raise UsageError(f"{path}: neither an image ({endings}) nor a zip; convert it, or use another file")
    archive = Archive(path)
    excluded = {file.name: file.resolve() for file in exclude}

    def wanted(name: str) -> bool:
        same_name = excluded.get(posixpath.basename(name))  # first: to resolve the links of a million files is slow
        return same_name is None or (path / name).resolve() != same_name

    names = [name for name in archive.images() if wanted(name)]
    if not names:
        raise UsageError(f"{path}: no images ({endings}); add some, or pass another folder with --images")
    refuse_without_package(names, place=str(path))
    return archive, names


def ids(names: Sequence[str]) -> list[str]:
    """Names of images -> their ids in tables, all different: without folder and ending; where ids would repeat
    (P1/left.png, P2/left.png), with their folders; else the whole names."""
    for shortened in (stem, without_suffix):
        short = [shortened(name) for name in names]
        if len(set(short)) == len(names):
            return short
    return list(names)


def select(names: list[str], ids: list[str], *, images: str, submission: str) -> list[str]:
    """The images of the ids, in the order of the ids. Case and suffix count, unless an id matches no image with them.
    Raises UsageError that names missing or ambiguous ones."""
    chosen = _choose(names, {own: own for own in ids}, images=images, submission=submission)
    left = {normal_path(own).casefold(): own for own in ids if own not in chosen}
    if left:
        lower, taken = Counter(name.casefold() for name in names), set(chosen.values())
        free = {name.casefold(): name for name in names if name not in taken and lower[name.casefold()] == 1}
        found = _choose(list(free), left, images=images, submission=submission)
        chosen |= {own: free[name] for own, name in found.items()}
    missing = [own for own in ids if own not in chosen]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(
            f"{images}: {len(missing)} of the {len(ids)} images of {submission} are missing ({shown}); add them, or "
            "use the submission of these images"
        )
    if len(set(chosen.values())) < len(chosen):
        raise UsageError(f"{submission}: two of its ids match one image of {images}; delete one of the ids")
    return [chosen[own] for own in ids]


def _choose(names: list[str], wanted: Mapping[str, str], *, images: str, submission: str) -> dict[str, str]:
    """Names of images, {id as an image may be called: id} -> {id: its image}. Of two images, the one in a folder of
    test images. Raises UsageError where two remain."""
    folders = splits_of({part for name in names for part in name.split("/")[:-1]})
    chosen: dict[str, str] = {}
    for name in names:
        for called in {stem(name), *path_ends(without_suffix(name)), *path_ends(nfc(name))} & wanted.keys():
            own, both = wanted[called], (name, chosen.get(wanted[called], name))
            tests = [each for each in both if "test" in map(folders.get, each.split("/")[:-1])]
            if both[0] != both[1] and len(tests) != 1:
                raise UsageError(
                    f"{images}: {both[1]} and {name} both match {own} of {submission}; write their folders into the "
                    "ids, or pass the folder of one with --images"
                )
            chosen[own] = name if both[0] == both[1] else tests[0]
    return chosen
