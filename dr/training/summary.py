"""A checkpoint and the data of its run -> the rows and sentences of its page and its card."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dr import GRADES, SPLIT_NAMES
from dr.datasets.preprocessed import PreprocessedData
from dr.grading import baseline, metrics, registry
from dr.inference.checkpoint import Checkpoint
from dr.inference.records import GradedSplit
from dr.recipes.load import option_text
from dr.recipes.schema import Recipe

MAX_MISSED = 5  # classes in one line


def metric_rows(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """-> {split, key, name, value, low, high, optimistic} of each metric of validation and test; low and high None
    without an interval. `optimistic`: thresholds were fitted to the same images. The name of a metric that is of one
    class ends with that class."""
    rows = []
    for split, values in checkpoint.metrics.items():
        for metric in registry.for_split(split):
            if metric.key in values:
                low, high = checkpoint.intervals.get(split, {}).get(metric.key, (None, None))
                optimistic = metric.is_optimistic(split, thresholds_fitted=checkpoint.fits_thresholds)
                index = values.get(metric.class_index)
                name = metric.label if index is None else f"{metric.label}: {checkpoint.classes[int(index)]}"
                row = {"split": split, "key": metric.key, "name": name, "value": values[metric.key]}
                rows.append(row | {"low": low, "high": high, "optimistic": optimistic})
    return rows


def metric_texts(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """`metric_rows` as a page or a card shows them: the split by name, and `text`, the value with its interval."""
    return [
        row | {"split": SPLIT_NAMES[row["split"]], "text": with_interval(row["value"], row["low"], row["high"])}
        for row in metric_rows(checkpoint)
    ]


def headline_rows(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The rows of `metric_rows` to report first: one for each family of metrics, none optimistic; those of the test, or
    of validation in a run without a test."""
    split = "test" if "test" in checkpoint.metrics else "val"
    keys = [metric.key for metric in registry.headline(split, thresholds_fitted=checkpoint.fits_thresholds)]
    return [row for row in metric_rows(checkpoint) if row["split"] == split and row["key"] in keys]


def below_majority_lines(checkpoint: Checkpoint) -> list[str]:
    """A sentence for each split whose accuracy does not exceed the majority-class baseline."""
    lines = []
    for split, skilled in checkpoint.below_majority().items():
        values, kappa = checkpoint.metrics[split], registry.unbiased("kappa", split).label
        line = baseline.note(split, values["accuracy"], values["majority"], skilled_by=kappa if skilled else None)
        lines.append(f"{line[0].upper()}{line[1:]}.")
    return lines


def missed_classes(checkpoint: Checkpoint) -> dict[str, list[tuple[str, int]]]:
    """-> {split: [(class, its images)]} of the classes that are present in a split and that none of their images was
    graded as, the most severe first; splits without such classes are left out."""
    missed = {}
    for graded in checkpoint.graded_splits():
        matrix = metrics.confusion(graded.truth, graded.grades, len(checkpoint.classes))
        sizes, hits = matrix.sum(axis=1), np.diagonal(matrix)
        rows = np.flatnonzero((sizes > 0) & (hits == 0))[::-1]
        if len(rows):
            missed[graded.name] = [(checkpoint.classes[row], int(sizes[row])) for row in rows]
    return missed


def missed_text(classes: Sequence[tuple[str, int]]) -> str:
    """[(class, its images)] -> "Proliferative DR (0 of 5), Severe (0 of 7)", of many classes the first MAX_MISSED."""
    named = [f"{name} (0 of {count})" for name, count in classes[:MAX_MISSED]]
    return ", ".join([*named, *([f"and {len(classes) - MAX_MISSED} more"] if len(classes) > MAX_MISSED else [])])


def missed_line(split: str, text: str) -> str:
    """A split and its `missed_text` -> a sentence without its full stop."""
    return f"{SPLIT_NAMES[split]} recall is 0 for {text}"


def missed_lines(checkpoint: Checkpoint) -> list[str]:
    """A sentence for each split with classes that the network never finds."""
    lines = [missed_line(split, missed_text(classes)) for split, classes in missed_classes(checkpoint).items()]
    return [f"{line[0].upper()}{line[1:]}." for line in lines]


def class_metrics(checkpoint: Checkpoint, graded: GradedSplit) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """-> metrics.per_class and metrics.per_class_intervals of a split."""
    class_scores = checkpoint.objective.class_scores(graded.predictions)
    values = metrics.per_class(graded.truth, graded.grades, class_scores)
    intervals = metrics.per_class_intervals(graded.truth, graded.grades, class_scores, seed=checkpoint.recipe.seed)
    return values, intervals


