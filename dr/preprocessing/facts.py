"""Facts for screen and page: notes of the sources, ungradable images, and the known patients."""

import re
from collections.abc import Mapping
from itertools import pairwise

import pandas as pd

from dr.sources.source import UNGRADABLE_COLUMNS, Source

LEFT_OUT_COLUMNS = ["source", *UNGRADABLE_COLUMNS]  # of ungradable.csv
MAX_NAMED = 3  # ungradable images in one line
MIN_IN_SERIES = 4  # images; fewer neighbours may be chance


def notes(sources: Mapping[str, Source]) -> list[str]:
    """The notes of the sources, with their names if there are several."""
    several = len(sources) > 1
    return [f"{name}: {note}" if several else note for name, source in sources.items() for note in source.notes]


def ungradable_images(sources: Mapping[str, Source]) -> pd.DataFrame:
    """-> LEFT_OUT_COLUMNS of the images that were left out because of their label."""
    tables = [each.ungradable.assign(source=name) for name, each in sources.items() if each.ungradable is not None]
    return pd.concat(tables)[LEFT_OUT_COLUMNS] if tables else pd.DataFrame(columns=LEFT_OUT_COLUMNS)


def ungradable_facts(table: pd.DataFrame) -> dict:
    """`ungradable_images` -> their number, the labels with the number of each, and the first names."""
    labels = table["label"].fillna("").replace("", "empty").value_counts()
    counts = {str(label): int(number) for label, number in labels.items()}
    return {"images": len(table), "labels": counts, "first": table["original"].head(MAX_NAMED).tolist()}


def patient_facts(used: pd.DataFrame, frames: Mapping[tuple[str, str], tuple[int, int]]) -> dict:
    """The images in a split, and {(source, original): width, height of the original in pixels} -> what is known of
    their patients, and how many neighbours without a patient are in several splits."""
    known = used[used["patient"].notna()]
    splits = known.groupby("patient")["split"].nunique()
    unknown = used[used["patient"].isna()]
    images, series = _series_over_splits(unknown, frames)
    return {
        "images": len(used),
        "known_images": len(known),
        "patients": len(splits),
        "in_several_splits": int((splits > 1).sum()),
        "neighbouring_images": images if images >= MIN_IN_SERIES else 0,
        "series": series if images >= MIN_IN_SERIES else 0,
    }


def _series_over_splits(table: pd.DataFrame, frames: Mapping[tuple[str, str], tuple[int, int]]) -> tuple[int, int]:
    """Images whose names count on, as IMG_7 and IMG_8, and whose originals have one size: often the eyes of one
    patient. -> number of images in series that lie in more than one split, and number of these series."""
    groups: dict[tuple, list[tuple[int, str]]] = {}
    for row in table.itertuples():
        name = re.fullmatch(r"(.*?)(\d{1,9})(\D*)", row.original)
        if name:
            size = tuple(frames[row.source, row.original])
            groups.setdefault((row.source, name[1], name[3], size), []).append((int(name[2]), row.split))
    images = series = 0
    for members in groups.values():
        members.sort()
        starts = [0, *(k for k, (one, two) in enumerate(pairwise(members), 1) if two[0] > one[0] + 1), len(members)]
        for first, end in pairwise(starts):
            if len({split for _, split in members[first:end]}) > 1:
                images, series = images + end - first, series + 1
    return images, series


def ungradable_line(found: Mapping) -> str:
    """`ungradable_facts` -> one line."""
    labels = ", ".join(f"{label}: {count:,}" for label, count in list(found["labels"].items())[:4])
    first = ", ".join(found["first"]) + (", ..." if found["images"] > len(found["first"]) else "")
    count = f"{found['images']:,} image{'s' if found['images'] > 1 else ''}"
    return f"left out {count} labelled ungradable ({labels}): {first}; see ungradable.csv, or use --ungradable keep"


def patient_lines(found: Mapping) -> list[str]:
    """`patient_facts` -> lines about patients that are, or may be, in several splits."""
    lines = []
    if count := found["in_several_splits"]:
        patients = "1 patient has" if count == 1 else f"{count:,} patients have"
        lines.append(f"{patients} images in more than one split, as the source splits them; metrics are optimistic")
    if count := found["neighbouring_images"]:
        lines.append(
            f"{count:,} images without a patient form {found['series']:,} series of neighbouring names and one size; "
            "eyes of one patient may be in both splits"
        )
    return lines


def known_sentence(found: Mapping) -> str:
    """`patient_facts` -> one or two sentences about the known patients, for a page."""
    if not found["known_images"]:
        return "Patients are not known: each image counts as its own, and both eyes of a patient may be in two splits."
    several = found["in_several_splits"]
    shared = f"{several:,} of them have" if several else "none of them has"
    if found["known_images"] == found["images"]:
        return f"{found['patients']:,} patients; {shared} images in more than one split."
    share = 100 * found["known_images"] // found["images"]
    return (
        f"The patients of {share} % of the images are known ({found['patients']:,} patients); {shared} images in "
        "more than one split. Each other image counts as its own patient, and may be of one in another split."
    )
