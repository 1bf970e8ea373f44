"""Metrics of a prediction against known grades, with intervals: metrics.json, confusion.png and lines of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dr import GRADES, UsageError
from dr.core import files
from dr.grading import bootstrap, evaluation, metrics, registry
from dr.grading.objective import Objective
from dr.sources.candidate import Columns
from dr.sources.class_names import class_of
from dr.sources.csv_tables import drop_repeated_rows, read_rows, read_table, refuse_empty
from dr.sources.matching import by_path_ends, normal_path

REFERABLE = 2  # from this grade on: more than mild retinopathy (Gulshan et al., JAMA 2016;316:2402)
FILES = ("metrics.json", "confusion.png")
MAX_NAMES = 3  # in one line; the others are counted


def read_labels(path: str, *, classes: Sequence[str]) -> pd.Series:
    """A label table (id_code,diagnosis or image,level; class names or numbers) -> true grade, the index of its class,
    by id, with the folders in front of it. Raises UsageError with table and row."""
    name = f"--labels {path}"
    if not Path(path).is_file():
        fault = "a folder" if Path(path).is_dir() else "not found"
        raise UsageError(f"{name}: {fault}; pass a table id_code,diagnosis or image,level")
    data = Path(path).read_bytes()
    rows = read_rows(data, name=name)
    header = rows[0] if rows else []
    columns = Columns().select(header)
    if columns is None:
        raise UsageError(f"{name}: header {','.join(header)!r}, expected the columns {Columns()}")
    ids, grades = columns
    table = read_table(data, name=name, columns=(ids, grades)).rename(columns={ids: "original", grades: "diagnosis"})
    refuse_empty(table, name=name, column="original", shown=ids)
    index = {label: class_of(label, classes) for label in table["diagnosis"].unique()}
    for label, row in zip(table["diagnosis"], table["row"], strict=True):
        if index[label] is None:
            shown = repr(label) if label else "empty"
            raise UsageError(f"{name}, row {row}: {grades} is {shown}, expected {_expected(classes)}")
    table["diagnosis"] = table["diagnosis"].map(index)
    table["original"] = [normal_path(original) for original in table["original"]]
    return drop_repeated_rows(table, name=name, column=grades).set_index("original")["diagnosis"]


def _expected(classes: Sequence[str]) -> str:
    """The allowed labels, for a message."""
    if tuple(classes) == GRADES:
        return f"0 to {len(GRADES) - 1}"
    return f"one of {', '.join(classes[:MAX_NAMES])}{', ...' if len(classes) > MAX_NAMES else ''}"


@dataclass(frozen=True)
class Graded:
    """The ids of graded images, their mean predictions (N, P) and grades (N,); the ids of images without a grade."""

    ids: Sequence[str]
    predictions: np.ndarray
    grades: np.ndarray
    unreadable: Sequence[str]


def of_images(labels: pd.Series, id_of: Mapping[str, str], *, path: str) -> pd.Series:
    """True grades by path as the table has it, {image: its id} -> by id, where a path matches one image. Raises
    UsageError where a path matches two images, or two paths with different grades match one."""
    matched = by_path_ends(labels.index, id_of, place=f"--labels {path}")
    named = labels.rename(index={own: id_of[name] for own, name in matched.items()})
    grades = named.groupby(level=0).nunique()
    if (grades > 1).any():
        raise UsageError(f"--labels {path}: {grades.idxmax()} has two grades; keep one of them")
    return named[~named.index.duplicated()]


def check(ids: Sequence[str], labels: pd.Series, *, path: str) -> None:
    """Raises UsageError where no image has a label, before the first image is read."""
    if not set(ids) & set(labels.index):
        raise UsageError(
            f"--labels {path}: none of its {len(labels)} ids matches one of the {len(ids)} images (for example "
            f"{labels.index[0]} and {ids[0]}); pass the table of these images"
        )


def score(
    graded: Graded, labels: pd.Series, *, objective: Objective, classes: Sequence[str], seed: int = 0
) -> dict | None:
    """-> the content of metrics.json, of the images with a grade and a label: primitives, None where a metric is not
    defined; 95 % bootstrap intervals over images. None where no image has both."""
    known = np.array([name in labels.index for name in graded.ids], bool)
    if not known.any():
        return None
    truth = labels.loc[[name for name, has in zip(graded.ids, known, strict=True) if has]].to_numpy()
    grades, predictions = graded.grades[known], graded.predictions[known]
    class_scores = objective.class_scores(predictions)
    values = evaluation.measure(truth, grades, class_scores)
    intervals = evaluation.measured_intervals(truth, grades, class_scores, seed=seed)
    per_class = metrics.per_class(truth, grades, class_scores)
    spread = metrics.per_class_intervals(truth, grades, class_scores, seed=seed)
    images = {*graded.ids, *graded.unreadable}
    content = {
        "images": len(truth),
        "unreadable": sorted(name for name in graded.unreadable if name in labels.index),
        "without_label": len(images - set(labels.index)),
        "without_image": len(set(labels.index) - images),
        "metrics": {name: _with_interval(values[name], intervals[name]) for name in values},
        "referable": None,
        "per_class": [
            {"class": name, "n": int(per_class["n"][k])}
            | {metric: _with_interval(per_class[metric][k], ends[:, k]) for metric, ends in spread.items()}
            for k, name in enumerate(classes)
        ],
        "confusion": metrics.confusion(truth, grades, len(classes)).tolist(),
        "classes": list(classes),
    }
    if tuple(classes) == GRADES:
        content["referable"] = _referable(truth, grades, objective.scores_from(REFERABLE, predictions), seed=seed)
    return content


def _referable(truth: np.ndarray, grades: np.ndarray, scores: np.ndarray, *, seed: int) -> dict:
    """Sensitivity and specificity of grades from REFERABLE on, with Wilson intervals; AUC of the `scores` (N,)."""

    def area(truth, scores):
        return metrics.auc(truth.astype(int), np.column_stack([-scores, scores]))

    def share(right):
        if not len(right):
            return _with_interval(np.nan, (np.nan, np.nan))
        return _with_interval(right.mean(), metrics.wilson([right.sum()], [len(right)])[:, 0])

    ill, given = truth >= REFERABLE, grades >= REFERABLE
    return {
        "sensitivity": share(given[ill]),
        "specificity": share(~given[~ill]),
        "auc": _with_interval(area(ill, scores), bootstrap.bootstrap_interval(area, ill, scores, seed=seed)),
    }


def _with_interval(value: float, interval: Sequence[float]) -> dict:
    """{"value", "low", "high"} for JSON: None for NaN."""
    parts = zip(("value", "low", "high"), (value, *interval), strict=True)
    return {name: None if np.isnan(part) else round(float(part), 6) for name, part in parts}


def write(content: dict, folder: str | Path) -> None:
    """FOLDER/metrics.json, and confusion.png where the classes are few enough to read it."""
    from dr.pages import plots, style  # matplotlib takes most of a second to import

    files.write_json(Path(folder) / FILES[0], content)
    if len(content["classes"]) <= style.MOST_CLASSES:
        matrix = np.array(content["confusion"])
        plots.confusion_matrices(matrix, path=Path(folder) / FILES[1], classes=content["classes"])


def _text(metric: dict) -> str:
    if metric["value"] is None:
        return "not defined"
    if metric["low"] is None:
        return f"{metric['value']:.3f}"
    return registry.interval_text(metric["value"], metric["low"], metric["high"])


def optimistic_notes(content: dict) -> list[str]:
    """A line for each checkpoint that was trained or validated on images of these names."""
    return [
        f"{count} of {content['images']} images match, by name, images that {path} was trained or validated on; these "
        "metrics are optimistic; use other images"
        for path, count in content.get("in_training_data", {}).items()
    ]


def summary_lines(content: dict) -> list[str]:
    """The content of metrics.json -> lines to print."""
    shown = [metric for metric in registry.for_split("test") if metric.key in content["metrics"]]
    values = ", ".join(f"{metric.short} {_text(content['metrics'][metric.key])}" for metric in shown)
    lines = [f"on {content['images']} labelled images: {values}"]
    if content["referable"]:
        labels = registry.CLASS_METRICS
        parts = (f"{labels.get(key, key)} {_text(metric)}" for key, metric in content["referable"].items())
        lines.append(f"referable (grade {REFERABLE} and above): {', '.join(parts)}")
    left_out = {
        "images without a label": content["without_label"],
        "labels without an image": content["without_image"],
    }
    if any(left_out.values()):
        lines.append("not scored: " + ", ".join(f"{count} {what}" for what, count in left_out.items() if count))
    lines += optimistic_notes(content)
    if bad := content["unreadable"]:
        more = ", ..." if len(bad) > MAX_NAMES else ""
        lines.append(f"not in these metrics: {len(bad)} unreadable images ({', '.join(bad[:MAX_NAMES])}{more})")
    return lines
