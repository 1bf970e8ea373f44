"""The page of stage 3, results/report.html: each image with its grade, its doubt and its flags."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dr import GRADES
from dr.grading import registry
from dr.imaging import novelty, quality
from dr.inference.checkpoint import Checkpoint
from dr.pages import html
from dr.prediction.thumbnails import Thumbnail, duplicate_groups

# whether probabilities are calibrated -> their description
PROBABILITIES = (
    "of the networks, not calibrated",
    "calibrated on validation; the most probable class may differ from the grade",
)
WITHOUT_THRESHOLDS = "none: the grade is the most probable class, before calibration"
MAX_THUMBNAILS = 10_000  # about 65 MB of page, 80 MB of memory; for more, details.csv is the better list
EXPLANATION = {  # explains the score, rather than a grade
    True: "Grad-CAM: brighter regions contributed more to the score.",
    False: "Grad-CAM: brighter regions contributed more to the grade.",
}


class Flag(NamedTuple):
    """How the page shows a word of the column `flags`: label, column of its value (None without one), decimals of the
    value, and meaning."""

    name: str
    label: str
    column: str | None
    digits: int
    meaning: str


FLAGS = (
    Flag("no_retina", "no retina", None, 0, "no retina was found; the whole frame was graded"),
    Flag("too_dark", "too dark", "brightness", 0,
         f"mean grey level inside the retina below {quality.TOO_DARK:g} of 255"),
    Flag("too_bright", "too bright", "brightness", 0, f"mean grey level above {quality.TOO_BRIGHT:g} of 255"),
    Flag("blurred", "blurred", "sharpness", 1,
         f"mean absolute Laplacian at 384 pixels below {quality.BLURRED:g} grey levels"),
    Flag("cut_off", "cut off", "cut_off", 2,
         f"more than {100 * quality.CUT_OFF:g} % of the retina's circle is outside the frame or the mask"),
    Flag(quality.TWO_RETINAS, "two retinas", None, 0,
         "two retinas side by side; one of them, or the whole frame, was graded; --stereo grades both"),
    Flag(novelty.FLAG, "unlike training", novelty.DISTANCE, 2,
         "colours and sharpness differ more from the training images than those of 99 % of them do (1)"),
)  # fmt: skip
MEASURED = tuple(dict.fromkeys(flag.column for flag in FLAGS if flag.column))


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the page shows of a prediction: details.csv; the checkpoints; the mean thresholds (K-1,) and the sentence
    that names their source, None without thresholds; whether probabilities are calibrated; the path of the images; the
    TTA views; the engine; with labels the content of metrics.json and what makes it optimistic; warnings."""

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


def write(
    path: Path, content: Content, *, thumbnails: Mapping[str, Thumbnail], maps: Sequence[dict], seconds: float
) -> None:
    """Writes the page: thumbnails by file (empty for more than MAX_THUMBNAILS images), maps of `explanations.maps`, the
    seconds that the prediction took."""
    by_row = [thumbnails.get(name) for name in content.details["file"]]
    rows = _rows(content.details, duplicate_groups(by_row))
    flags_of = {row["file"]: row["flags"] for row in rows}
    encoded = [None if each is None else base64.b64encode(each.jpeg).decode() for each in by_row]
    first = content.checkpoints[0]
    html.write(
        path,
        "predictions.html.j2",
        rows=rows,
        images=content.images,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        headlines=_headlines(rows, seconds),
        unreadable=[row for row in rows if row["error"]],
        counts=_counts(content),
        facts=_facts(content),
        metrics=content.metrics,
        metric_labels={metric.key: metric.short for metric in registry.for_split("test")} | registry.CLASS_METRICS,
        optimistic_notes=content.optimistic_notes,
        warnings=content.warnings,
        explained=[each | {"flags": flags_of[each["file"]]} for each in maps],
        explanation=EXPLANATION[first.objective.explains_score],
        labels=_labels(first.classes),
        thresholds=None if content.thresholds is None else [float(value) for value in content.thresholds],
        range=first.objective.score_range(content.thresholds),
        flags=[flag._asdict() for flag in FLAGS],
        doubt=first.objective.doubt_text,
        thumbnails=encoded if thumbnails else [],
        max_thumbnails=MAX_THUMBNAILS if len(rows) > MAX_THUMBNAILS else None,
    )


def _labels(classes: Sequence[str]) -> list[str]:
    return [f"{k} {name}" for k, name in enumerate(GRADES)] if tuple(classes) == GRADES else list(classes)


def _headlines(rows: Sequence[dict], seconds: float) -> list[tuple[int | str, str]]:
    """(value, caption) of the numbers at the top."""
    return [
        (len(rows), "images"),
        (sum(row["grade"] is not None for row in rows), "graded"),
        (sum(bool(row["flags"]) for row in rows), "with a quality flag"),
        (sum(row["group"] is not None for row in rows), "in groups of duplicates"),
        (_duration(seconds), "run time"),
    ]


def _counts(content: Content) -> list[tuple[str, int]]:
    """(label, number of images) of each class."""
    counts = content.details["grade"].value_counts()
    return [(label, int(counts.get(k, 0))) for k, label in enumerate(_labels(content.checkpoints[0].classes))]


def _facts(content: Content) -> list[tuple[str, str]]:
    has_probabilities = any(name.startswith("probability_") for name in content.details.columns)
    return [
        ("Model", ", ".join(str(checkpoint.path) for checkpoint in content.checkpoints)),
        ("Recipe", _recipe(content.checkpoints, content.tta)),
        ("Thresholds", (content.thresholds_source or WITHOUT_THRESHOLDS).removeprefix("thresholds ")),
        ("Engine", content.engine),
        ("Probabilities", PROBABILITIES[content.calibrated] if has_probabilities else "none"),
    ]


def _recipe(checkpoints: Sequence[Checkpoint], tta: str) -> str:
    recipes = [checkpoint.recipe for checkpoint in checkpoints]
    systems = dict.fromkeys(f"{recipe.backbone} at {recipe.image_size} pixels" for recipe in recipes)
    first = recipes[0]
    rule = f"thresholds {first.thresholds}; TTA {tta}"
    return f"{', '.join(systems)}; {first.objective}, loss {first.loss}, {rule}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _rows(details: pd.DataFrame, groups: Sequence[int | None]) -> list[dict]:
    """details.csv, the group of duplicates of each row -> the rows of the list, as JSON."""
    probabilities = [name for name in details.columns if name.startswith("probability_")]
    rows = []
    for (_, row), group in zip(details.iterrows(), groups, strict=True):
        graded = not pd.isna(row["grade"])
        rows.append(
            {
                "file": row["file"],
                "grade": int(row["grade"]) if graded else None,
                "truth": None if pd.isna(row.get("truth")) else int(row["truth"]),
                "score": _rounded(row["score"], 4),
                "doubt": _rounded(row["doubt"], 4),
                "probabilities": [_rounded(row[name], 4) for name in probabilities]
                if probabilities and graded
                else None,
                "flags": [] if pd.isna(row["flags"]) else row["flags"].split(),
                **{name: _rounded(row.get(name), 2) for name in MEASURED},
                "group": group,
                "error": row["error"],
            }
        )
    return rows


def _rounded(value: object, digits: int) -> float | None:
    return None if pd.isna(value) else round(float(value), digits)
