"""`predict.py --stereo`: two images for each frame that shows two retinas."""

from collections.abc import Collection

from dr import UsageError
from dr.prediction.options import PredictOptions
from dr.sources.archive import Archive, stem
from dr.sources.csv_tables import without_suffix
from dr.sources.halves import HalvesArchive, find_frames, with_halves
from dr.sources.matching import path_ends


def split_frames(
    archive: Archive, names: list[str], *, wanted: Collection[str] | None, options: PredictOptions
) -> tuple[Archive | HalvesArchive, list[str]]:
    """The images, each frame with two retinas replaced by its halves NAME_1 and NAME_2. Raises UsageError if an id of
    a sample submission names such a frame."""
    frames = find_frames(archive, names, workers=options.workers)
    if not frames:
        return archive, names
    for frame in frames if wanted else ():
        own = {stem(frame), *path_ends(without_suffix(frame))} & set(wanted)
        if own:
            raise UsageError(
                f"--stereo: {frame} shows two retinas, but {options.submission} has one row for it; leave out --stereo "
                "or --submission"
            )
    return HalvesArchive(archive, frames), with_halves(names, frames)
