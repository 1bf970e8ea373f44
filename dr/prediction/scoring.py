"""Metrics of a prediction against known grades, with intervals: metrics.json, confusion.png and lines of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dr import GRADES
from dr.core import files
from dr.grading import bootstrap, evaluation, metrics, registry
from dr.grading.objective import Objective
from dr.grading.registry import REFERABLE
from dr.prediction.labels import MAX_NAMES, Labels

FILES = ("metrics.json", "confusion.png")


@dataclass(frozen=True)
class Graded:
    """The ids of graded images, their mean predictions (N, P) and grades (N,); the ids of images without a grade."""

    ids: Sequence[str]
    predictions: np.ndarray
    grades: np.ndarray
    unreadable: Sequence[str]


def score(
    graded: Graded, labels: Labels, *, objective: Objective, classes: Sequence[str], seed: int = 0
) -> dict | None:
    """-> the content of metrics.json, of the images with a grade and a label: primitives, None where a metric is not
    defined; 95 % bootstrap intervals over patients where the table names them, else over images. None where no image
    has both."""
    known = np.array([name in labels.grades.index for name in graded.ids], bool)
    if not known.any():
        return None
    names = [name for name, has in zip(graded.ids, known, strict=True) if has]
    truth = labels.grades.loc[names].to_numpy()
    grades, predictions = graded.grades[known], graded.predictions[known]
    class_scores = objective.class_scores(predictions)
    draws = {"seed": seed, "patients": _patients(labels, names)}
    values = evaluation.measure(truth, grades, class_scores)
    intervals = evaluation.measured_intervals(truth, grades, class_scores, **draws)
    content = {
        "images": len(truth),
        "resampled": "images" if draws["patients"] is None else "patients",
        **_left_out(graded, labels),
        "metrics": {name: _with_interval(values[name], intervals[name]) for name in values},
        "referable": None,
        "per_class": _per_class(truth, grades, class_scores, classes=classes, draws=draws),
        "confusion": metrics.confusion(truth, grades, len(classes)).tolist(),
        "classes": list(classes),
    }
    content["metrics"] |= _of_one_class(truth, grades, content["per_class"])
    if tuple(classes) == GRADES:
        content["referable"] = _referable(truth, grades, objective.scores_from(REFERABLE, predictions), draws=draws)
    return content


def _patients(labels: Labels, names: Sequence[str]) -> np.ndarray | None:
    """The patients of images as numbers (N,), an image without one as its own; None where none has two images."""
    if labels.patients is None:
        return None
    named = labels.patients.reindex(names)
    persons = [("image", name) if pd.isna(patient) else ("patient", patient) for name, patient in named.items()]
    numbers = {person: number for number, person in enumerate(dict.fromkeys(persons))}
    return np.array([numbers[person] for person in persons]) if len(numbers) < len(persons) else None


def _left_out(graded: Graded, labels: Labels) -> dict:
    """What is not scored -> the ids of unreadable images, and counts."""
    images = {*graded.ids, *graded.unreadable}
    labelled = set(labels.grades.index)
    return {
        "unreadable": sorted(name for name in graded.unreadable if name in labelled),
        "without_grade": len(images & labels.ungraded),
        "without_label": len(images - labelled - labels.ungraded),
        "without_image": len(labelled - images),
    }


def _per_class(
    truth: np.ndarray, grades: np.ndarray, class_scores: np.ndarray, *, classes: Sequence[str], draws: dict
) -> list[dict]:
    """A row for each class: its name, number of images, and metrics with intervals by the bootstrap `draws`."""
    values = metrics.per_class(truth, grades, class_scores)
    spread = metrics.per_class_intervals(truth, grades, class_scores, **draws)
    return [
        {"class": name, "n": int(values["n"][k])}
        | {metric: _with_interval(values[metric][k], ends[:, k]) for metric, ends in spread.items()}
        for k, name in enumerate(classes)
    ]


def _of_one_class(truth: np.ndarray, grades: np.ndarray, per_class: list[dict]) -> dict[str, dict]:
    """The recalls among the metrics of a test that are of one class: as in its row, and with its name as `class`."""
    index_of = evaluation.classes_of("test", truth, {"applied": grades[None]}, num_classes=len(per_class))
    rows = {metric.key: index_of.get(metric.class_index) for metric in registry.for_split("test", "proportion")}
    named = {key: per_class[int(index)] for key, index in rows.items() if index is not None}
    return {key: row["recall"] | {"class": row["class"]} for key, row in named.items()}


def _referable(truth: np.ndarray, grades: np.ndarray, scores: np.ndarray, *, draws: dict) -> dict:
    """Sensitivity and specificity of grades from REFERABLE on, with Wilson intervals, which take images as independent,
    or intervals by the bootstrap `draws` over patients; AUC of the `scores` (N,)."""

    def area(truth, scores):
        return metrics.auc(truth.astype(int), np.column_stack([-scores, scores]))

    def mean(of, right):
        return right[of].mean() if of.any() else np.nan

    def share(of, right):
        if not of.any():
            return _with_interval(np.nan, (np.nan, np.nan))
        ends = metrics.wilson([right[of].sum()], [of.sum()])[:, 0]
        if draws["patients"] is not None and 0 < mean(of, right) < 1:  # at 0 and 1 the bootstrap gives no width
            ends = bootstrap.bootstrap_interval(mean, of, right, **draws)
        return _with_interval(mean(of, right), ends)

    ill, given = truth >= REFERABLE, grades >= REFERABLE
    return {
        "sensitivity": share(ill, given),
        "specificity": share(~ill, ~given),
        "auc": _with_interval(area(ill, scores), bootstrap.bootstrap_interval(area, ill, scores, **draws)),
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
        text = f"{metric['value']:.3f}"
    else:
        text = registry.interval_text(metric["value"], metric["low"], metric["high"])
    return f"{text} {metric.get('class', '')}".rstrip()


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
    by = ", intervals over patients" if content["resampled"] == "patients" else ""
    lines = [f"on {content['images']} labelled images{by}: {values}"]
    if content["referable"]:
        labels = registry.CLASS_METRICS
        parts = (f"{labels.get(key, key)} {_text(metric)}" for key, metric in content["referable"].items())
        lines.append(f"referable (grade {REFERABLE} and above): {', '.join(parts)}")
    left_out = {
        "images without a grade in the table": content["without_grade"],
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
