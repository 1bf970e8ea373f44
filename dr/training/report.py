"""NAME/report.html: how a run went and how good its network is, in one file, and the plots that only it shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dr import SPLIT_NAMES
from dr.datasets.preprocessed import PreprocessedData
from dr.grading import registry
from dr.inference.checkpoint import Checkpoint
from dr.inference.records import GradedSplit
from dr.pages import html, plots
from dr.pages.style import MOST_CLASSES
from dr.training import summary, suspect_labels, worst_errors
from dr.training.run_files import PLOTS, RunFiles

JPEG_QUALITY = 80


def write(
    paths: RunFiles,
    best: Checkpoint,
    *,
    data: PreprocessedData,
    row: Mapping[str, Any],
    epochs: int,
    device: Any = "cpu",
) -> None:
    """The best checkpoint of a finished run, its data and its row of runs.csv -> NAME/report.html, with the existing
    plots NAME/*.png and those drawn here. `epochs` were trained; `device` computes the explanations."""
    graded = best.graded_splits()[-1]  # the test, where there is one
    values = summary.class_metrics(best, graded)
    _draw(graded, values, data=data, paths=paths)
    options = summary.options(best.recipe)
    html.write(
        paths.report,
        "run.html.j2",
        name=paths.name,
        row=row,
        best=best,
        epochs=epochs,
        headlines=_headlines(best),
        metrics=summary.metric_texts(best),
        missed=summary.missed_lines(best),
        below_majority=summary.below_majority_lines(best),
        split=SPLIT_NAMES[graded.name],
        fitted=graded.fitted,
        val_fitted=best.fits_thresholds,
        many=len(best.classes) > MOST_CLASSES,
        class_metrics=registry.CLASS_METRICS,
        class_rows=_class_rows(best, values),
        confusion_pairs=summary.confusion_pairs(graded, best.classes),
        spread=lambda interval: summary.with_interval(*interval),
        **_worst_errors(best, graded, data=data, device=device),
        **_suspect_labels(paths, best, graded.name, root=data.root),
        composition=summary.composition_rows(data),
        patient_overlap=summary.patient_overlap(data),
        changed=[(key, value) for key, value, default in options if not default],
        defaults=[(key, value) for key, value, default in options if default],
        plots={name: html.data_uri(path) if (path := paths.plot(name)).is_file() else None for name in PLOTS},
    )


def _draw(graded: GradedSplit, values: tuple, *, data: PreprocessedData, paths: RunFiles) -> None:
    classes = list(data.classes)
    note = ", thresholds fitted to the same images" if graded.fitted else ""
    title = f"{paths.name}: {SPLIT_NAMES[graded.name]}{note}"
    plots.class_metrics(*values, path=paths.plot("classes"), classes=classes, title=title)
    if len(classes) <= MOST_CLASSES:
        counts = summary.composition(data).drop(columns="patients").astype(int)
        plots.split_bars(counts, path=paths.plot("split"), classes=classes)


def _class_rows(best: Checkpoint, values: tuple) -> list[dict[str, Any]]:
    """The metrics of each class; of very many classes those with the lowest F1."""
    rows = summary.class_rows(best.classes, *values)
    return rows if len(rows) <= MOST_CLASSES else sorted(rows, key=lambda row: row["f1"][0])[:MOST_CLASSES]


def _worst_errors(best: Checkpoint, graded: GradedSplit, *, data: PreprocessedData, device: Any) -> dict[str, Any]:
    """-> {errors: what the page shows of each of the worst errors, wrong: number of errors, no_heat: the reason for
    missing heat maps, or None}."""
    best.network.to(device)
    table = getattr(data, graded.name)
    rows = worst_errors.worst(best.objective, graded)
    shown, no_heat = worst_errors.show(best, [data.root / path for path in table["path"]], rows, graded)
    errors = [
        {
            "file": table["path"].iloc[error.row],
            "truth": error.truth,
            "grade": error.grade,
            "value": f"{best.objective.value_name} {error.value:.2f}",
            "image": _jpeg_uri(error.image),
            "heat_map": None if error.heat_map is None else _jpeg_uri(error.heat_map),
        }
        for error in shown
    ]
    return {"errors": errors, "wrong": int((graded.truth != graded.grades).sum()), "no_heat": no_heat}


def _suspect_labels(paths: RunFiles, best: Checkpoint, split: str, *, root: Path) -> dict[str, Any]:
    """-> what the page shows of labels that look wrong (`suspect_labels.shown`), the images as URIs."""
    shown = suspect_labels.shown(paths, split=split, root=root, unskilled=split in best.unskilled_splits)
    suspects = [suspect | {"image": _jpeg_uri(suspect["image"])} for suspect in shown["suspects"]]
    return shown | {"suspects": suspects, "suspects_of": SPLIT_NAMES.get(shown["suspects_of"], shown["suspects_of"])}


def _jpeg_uri(image: np.ndarray) -> str:
    return html.data_uri(html.jpeg(image, quality=JPEG_QUALITY))


def _headlines(best: Checkpoint) -> list[tuple[str, str]]:
    """-> (value, label) of the main metrics."""
    headlines = []
    for row in summary.headline_rows(best):
        value, _, interval = summary.with_interval(row["value"], row["low"], row["high"]).partition(" ")
        unbroken = interval.replace(" ", "\u00a0")
        headlines.append((value, f"{SPLIT_NAMES[row['split']]}: {row['name']} {unbroken}".rstrip()))
    return headlines
