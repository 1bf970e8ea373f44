"""The runs of runs.csv, best first, and how sure the lead of the best one is -> runs.md. It needs no photographs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dr import SPLIT_NAMES, UsageError
from dr.core import distributed, files
from dr.datasets.preprocessed import Fold
from dr.grading import evaluation, metrics, objectives
from dr.inference.ensemble import without_chance
from dr.networks import build as models
from dr.recipes.schema import Recipe
from dr.training import summary
from dr.training.run_files import RunFiles
from dr.training.sweep.table import MAJORITY, below_majority, figure, markdown_table, number

BY = "macro_f1_cross_fitted"  # of validation: a test that chooses the best run would flatter it
FIGURES = {
    BY: "macro-F1, cross-fitted",
    "kappa_cross_fitted": "kappa, cross-fitted",
    "auc": "AUC",
    "test_macro_f1": "test macro-F1",
    "test_kappa": "test kappa",
    "test_accuracy": "test accuracy",
    "test_auc": "test AUC",
}
COMPARED = {"macro_f1": "macro-F1", "kappa": "kappa", "accuracy": "accuracy"}
POOLED = COMPARED | {"auc": "AUC"}
HEAD = """# Runs, best first

By macro-F1 on validation, graded with cuts that have not seen the photograph; in parentheses 95 % intervals. Figures on
other photographs cannot be compared: runs with the same `data` had the same. † accuracy no better than that of always
giving the most frequent class, on validation or test.
"""
FOLDS = """
## Folds

All photographs that folds of one set and recipe have held out, each graded by the network that has not seen it; the
interval is that of a bootstrap over photographs. Behind it mean and standard deviation of the folds' own figures.
"""
PAIRED = """
## Against the best run on the same photographs

