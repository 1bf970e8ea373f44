"""report.html of data.py: what was found, what became of it, doubtful crops and duplicates as images, in one file."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from dr import SPLIT_NAMES
from dr.imaging.decode import decode
from dr.imaging.retina import WORKING_SIDE_PX
from dr.pages.html import data_uri, shrunk, thumbnail, write
from dr.pages.style import MOST_CLASSES
from dr.preprocessing import facts
from dr.preprocessing.facts import known_sentence, patient_lines
from dr.preprocessing.selection import Selection
from dr.preprocessing.split import CLASS_FULL
from dr.preprocessing.workspace import Workspace
from dr.sources.source import Source, main_of

MAX_CROPS = 24
MAX_GROUPS = 24  # of duplicates
MAX_COPIES = 4  # of a group
MAX_SKIPPED = 100  # images listed by name
THUMBNAIL_PX = 220
BOX_RGB = (86, 212, 255)


class Crop(NamedTuple):
    """Before and after, (H, W, 3) uint8 BGR; the box (x0, y0, x1, y1) in pixels of `before`; a caption of two lines."""

    before: np.ndarray
    box: tuple[float, float, float, float]
    after: np.ndarray
    caption: str


def worst_crops(selection: Selection, *, workspace: Workspace, sources: Mapping[str, Source]) -> list[Crop]:
    """The most doubtful crops: no retina found first, then the smallest part of the frame kept."""
    rows = []
    for row in selection.used().itertuples():
        record = workspace.records[row.source, row.original]
        if not record["cropped"]:
            continue
        x0, y0, x1, y1 = record["box"]
        kept = (x1 - x0) * (y1 - y0) / math.prod(record["frame"])
        rows.append(("no_retina" not in record["flags"], kept, row, record))
    crops = []
    for found, kept, row, record in sorted(rows, key=lambda item: item[:2])[:MAX_CROPS]:
        data = sources[row.source].archive.read(row.member)
        before = decode(data, min_side_px=WORKING_SIDE_PX)
        before = shrunk(before, longest_px=2 * WORKING_SIDE_PX)  # two dozen originals would fill the memory
        box = np.multiply(record["box"], before.shape[1] / record["frame"][0])
        after = workspace.read(workspace.file(row.source, row.original))
        caption = f"{row.original}\n{kept:.0%} kept" if found else f"{row.original}\nno retina found"
        crops.append(Crop(before, box, after, caption))
    return crops


def outcomes(sources: Mapping[str, Source], selection: Selection) -> dict[str, dict[str, int]]:
    """{source: {"found": n, then for each outcome the number of images}}: a split, an exclusion, a failure, or never
    drawn. The outcomes add up to "found"."""
    table = {}
    for name, source in sources.items():
        rows = selection.images[selection.images["source"] == name]
        counts = {word: int(rows["split"].eq(split).sum()) for split, word in SPLIT_NAMES.items()}
        counts |= {str(reason): int(count) for reason, count in rows["exclusion"].value_counts().items()}
        counts["missing or unreadable"] = sum(key[0] == name for key in selection.failed)
        not_drawn = len(source.table) - len(rows) - counts["missing or unreadable"]
        counts[CLASS_FULL] = counts.get(CLASS_FULL, 0) + not_drawn
        table[name] = {"found": len(source.table)} | {outcome: count for outcome, count in counts.items() if count}
    return table


def by_class(
    sources: Mapping[str, Source], images: pd.DataFrame, *, num_classes: int
) -> list[tuple[str, str, list[int]]]:
    """-> (source, "found" or a split, number of images of each class 0..K-1)."""
    rows = []
    for name, source in sources.items():
        here = images[images["source"] == name]
        tables = {"found": source.table} | {word: here[here["split"] == split] for split, word in SPLIT_NAMES.items()}
        for word, table in tables.items():
            counts = table["diagnosis"].value_counts().reindex(range(num_classes), fill_value=0)
            if len(table):
                rows.append((name, word, [int(count) for count in counts]))
    return rows


def _thumbnail_uri(image: np.ndarray) -> str:
    """(H, W, 3) uint8 BGR -> a small JPEG as a data URI."""
    return data_uri(thumbnail(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), side_px=THUMBNAIL_PX))


def _crop_card(crop: Crop) -> dict[str, str]:
    """A crop for the template. The box may extend beyond the image."""
    small = shrunk(crop.before, longest_px=2 * THUMBNAIL_PX).copy()
    height, width = small.shape[:2]
    x0, y0, x1, y1 = (round(width / crop.before.shape[1] * edge) for edge in crop.box)
    corners = (max(1, x0), max(1, y0)), (min(width - 2, x1), min(height - 2, y1))
    cv2.rectangle(small, *corners, BOX_RGB[::-1], max(1, width // 140))
    name, _, note = crop.caption.partition("\n")
    return {"before": _thumbnail_uri(small), "after": _thumbnail_uri(crop.after), "name": name, "note": note}


def _groups(selection: Selection, workspace: Workspace) -> list[dict[str, Any]]:
    """The groups of duplicates to show, conflicting ones first."""
    listed = selection.duplicates
    order = listed.groupby("group")["conflict"].any().sort_values(ascending=False, kind="stable").index[:MAX_GROUPS]
    groups = []
    for number in order:
        members = listed[listed["group"] == number]
        copies = [_copy(index, row, selection, workspace) for index, row in members.head(MAX_COPIES).iterrows()]
        conflict = bool(members["conflict"].iloc[0])
        groups.append({"number": int(number), "conflict": conflict, "copies": copies, "size": len(members)})
    return groups


def _copy(index: int, row: pd.Series, selection: Selection, workspace: Workspace) -> dict[str, Any]:
    """A row of duplicates.csv for the template, with its outcome. A kept copy may be excluded for another reason."""
    split = selection.images["split"].get(index)
    kept = f"kept, {SPLIT_NAMES[split]}" if isinstance(split, str) else selection.images["exclusion"].get(index)
    return {
        "name": f"{row['source']}/{row['original']}",
        "grade": int(row["diagnosis"]),
        "outcome": kept if row["outcome"] == "kept" else row["outcome"],
        "image": _thumbnail_uri(workspace.read(workspace.file(row["source"], row["original"]))),
    }


def write_report(
    report: Mapping[str, Any],
    *,
    sources: Mapping[str, Source],
    selection: Selection,
    crops: list[Crop],
    workspace: Workspace,
) -> None:
    """The content of report.json and what it summarises -> report.html. Excluded images must still be in the workspace:
    the page shows duplicates."""
    classes = list(report["settings"]["classes"])
    by_outcome = outcomes(sources, selection)
    balance = workspace.root / "class_balance.png"
    write(
        workspace.root / "report.html",
        "data.html.j2",
        settings=report["settings"],
        classes=classes,
        many=len(classes) > MOST_CLASSES,
        splits=[(word, int(selection.images["split"].eq(split).sum())) for split, word in SPLIT_NAMES.items()],
        outcomes=by_outcome,
        outcome_names=list(dict.fromkeys(name for counts in by_outcome.values() for name in counts)),
        class_full=CLASS_FULL,
        by_class=by_class(sources, selection.images, num_classes=len(classes)),
        balance=data_uri(balance) if len(classes) <= MOST_CLASSES and balance.is_file() else None,
        crops=[_crop_card(crop) for crop in crops],
        flags=report["quality_flags"],
        duplicates=report["duplicates"],
        main=next(iter(sources)),
        own_split=bool(main_of(sources).table["source_split"].eq("val").any()),
        groups=_groups(selection, workspace),
        notes=report["notes"],
        patients=[known_sentence(report["patients"]), *patient_lines(report["patients"])],
        ungradable=facts.ungradable_images(sources)[:MAX_SKIPPED].fillna("").to_dict("records"),
        ungradable_count=report["ungradable"]["images"],
        skipped=report["skipped"][:MAX_SKIPPED],
        skipped_count=len(report["skipped"]),
        below_per_class=report["below_per_class"],
        versions=report["versions"],
    )
