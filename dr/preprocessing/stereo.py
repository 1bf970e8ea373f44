"""`data.py --stereo`: the sources with two images for each frame that shows two retinas."""

from dataclasses import replace

import pandas as pd

from dr import UsageError
from dr.preprocessing.settings import Settings
from dr.sources.halves import HalvesArchive, find_frames, halves_of
from dr.sources.source import Source


def split_frames(sources: dict[str, Source], *, settings: Settings, workers: int) -> dict[str, Source]:
    """Both halves of a frame get its grade and its patient, or its name as patient if that is unknown. Raises
    UsageError for images that are not cropped."""
    if not settings.stereo:
        return sources
    if not settings.crop:
        raise UsageError("--stereo: needs the search for the retina; leave out --no_crop")
    return {name: _split(source, workers=workers) if source.crop else source for name, source in sources.items()}


def _split(source: Source, *, workers: int) -> Source:
    members = source.table["member"].dropna().tolist()
    frames = find_frames(source.archive, members, workers=workers)
    table = source.table
    split = table["member"].isin(frames)
    halves = []
    for number in (0, 1):
        rows = table[split]
        halves.append(
            rows.assign(
                member=[halves_of(name)[number] for name in rows["member"]],
                original=rows["original"] + f"_{number + 1}",
                patient=rows["patient"].fillna(rows["original"]),
            )
        )
    note = f"split {len(frames):,} of {len(members):,} images of {source.archive.path}: they show two retinas"
    table = pd.concat([table[~split], *halves], ignore_index=True)
    taken = table[table["original"].duplicated()]["original"]
    if len(taken):
        raise UsageError(
            f"{source.archive.path}: {taken.iloc[0]} is the name of an image and of a half; rename the image, or omit "
            "--stereo"
        )
    return replace(source, archive=HalvesArchive(source.archive, frames), table=table, notes=(*source.notes, note))