The run's figure minus that of the best one, and the 95 % interval of a paired bootstrap over photographs; bold where 0
lies outside. Of many runs the best is so by luck as well: one interval of twenty misses the truth.
"""


@dataclass(frozen=True)
class Kept:
    """What the checkpoint of a run keeps: for "val" and, where there is one, "test" the truth (N,) and the grades
    (T, N), T decisions that have not seen the photographs; class_scores (N, K) of the test, and the fold it is."""

    classes: tuple[str, ...]
    sides: dict[str, tuple[np.ndarray, np.ndarray]]
    recipe: Recipe
    fold: Fold | None = None
    class_scores: np.ndarray | None = None


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such table of runs; train first, or name its folder with --save")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError:  # empty, or no table at all
        table = pd.DataFrame()
    for column in ("name", BY, "data_fingerprint"):
        if column not in table:
            raise UsageError(f"{path}: it has no column {column}, so it is not a table of train.py; move it")
    return table.to_dict("records")


def _kept(path: Path, row: dict[str, str]) -> Kept:
    """The predictions of the run that this row is of. Raises UsageError, without the name of the file, where they are
    not there."""
    if not path.is_file():
        raise UsageError("its checkpoint is gone or renamed")
    fields = models.load_tensors(path)
    known = {"recipe", "classes", "thresholds", "metrics", "data", "validation"} <= fields.keys()
    if not known or (fields["data"].get("fingerprint"), fields["metrics"].get(BY)) != (
        row["data_fingerprint"],
        number(row, BY),
    ):
        raise UsageError("the checkpoint of its name is of another run")
    recipe, objective = summary.recipe_of(fields)
    validation, *tests = summary.sides(fields)
    truth = validation.truth
    graded = evaluation.cross_fitted_decisions(
        validation.predictions, truth, objective=objective, rule=recipe.thresholds, seed=recipe.seed
    )
    sides, class_scores = {"val": (truth, graded)}, None
    for test in tests:  # none or one
        sides["test"] = test.truth, test.grades[None]
        class_scores = objectives.class_scores(objective, test.predictions)
    fold = Fold(**fields["data"]["fold"]) if "fold" in fields["data"] else None
    return Kept(tuple(fields["classes"]), sides, recipe, fold, class_scores)


def _differences(run: Kept, best: Kept) -> dict[str, tuple[float, float, float]]:
    """-> {column: (difference, low, high)} of every side that both have."""
    found = {}
    for side in run.sides.keys() & best.sides.keys():
        (truth, graded), (_, other) = run.sides[side], best.sides[side]
        paired = metrics.paired_differences(truth, graded, other, num_classes=len(run.classes))
        found |= {f"{SPLIT_NAMES[side]} {COMPARED[name]}": values for name, values in paired.items()}
    return found


def _signed(difference: float, low: float, high: float) -> str:
    text = f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def _against_the_best(rows: list[dict[str, str]], folder: Path) -> str:
    """Runs on the same photographs, best first -> a table. Each stands against the first of the same classes (grades
    may have been made into two) whose predictions are kept."""
    bests: dict[tuple, tuple[str, Kept]] = {}
    lines: list[dict[str, str]] = []
    for row in rows:
        line = {"run": row["name"]}
        try:
            kept = _kept(RunFiles(folder, row["name"]).best, row)
        except UsageError as exc:
            lines.append(line | {"note": f"not compared: {exc}"})
            continue
        kind = kept.classes, *(truth.tobytes() for truth, _ in kept.sides.values())
        name, best = bests.setdefault(kind, (row["name"], kept))
        if best is kept:
            note = "the best" if row is rows[0] else f"the best of those left with these {len(kept.classes)} classes"
            lines.append(line | {"note": note})
        else:
            paired = {column: _signed(*values) for column, values in _differences(kept, best).items()}
            lines.append(line | paired | {"note": f"against {name}"})
    columns = [f"{side} {name}" for side in SPLIT_NAMES.values() for name in COMPARED.values()]
    header = ["run", *(column for column in columns if any(column in line for line in lines)), "note"]
    table = markdown_table(header, [[line.get(column, "") for column in header] for line in lines])
    return f"\n### Data {rows[0]['data_fingerprint'][:8]}\n\n{table}"


def _sets(rows: list[dict[str, str]], folder: Path) -> tuple[list[dict[int, tuple[str, Kept]]], list[str]]:
    """Runs of folds -> for each set and recipe with two or more of them {number: (name of the run, what it keeps)}, of
    several runs of one fold the one that was finished last; and those that could not be counted, with the reason."""
    left_out = []
    sets: dict[tuple, dict[int, tuple[str, Kept]]] = {}
    for row in sorted(rows, key=lambda row: row.get("finished", "")):
        if not row.get("fold"):
            continue
        try:
            kept = _kept(RunFiles(folder, row["name"]).best, row)
        except UsageError as exc:
            left_out.append(f"{row['name']}: {exc}")
            continue
        if kept.fold is not None and "test" in kept.sides:
            key = kept.fold.of, kept.fold.fingerprint, kept.classes, without_chance(kept.recipe)
            sets.setdefault(key, {})[kept.fold.number] = row["name"], kept
    return [dict(sorted(runs.items())) for runs in sets.values() if len(runs) > 1], left_out


def _pooled(runs: dict[int, tuple[str, Kept]]) -> list[str]:
    """One set -> its line: the runs, their photographs, and the figures of all of them."""
    names, kept = zip(*runs.values(), strict=True)
    parts = [(one.sides["test"][0], one.sides["test"][1][0], one.class_scores) for one in kept]
    arrays = [np.concatenate(part) for part in zip(*parts, strict=True)]  # truth, grades, class_scores
    together, ends = evaluation.measure(*arrays), evaluation.measured_intervals(*arrays, seed=0)
    each = [evaluation.measure(*part) for part in parts]
    cells = []
    for name in POOLED:
        spread = [figures[name] for figures in each]
        low, high = ends[name]
        cells.append(
            f"{together[name]:.3f} ({low:.3f} to {high:.3f}); {np.mean(spread):.3f} ± {np.std(spread, ddof=1):.3f}"
        )
    numbers = f"{', '.join(map(str, runs))} of {kept[0].fold.of}"
    return [", ".join(names), numbers, f"{len(arrays[0]):,}", *cells]


def _data(row: dict[str, str]) -> str:
    """The first letters of the fingerprint, enough to tell the data of a few hundred runs apart, and how many classes
    were made of them."""
    classes = f", {row['classes']} classes" if row.get("classes") else ""
    return f"{row['data_fingerprint'][:8]}{classes}"


def _all_runs(rows: list[dict[str, str]], best: set[int]) -> str:
    """One line for each run; `best` are the places of the best where several have one data."""
    shown = [name for name in FIGURES if any(number(row, name) is not None for row in rows)]
    lines = []
    for place, row in enumerate(rows):
        figures = [figure(row, name) for name in shown]
        figures[0] = f"**{figures[0]}**" if place in best and figures[0] else figures[0]
        fold = f"--fold {row['fold']}" if row.get("fold") else ""
        choices = " ".join(filter(None, [row.get("recipe", ""), row.get("overrides", ""), fold]))
        name = f"{row['name']} †" if any(below_majority(row, key) for key in MAJORITY) else row["name"]
        minutes = "" if number(row, "minutes") is None else f"{number(row, 'minutes'):.1f}"
        lines.append([name, _data(row), *figures, minutes, row.get("finished", "")[:10], choices])
    return markdown_table(
        ["run", "data", *(FIGURES[name] for name in shown), "minutes", "finished", "recipe and choices"], lines
    )


def compare(folder: str) -> str:
    """The folder of train.py's --save -> what its runs.md says, which is written there. Raises UsageError where it has
    no runs.csv."""
    rows = _read(Path(folder) / "runs.csv")
    rows.sort(key=lambda row: -np.inf if number(row, BY) is None else number(row, BY), reverse=True)
    groups: dict[str, list[int]] = {}
    alike: dict[str, list[int]] = {}  # grades may have been made into two classes, whose figures are others
    for place, row in enumerate(rows):
        groups.setdefault(row["data_fingerprint"], []).append(place)
        alike.setdefault(_data(row), []).append(place)
    several = [places for places in groups.values() if len(places) > 1]
    text = f"{HEAD}\n{_all_runs(rows, {places[0] for places in alike.values() if len(places) > 1})}"
    if several:
        text += PAIRED + "".join(
            _against_the_best([rows[place] for place in places], Path(folder)) for places in several
        )
    sets, left_out = _sets(rows, Path(folder))
    if sets or left_out:
        header = ["runs", "folds", "photographs", *POOLED.values()]
        text += f"{FOLDS}\n{markdown_table(header, [_pooled(runs) for runs in sets]) if sets else ''}"
        text += "".join(f"\nNot counted: {reason}.\n" for reason in left_out)
    if distributed.is_main:
        files.write_bytes(Path(folder) / "runs.md", text.encode())
    return text
