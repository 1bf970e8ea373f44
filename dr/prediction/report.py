"""The page of stage 3, results/report.html: every photograph with its grade, how sure that is, and its flags."""

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from torch import nn

from dr import GRADES
from dr.core import distributed
from dr.grading.objectives import Binary, Objective
from dr.imaging import duplicates, fundus, novelty
from dr.inference.checkpoint import Checkpoint
from dr.pages import html as page
from dr.prediction import explanations

# whether they are calibrated -> what the page says of probabilities
PROBABILITIES = ("the networks' own, not calibrated", "calibrated on validation; they may prefer another grade")
WITHOUT_THRESHOLDS = "none: the class that the networks hold likeliest"
MOST_THUMBNAILS = 10_000  # about 65 MB of page, 80 MB of memory; beyond, a browser would rather have a table
FLAGS = {  # words of `flags` -> how they read, the column with the measured value, its decimals, what they mean
    "no_retina": ("no retina", None, 0, "no retina was found; the whole frame was graded"),
    "too_dark": ("too dark", "brightness", 0, f"mean grey level inside the retina below {fundus.TOO_DARK:g} of 255"),
    "too_bright": ("too bright", "brightness", 0, f"mean grey level above {fundus.TOO_BRIGHT:g} of 255"),
    "blurred": (
        "blurred",
        "sharpness",
        1,
        f"mean absolute Laplacian at 384 pixels below {fundus.BLURRED:g} grey levels",
    ),
    "cut_off": ("cut off", "cut_off", 2, f"more than {100 * fundus.CUT_OFF:g} % of the retina's circle is not seen"),
    novelty.FLAG: (
        "unlike training",
        novelty.DISTANCE,
        2,
        "farther from the training photographs, by colours and sharpness, than 99 % of these (1)",
    ),
}
MEASURED = tuple(dict.fromkeys(column for _, column, _, _ in FLAGS.values() if column))
EXPLANATION = {
    True: "Maps by Grad-CAM: the brighter, the more of what raises the score comes from there.",
    False: "Maps by Grad-CAM: the brighter, the more of what speaks for the grade given comes from there.",
}


@dataclass(frozen=True)
class Thumbnail:
    """What the page keeps of a photograph: a thumbnail (bytes of a JPEG), its perceptual hash and its signature."""

    thumbnail: bytes
    hash: int
    signature: np.ndarray


def make_thumbnail(prepared: np.ndarray, retina: fundus.Retina) -> Thumbnail:
    """(S, S, 3) uint8 BGR prepared photograph and where it was cropped -> its Look."""
    x0, y0, x1, y1 = fundus.inside(prepared, retina, small=fundus.is_small(prepared))
    inside = prepared[y0:y1, x0:x1]
    small = page.thumbnail(cv2.cvtColor(prepared, cv2.COLOR_BGR2RGB))
    return Thumbnail(small, duplicates.perceptual_hash(inside), duplicates.signature(inside))


def copies(thumbnails: Sequence[Thumbnail | None]) -> list[int | None]:
    """Looks (N,), None of what could not be read -> a number that photographs of one picture share, None of others."""
    places = [place for place, one in enumerate(thumbnails) if one is not None]
    found: list[int | None] = [None] * len(thumbnails)
    if not places:
        return found
    hashes = np.array([thumbnails[place].hash for place in places], np.uint64)
    pairs = duplicates.same_pictures(hashes, lambda i: thumbnails[places[i]].signature)
    groups = duplicates.groups(len(places), pairs)
    several = np.flatnonzero(np.bincount(groups) > 1)
    for place, group in zip(places, groups, strict=True):
        if group in several:
            found[place] = int(np.searchsorted(several, group))
    return found


def doubts(
    scores: np.ndarray,
    grades: np.ndarray,
    *,
    objective: Objective,
    thresholds: np.ndarray | None,
    evidence: np.ndarray | None,
) -> np.ndarray:
    """scores (N,), grades (N,), cuts (K-1,) -> doubt (N,) in 0..1.

    1 at a cut; of scores in grades, 0 from half a grade away on; of a probability, 0 where it is 0 or 1 (with a cut at
    0.5 one minus the margin of the two classes). Without cuts one minus how far a grade is ahead of the next in
    `evidence` (N, K), which it was decided by.
    """
    if thresholds is None:
        given = np.arange(evidence.shape[1]) == grades[:, None]
        ahead = evidence[given] - np.where(given, -np.inf, evidence).max(axis=1)
        return (1 - ahead).clip(0, 1)
    if isinstance(objective, Binary):
        cut = min(max(float(thresholds[0]), 1e-6), 1 - 1e-6)
        return (1 - np.where(scores < cut, (cut - scores) / cut, (scores - cut) / (1 - cut))).clip(0, 1)
    return (1 - 2 * np.abs(scores[:, None] - thresholds).min(axis=1)).clip(0, 1)


def _plain(value: object, digits: int) -> float | None:
    return None if pd.isna(value) else round(float(value), digits)


def _rows(details: pd.DataFrame, groups: Sequence[int | None]) -> list[dict]:
    """What the list of the page shows of each photograph, as JSON has it."""
    likely = [name for name in details.columns if name.startswith("probability_")]
    rows = []
    for (_, one), group in zip(details.iterrows(), groups, strict=True):
        graded = not pd.isna(one["grade"])
        rows.append(
            {
                "file": one["file"],
                "grade": int(one["grade"]) if graded else None,
                "truth": None if pd.isna(one.get("truth")) else int(one["truth"]),
                "score": _plain(one["score"], 4),
                "doubt": _plain(one["doubt"], 4),
                "probabilities": [_plain(one[name], 4) for name in likely] if likely and graded else None,
                "flags": [] if pd.isna(one["flags"]) else one["flags"].split(),
                **{name: _plain(one.get(name), 2) for name in MEASURED},
                "group": group,
                "error": one["error"],
            }
        )
    return rows


