"""What the fields of a checkpoint say about a run, ordered for people: tables for its page and its card."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from dr import GRADES, SPLIT_NAMES
from dr.datasets.preprocessed import PreprocessedData
from dr.grading import evaluation, metrics, objectives
from dr.recipes.load import from_dict
from dr.recipes.schema import Recipe

FIGURES = {
    "macro_f1_cross_fitted": "macro-F1, cross-fitted",
    "kappa_cross_fitted": "quadratic kappa, cross-fitted",
    "macro_f1": "macro-F1",
    "kappa": "quadratic kappa",
    "accuracy": "accuracy",
    "auc": "AUC, mean of one against the rest",
    "ece": "expected calibration error, cross-fitted",
    "macro_f1_optimal": "macro-F1, best cuts",
    "macro_f1_rounded": "macro-F1, scores rounded",
    "majority": "accuracy of always the most frequent class",
}
FLATTERED = ("kappa", "accuracy", "macro_f1_optimal")  # of validation, by cuts fitted to the same photographs


@dataclass(frozen=True)
class Side:
    """Validation or test as the checkpoint's network graded it: truth, grades (N,), predictions (N, P); `fitted`: the
    cuts were fitted to these photographs, so that all figures by grades flatter."""

    name: str
    truth: np.ndarray
    grades: np.ndarray
    predictions: np.ndarray
    fitted: bool

    @property
    def word(self) -> str:
        return SPLIT_NAMES[self.name]


def recipe_of(content: Mapping[str, Any]) -> tuple[Recipe, objectives.Objective]:
    """The fields of a checkpoint -> its recipe and objective."""
    recipe = from_dict(dict(content["recipe"]), place="the checkpoint")
    return recipe, objectives.build(recipe, num_classes=len(content["classes"]))


def sides(content: Mapping[str, Any]) -> list[Side]:
    """The fields of a checkpoint -> validation and, once there is one, the test."""
    recipe, objective = recipe_of(content)
    thresholds = None if content["thresholds"] is None else np.array(content["thresholds"])
    found = []
    for name, key in (("val", "validation"), ("test", "test")):
        if key in content:
            seen = {field: tensor.numpy() for field, tensor in content[key].items()}
            grades = seen.get("grades")  # those of a test may have been voted
            grades = objectives.grades(objective, seen["predictions"], thresholds) if grades is None else grades
            fitted = name == "val" and evaluation.fits_thresholds(objective, recipe.thresholds)
            found.append(Side(name, seen["truth"], grades, seen["predictions"], fitted))
    return found


def metric_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """-> {side, name, value, low, high, flattered} of each figure, low and high None where there is no interval."""
    recipe, objective = recipe_of(content)
    fitted = evaluation.fits_thresholds(objective, recipe.thresholds)
    measured = content["metrics"]
    rows = []
    for side, figures in (("validation", measured), ("test", measured.get("test", {}))):
        for key, name in FIGURES.items():
            if figures.get(key) is not None:
                low, high = figures.get("intervals", {}).get(key, (None, None))
                optimistic = side == "validation" and key in FLATTERED and (fitted or key == "macro_f1_optimal")
                row = {"side": side, "key": key, "name": name, "value": figures[key], "low": low, "high": high}
                rows.append(row | {"optimistic": optimistic})
    return rows


def selected_by(content: Mapping[str, Any]) -> str | None:
    """The figure of validation by which one of several epochs was chosen: the highest of several flatters. None where
    none was chosen."""
    recipe, _ = recipe_of(content)
    return None if recipe.best_by == "last" or recipe.epochs == 1 else recipe.best_by


def class_metrics(content: Mapping[str, Any], side: Side) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """-> metrics.per_class and the intervals of these figures of one side."""
    recipe, objective = recipe_of(content)
    class_scores = objectives.class_scores(objective, side.predictions)
    figures = metrics.per_class(side.truth, side.grades, class_scores)
    return figures, metrics.per_class_intervals(side.truth, side.grades, class_scores, seed=recipe.seed)


def class_rows(
    classes: list[str], figures: Mapping[str, np.ndarray], intervals: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """-> for each class its name, n, and (value, low, high) of recall, precision, f1 and auc; NaN where one is not
    defined."""
    return [
        {"name": name, "n": int(figures["n"][k])}
        | {key: (float(figures[key][k]), *map(float, intervals[key][:, k])) for key in intervals}
        for k, name in enumerate(classes)
    ]


def confusion_pairs(side: Side, classes: list[str], *, most: int = 12) -> list[tuple[str, str, int, int]]:
    """-> (true class, grade given, how often, of how many), the most frequent mistakes first."""
    matrix = metrics.confusion(side.truth, side.grades, len(classes))
    sizes = matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diagonal(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(classes[i], classes[j], int(wrong[i, j]), int(sizes[i])) for i, j in pairs if wrong[i, j]]


def composition(data: PreprocessedData) -> pd.DataFrame:
    """-> photographs by side and source (rows) and class 0..K-1 (columns), with their patients where they are known
    (`patients`, missing where not)."""
    counts = {}
    for side, word in SPLIT_NAMES.items():
        table = getattr(data, side)
        if table is None:
            continue
        for source, rows in table.groupby(table.get("source", pd.Series("", index=table.index)), sort=False):
            known = "patient" in rows and (rows["patient"] != "").all()
            row = rows["diagnosis"].value_counts().reindex(range(len(data.classes)), fill_value=0).to_dict()
            counts[word, source] = row | {"patients": rows["patient"].nunique() if known else pd.NA}
    return pd.DataFrame.from_dict(counts, orient="index").rename_axis(["side", "source"])


def composition_rows(data: PreprocessedData) -> list[dict[str, Any]]:
    """`composition` as a page or a card shows it."""
    rows = []
    for (side, source), row in composition(data).iterrows():
        counts = row.drop("patients").astype(int).tolist()
        patients = None if pd.isna(row["patients"]) else int(row["patients"])
        rows.append(
            {"side": side, "source": source or "-", "photographs": sum(counts), "patients": patients, "counts": counts}
        )
    return rows


def patient_overlap(data: PreprocessedData) -> str:
    """One sentence about patients on several sides."""
    tables = {name: getattr(data, name) for name in SPLIT_NAMES if getattr(data, name) is not None}
    both = pd.concat(tables, names=["side"]).reset_index(level="side")
    known = both[both["patient"] != ""] if "patient" in both else both[:0]
    if known.empty:
        return "Whether a patient stands on two sides is not known."
    people = known.assign(source=known.get("source", "")).groupby(["source", "patient"])
    shared = int((people["side"].nunique() > 1).sum())
    if shared:
        return f"{shared} patient{'s stand' if shared > 1 else ' stands'} on more than one side."
    return "No patient, as far as they are known, stands on two sides."


def are_dr_grades(classes: list[str]) -> bool:
    """Whether the classes are grades of retinopathy, or the two that an objective makes of them."""
    return any({*classes} & {grade, f"below {grade}", f"{grade} or worse"} for grade in GRADES)


def choices(recipe: Recipe) -> list[tuple[str, str, bool]]:
    """-> (name, value as it is written behind --set, whether it is the default of this objective) of every choice."""
    default = Recipe(objective=recipe.objective)  # a loss that was not chosen is that of the objective
    return [
        (name, _text(getattr(recipe, name)), getattr(recipe, name) == getattr(default, name))
        for name in (field.name for field in fields(recipe))
    ]


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value)


def number(value: float | None) -> str:
    """Three decimals; a dash for what is not defined."""
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def with_interval(value: float, low: float | None, high: float | None) -> str:
    """'0.512 (0.430 to 0.591)', without the interval where there is none."""
    return number(value) if low is None or np.isnan(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"
