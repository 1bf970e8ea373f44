"""How good a grading of photographs is whose true grades are given: figures with intervals, for people and programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dr import GRADES, UsageError
from dr.core import files
from dr.grading import evaluation, metrics, objectives
from dr.grading.objectives import Objective
from dr.sources.class_names import class_of
from dr.sources.kaggle import by_path_ends, normal_path, once_each, read_rows, read_table, refuse_empty
from dr.sources.label_table import Columns

REFERABLE = 2  # from this grade on: more than mild retinopathy (Gulshan et al., JAMA 2016;316:2402)
FILES = ("metrics.json", "confusion.png")
NAMED = 3  # photographs in one line; the others are counted


def read_labels(path: str, *, classes: Sequence[str]) -> pd.Series:
    """A label table, id_code,diagnosis or image,level, grades as names of classes or numbers -> true grade,
    the place of its class, by id, with the folders that stand before it. Raises UsageError naming table and row."""
    name = f"--labels {path}"
    if not Path(path).is_file():
        found = "a folder" if Path(path).is_dir() else "not there"
        raise UsageError(f"{name}: it is {found}; give a table id_code,diagnosis or image,level")
    data = Path(path).read_bytes()
    rows = read_rows(data, name=name)
    header = rows[0] if rows else []
    columns = Columns().chosen(header)
    if columns is None:
        raise UsageError(f"{name}: its header is {','.join(header)!r}, expected the columns {Columns()}")
    ids, grades = columns
    table = read_table(data, name=name, columns=(ids, grades)).rename(columns={ids: "original", grades: "diagnosis"})
    refuse_empty(table, name=name, column="original", shown=ids)
    places = {label: class_of(label, classes) for label in table["diagnosis"].unique()}
    for label, row in zip(table["diagnosis"], table["row"], strict=True):
        if places[label] is None:
            shown = repr(label) if label else "empty"
            raise UsageError(f"{name}, row {row}: {grades} is {shown}, expected {_expected(classes)}")
    table["diagnosis"] = table["diagnosis"].map(places)
    table["original"] = [normal_path(original) for original in table["original"]]
    return once_each(table, name=name, column=grades).set_index("original")["diagnosis"]


def _expected(classes: Sequence[str]) -> str:
    """The labels of classes, in words."""
    if tuple(classes) == GRADES:
        return f"0 to {len(GRADES) - 1}"
    return f"one of {', '.join(classes[:NAMED])}{', ...' if len(classes) > NAMED else ''}"


@dataclass(frozen=True)
class Graded:
    """Photographs that were graded: their ids, mean predictions (N, P), grades (N,), and the ids of those that could
    not be."""

    ids: Sequence[str]
    predictions: np.ndarray
    grades: np.ndarray
    unreadable: Sequence[str]


def of_images(labels: pd.Series, id_of: Mapping[str, str], *, path: str) -> pd.Series:
    """True grades by the path that a table has, {photograph: its id} -> by id, where a path means one of them.
    Raises UsageError where it may mean two, or two paths mean one with different grades."""
    meant = by_path_ends(labels.index, id_of, place=f"--labels {path}")
    named = labels.rename(index={given: id_of[name] for given, name in meant.items()})
    grades = named.groupby(level=0).nunique()
    if (grades > 1).any():
        raise UsageError(f"--labels {path}: {grades.idxmax()} is there with two grades; keep one of them")
    return named[~named.index.duplicated()]


def check(ids: Sequence[str], labels: pd.Series, *, path: str) -> None:
    """Raises UsageError where no photograph has a label, before the first one is looked at."""
    if not set(ids) & set(labels.index):
        raise UsageError(
            f"--labels {path}: none of its {len(labels)} ids is the name of one of the {len(ids)} photographs "
            f"(such as {labels.index[0]} and {ids[0]}); give the table of these photographs"
        )


def score(
    graded: Graded, labels: pd.Series, *, objective: Objective, classes: Sequence[str], seed: int = 0
) -> dict | None:
    """-> what metrics.json holds: primitives, None where a figure is not defined; 95 % bootstrap intervals over
    photographs. Figures are of the photographs that have both a grade and a label; None where there is none."""
    known = np.array([name in labels.index for name in graded.ids], bool)
    if not known.any():
        return None
    truth = labels.loc[[name for name, has in zip(graded.ids, known, strict=True) if has]].to_numpy()
    grades, predictions = graded.grades[known], graded.predictions[known]
    class_scores = objectives.class_scores(objective, predictions)
    values = evaluation.measure(truth, grades, class_scores)
    intervals = evaluation.measured_intervals(truth, grades, class_scores, seed=seed)
    per_class = metrics.per_class(truth, grades, class_scores)
    spread = metrics.per_class_intervals(truth, grades, class_scores, seed=seed)
    photographs = {*graded.ids, *graded.unreadable}
    content = {
        "photographs": len(truth),
        "unreadable": sorted(name for name in graded.unreadable if name in labels.index),
        "without_label": len(photographs - set(labels.index)),
        "without_photograph": len(set(labels.index) - photographs),
        "metrics": {name: _figure(values[name], intervals[name]) for name in values},
        "referable": None,
        "per_class": [
            {"class": name, "n": int(per_class["n"][k])}
            | {figure: _figure(per_class[figure][k], ends[:, k]) for figure, ends in spread.items()}
            for k, name in enumerate(classes)
        ],
        "confusion": metrics.confusion(truth, grades, len(classes)).tolist(),
        "classes": list(classes),
    }
    if tuple(classes) == GRADES:
        content["referable"] = _referable(truth, grades, _more_than_mild(objective, predictions), seed=seed)
    return content


def _more_than_mild(objective: Objective, predictions: np.ndarray) -> np.ndarray:
    """predictions (N, P) -> (N,), higher for likelier referable photographs."""
    probabilities = objective.probabilities(predictions)
    return objective.scores(predictions) if probabilities is None else probabilities[:, REFERABLE:].sum(axis=1)


def _referable(truth: np.ndarray, grades: np.ndarray, evidence: np.ndarray, *, seed: int) -> dict:
    """Sensitivity and specificity of the grades, with Wilson's intervals, AUC of the evidence (N,), for grades from
    REFERABLE on."""

    def area(truth, evidence):
        return metrics.auc(truth.astype(int), np.column_stack([-evidence, evidence]))

    def share(right):
        if not len(right):
            return _figure(np.nan, (np.nan, np.nan))
        return _figure(right.mean(), metrics.wilson([right.sum()], [len(right)])[:, 0])

    ill, given = truth >= REFERABLE, grades >= REFERABLE
    return {
        "sensitivity": share(given[ill]),
        "specificity": share(~given[~ill]),
        "auc": _figure(area(ill, evidence), metrics.bootstrap_interval(area, ill, evidence, seed=seed)),
    }


def _figure(value: float, interval: Sequence[float]) -> dict:
    """As JSON has it: None for NaN."""
    parts = zip(("value", "low", "high"), (value, *interval), strict=True)
    return {name: None if np.isnan(part) else round(float(part), 6) for name, part in parts}


def write(content: dict, folder: str | Path) -> None:
    """FOLDER/metrics.json, and confusion.png where it can be read."""
    from dr.pages import plots as report
    from dr.pages import style  # matplotlib takes most of a second to import

    files.write_json(Path(folder) / FILES[0], content)
    if len(content["classes"]) <= style.MOST_CLASSES:
        matrix = np.array(content["confusion"])
        report.confusion_matrices(matrix, path=Path(folder) / FILES[1], classes=content["classes"])


def _shown(figure: dict) -> str:
    if figure["value"] is None:
        return "not defined"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def optimistic_notes(content: dict) -> list[str]:
    """A line for each network that was trained or chosen with photographs of these names."""
    return [
        f"these figures flatter: {count} of {content['photographs']} photographs have names that {path} was trained or "
        "validated with; score others"
        for path, count in content.get("seen_before", {}).items()
    ]


def summary_lines(content: dict) -> list[str]:
    """What metrics.json holds -> lines for a person."""
    named = {"macro_f1": "macro-F1", "kappa": "kappa", "accuracy": "accuracy", "auc": "AUC"}
    figures = ", ".join(f"{word} {_shown(content['metrics'][name])}" for name, word in named.items())
    lines = [f"on {content['photographs']} photographs with a label: {figures}"]
    if content["referable"]:
        parts = (f"{name.replace('auc', 'AUC')} {_shown(value)}" for name, value in content["referable"].items())
        lines.append(f"referable (grade {REFERABLE} and above): {', '.join(parts)}")
    left_out = {
        "photographs without a label": content["without_label"],
        "labels without a photograph": content["without_photograph"],
    }
    if any(left_out.values()):
        lines.append("not scored: " + ", ".join(f"{count} {what}" for what, count in left_out.items() if count))
    lines += optimistic_notes(content)
    if bad := content["unreadable"]:
        more = ", ..." if len(bad) > NAMED else ""
        lines.append(f"not in these figures: {len(bad)} that could not be read ({', '.join(bad[:NAMED])}{more})")
    return lines