def _range(objective: Objective, thresholds: np.ndarray | None) -> list[float]:
    """The ends of the scale that scores are shown on: all grades, and room beyond the outermost cuts."""
    highest = float(objective.num_classes - 1)
    if thresholds is None or isinstance(objective, Binary):
        return [0.0, 1.0 if isinstance(objective, Binary) else highest]
    return [min(0.0, float(thresholds[0]) - 0.5), max(highest, float(thresholds[-1]) + 0.5)]


def _recipe(checkpoints: Sequence[Checkpoint], tta: str) -> str:
    systems = dict.fromkeys(f"{one.recipe.backbone} at {one.recipe.image_size} pixels" for one in checkpoints)
    recipe = checkpoints[0].recipe
    return f"{', '.join(systems)}; {recipe.objective}, loss {recipe.loss}, cuts {recipe.thresholds}; views: {tta}"


def _doubt_text(objective: Objective, thresholds: np.ndarray | None) -> str:
    if thresholds is None:
        return "one minus how far the grade is ahead of the next class, by what it was decided by"
    if isinstance(objective, Binary):
        return "1 at the cut, 0 where the probability is 0 or 1"
    return "1 at a cut, 0 half a grade or more away from every cut"


def _taken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the page tells of a prediction: details as in details.csv, the networks, their cuts (K-1,) and where these
    are from (None without cuts), whether probabilities are calibrated, where the photographs are, the views, what ran
    the networks, in words; what metrics.json holds where labels were given, and what is `flattering` about it; warnings
    of the networks, in words."""

    details: pd.DataFrame
    checkpoints: Sequence[Checkpoint]
    thresholds: np.ndarray | None
    thresholds_source: str | None
    calibrated: bool
    images: str
    tta: str
    engine: str
    metrics: dict | None = None
    optimistic_notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


def _facts(content: Content) -> list[tuple[str, str]]:
    likely = any(name.startswith("probability_") for name in content.details.columns)
    return [
        ("Model", ", ".join(str(one.path) for one in content.checkpoints)),
        ("Recipe", _recipe(content.checkpoints, content.tta)),
        ("Cuts", (content.thresholds_source or WITHOUT_THRESHOLDS).removeprefix("cuts ")),
        ("Graded by", content.engine),
        ("Probabilities", PROBABILITIES[content.calibrated] if likely else "none"),
    ]


def write(
    path: Path, content: Content, *, thumbnails: dict[str, Thumbnail], maps: Sequence[dict], seconds: float
) -> None:
    """Writes the page: looks by file (empty where there are too many photographs), maps as `explanations.maps` makes
    them, seconds that the prediction took."""
    details, first = content.details, content.checkpoints[0]
    labels = [f"{k} {name}" for k, name in enumerate(GRADES)] if first.classes == GRADES else list(first.classes)
    seen = [thumbnails.get(name) for name in details["file"]]
    rows = _rows(details, copies(seen))
    flags_of = {row["file"]: row["flags"] for row in rows}
    counts = details["grade"].value_counts()
    page.write(
        path,
        "predictions.html.j2",
        rows=rows,
        place=content.images,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        graded=sum(row["grade"] is not None for row in rows),
        flagged=sum(bool(row["flags"]) for row in rows),
        copies=sum(row["group"] is not None for row in rows),
        seconds=_taken(seconds),
        unreadable=[row for row in rows if row["error"]],
        counts=[(label, int(counts.get(k, 0))) for k, label in enumerate(labels)],
        facts=_facts(content),
        metrics=content.metrics,
        optimistic_notes=content.optimistic_notes,
        warnings=content.warnings,
        explained=[one | {"flags": flags_of[one["file"]]} for one in maps],
        explanation=EXPLANATION[first.recipe.objective == "regression"],
        labels=labels,
        thresholds=None if content.thresholds is None else [float(cut) for cut in content.thresholds],
        range=_range(first.objective, content.thresholds),
        flags=[
            {"name": name, "label": label, "column": column, "digits": digits, "meaning": meaning}
            for name, (label, column, digits, meaning) in FLAGS.items()
        ],
        doubt=_doubt_text(first.objective, content.thresholds),
        thumbnails=[None if one is None else base64.b64encode(one.thumbnail).decode() for one in seen]
        if thumbnails
        else [],
        most_thumbnails=MOST_THUMBNAILS,
        left_out=len(rows) > MOST_THUMBNAILS,
    )


def make(
    path: Path,
    content: Content,
    *,
    thumbnails: dict[str, Thumbnail],
    explain: int | str,
    layers: Sequence[nn.Module],
    read: Callable[[str], bytes],
    start: float,
) -> None:
    """The maps of `explain` photographs or of 'all', made of the `layers` of the networks, then the page: looks of this
    process, `read` a photograph's bytes by its name, start as time.monotonic() said it. Called by all processes,
    written by the main one."""
    chosen = explanations.choose(content.details, count=explain) if explain else []
    maps = []
    if chosen:
        maps = explanations.maps(content.details, chosen, checkpoints=content.checkpoints, layers=layers, read=read)
    everyones = {file: one for own in distributed.all_gather(thumbnails) for file, one in own.items()}
    if distributed.is_main:
        write(path, content, thumbnails=everyones, maps=maps, seconds=time.monotonic() - start)
