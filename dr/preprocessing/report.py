"""data.py's report.html: what was found, what became of it, doubtful crops and duplicates as pictures, in one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from dr import SPLIT_NAMES
from dr.pages import html as page
from dr.pages.style import MOST_CLASSES
from dr.preprocessing.workspace import Workspace
from dr.sources.kaggle import Source

MOST_GROUPS = 24  # of duplicates that are shown
MOST_COPIES = 4  # of a group
MOST_NAMED = 100  # photographs that could not be used, by name
PICTURE_PX = 220
BOX_RGB = (86, 212, 255)


def fates(
    sources: Mapping[str, Source], assigned: pd.DataFrame, failed: Mapping[tuple[str, str], str]
) -> dict[str, dict[str, int]]:
    """-> for each source, how many of its photographs were found, and how many stand on each side, were left out, by
    reason, could not be used, or were never drawn: these add up to those found."""
    found = {}
    for name, source in sources.items():
        rows = assigned[assigned["source"] == name]
        fate = {
            SPLIT_NAMES[side]: int(rows["split"].eq(side).sum()) for side in SPLIT_NAMES if rows["split"].eq(side).any()
        }
        fate |= {str(reason): int(count) for reason, count in rows["left_out"].value_counts().items()}
        fate["could not be used"] = sum(key[0] == name for key in failed)
        fate["its grade is full"] = (
            fate.get("its grade is full", 0) + len(source.table) - len(rows) - fate["could not be used"]
        )
        found[name] = {"found": len(source.table)} | {reason: count for reason, count in fate.items() if count}
    return found


def by_class(
    sources: Mapping[str, Source], assigned: pd.DataFrame, *, num_classes: int
) -> list[tuple[str, str, list[int]]]:
    """-> (source, "found" or a side, photographs of each class 0..K-1)."""
    rows = []
    for name, source in sources.items():
        tables = {"found": source.table}
        here = assigned[assigned["source"] == name]
        tables |= {word: here[here["split"] == side] for side, word in SPLIT_NAMES.items()}
        for word, table in tables.items():
            counts = table["diagnosis"].value_counts().reindex(range(num_classes), fill_value=0)
            if len(table):
                rows.append((name, word, [int(count) for count in counts]))
    return rows


def _picture(photo: np.ndarray) -> str:
    """(H, W, 3) uint8 BGR -> a URI that holds it, small."""
    return page.data_uri(page.thumbnail(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB), side_px=PICTURE_PX))


def _crop(before: np.ndarray, box: tuple[float, ...], after: np.ndarray, caption: str) -> dict[str, str]:
    """before, after (H, W, 3) uint8 BGR; the box may reach beyond the photograph."""
    small = page.shrunk(before, longest_px=2 * PICTURE_PX).copy()
    height, width = small.shape[:2]
    x0, y0, x1, y1 = (round(width / before.shape[1] * edge) for edge in box)
    corners = (max(1, x0), max(1, y0)), (min(width - 2, x1), min(height - 2, y1))
    cv2.rectangle(small, *corners, BOX_RGB[::-1], max(1, width // 140))
    name, _, note = caption.partition("\n")
    return {"before": _picture(small), "after": _picture(after), "name": name, "note": note}


def _groups(listed: pd.DataFrame, assigned: pd.DataFrame, *, workspace: Workspace) -> list[dict[str, Any]]:
    """The duplicates to show, contradictions first -> for each group its photographs with their grade and fate."""
    order = listed.groupby("group")["conflict"].any().sort_values(ascending=False, kind="stable").index[:MOST_GROUPS]
    shown = []
    for number in order:
        members = listed[listed["group"] == number]
        copies = []
        for index, row in members.head(MOST_COPIES).iterrows():
            photo = workspace.read(workspace.file(row["source"], row["original"]))
            side = assigned["split"].get(index)
            kept = f"kept, {SPLIT_NAMES[side]}" if isinstance(side, str) else assigned["left_out"].get(index)
            copies.append(
                {
                    "name": f"{row['source']}/{row['original']}",
                    "grade": int(row["diagnosis"]),
                    "fate": kept if row["outcome"] == "kept" else row["outcome"],
                    "picture": _picture(photo),
                }
            )
        conflict = bool(members["conflict"].iloc[0])
        shown.append({"number": int(number), "conflict": conflict, "copies": copies, "size": len(members)})
    return shown


def write(
    root: Path,
    content: Mapping[str, Any],
    *,
    sources: Mapping[str, Source],
    assigned: pd.DataFrame,
    listed: pd.DataFrame,
    failed: Mapping[tuple[str, str], str],
    crops: list[tuple],
    workspace: Workspace,
) -> None:
    """The content of report.json and what it was made from -> ROOT/report.html. Photographs that are left out must
    still lie in the workspace: duplicates are shown."""
    classes = list(content["settings"]["classes"])
    fate = fates(sources, assigned, failed)
    balance = root / "class_balance.png"
    page.write(
        root / "report.html",
        "data.html.j2",
        settings=content["settings"],
        classes=classes,
        many=len(classes) > MOST_CLASSES,
        sides=[(word, int(assigned["split"].eq(side).sum())) for side, word in SPLIT_NAMES.items()],
        fates=fate,
        reasons=list(dict.fromkeys(reason for counts in fate.values() for reason in counts)),
        by_class=by_class(sources, assigned, num_classes=len(classes)),
        balance=page.data_uri(balance) if len(classes) <= MOST_CLASSES and balance.is_file() else None,
        crops=[_crop(*crop) for crop in crops],
        flags=content["flags"],
        duplicates=content["duplicates"],
        own_split=bool(sources["main"].table["side"].eq("val").any()),
        groups=_groups(listed, assigned, workspace=workspace),
        skipped=content["skipped"][:MOST_NAMED],
        skipped_count=len(content["skipped"]),
        short=content["short_of_per_class"],
        versions=content["versions"],
    )
