"""runs.md: the runs of runs.csv, best first, with the confidence of the best run's lead. It reads no images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dr import SPLIT_NAMES, UsageError
from dr.core import distributed, files
from dr.grading import baseline, bootstrap, evaluation, registry
from dr.inference.checkpoint import Checkpoint
from dr.training.kept_runs import checkpoint_of, fold_set, read_rows
from dr.training.run_files import runs_csv_path, runs_md_path
from dr.training.runs_csv import MISSED
from dr.training.sweep.table import below_majority, markdown_table, metric_text, metric_value

HEAD = """# Runs, best first

Sorted by cross-fitted macro-F1 on validation; in parentheses 95 % intervals. Compare only runs with the same `data`:
metrics on other images are not comparable. † accuracy on validation or test does not exceed the majority-class
baseline. ‡ the recall of at least one class is 0. Lowest recall: that of the class with the lowest, with its name.
"""
FOLDS = """
## Folds

Pooled out-of-fold metrics: every image of folds with one dataset and recipe, graded by the network that was not trained
on it. In parentheses 95 % intervals (bootstrap over images, Wilson's for proportions), then mean and standard deviation
over folds.
"""
PAIRED = """
## Differences from the best run on the same images

The metric of the run minus that of the best run, with the 95 % interval of a paired bootstrap over images; bold where
the interval excludes 0. The best of many runs is partly so by chance: one interval in twenty misses the true value.
"""


@dataclass(frozen=True)
class KeptRun:
    """A run whose predictions are kept: its name and checkpoint, and by split ("val" and, where there is one, "test")
    the truth (N,) and grades (T, N) of T decisions that were not fitted to these images."""

    name: str
    checkpoint: Checkpoint
    graded: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def test_arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Truth (N,), grades (N,) and class scores (N, K) of the test."""
        truth, grades = self.graded["test"]
        test = self.checkpoint.predictions["test"]
        return truth, grades[0], self.checkpoint.objective.class_scores(test.predictions)


def _kept_run(folder: Path, row: dict[str, str]) -> KeptRun:
    """The predictions of the run in this row. Raises UsageError where they are not kept."""
    kept = checkpoint_of(folder, row)
    validation, *tests = kept.graded_splits()
    crossed = evaluation.cross_fitted_decisions(
        validation.predictions,
        validation.truth,
        objective=kept.objective,
        rule=kept.recipe.thresholds,
        seed=kept.recipe.seed,
    )
    graded = {"val": (validation.truth, crossed)} | {test.name: (test.truth, test.grades[None]) for test in tests}
    return KeptRun(row["name"], kept, graded)


def _differences(run: KeptRun, best: KeptRun) -> dict[str, tuple[float, float, float]]:
    """-> {column: (difference, low, high)} of every split that both have."""
    differences = {}
    for split in run.graded.keys() & best.graded.keys():
        (truth, grades), (_, other) = run.graded[split], best.graded[split]
        compared = registry.for_split("test", "confusion")
        functions = [metric.compute for metric in compared]
        paired = bootstrap.paired_differences(functions, truth, grades, other, num_classes=len(run.checkpoint.classes))
        differences |= {_column(split, metric): values for metric, values in zip(compared, paired, strict=True)}
    return differences


def _column(split: str, metric: registry.Metric) -> str:
    crossed = ", cross-fitted" if split == "val" else ""  # the decisions of KeptRun
    return f"{SPLIT_NAMES[split]} {metric.short}{crossed}"


def _signed(difference: float, low: float, high: float) -> str:
    text = f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def _paired_table(rows: list[dict[str, str]], folder: Path) -> str:
    """Runs on the same images, best first -> a table. Each run is compared with the first one of the same classes
    (objective "binary" merges grades) whose predictions are kept."""
    bests: dict[tuple, KeptRun] = {}
    lines: list[dict[str, str]] = []
    for row in rows:
        line = {"run": row["name"]}
        try:
            kept = _kept_run(folder, row)
        except UsageError as exc:
            lines.append(line | {"note": f"not compared: {exc}"})
            continue
        classes = kept.checkpoint.classes
        best = bests.setdefault((classes, *(truth.tobytes() for truth, _ in kept.graded.values())), kept)
        if best is kept:
            note = "the best" if row is rows[0] else f"the best of the remaining runs with these {len(classes)} classes"
            lines.append(line | {"note": note})
        else:
            paired = {column: _signed(*values) for column, values in _differences(kept, best).items()}
            lines.append(line | paired | {"note": f"compared with {best.name}"})
    compared = registry.for_split("test", "confusion")
    columns = [_column(split, metric) for split in registry.EVALUATED_SPLITS for metric in compared]
    header = ["run", *(column for column in columns if any(column in line for line in lines)), "note"]
    table = markdown_table(header, [[line.get(column, "") for column in header] for line in lines])
    return f"\n### Data {rows[0]['data_fingerprint'][:8]}\n\n{table}"


def _fold_sets(rows: list[dict[str, str]], folder: Path) -> tuple[list[dict[int, KeptRun]], list[str]]:
    """-> {fold: run} for each dataset and recipe with two or more folds, of several runs of one fold the last one; and
    a line on each run of a fold that is left out."""
    left_out = []
    sets: dict[tuple, dict[int, KeptRun]] = {}
    for row in sorted(rows, key=lambda row: row.get("finished", "")):
        if not row.get("fold"):
            continue
        try:
            kept = _kept_run(folder, row)
        except UsageError as exc:
            left_out.append(f"{row['name']}: {exc}")
            continue
        if (key := fold_set(kept.checkpoint)) is not None:
            sets.setdefault(key, {})[kept.checkpoint.data.fold.number] = kept
    return [dict(sorted(runs.items())) for runs in sets.values() if len(runs) > 1], left_out


def _pooled_line(runs: dict[int, KeptRun]) -> list[str]:
    """The folds of one dataset -> a line: the runs, their images and the pooled metrics."""
    parts = [run.test_arrays for run in runs.values()]
    arrays = [np.concatenate(part) for part in zip(*parts, strict=True)]  # truth, grades, class scores
    first = next(iter(runs.values())).checkpoint
    referable = registry.referable_from(first.classes)
    pooled = evaluation.measure(*arrays, referable_from=referable)
    intervals = evaluation.measured_intervals(*arrays, seed=0, referable_from=referable)
    by_fold = [evaluation.measure(*part, referable_from=referable) for part in parts]
    of_class = evaluation.classes_of("test", arrays[0], {"applied": arrays[1][None]}, num_classes=len(first.classes))
    cells = []
    for metric in registry.table("test"):
        if metric.key not in pooled:
            cells.append("")
            continue
        values = [measured[metric.key] for measured in by_fold]
        text = registry.interval_text(pooled[metric.key], *intervals[metric.key])
        named = f" {first.classes[int(of_class[metric.class_index])]}" if metric.class_index in of_class else ""
        cells.append(f"{text}{named}; {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
    of = first.data.fold.of
    numbers = f"{', '.join(map(str, runs))} of {of}"
    return [", ".join(run.name for run in runs.values()), numbers, f"{len(arrays[0]):,}", *cells]


def _data(row: dict[str, str]) -> str:
    """The first letters of the data fingerprint and the number of classes."""
    classes = f", {row['classes']} classes" if row.get("classes") else ""
    return f"{row['data_fingerprint'][:8]}{classes}"


def _run_line(row: dict[str, str], columns: list[str], *, best: bool) -> list[str]:
    cells = [metric_text(row, name) for name in columns]
    cells[0] = f"**{cells[0]}**" if best and cells[0] else cells[0]
    fold = f"--fold {row['fold']}" if row.get("fold") else ""
    options = " ".join(filter(None, [row.get("recipe", ""), row.get("overrides", ""), fold]))
    marks = " †" if any(below_majority(row, key) for key in baseline.MAJORITY) else ""
    marks += " ‡" if any(row.get(f"{prefix}{MISSED}") for prefix in registry.COLUMN_PREFIXES.values()) else ""
    minutes = "" if metric_value(row, "minutes") is None else f"{metric_value(row, 'minutes'):.1f}"
    return [f"{row['name']}{marks}", _data(row), *cells, minutes, row.get("finished", "")[:10], options]


def _all_runs(rows: list[dict[str, str]], best: set[int]) -> str:
    """One line per run; `best` are the positions of the best run of each data with several runs."""
    labels = {
        metric.column(split): f"{'test ' if split == 'test' else ''}{metric.short}"
        for split in registry.EVALUATED_SPLITS
        for metric in registry.headline(split)
    }
    columns = [name for name in labels if any(metric_value(row, name) is not None for row in rows)]
    header = ["run", "data", *(labels[name] for name in columns), "minutes", "finished", "recipe and options"]
    lines = [_run_line(row, columns, best=position in best) for position, row in enumerate(rows)]
    return markdown_table(header, lines)


def _selection_value(row: dict[str, str]) -> float:
    value = metric_value(row, registry.SELECTION)
    return -np.inf if value is None else value


def compare(folder: str) -> str:
    """The folder of train.py --save -> the text of its runs.md, which is written there. Raises UsageError where there
    is no runs.csv."""
    rows = read_rows(runs_csv_path(folder))
    rows.sort(key=_selection_value, reverse=True)
    same_images: dict[str, list[int]] = {}
    same_classes: dict[str, list[int]] = {}  # as well: objective "binary" merges grades
    for position, row in enumerate(rows):
        same_images.setdefault(row["data_fingerprint"], []).append(position)
        same_classes.setdefault(_data(row), []).append(position)
    bests = {positions[0] for positions in same_classes.values() if len(positions) > 1}
    text = f"{HEAD}\n{_all_runs(rows, bests)}"
    several = [positions for positions in same_images.values() if len(positions) > 1]
    if several:
        tables = [_paired_table([rows[position] for position in positions], Path(folder)) for positions in several]
        text += PAIRED + "".join(tables)
    sets, left_out = _fold_sets(rows, Path(folder))
    if sets or left_out:
        header = ["runs", "folds", "images", *(metric.short for metric in registry.table("test"))]
        text += f"{FOLDS}\n{markdown_table(header, [_pooled_line(runs) for runs in sets]) if sets else ''}"
        text += "".join(f"\nLeft out: {reason}.\n" for reason in left_out)
    if distributed.is_main:
        files.write_bytes(runs_md_path(folder), text.encode())
    return text
