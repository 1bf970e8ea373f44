"""Which images to grade, and their ids."""

import posixpath
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path

from dr import UsageError
from dr.sources.archive import IMAGE_SUFFIXES, Archive, is_image, nfc, stem
from dr.sources.csv_tables import read_member, read_table, without_suffix
from dr.sources.matching import path_ends, shallowest

SAMPLE = "sample_submission.csv"


def find_images(images: str | Path, *, exclude: Collection[Path] = ()) -> tuple[Archive, list[str]]:
    """A folder, a zip or one image -> (archive, names of its images, without the files in `exclude`). Raises UsageError
    where there are none."""
    path = Path(images)
    endings = " ".join(sorted(IMAGE_SUFFIXES))
    if path.is_file() and is_image(path.name):
        return Archive(path.parent, names=[path.name]), [path.name]
    if path.is_file() and path.suffix.lower() != ".zip" and not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: neither an image ({endings}) nor a zip; convert it, or use another file")
    archive = Archive(path)
    excluded = {file.name: file.resolve() for file in exclude}

    def wanted(name: str) -> bool:
        same_name = excluded.get(posixpath.basename(name))  # first: to resolve the links of a million files is slow
        return same_name is None or (path / name).resolve() != same_name

    names = [name for name in archive.images() if wanted(name)]
    if not names:
        raise UsageError(f"{path}: no images ({endings}); add some, or pass another folder with --images")
    return archive, names


def ids(names: Sequence[str]) -> list[str]:
    """Names of images -> their ids in tables, all different: without folder and ending; where ids would repeat
    (P1/left.png, P2/left.png), with their folders; else the whole names."""
    for shortened in (stem, without_suffix):
        short = [shortened(name) for name in names]
        if len(set(short)) == len(names):
            return short
    return list(names)


def submission_ids(path: str) -> list[str]:
    """The ids of a sample submission, in its order: of a CSV, or of the one in a zip or folder. Raises UsageError."""
    data = Path(path).read_bytes() if Path(path).suffix.lower() == ".csv" else _sample_in(Archive(path))
    table = read_table(data, name=path, columns=("id_code",))
    repeated = table[table["id_code"].duplicated()]
    if len(repeated):
        row, name = repeated["row"].iloc[0], repeated["id_code"].iloc[0]
        raise UsageError(f"{path}, row {row}: {name} occurs twice; delete one of the rows")
    return table["id_code"].tolist()


def _sample_in(archive: Archive) -> bytes:
    """The bytes of the sample submission of an archive. Raises UsageError where there is none."""
    member = shallowest(archive, (SAMPLE,))
    if member is None:
        raise UsageError(f"--submission {archive.path}: no {SAMPLE} in it; pass the path of a table with id_code")
    return read_member(archive, member)


def select(names: list[str], ids: list[str], *, images: str, submission: str) -> list[str]:
    """The images of the ids, in the order of the ids. Raises UsageError that names missing or ambiguous ones."""
    wanted, chosen = set(ids), {}
    for name in names:
        for own in {stem(name), *path_ends(without_suffix(name)), *path_ends(nfc(name))} & wanted:
            if own in chosen:
                raise UsageError(
                    f"{images}: {chosen[own]} and {name} both match {own} of {submission}; write their folders into "
                    "id_code, or remove one of them"
                )
            chosen[own] = name
    missing = [i for i in ids if i not in chosen]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(
            f"{images}: {len(missing)} of the {len(ids)} images of {submission} are missing ({shown}); add them, or "
            "use the submission of these images"
        )
    if len(set(chosen.values())) < len(chosen):
        raise UsageError(f"{submission}: two of its ids match one image of {images}; delete one of the ids")
    return [chosen[i] for i in ids]