def class_rows(
    classes: Sequence[str], values: Mapping[str, np.ndarray], intervals: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """-> for each class its name, n, and (value, low, high) of recall, precision, f1 and auc; NaN where undefined."""
    return [
        {"name": name, "n": int(values["n"][k])}
        | {key: (float(values[key][k]), *map(float, intervals[key][:, k])) for key in intervals}
        for k, name in enumerate(classes)
    ]


def confusion_pairs(graded: GradedSplit, classes: Sequence[str], *, most: int = 12) -> list[tuple[str, str, int, int]]:
    """-> (true class, predicted class, count, images of the true class), the most frequent errors first."""
    matrix = metrics.confusion(graded.truth, graded.grades, len(classes))
    sizes = matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diagonal(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(classes[i], classes[j], int(wrong[i, j]), int(sizes[i])) for i, j in pairs if wrong[i, j]]


def composition(data: PreprocessedData) -> pd.DataFrame:
    """-> images by split and source (rows) and class 0..K-1 (columns), and `patients`, missing unless all are known."""
    counts = {}
    for split, word in SPLIT_NAMES.items():
        table = getattr(data, split)
        if table is None:
            continue
        for source, rows in table.groupby(table.get("source", pd.Series("", index=table.index)), sort=False):
            known = "patient" in rows and (rows["patient"] != "").all()
            row = rows["diagnosis"].value_counts().reindex(range(len(data.classes)), fill_value=0).to_dict()
            counts[word, source] = row | {"patients": rows["patient"].nunique() if known else pd.NA}
    return pd.DataFrame.from_dict(counts, orient="index").rename_axis(["split", "source"])


def composition_rows(data: PreprocessedData) -> list[dict[str, Any]]:
    """-> `composition` as {split, source, images, patients, counts}, for a page or a card."""
    rows = []
    for (split, source), row in composition(data).iterrows():
        counts = row.drop("patients").astype(int).tolist()
        patients = None if pd.isna(row["patients"]) else int(row["patients"])
        shown = {"split": split, "source": source or "-", "images": sum(counts)}
        rows.append(shown | {"patients": patients, "counts": counts})
    return rows


def patients_known(data: PreprocessedData) -> float:
    """The share of images whose patient is known, 0..1."""
    return float(_images_of_splits(data)["patient"].ne("").mean())


def patient_overlap(data: PreprocessedData) -> str:
    """What is known of patients whose images are in several splits."""
    images = _images_of_splits(data)
    known = images[images["patient"] != ""]
    if known.empty:
        return "Patients are not known, so overlap between splits cannot be checked."
    shared = int((known.groupby("patient")["split"].nunique() > 1).sum())
    patients = "No patient has" if not shared else "1 patient has" if shared == 1 else f"{shared} patients have"
    sentence = f"{patients} images in more than one split."
    if len(known) == len(images):
        return sentence
    return (
        f"Patients are known for {len(known)} of {len(images)} images ({100 * len(known) // len(images)} %). Overlap "
        f"between splits was checked for these alone: {sentence[0].lower()}{sentence[1:]}"
    )


def _images_of_splits(data: PreprocessedData) -> pd.DataFrame:
    """All images, with `split`, and `patient`, empty if unknown."""
    tables = {split: getattr(data, split) for split in SPLIT_NAMES if getattr(data, split) is not None}
    images = pd.concat(tables, names=["split"]).reset_index(level="split")
    return images.assign(patient=images["patient"].fillna("") if "patient" in images else "")


def are_dr_grades(classes: Sequence[str]) -> bool:
    """Whether the classes are grades of retinopathy, or two classes that objective "binary" makes of them."""
    return any({*classes} & {grade, f"below {grade}", f"{grade} or worse"} for grade in GRADES)


def options(recipe: Recipe) -> list[tuple[str, str, bool]]:
    """-> (name, value as --set takes it, whether it is the default of this objective) of every option."""
    default = Recipe(objective=recipe.objective)  # its loss depends on the objective
    return [
        (name, option_text(getattr(recipe, name)), getattr(recipe, name) == getattr(default, name))
        for name in recipe.to_dict()
    ]


def number(value: float | None) -> str:
    """Three decimals; a dash for an undefined value."""
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def with_interval(value: float, low: float | None, high: float | None) -> str:
    """'0.512 (0.430 to 0.591)', or the value alone where there is no interval."""
    return number(value) if low is None or np.isnan(low) else registry.interval_text(value, low, high)
